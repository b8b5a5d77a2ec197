"""Freezing, early stopping and the re-estimation of batch norm, in whole runs."""

import json
import math
import os
import signal

import pytest
import torch
from interruptions import at_call
from test_configs import composed
from test_resume import SMALL, assert_equal_outcome, last
from torch.nn.modules.batchnorm import _BatchNorm

from spine.commands import train
from spine.errors import InputError, RunStopped
from spine.tasks.cls.task import Classification
from spine.training.batch_norm import REESTIMATED
from spine.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("blank_figures")

CONVOLUTIONS = ("backbone=mobilenet_v2", "backbone.variant=micro")
FREEZE = "callbacks.freeze={names:['^backbone'],until_epoch:1}"


def run(folder, *overrides):
    folder.mkdir(exist_ok=True)
    train.train_run(composed("task=cls", *SMALL, *CONVOLUTIONS, *overrides), RunFolder(folder))
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture
def weights_of_steps(monkeypatch):
    """Weights and modes of the network in each training step, with their names."""
    seen = []
    original = Classification.training_step

    def training_step(self, batch, batch_idx):
        modes = {name: module.training for name, module in self.model.named_modules() if isinstance(module, _BatchNorm)}
        seen.append(({name: value.clone() for name, value in self.model.state_dict().items()}, modes))
        return original(self, batch, batch_idx)

    monkeypatch.setattr(Classification, "training_step", training_step)
    return seen


# an epoch has 6 steps
def test_a_part_is_frozen_until_an_epoch(tmp_path, weights_of_steps):
    run(tmp_path, FREEZE, "trainer.max_epochs=2")
    first, frozen, later = (weights_of_steps[step][0] for step in (0, 6, 7))
    backbone = [name for name in first if name.startswith("backbone.")]
    assert all(torch.equal(first[name], frozen[name]) for name in backbone)  # the statistics of batch norm too
    assert not torch.equal(first["head.linear.weight"], frozen["head.linear.weight"])
    assert any(not torch.equal(frozen[name], later[name]) for name in backbone)
    assert [any(modes.values()) for _, modes in weights_of_steps] == [False] * 6 + [True] * 6


@pytest.mark.slow
def test_a_part_is_frozen_for_the_whole_training(tmp_path, weights_of_steps):
    run(tmp_path, "callbacks.freeze={names:['^backbone']}", "trainer.max_epochs=2")
    first, end = weights_of_steps[0][0], last(tmp_path)
    assert all(torch.equal(first[name], end["state_dict"][f"model.{name}"]) for name in first if name.startswith("backbone."))
    assert len(end["optimizer_states"][0]["state"]) == 2  # weight and bias of the head


@pytest.mark.slow
@pytest.mark.parametrize("call", [3, 7, 10])
def test_a_run_with_frozen_parts_resumes_exactly(tmp_path, monkeypatch, call):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    run(whole, FREEZE, "trainer.max_epochs=2")
    at_call(monkeypatch, Classification, call, lambda task: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(RunStopped):
        run(resumed, FREEZE, "trainer.max_epochs=2")
    monkeypatch.undo()
    run(resumed, FREEZE, "trainer.max_epochs=2")
    assert_equal_outcome(whole, resumed)


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        ("{names:['^bakbone']}", "callbacks.freeze.names: '^bakbone' matches no parameter. Their names are such as backbone."),
        ("{names:['.']}", "callbacks.freeze.names match all parameters: nothing is left to train."),
        ("{names:['(']}", "callbacks.freeze.names: '(' is not a regular expression"),
        ("{names:[],until_epoch:1}", "callbacks.freeze.names is []; it must be a list of regular expressions"),
        ("{until:1}", "Unknown key 'callbacks.freeze.until'."),
    ],
)
def test_names_that_do_not_fit_are_rejected(tmp_path, freeze, message):
    with pytest.raises(InputError) as error:
        run(tmp_path, f"callbacks.freeze={freeze}")
    assert message in str(error.value)


@pytest.fixture
def falling_accuracy(monkeypatch):
    """Validations have these values, whatever the network is."""
    values = {}

    def install(*accuracies):
        values.update(enumerate(accuracies))

        def compute_metrics(self):
            return {"top1": values[self.trainer.current_epoch]}

        monkeypatch.setattr(Classification, "compute_metrics", compute_metrics)

    return install


SIX_EPOCHS = ("trainer.max_epochs=6", "dataset.length={train: 8, val: 4, test: 4}")
EARLY = ("callbacks.early_stopping={patience:2}", *SIX_EPOCHS)


