"""Mistakes are answered with what was seen, what is allowed and what to do, and without a stack trace."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_configs import composed

from spine.config import building, checks, messages
from spine.errors import InputError

ROOT = Path(__file__).parents[1]
NAMES = [
    (
        ["backbone=convnex"],
        "Unknown backbone 'convnex'. Did you mean 'convnext'? Choices: beit, convnext, hrnet, mae, "
        "mobilenet_v2, mobilenet_v3, resnest, segnext, shufflenet_v1, shufflenet_v2, swin, vgg16, vit, xception.",
    ),
    (["backbone.varient=tiny"], "Unknown key 'backbone.varient'. Did you mean 'backbone.variant'?"),
    (["trainer.max_epoch=3"], "Unknown key 'trainer.max_epoch'. Did you mean 'trainer.max_epochs'?"),
    (["bakbone=vit"], "Unknown key 'bakbone'. Did you mean 'backbone'?"),
    (["task=segg", "backbone=vit"], "Unknown task 'segg'. Did you mean 'seg'?"),
    (["-m", "backbone=convnext,vitt"], "Unknown backbone 'vitt'. Did you mean 'vit'?"),
    (["task=seg", "head.chanels=3"], "Unknown key 'head.chanels'. Did you mean 'head.channels'?"),
]
MISFITS = [
    (
        ["task=pose", "dataset=image_folder"],
        "Task 'pose' reads keypoints, which data set 'image_folder' does not provide (it gives image, label). "
        "Data sets that do: coco_keypoints, shapes.",
    ),
    (
        ["task=seg", "head=linear"],
        "Task 'seg' hands feature maps to its head; 'linear' reads the pooled embedding. Heads for seg: fcn, hamburger, heatmap, parsenet.",
    ),
    (
        ["backbone=vit", "image_size=[500,500]"],
        "ViT cuts images into 16x16 patches; 500x500 is not a multiple. Nearest sizes that fit: 496, 512.",
    ),
    (["+backbone.drop_pathrate=0.1"], "Unknown key 'backbone.drop_pathrate'. Did you mean 'drop_path_rate'?"),
    (["backbone.variant=tini"], "Unknown variant 'tini' of convnext. Did you mean 'tiny'?"),
    (["backbone.weights=nothing.pth"], "There is no weights file 'nothing.pth'. Give the path of a"),
    (["image_size=64"], "image_size is 64; it must be two numbers of pixels"),
    (["task=mae", "backbone=convnext", "image_size=[96,80]"], "Masked patches are 32 pixels wide for this backbone"),
    (
        ["task=seg", "head=hamburger", "head.channels=100"],
        "head.channels is 100; the hamburger's group norms need a multiple of 32.",
    ),
]


@pytest.mark.parametrize(("overrides", "message"), MISFITS)
def test_parts_that_do_not_fit_are_named(overrides, message):
    with pytest.raises(InputError) as told:
        checks.check(composed(*overrides))
    assert str(told.value).startswith(message)


def test_dense_tasks_pad_for_token_models():
    checks.check(composed("task=seg", "backbone=vit", "image_size=[100,90]"))
    assert building.padded_size(composed("task=seg", "backbone=vit", "image_size=[100,90]")) == ((112, 96), 16)


def command(*arguments, folder):
    start = time.perf_counter()
    done = subprocess.run([sys.executable, ROOT / "train.py", *arguments], cwd=folder, capture_output=True, text=True)
    return done, time.perf_counter() - start


@pytest.mark.parametrize(("arguments", "message"), NAMES)
def test_misspelt_names_on_the_command_line(tmp_path, arguments, message):
    done, _ = command(*arguments, folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().startswith(message), done.stderr
    assert "Traceback" not in done.stderr and not list(tmp_path.rglob(".hydra"))


@pytest.mark.parametrize(("arguments", "message"), MISFITS[:3])
def test_misfits_on_the_command_line(tmp_path, arguments, message):
    done, _ = command(*arguments, folder=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr and "Traceback" not in done.stderr


def test_misfits_are_found_before_lightning_loads():
    """It takes five seconds and more to import; torch alone takes two."""
    code = (
        "import sys; from spine.config import checks; from test_configs import composed\n"
        "checks.check(composed('task=seg')); assert 'pytorch_lightning' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)


def test_the_full_trace_is_there_for_who_asks(tmp_path, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    done, _ = command("backbone=convnex", folder=tmp_path)
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_a_workers_error_is_told_by_its_sentence_alone():
    trace = "Original Traceback (most recent call last):\n  File x\nspine.errors.InputError: File 'a.jpg' is missing.\n"
    wrapped = f"Caught InputError in DataLoader worker process 0.\n{trace}"
    assert messages.worker_sentence(wrapped) == "File 'a.jpg' is missing."
    assert messages.worker_sentence("File 'a.jpg' is missing.") == "File 'a.jpg' is missing."


def test_what_is_not_a_persons_mistake_keeps_its_trace():
    assert messages.sentence(ValueError("inside torch")) is None
