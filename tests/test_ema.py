"""The moving average of the weights (EMA): its values, its checkpoints, and what is evaluated."""

import json
import os
import signal

import pytest
import pytorch_lightning as pl
import torch
from interruptions import at_call
from test_configs import composed
from test_resume import RANDOM, SMALL, assert_equal_outcome, last
from torch import nn

from spine.checkpoints.run_checkpoint import TRAINED_WEIGHTS
from spine.commands import train
from spine.commands.eval import checkpoint_config, evaluate_config
from spine.errors import RunStopped
from spine.tasks.cls.task import Classification
from spine.training import ema
from spine.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("blank_figures")

EMA = "callbacks.ema={decay:0.9,warmup:true}"


def config(*overrides):
    return composed("task=cls", *RANDOM, *SMALL, EMA, *overrides)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ema")
    train.train_run(config(), RunFolder(folder))
    return folder


def test_the_average_has_the_values_of_a_weighted_sum():
    average, values = {"w": torch.zeros(2), "count": torch.tensor(0)}, [1.0, 5.0, 2.0]
    callback = ema.MovingAverage(decay=0.75)
    for number, value in enumerate(values):
        ema.update(average, {"w": torch.full((2,), value), "count": torch.tensor(number)}, callback.decay_of(number))
    expected = 0.75 * (0.75 * 1.0 + 0.25 * 5.0) + 0.25 * 2.0
    assert average["w"].tolist() == pytest.approx([expected] * 2) and average["count"] == 2


def test_the_decay_grows_to_its_limit_with_warmup():
    callback = ema.MovingAverage(decay=0.9, warmup=True, warmup_gamma=1.0, warmup_power=1.0)
    assert [callback.decay_of(n) for n in (0, 1, 3, 8, 9, 100)] == pytest.approx([0.0, 0.5, 0.75, 8 / 9, 0.9, 0.9])


@pytest.mark.slow
def test_checkpoints_hold_the_average_and_the_weights_of_the_optimizer(uninterrupted):
    content = last(uninterrupted)
    average, trained = content["state_dict"], content[TRAINED_WEIGHTS]
    assert average.keys() == trained.keys()
    assert any(not torch.equal(average[name], trained[name]) for name in average)
    results = json.loads((uninterrupted / "metrics.json").read_text())
    assert results["weights"] == "average"


def test_the_average_is_evaluated(uninterrupted, tmp_path, caplog):
    """The validation of an epoch, the final evaluation, eval.py and load_from_checkpoint use the same weights."""
    best = uninterrupted / "checkpoints" / "best.ckpt"
    results = json.loads((uninterrupted / "metrics.json").read_text())["metrics"]
    given = {**checkpoint_config(str(best)), "ckpt_path": str(best), "split": "val", "logger": None}
    with caplog.at_level("INFO"):
        values = evaluate_config(given, RunFolder(tmp_path))
        task = Classification.load_from_checkpoint(best)
    assert values["val/loss"] == results["val/loss"]
    assert caplog.text.count("moving average (EMA)") == 2
    content = torch.load(best, weights_only=True)
    assert all(torch.equal(value, content["state_dict"][name]) for name, value in task.state_dict().items())
    assert json.loads((tmp_path / "metrics.json").read_text())["weights"] == "average"


@pytest.mark.slow
def test_the_weights_of_the_optimizer_do_not_depend_on_the_average(uninterrupted, tmp_path):
    train.train_run(composed("task=cls", *RANDOM, *SMALL), RunFolder(tmp_path))
    without, trained = last(tmp_path), last(uninterrupted)[TRAINED_WEIGHTS]
    assert TRAINED_WEIGHTS not in without
    assert all(torch.equal(value, trained[name]) for name, value in without["state_dict"].items())
    assert json.loads((tmp_path / "metrics.json").read_text())["weights"] == "trained"


# an epoch has 6 steps of training and 2 of validation: in call 9, step 1 of epoch 2; in calls 7 and 15, a validation
@pytest.mark.parametrize(
    ("number", "call"),
    [(signal.SIGTERM, 15), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((signal.SIGTERM, 9), (signal.SIGINT, 8)))],
)
def test_a_resumed_run_has_the_same_average(tmp_path, uninterrupted, monkeypatch, number, call):
    at_call(monkeypatch, Classification, call, lambda task: os.kill(os.getpid(), number))
    with pytest.raises(RunStopped):
        train.train_run(config(), RunFolder(tmp_path))
    monkeypatch.undo()
    content = last(tmp_path)
    assert any(not torch.equal(value, content[TRAINED_WEIGHTS][name]) for name, value in content["state_dict"].items())
    train.train_run(config(), RunFolder(tmp_path))
    assert_equal_outcome(uninterrupted, tmp_path)
    first, second = (last(folder)[TRAINED_WEIGHTS] for folder in (uninterrupted, tmp_path))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


class Line(pl.LightningModule):
    """A network with one weight, whose gradient is 1 in every step."""

    def __init__(self):
        super().__init__()
        self.model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.model.weight)

    def training_step(self, batch, batch_idx):
        return self.model(batch).mean()

    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.ones(8, 1), batch_size=1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


def test_accumulated_batches_are_one_update(tmp_path):
    callback, task = ema.MovingAverage(decay=0.5), Line()
    trainer = pl.Trainer(
        max_epochs=1, accumulate_grad_batches=4, accelerator="cpu", callbacks=[callback], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(task)
    assert callback.updates == 2
    assert callback.trained["weight"].item() == -2.0 and task.model.weight.item() == -1.5  # of -1 and -2
