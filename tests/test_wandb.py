"""W&B: offline runs read back from their files, and online runs with a server on this machine."""

import csv
import json
import os
import pty
import subprocess
import sys

import numpy as np
import pytest
import torch
import wandb as library
import wandb_server
import yaml
from command_line import run_command
from conftest import REPOSITORY
from test_configs import composed
from wandb_files import OfflineRun

from spine.commands import train
from spine.commands.eval import checkpoint_config, evaluate_config
from spine.errors import InputError
from spine.tasks.samples import PREDICTION, TRUTH, SampleView
from spine.training.loggers.run_logger import LoggedRun
from spine.training.loggers.wandb import run_id, wandb
from spine.training.run_folder import RunFolder

SMALL = (
    "task=cls", "backbone=mobilenet_v2", "dataset.length={train: 16, val: 8, test: 4}", "dataset.batch_size=4",
    "dataset.num_workers=0", "trainer.max_epochs=2", "trainer.accelerator=cpu", "trainer.precision=32-true",
    "trainer.log_every_n_steps=1", "trainer.num_sanity_val_steps=2",
)  # fmt: skip
DRAWN = ("callbacks.figure_every_n_epochs=1",)


@pytest.fixture(autouse=True)
def _no_account(monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", os.devnull)


def metrics(folder):
    """The rows of metrics.csv as numbers."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def assert_holds_the_rows(rows, folder):
    expected = metrics(folder)
    assert [row["_step"] for row in rows] == list(range(0, 2 * len(expected), 2))
    for row, known in zip(rows, expected, strict=True):
        assert row["trainer/global_step"] == known.pop("step")
        assert {key: row[key] for key in known} == pytest.approx(known)
        assert {key for key in row if not key.startswith(("_", "trainer/"))} == set(known)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "first_run"
    train.train_run(composed(*SMALL, *DRAWN, "logger=all", "tags=[a,b]"), RunFolder(folder))
    return folder


@pytest.fixture(scope="module")
def offline(trained):
    return OfflineRun(trained)


def test_every_row_of_metrics_csv_is_in_the_run_and_the_sanity_check_is_not(trained, offline):
    assert_holds_the_rows(offline.rows, trained)
    assert sum("val/loss" in row for row in offline.rows) == 2


def test_metrics_are_drawn_against_the_steps_and_the_best_value_is_in_the_summary(trained, offline):
    assert offline.metrics["*"].step_metric == "trainer/global_step"
    assert offline.metrics["val/top1"].summary.max and offline.metrics["val/loss"].summary.min
    rows = metrics(trained)
    best = max(row["val/top1"] for row in rows if "val/top1" in row)
    assert offline.summary["val/top1"]["max"] == pytest.approx(best)
    assert offline.summary["val/loss"]["min"] == pytest.approx(min(row["val/loss"] for row in rows if "val/loss" in row))
    assert all("epoch" in row for row in offline.rows)


def test_the_summary_has_the_evaluated_best_and_the_costs(trained, offline):
    results = json.loads((trained / "metrics.json").read_text())
    for name, value in results["metrics"].items():
        assert offline.summary[f"best/{name}"] == pytest.approx(value)
    costs = {key: value for key, value in results["costs"].items() if key != "device"}
    assert {key: offline.summary[f"costs/{key}"] for key in costs} == pytest.approx(costs)


def test_the_run_has_names_tags_and_the_configuration(trained, offline):
    run = offline.run
    assert run.run_id == (trained / "wandb_id.txt").read_text().strip() and run.run_id.startswith("first_run-")
    assert (run.display_name, run.run_group, run.job_type, list(run.tags)) == ("first_run", "first_run", "train", ["a", "b"])
    assert offline.config["optimizer"]["lr"] == json.loads((trained / "config.json").read_text())["optimizer"]["lr"]


def test_pictures_tables_and_the_confusion_matrix_are_in_the_run_and_in_the_folder(trained, offline):
    assert offline.media == {
        "val_predictions", "val_confusion", "val_calibration", "val_worst_predictions", "val_worst_samples", "val_best_predictions",
        "val_best_samples",
        "val_confusion_matrix_table",
    }  # fmt: skip
    assert sum("val_predictions._type" in row for row in offline.history) == 3  # two epochs, and the best checkpoint
    files = {path.name for path in (trained / "figures").iterdir()}
    figures = {
        "val_predictions.png", "val_confusion.png", "val_calibration.png", "val_worst_predictions.png", "val_best_predictions.png",
    }  # fmt: skip
    assert files == figures | {"val_worst_samples.csv", "val_best_samples.csv"}


def test_the_table_of_worst_samples_is_that_of_the_folder(trained, offline):
    path = next(row["val_worst_samples.path"] for row in reversed(offline.history) if "val_worst_samples.path" in row)
    table = json.loads((offline.file.parent / "files" / path).read_text())
    with (trained / "figures" / "val_worst_samples.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    of_table = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [row["index"] for row in of_table] == [int(row["index"]) for row in rows]
    assert [row["prediction"] for row in of_table] == [row["prediction"] for row in rows]
    losses = [float(row["loss"]) for row in rows]
    assert losses == sorted(losses, reverse=True) and len(losses) == 6
    assert {row["truth"] for row in rows} <= {"disc", "square", "triangle", "star", "cross"}


@pytest.mark.slow
def test_loggers_and_figures_do_not_change_the_training(trained, tmp_path):
    train.train_run(composed(*SMALL), RunFolder(tmp_path))
    one, two = (torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (trained, tmp_path))
    assert all(torch.equal(one["state_dict"][key], value) for key, value in two["state_dict"].items())
    assert torch.equal(one["random_states"][0]["torch"], two["random_states"][0]["torch"])
    assert one["random_states"][0]["numpy"] == two["random_states"][0]["numpy"]


@pytest.mark.slow
def test_a_resumed_run_holds_every_row_once_and_keeps_its_id(tmp_path, crash_in_second_epoch):
    configuration = composed(*SMALL, "logger=wandb", "callbacks.checkpoint_every_steps=3")
    with pytest.raises(RuntimeError, match="machine is gone"):
        train.train_run(configuration, RunFolder(tmp_path))
    first = OfflineRun(tmp_path)
    train.train_run(configuration, RunFolder(tmp_path))
    second = OfflineRun(tmp_path)
    assert first.run.run_id == second.run.run_id
    assert_holds_the_rows(second.rows, tmp_path)
    assert first.rows[-1]["trainer/global_step"] > 3  # steps after the checkpoint, which the second part repeats
    assert [path.name for path in (tmp_path / "wandb" / "earlier").iterdir()] == [first.file.parent.name]


def test_an_evaluation_joins_the_group_of_its_training_run(trained, tmp_path):
    checkpoint = trained / "checkpoints" / "best.ckpt"
    config = checkpoint_config(str(checkpoint)) | {"ckpt_path": str(checkpoint), "split": "test", "task_name": "eval"}
    config |= {"logger": composed("logger=wandb", "tags=[]")["logger"]}
    values = evaluate_config(config, RunFolder(tmp_path))
    run = OfflineRun(tmp_path)
    assert (run.run.run_group, run.run.job_type) == ("first_run", "eval")
    assert run.run.run_id != OfflineRun(trained).run.run_id
    assert {key: run.summary[key] for key in values} == pytest.approx(values) and "test/top1" in values
    assert "test_predictions" in run.media


def test_a_sweep_groups_its_jobs_and_names_them_after_the_swept_keys(tmp_path):
    job = tmp_path / "lr_1234" / "vit_cls_shapes_5678"
    (job / ".hydra").mkdir(parents=True)
    sweep = {"hydra": {"overrides": {"task": ["optimizer.lr=0.1,0.2", "dataset.length={train: 8, val: 4}"]}}}
    (tmp_path / "lr_1234" / "multirun.yaml").write_text(yaml.safe_dump(sweep))
    (job / ".hydra" / "overrides.yaml").write_text("- optimizer.lr=0.1\n- dataset.length={train:8,val:4}\n")
    (job / "config.json").write_text("{}")
    run = LoggedRun(job)
    assert (run.group, run.name, run.job_type) == ("lr_1234", "optimizer.lr=0.1 (vit_cls_shapes_5678)", "train")
    evaluated = LoggedRun(tmp_path / "eval" / "today_test", job / "checkpoints" / "best.ckpt")
    assert (evaluated.group, evaluated.job_type) == ("lr_1234", "eval")
    assert evaluated.name == "optimizer.lr=0.1 (vit_cls_shapes_5678) today_test"
    assert LoggedRun(tmp_path, tmp_path / "downloaded.ckpt").group is None


def test_a_restarted_run_and_the_jobs_of_an_agent_have_their_own_ids(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run")
    first = run_id(LoggedRun(folder.path))
    assert run_id(LoggedRun(folder.path)) == first and len(run_id(LoggedRun(tmp_path / ("x" * 100)))) == 64
    folder.back_up()
    assert run_id(LoggedRun(folder.path)) != first
    monkeypatch.setenv("WANDB_RUN_ID", "of_the_agent")
    assert run_id(LoggedRun(folder.path)) == "of_the_agent"


def test_only_the_first_process_makes_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    logger = wandb(LoggedRun(tmp_path))
    assert not list(tmp_path.iterdir()) and logger._experiment is None


def samples(layers, **more):
    return [SampleView(image=np.zeros((20, 40, 3), np.uint8), **layers, **more)]


def test_masks_and_keypoints_are_layers_of_images(tmp_path):
    mask = np.zeros((20, 40), np.int64)
    points = np.array([[5.0, 6.0, 2.0], [30.0, 10.0, 0.0]])
    logger = wandb(LoggedRun(tmp_path))
    logger.start("val/mIoU", "max", [])
    logger.log_samples("masks", samples({"masks": {PREDICTION: mask, TRUTH: mask}, "mask_classes": ("road", "sky")}), 3)
    keypoints = {"keypoints": {PREDICTION: points, TRUTH: points}, "keypoint_names": ("eye", "ear")}
    logger.log_samples("keypoints", samples(keypoints), 3)
    logger.finish(True)
    run = OfflineRun(tmp_path)
    (row,) = run.history
    assert row["trainer/global_step"] == 2 and set(row["masks.all_masks"][0]) == {"prediction", "ground_truth"}
    assert row["keypoints.all_boxes"][0].keys() == {"prediction", "ground_truth"}
    boxes = {}
    for layer, file in row["keypoints.all_boxes"][0].items():
        boxes[layer] = json.loads((run.file.parent / "files" / file["path"]).read_text())["box_data"]
    assert [box["box_caption"] for box in boxes["prediction"]] == ["eye", "ear"]
    assert [box["box_caption"] for box in boxes["ground_truth"]] == ["eye"]  # the other has no label
    position = boxes["prediction"][0]["position"]
    assert ((position["minX"] + position["maxX"]) / 2, (position["minY"] + position["maxY"]) / 2) == (5, 6)
    labels = str(run.config["_wandb"]) + json.dumps(run.config)
    assert "sky" in labels and "ear" in labels


def test_without_an_api_key_the_run_is_stored_offline(tmp_path, caplog):
    logger = wandb(LoggedRun(tmp_path), online=True, log_model=True)
    logger.finish(True)
    assert "no API key" in caplog.text and "stored offline" in caplog.text
    assert "possible online only" in caplog.text
    assert OfflineRun(tmp_path).run.project == "spine"


def test_without_a_network_the_run_is_stored_offline(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_API_KEY", wandb_server.KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # no server there
    library.teardown()  # it reads the environment once
    logger = wandb(LoggedRun(tmp_path), online=True)
    logger.start("val/top1", "max", [])
    logger.log_metrics({"train/loss": 1.0}, 0)
    logger.finish(True)
    assert "cannot be reached" in caplog.text and "stored offline" in caplog.text
    assert [row["train/loss"] for row in OfflineRun(tmp_path).rows] == [1.0]


SCRIPT = """
import sys
from pathlib import Path
from spine.training.loggers.run_logger import LoggedRun
from spine.training.loggers.wandb import wandb
logger = wandb(LoggedRun(Path(sys.argv[1])), online=True, timeout=2)
logger.start("val/top1", "max", [])
logger.log_metrics({"val/top1": 0.5}, 0)
logger.finish(True)
"""


@pytest.mark.slow
def test_on_a_terminal_nothing_is_asked_and_no_deprecation_is_printed(tmp_path):
    terminal, end = pty.openpty()
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], stdin=end, stdout=end, stderr=end, env=environment, cwd=tmp_path
    )
    os.close(end)
    printed = b""
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        printed += part
    os.close(terminal)
    assert process.wait(timeout=60) == 0
    assert b"stored offline" in printed and b"wandb.api" not in printed and b"choice" not in printed.lower()
    assert len(OfflineRun(tmp_path).rows) == 1


@pytest.mark.slow
def test_a_server_that_does_not_answer_costs_no_rows(tmp_path):
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environment = {**os.environ, "WANDB_API_KEY": wandb_server.KEY, "WANDB_BASE_URL": address}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 0 and "did not respond" in done.stderr, done.stderr
    assert len(OfflineRun(tmp_path).rows) == 1


def killed_and_resumed(folder, server, *arguments):
    """Runs train.py twice in a folder: the first process kills itself at a step after a checkpoint."""
    code = (
        "import os, signal, sys\n"
        "from spine.tasks.cls.task import Classification\n"
        "original, calls = Classification.evaluate_batch, [0]\n"
        "def evaluate_batch(self, batch):\n"
        "    calls[0] += 1\n"
        "    if calls[0] == 12: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return original(self, batch)\n"
        "Classification.evaluate_batch = evaluate_batch\n"
        "from spine.commands.train import main\n"
        "main()\n"
    )
    command = [*SMALL, "logger=wandb", "callbacks.checkpoint_every_steps=3", f"hydra.run.dir={folder}", *arguments]
    environment = {**os.environ, **server.environment()}
    first = subprocess.run(
        [sys.executable, "-c", code, *command], env=environment, cwd=folder.parent, capture_output=True, text=True
    )
    assert first.returncode == -9, first.stderr
    done = run_command("train.py", *command, folder=folder.parent, **server.environment())
    assert done.returncode == 0, done.stderr
    return (folder / "wandb_id.txt").read_text().strip()


def metric_rows(server, run):
    return [row for row in server.rows(run) if row["_step"] % 2 == 0]


@pytest.mark.slow
def test_an_online_run_that_was_killed_goes_on_in_the_same_run(tmp_path):
    with wandb_server.running() as server:
        run = killed_and_resumed(tmp_path / "run", server, "logger.wandb.online=true")
        assert set(server.runs) == {run}
        assert_holds_the_rows(metric_rows(server, run), tmp_path / "run")
        assert json.loads(server.summary[run])["best/val/top1"] >= 0


@pytest.mark.slow
def test_wandb_sync_uploads_every_row_of_a_killed_offline_run_once(tmp_path):
    with wandb_server.running() as server:
        run = killed_and_resumed(tmp_path / "run", server)
        sync = [sys.executable, "-m", "wandb", "sync", str(tmp_path / "run" / "wandb")]
        for _ in range(2):  # the second time, nothing is left to do
            done = subprocess.run(sync, env={**os.environ, **server.environment()}, cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        assert set(server.history) == {run}
        assert_holds_the_rows(metric_rows(server, run), tmp_path / "run")


@pytest.mark.parametrize("name", ["grid", "bayes"])
def test_the_examples_of_sweeps_give_valid_commands(name):
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    sweep = yaml.safe_load((REPOSITORY / "examples" / "wandb" / f"{name}.yaml").read_text())
    chosen = {}
    for key, parameter in sweep["parameters"].items():
        value = parameter.get("value", parameter.get("values", [None])[0])
        chosen[key] = {"value": parameter["min"] if value is None else value}
    arguments = create_sweep_command_args({"args": chosen})["args_no_hyphens"]
    command = create_sweep_command(sweep["command"])
    assert (REPOSITORY / sweep["program"]).is_file() and command[-1] == "${args_no_hyphens}"
    overrides = [part for part in command if "=" in part] + arguments
    config = composed(*overrides)
    assert config["logger"]["wandb"]["online"] is True and config["optimizer"]["lr"] == chosen["optimizer.lr"]["value"]
    if name == "grid":
        assert config["trainer"]["gradient_clip_val"] is None and config["image_size"] == [64, 64]


def test_the_example_of_a_report_is_built_without_a_request(monkeypatch):
    reports = pytest.importorskip("wandb_workspaces.reports.v2")
    monkeypatch.syspath_prepend(str(REPOSITORY / "examples" / "wandb"))
    import report

    blocks = report.make_report("me", metric="val/mIoU").blocks
    grids = [block for block in blocks if isinstance(block, reports.PanelGrid)]
    assert len(grids) == 3 and all(grid.panels for grid in grids)
    assert grids[0].panels[0].y == ["val/mIoU"]


def test_log_model_takes_true_false_or_all():
    from spine.config import checks

    with pytest.raises(InputError, match="logger.wandb.log_model is 'best'; it must be true, false or all"):
        checks.prepare(composed("logger=wandb", "logger.wandb.log_model=best"))
    assert checks.prepare(composed("logger=wandb", "logger.wandb.log_model=all"))["logger"]["wandb"]["log_model"] == "all"
