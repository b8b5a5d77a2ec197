"""Robustness of training: values that are not finite, full disks, logs, memory."""

import csv
import io
import json
import logging
import re
import warnings

import numpy as np
import pytest
import torch
from rich.console import Console
from test_configs import composed

from spine import console
from spine.commands import train
from spine.errors import InputError
from spine.reporting.provenance import provenance
from spine.training import checkpoints, progress, random_state
from spine.training.figures import PredictionFigures
from spine.training.loggers.metrics_file import MetricsFile
from spine.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("blank_figures")

SMALL = (
    "dataset.length={train: 16, val: 8, test: 4}", "dataset.batch_size=4", "trainer.max_epochs=2", "trainer.accelerator=cpu",
    "trainer.precision=32-true", "dataset.num_workers=0", "backbone=mobilenet_v2", "task=cls",
)  # fmt: skip


def test_a_loss_that_is_not_finite_ends_the_run_with_a_message(tmp_path):
    config = composed(*SMALL, "optimizer.lr=1e30", "trainer.gradient_clip_val=null", "schedule=constant")
    with pytest.raises(
        InputError, match=r"loss is not finite \(in step \d+, epoch 1, learning rate 1e\+30\).*Try a lower optimizer.lr"
    ):
        train.train_run(config, RunFolder(tmp_path))
    assert not list(tmp_path.glob("checkpoints/*"))
    assert not (tmp_path / "metrics.json").exists()


def test_checkpoints_before_a_nan_loss_are_kept(tmp_path, monkeypatch):
    from spine.tasks.cls.task import Classification

    original = Classification.evaluate_batch

    def evaluate_batch(self, batch):
        loss, output = original(self, batch)
        return (loss * float("nan"), output) if self.training and self.current_epoch == 1 else (loss, output)

    monkeypatch.setattr(Classification, "evaluate_batch", evaluate_batch)
    with pytest.raises(InputError, match="in step 5, epoch 2"):
        train.train_run(composed(*SMALL), RunFolder(tmp_path))
    for name in ("best", "last"):
        state = torch.load(tmp_path / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert state["epoch"] == 0 and all(value.isfinite().all() for value in state["state_dict"].values())


def test_a_metric_that_is_not_finite_is_never_the_best(tmp_path):
    best = checkpoints.BestCheckpoint(tmp_path, "val/loss", "min")
    for value in (float("nan"), float("-inf"), None):
        assert not best.check_monitor_top_k(None, value if value is None else torch.tensor(value))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("inline_container.cc: write failed")])
def test_a_failed_write_keeps_the_previous_checkpoint(tmp_path, monkeypatch, error):
    path = tmp_path / "last.ckpt"
    writer = checkpoints.AtomicCheckpointIO()
    writer.save_checkpoint({"a": 1}, path)

    def fails(content, file):
        file.write(b"half")
        raise error

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(InputError, match=r"could not be written .*The previous one is kept"):
        writer.save_checkpoint({"a": 2}, path)
    assert torch.load(path, weights_only=True) == {"a": 1}
    assert [child.name for child in tmp_path.iterdir()] == ["last.ckpt"]


