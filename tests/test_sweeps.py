"""Sweeps: their folder, their summary, retries, and what runs when the same command is typed again."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from spine.config import resolving
from spine.reporting import sweeps

ROOT = Path(__file__).parents[1]
SMALL = (
    "dataset.length={train: 8, val: 4, test: 4}", "dataset.batch_size=4", "dataset.num_workers=0", "trainer.max_epochs=1",
    "trainer.accelerator=cpu", "backbone=mobilenet_v2",
)  # fmt: skip


def job(folder, name, overrides, **files):
    (folder / name / ".hydra").mkdir(parents=True)
    (folder / name / ".hydra" / "overrides.yaml").write_text("".join(f"- {override}\n" for override in overrides))
    for file, content in files.items():
        (folder / name / file.replace("_", ".")).write_text(content)


def results(value, mode="max", monitor="val/top1"):
    return json.dumps({"metrics": {monitor: value}, "monitor": monitor, "mode": mode, "seconds": 12.3})


@pytest.fixture
def finished(tmp_path):
    job(tmp_path, "a", ["backbone=vit", "optimizer.lr=0.1", "seed=0"], metrics_json=results(0.25))
    job(tmp_path, "b", ["backbone=swin", "optimizer.lr=0.1", "seed=0"], error_txt="CUDA out of memory\nmore\n")
    job(tmp_path, "c", ["backbone=vit", "optimizer.lr=0.01", "seed=0"], metrics_json=results(0.75))
    job(tmp_path, "d", ["backbone=swin", "optimizer.lr=0.01", "seed=0"], stopped_json='{"epoch": 3}')
    job(tmp_path, "e", ["backbone=hrnet", "optimizer.lr=0.01", "seed=0"])
    job(tmp_path, "f", ["backbone=mae", "optimizer.lr=0.01", "seed=0"], metrics_json=results(None))
    return tmp_path


def test_jobs_are_sorted_by_the_metric_and_have_a_column_for_each_swept_key(finished, capsys):
    sweeps.report_sweep(finished)
    with (finished / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:2] == ["backbone", "optimizer.lr"] and "seed" not in rows[0]
    assert [Path(row["folder"]).name for row in rows][:2] == ["c", "a"] and rows[0]["value"] == "0.75"
    shown = capsys.readouterr().out
    assert "optimizer.lr" in shown and "b failed: CUDA out of memory" in shown and str(finished / "b" / "train.log") in shown
    assert "6 runs: 3 finished, 1 failed, 1 stopped, 1 not started. The same command runs the others again." in shown


def test_a_smaller_loss_is_better(tmp_path):
    for name, value in (("a", 0.9), ("b", 0.2)):
        job(tmp_path, name, [f"seed={name}"], metrics_json=results(value, "min", "val/loss"))
    assert [one.folder.name for one in sweeps.read_jobs(tmp_path)] == ["b", "a"]


def test_an_empty_sweep_prints_nothing(tmp_path, capsys):
    sweeps.report_sweep(tmp_path)
    assert capsys.readouterr().out == "" and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "other", "same"),
    [
        (["-m", "backbone=vit,swin", "task=seg"], ["-m", "task=seg", "backbone=vit,swin"], True),
        (["-m", "backbone=vit,swin"], ["-m", "backbone=vit,swin", "dataset.num_workers=8", "sweep.retries=2"], True),
        (["-m", "backbone=vit,swin"], ["-m", "backbone=vit,swin", "hydra/launcher=joblib", "hydra.verbose=true"], False),
        (["-m", "backbone=vit,swin"], ["-m", "backbone=vit,swin", "seed=1"], False),
        (["-m", "backbone=vit,swin"], ["-m", "backbone=vit,hrnet"], False),
        (["-m", "tags=[a],[b]"], ["-m", "tags=[a],[c]"], False),
    ],
)
def test_the_folder_follows_from_what_is_swept(monkeypatch, arguments, other, same):
    names = []
    for each in (arguments, other):
        monkeypatch.setattr(sys, "argv", ["train.py", *each])
        names.append(resolving.sweep_id())
    assert (names[0] == names[1]) == same


def test_swept_keys_name_the_folder(monkeypatch):
    values = ["backbone=vit,swin", "dataset.length={train: 4, val: 2}", "image_size=[64,64]", "optimizer.lr=choice(0.1,0.2)"]
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", *values])
    assert resolving.sweep_id().rpartition("_")[0] == "backbone_lr"


def sweep(folder, *arguments, script=ROOT / "train.py"):
    return subprocess.run([sys.executable, script, "-m", *SMALL, *arguments], cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
def test_the_same_command_runs_only_what_is_missing(tmp_path):
    first = sweep(tmp_path, "seed=0,1")
    (folder,) = (tmp_path / "logs/train/multiruns").iterdir()
    assert first.returncode == 0 and folder.name.startswith("seed_"), first.stderr
    runs = sorted(path for path in folder.iterdir() if path.is_dir())
    (runs[0] / "metrics.json").unlink()
    before = (runs[1] / "checkpoints/last.ckpt").stat().st_mtime_ns
    again = sweep(tmp_path, "seed=0,1")
    assert again.returncode == 0 and again.stdout.count("This run is finished; nothing was done.") == 1
    assert "2 runs: 2 finished." in again.stdout
    assert (runs[1] / "checkpoints/last.ckpt").stat().st_mtime_ns == before
    assert list((tmp_path / "logs/train/multiruns").iterdir()) == [folder]


FLAKY = """
from pathlib import Path
from spine.tasks.cls.task import Classification

original = Classification.training_step

def flaky(self, batch, batch_idx):
    mark = Path("failed_once")
    if not mark.exists():
        mark.touch()
        raise RuntimeError("CUDA error: the device is lost")
    return original(self, batch, batch_idx)

Classification.training_step = flaky

from spine.commands.train import main

main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("retries", [0, 1])
def test_failed_runs_are_tried_again_if_asked(tmp_path, retries):
    (tmp_path / "flaky.py").write_text(FLAKY)
    done = sweep(tmp_path, "seed=0,1", f"sweep.retries={retries}", script=tmp_path / "flaky.py")
    if retries:
        assert done.returncode == 0 and "Trying again, 1 of 1" in done.stderr and "2 runs: 2 finished." in done.stdout
    else:
        assert done.returncode == 1 and "2 runs: 1 finished, 1 failed." in done.stdout
        assert "failed: RuntimeError: CUDA error: the device is lost" in done.stdout
