"""python predict.py: exit codes, several processes, published weights, interruptions."""

import csv
import json
import os
import subprocess
import sys

import pytest
import torch
from command_line import run_command
from predictable import FAST, write_checkpoint, write_images
from test_processes import ROOT

import spine

pytestmark = pytest.mark.slow
COUNT = 7


def run(folder, *arguments):
    """Runs predict.py. Returns the finished process."""
    return run_command("predict.py", *arguments, folder=folder, COLUMNS="120", OMP_NUM_THREADS="1")


def run_two(folder, *arguments):
    """Runs predict.py with two processes, of which Lightning starts the second one."""
    return subprocess.run(
        [sys.executable, str(ROOT / "predict.py"), *map(str, arguments), "trainer.devices=2"], cwd=folder, text=True,
        capture_output=True, timeout=300, env={**os.environ, "COLUMNS": "120", "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def model_and_photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("command")
    checkpoint = write_checkpoint(folder, "task=seg", "backbone=mobilenet_v2", "backbone.variant=micro", "image_size=[64,64]")
    photos = write_images(folder / "photos", COUNT)
    (photos / "sub").mkdir()
    (photos / "006.png").rename(photos / "sub" / "006.png")
    return checkpoint, photos


def records(folder):
    return json.loads((folder / "predictions.json").read_text())


def test_two_processes_predict_each_file_once_and_like_one(model_and_photos, tmp_path):
    checkpoint, photos = model_and_photos
    common = (f"ckpt_path={checkpoint}", f"source={photos}", *FAST[:3], "dataset.batch_size=2")
    alone = run(tmp_path, *common, "out=one")
    both = run_two(tmp_path, *common, "out=two")
    assert alone.returncode == both.returncode == 0, both.stderr
    assert records(tmp_path / "two") == records(tmp_path / "one") and len(records(tmp_path / "two")) == COUNT
    for path in sorted((tmp_path / "one" / "masks").rglob("*.png")):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()
    assert (tmp_path / "two" / "masks" / "sub" / "006.png").is_file()
    assert not (tmp_path / "two" / ".parts").exists() and f"{COUNT} images" in both.stdout


def test_an_unreadable_file_is_listed_and_the_exit_code_is_2(model_and_photos, tmp_path):
    checkpoint, _ = model_and_photos
    photos = write_images(tmp_path / "photos", 2)
    (photos / "broken.jpg").write_text("no image")
    done = run(tmp_path, f"ckpt_path={checkpoint}", "source=photos", *FAST[:3], "dataset.num_workers=2", "out=out")
    assert done.returncode == 2, done.stderr
    assert "1 files cannot be read" in done.stderr and "broken.jpg" in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / "out" / "unreadable.txt").read_text().startswith("broken.jpg\t") and len(records(tmp_path / "out")) == 2


def test_published_weights_need_no_run(tmp_path):
    net = spine.create_model("mobilenet_v2", variant="micro", num_outputs=3)
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    (tmp_path / "names.txt").write_text("ape\nbee\ncat\n")
    write_images(tmp_path / "photos", 2)
    done = run(
        tmp_path, "backbone=mobilenet_v2", "backbone.variant=micro", "backbone.weights=weights.pth", "task=cls",
        "classes=names.txt", "source=photos/*.png", "out=out", "top_k=2", *FAST[:3],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == ["1", "2"] * 2 and {row["class"] for row in rows} <= {"ape", "bee", "cat"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("source=photos",), "Which model? Give ckpt_path="),
        (("ckpt_path={checkpoint}",), "source is missing: give source="),
        (("ckpt_path={checkpoint}", "source=fotos"), "There is no 'fotos'."),
        (("ckpt_path={checkpoint}", "source=photos", "sourc=3"), "Unknown key 'sourc'. Did you mean 'source'?"),
    ],
)
def test_mistakes_end_with_one_sentence_and_exit_code_1(arguments, message, model_and_photos, tmp_path):
    checkpoint, _ = model_and_photos
    done = run(tmp_path, *(argument.format(checkpoint=checkpoint) for argument in arguments))
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr, done.stderr
