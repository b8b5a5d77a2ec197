"""Metrics of classification for few and for many classes."""

from functools import partial

import pytest
import torch
from torch import nn
from torchmetrics import Metric

from spine.interfaces import Labels
from spine.tasks.cls.task import Classification


def task_of(count):
    labels = Labels(classes=tuple(map(str, range(count))))
    return Classification(model=nn.Identity(), optimizer=partial(dict), schedule=partial(dict), labels=labels)


def state_bytes(task):
    metrics = [module for module in task.modules() if isinstance(module, Metric)]
    assert metrics
    return sum(x.numel() * x.element_size() for metric in metrics for x in metric.metric_state.values())


@pytest.mark.parametrize("count", [7, 1000, 21841])
def test_top1_and_top5_are_exact_and_metrics_stay_small(count):
    task = task_of(count)
    hits1 = hits5 = 0
    for _ in range(2):
        output, label = torch.randn(64, count), torch.randint(count, (64,))
        output[torch.arange(32), label[:32]] += 4.0
        task.update_metrics(output, {"label": label})
        ranks = (output > output.gather(1, label[:, None])).sum(1)
        hits1, hits5 = hits1 + (ranks < 1).sum().item(), hits5 + (ranks < 5).sum().item()
    assert state_bytes(task) < 9e6  # the confusion matrix of ImageNet-22k would take 3.8e9
    assert bool(task.draw_summary()) == (count <= 1000)
    values = task.compute_metrics()
    assert values == {"top1": pytest.approx(hits1 / 128), "top5": pytest.approx(hits5 / 128)}
    assert 0 < hits1 < hits5 < 128
    task.update_metrics(torch.eye(count)[:2], {"label": torch.tensor([0, 1])})
    assert task.compute_metrics()["top1"] == 1.0  # compute_metrics resets the metrics