def test_steps_are_logged_and_lines_are_printed_within_an_epoch(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    caplog.set_level(logging.INFO)
    train.train_run(composed(*SMALL, "trainer.log_every_n_steps=2"), RunFolder(tmp_path))
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    steps = [row for row in rows if row["train/loss_step"]]
    assert [int(row["step"]) for row in steps] == [1, 3, 5, 7]
    for row in steps:
        assert all(np.isfinite(float(row[f"train/{name}"])) for name in ("lr", "grad_norm", "images_per_s"))
        assert 0 <= float(row["train/data_wait"]) <= 1
    assert float(steps[0]["train/lr"]) > float(steps[-1]["train/lr"]) > 0  # the learning rate of the step
    assert sum(bool(row["val/top1"]) for row in rows) == 2  # the sanity check is not logged
    lines = [record.getMessage() for record in caplog.records]
    (line,) = [line for line in lines if line.startswith("epoch 2/2  step 2/4  loss ")]
    assert all(f"  {name} " in line for name in ("val/top1", "lr", "grad norm", "data wait"))
    assert " images/s" in line and line.endswith(" left")
    first, second = (line for line in lines if re.match(r"epoch \d/2  step \d  train/loss ", line))
    for line in (first, second):
        assert all(f"  {name} " in line for name in ("val/loss", "val/top1", "data wait")) and " images/s" in line
    assert first.endswith(" left") and second.endswith(" s")
    starts = json.loads((tmp_path / "starts.json").read_text())["starts"]
    assert len(starts) == 1 and starts[0]["versions"]["torch"] == torch.__version__


def test_a_narrow_terminal_shows_the_first_values_of_the_progress():
    values = ["loss 0.1", "", "12 images/s", "lr 0.01"]
    assert progress.fitted(values, 30) == "loss 0.1  12 images/s  lr 0.01"
    assert progress.fitted(values, 29) == "loss 0.1  12 images/s"
    assert progress.fitted(values, 5) == "loss 0.1"


def test_the_bar_shows_where_the_run_is_and_its_values_below():
    bar, screen = progress.ProgressBar(), io.StringIO()
    bar.live.console = Console(width=60, file=io.StringIO(), force_terminal=True)
    bar.add_task("", total=None, status="")
    bar.start()
    values = ["loss 0.1234", "val/top1 0.5000", "12 images/s", "data wait 3%", "lr 1"]
    bar.show("epoch 1/3", 5, 10, "step 5/10  0:01:00 left", values)
    bar.stop()
    Console(width=60, file=screen, color_system=None).print(bar.get_renderable())
    first, second = screen.getvalue().splitlines()
    assert first.startswith("epoch 1/3 ━") and first.endswith("step 5/10  0:01:00 left")
    assert second.rstrip() == "loss 0.1234  val/top1 0.5000  12 images/s  data wait 3%"


def test_provenance_has_commit_command_and_versions():
    record = provenance()
    assert record["command"].startswith("python ") and record["versions"]["python"].startswith("3.")
    assert record["commit"] is None or len(record["commit"]) == 40


def test_metrics_file_keeps_the_rows_of_a_checkpoint(tmp_path):
    path = tmp_path / "metrics.csv"
    first = MetricsFile(path)
    first.log_metrics({"a": 1.0}, step=0)
    first.save()
    first.log_metrics({"b": 2.0}, step=1)
    first.log_metrics({"a": 3.0}, step=2)
    first.save()
    assert path.read_text().splitlines() == ["a,step,b", "1.0,0,", ",1,2.0", "3.0,2,"]
    resumed = MetricsFile(path, keep_rows=2)
    assert resumed.rows == 2
    resumed.log_metrics({"a": 4.0}, step=2)
    resumed.finalize("success")
    assert path.read_text().splitlines() == ["a,step,b", "1.0,0,", ",1,2.0", "4.0,2,"]
    MetricsFile(path)
    assert not path.exists()  # a new run


def test_random_state_is_restored_after_weights_only_loading(tmp_path):
    state = random_state.capture()
    drawn = torch.rand(3), np.random.rand(3)
    torch.save(state, tmp_path / "state.pt")
    torch.rand(10)
    random_state.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(torch.rand(3), drawn[0]) and np.array_equal(np.random.rand(3), drawn[1])


def test_figures_hold_copies_of_the_samples_and_not_the_batches(tmp_path):
    class Trainer:
        num_val_batches = (4,)

        class state:  # noqa: N801
            fn = "validate"

    figures = PredictionFigures(str(tmp_path), [0.5] * 3, [0.2] * 3)
    batch = {"image": torch.zeros(16, 3, 32, 32), "label": torch.zeros(16)}
    outputs = torch.zeros(16, 10)
    figures.on_validation_batch_end(Trainer(), None, outputs, batch, 0)
    ((inputs, output),) = figures.samples
    for tensor in (*inputs.values(), output):
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        assert len(tensor) == 2


def test_the_log_file_has_messages_warnings_and_the_traceback_of_an_error(tmp_path):
    path = tmp_path / "train.log"
    logging.captureWarnings(True)
    try:
        with pytest.raises(ZeroDivisionError), console.log_to_file(path):
            logging.getLogger("spine.x").warning("look here")
            warnings.warn("and here", stacklevel=1)
            1 / 0  # noqa: B018
    finally:
        logging.captureWarnings(False)
    text = path.read_text()
    assert "look here" in text and "and here" in text and "Traceback" in text and "ZeroDivisionError" in text


def test_the_error_of_a_run_is_raised_once():
    from hydra.core.utils import JobReturn, JobStatus
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from spine.config.command_line import SweepTable

    job = JobReturn()
    job.return_value, job.status = InputError("wrong"), JobStatus.FAILED
    SweepTable().on_job_end(OmegaConf.create({"hydra": {"mode": RunMode.RUN}}), job)
    with pytest.raises(InputError, match="wrong"):
        SweepTable.raise_if_failed()
    SweepTable.raise_if_failed()  # the next command of the process starts without it


def test_a_failed_job_of_a_sweep_frees_the_memory_of_its_frames():
    import weakref

    from hydra.core.utils import JobReturn, JobStatus
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from spine.config.command_line import SweepTable

    class Large:
        pass

    job, references = JobReturn(), []

    def fails():
        tensors = Large()
        references.append(weakref.ref(tensors))
        try:
            raise ValueError("inner")
        except ValueError as error:
            raise InputError("outer") from error

    try:
        fails()
    except InputError as error:
        job.return_value, job.status = error, JobStatus.FAILED
    assert references[0]() is not None  # Hydra keeps the error until the end of the sweep
    SweepTable().on_job_end(OmegaConf.create({"hydra": {"mode": RunMode.MULTIRUN}}), job)
    assert references[0]() is None and str(job._return_value) == "outer"
