"""The commands of the quick start and of the guides run, in their order, on a few tiny images and with the smallest networks."""

import importlib
import os
import re
import shlex
import signal
import sys

import numpy as np
import pytest
from data_files import write_image, write_mask
from docs_commands import ROOT, Code, commands, python_blocks
from docs_files import write_photos

from spine.errors import STOP_SIGNALS

pytestmark = pytest.mark.slow
TINY = (
    "trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.limit_val_batches=1", "trainer.accelerator=cpu",
    "trainer.precision=32-true", "dataset.batch_size=2", "dataset.global_batch_size=null", "dataset.num_workers=0", "image_size=[64,64]",
)  # fmt: skip
RUNS = re.compile(r"python (?:(train|eval|predict|export)\.py|-m spine\.(embed|leaderboard)) (.*)")
# What stays composed only: other data, files that nobody wrote here, and networks of tests/test_runs.py once more.
LEFT_OUT = (
    "root=imagenet", "fashion_mnist", "coco ", "elsewhere", "mae.ckpt", "validation", "val_fraction", "mask_suffix", "restart=true",
    "rerun=", "image_size=[288,288]", "task.inference=slide", "camvid", "detections.json", "<seg run>", "variant=tiny_patch16", "udp",
    "upernet", "fast_dev_run", "layer_decay=0.8",
)  # fmt: skip
STORIES = [
    "quickstart.md",
    *(f"guides/{name}.md" for name in ("classification", "segmentation", "keypoints", "mae", "beit", "evaluation")),
]
BEFORE = {
    "guides/evaluation.md": ["python train.py task=cls dataset=image_folder dataset.root=photos"]
}  # a run that the page evaluates


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with images for each guide, in which all pages share their runs."""
    path = tmp_path_factory.mktemp("docs")
    write_photos(path / "photos", splits=("train", "val", "test"))
    write_photos(path / "new_photos")
    for split in ("train", "val"):
        for number in range(4):
            write_image(path / "scans/images" / split / f"{number}.png", size=(40, 48))
            write_mask(path / "scans/masks" / split / f"{number}.png", np.eye(40, 48))
    (path / "scans/classes.txt").write_text("background\ncell\n")
    write_image(path / "new_scans/1.png", size=(40, 48))
    for name in ("hands/images/1.png", "hands/images/2.png", "new_hands/1.png"):
        write_image(path / name, size=(48, 64))
    return path


@pytest.fixture
def _signals():
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_signals")
@pytest.mark.parametrize("page", STORIES)
def test_the_commands_of_a_page_run(page, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    for block in python_blocks(ROOT / "docs" / page):
        exec(compile(block.text, str(block), "exec"), {})
    given = [command for command in commands(ROOT / "docs" / page) if not any(word in command.text for word in LEFT_OUT)]
    given = [*(Code(page, 0, text) for text in BEFORE.get(page, ())), *given]
    assert sum(run(command, folder, monkeypatch) for command in given) > 1
    assert "Traceback" not in capsys.readouterr().err


def run(command: Code, folder, monkeypatch) -> bool:
    """Runs a command in this process. Returns False for a command that is not one of spine."""
    if (match := RUNS.match(command.text)) is None:
        return False
    name = match[1] or match[2]
    text = re.sub(r"<(?:(\w+) )?run>", lambda found: newest_run(folder, found[1] or ""), match[3])
    arguments = [*shlex.split(text, comments=True), *smaller(name, text)]
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    try:
        importlib.import_module(f"spine.commands.{name}").main()
    except SystemExit as stop:
        assert not stop.code, f"{command}\n{' '.join(arguments)}: exit code {stop.code}"
    return True


def newest_run(folder, task: str) -> str:
    """Returns the name of the run that was trained last, of a task if one is given."""
    runs = sorted((folder / "logs/train/runs").iterdir(), key=os.path.getmtime)
    if task == "dvae":  # its network is no backbone, and the name of the run begins with the task
        runs = [run for run in runs if run.name.startswith("dvae-")]
    elif task:
        runs = [run for run in runs if f"_{task}_" in run.name]
    return runs[-1].name


def smaller(command: str, text: str) -> list[str]:
    """Returns the overrides that make a command small. Published weights are not downloaded."""
    if command != "train":
        return ["trainer.accelerator=cpu", *(["dataset.num_workers=0"] if command in ("eval", "embed") else [])] * (
            command not in ("leaderboard", "export")
        )
    small = list(TINY)
    if "backbone.variant=" in text:
        small.append("backbone.variant=micro")
    if "backbone.weights=imagenet1k" in text:
        small.append("backbone.weights=null")
    if "protocol=knn" in text:
        small.append("protocol.k=2")
    if "dataset=" not in text:
        small.append("dataset.length={train: 4, val: 2, test: 2}")
    return small