def test_training_ends_when_the_metric_does_not_improve(tmp_path, falling_accuracy):
    falling_accuracy(0.5, 0.6, 0.4, math.nan, 0.9, 0.9)
    results = run(tmp_path, *EARLY, "trainer.max_time=00:01:00:00")
    assert (results["epochs"], results["stopped_early"], results["stopped_by_max_time"]) == (4, True, None)
    before = (tmp_path / "metrics.json").stat().st_mtime_ns
    run(tmp_path, *EARLY, "trainer.max_time=00:01:00:00")  # it is finished
    assert (tmp_path / "metrics.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_small_improvement_does_not_count(tmp_path, falling_accuracy):
    falling_accuracy(0.5, 0.505, 0.509, 0.9, 0.9, 0.9)
    assert run(tmp_path, "callbacks.early_stopping={patience:2,min_delta:0.01}", *SIX_EPOCHS)["epochs"] == 3


@pytest.mark.slow
def test_a_resumed_run_keeps_the_count_and_does_not_outlive_its_end(tmp_path, falling_accuracy, monkeypatch):
    falling_accuracy(0.5, 0.4, 0.3, 0.9, 0.9, 0.9)
    monkeypatch.setattr(train, "_write_results", lambda *args: (_ for _ in ()).throw(RuntimeError("the machine is gone")))
    with pytest.raises(RuntimeError):
        run(tmp_path, *EARLY)
    monkeypatch.undo()
    falling_accuracy(0.5, 0.4, 0.3, 0.9, 0.9, 0.9)
    results = run(tmp_path, *EARLY)
    assert (results["epochs"], results["steps"], results["stopped_early"]) == (3, 6, True)


def test_early_stopping_needs_validations(tmp_path):
    with pytest.raises(InputError, match=r"callbacks.early_stopping needs validations, and trainer.limit_val_batches is 0"):
        run(tmp_path, *EARLY, "trainer.limit_val_batches=0")


def test_the_statistics_of_batch_norm_are_estimated_again(tmp_path):
    results = run(tmp_path, "callbacks.reestimate_batch_norm=3", "trainer.max_epochs=1")
    path = tmp_path / "checkpoints" / REESTIMATED
    assert results["checkpoint"] == str(path)
    best, new = (torch.load(file, weights_only=True) for file in (path.with_name("best.ckpt"), path))
    for name, value in best["state_dict"].items():
        statistic = name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        assert torch.equal(value, new["state_dict"][name]) != statistic, name
    assert {int(v) for name, v in new["state_dict"].items() if name.endswith("num_batches_tracked")} == {3}
    assert "optimizer_states" not in new and "optimizer_states" in best


@pytest.mark.slow
def test_the_new_statistics_are_the_mean_over_the_batches(tmp_path, monkeypatch):
    """With one batch, they are those of the batch: the first batch norm then normalizes it to mean 0."""
    seen = []
    original = Classification.evaluate_batch

    def evaluate_batch(self, batch):
        first = next(module for module in self.model.modules() if isinstance(module, _BatchNorm))
        if first.training and first.momentum is None:
            handle = first.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
            result = original(self, batch)
            handle.remove()
            return result
        return original(self, batch)

    monkeypatch.setattr(Classification, "evaluate_batch", evaluate_batch)
    run(tmp_path, "callbacks.reestimate_batch_norm=2", "trainer.max_epochs=1")
    state = torch.load(tmp_path / "checkpoints" / REESTIMATED, weights_only=True)["state_dict"]
    mean = next(value for name, value in state.items() if name.endswith("running_mean"))
    assert torch.allclose(mean, torch.stack([batch.mean((0, 2, 3)) for batch in seen]).mean(0), atol=1e-6)


def test_a_network_without_batch_norm_is_rejected(tmp_path):
    with pytest.raises(InputError, match=r"callbacks.reestimate_batch_norm is set, but the network has no batch norm"):
        run(tmp_path, "backbone=vit", "callbacks.reestimate_batch_norm=3")


def test_the_learning_rate_for_a_batch_size_is_reported(tmp_path, caplog):
    with caplog.at_level("INFO"):
        results = run(
            tmp_path,
            "optimizer.lr=0.0016",
            "optimizer.lr_batch_size=16",
            "trainer.accumulate_grad_batches=2",
            "trainer.max_epochs=1",
        )
    assert "Learning rate 0.0008 for steps of 8 samples (0.0016 for 16)" in caplog.text
    assert (results["lr"], results["step_samples"]) == (pytest.approx(0.0008), 8)
    assert last(tmp_path)["optimizer_states"][0]["param_groups"][0]["initial_lr"] == pytest.approx(0.0008)


@pytest.mark.slow
def test_clipping_limits_the_gradients_of_a_global_batch(tmp_path, monkeypatch):
    """By norm and by value, after the micro-batches of the step are accumulated."""
    norms = []
    original = torch.optim.SGD.step

    def step(self, *args, **kwargs):
        result = original(self, *args, **kwargs)
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append((float(torch.nn.utils.get_total_norm(gradients)), max(float(g.abs().max()) for g in gradients)))
        return result

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    common = ("optimizer=sgd", "trainer.max_epochs=1", "dataset.global_batch_size=12")
    run(tmp_path / "norm", *common, "trainer.gradient_clip_val=0.001")
    run(tmp_path / "value", *common, "trainer.gradient_clip_val=0.002", "+trainer.gradient_clip_algorithm=value")
    assert len(norms) == 4
    assert all(norm == pytest.approx(0.001, rel=1e-2) for norm, _ in norms[:2])
    assert all(largest == pytest.approx(0.002) for _, largest in norms[2:])
