"""Parts of users: given by a folder or an installed package, they are listed, chosen and checked like spine's own."""

import sys
from pathlib import Path

import pytest
import torch
from command_line import run_command

import spine
from spine import plugins, testing
from spine.components import modules
from spine.config import places
from spine.errors import InputError

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "my_parts"
SMALL = ("dataset.length={train: 16, val: 8, test: 8}", "dataset.batch_size=8", "dataset.num_workers=0", "trainer.max_epochs=1")


@pytest.fixture(autouse=True)
def _no_plugins_afterwards(monkeypatch):
    monkeypatch.setattr(plugins, "_added", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if not name.startswith(("spine", "torch", "pytorch_lightning", "albumentations", "numpy", "cv2")):
            sys.modules.pop(name)


def package(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_the_example_is_listed_built_and_checked():
    assert plugins.add(EXAMPLE) == "my_parts" and plugins.add(EXAMPLE) == "my_parts"
    assert "plain_net" in spine.list_backbones() and spine.list_variants("plain_net") == ["micro", "small"]
    net = spine.create_model("plain_net", variant="micro", task="seg", num_outputs=4)
    assert net(torch.randn(1, 3, 64, 64)).shape[:2] == (1, 4)
    with pytest.raises(InputError, match="Unknown backbone 'plain_ne'. Did you mean 'plain_net'"):
        spine.create_model("plain_ne", num_outputs=2)
    testing.check_backbone("plain_net")


def test_the_example_is_about_sixty_lines():
    assert sum(len(path.read_text().splitlines()) for path in EXAMPLE.rglob("*.py")) <= 65


@pytest.mark.slow
def test_the_example_trains_and_only_the_command_line_brings_it_back(tmp_path):
    loss = "task.loss={_target_: my_parts.losses.focal.FocalLoss, gamma: 1.5}"
    plugin = f"plugins={EXAMPLE}"

    def call(script, *arguments):
        return run_command(script, *arguments, folder=tmp_path)

    done = call("train.py", plugin, "backbone=plain_net", "task=seg", loss, *SMALL)
    assert done.returncode == 0 and "plain_net micro + fcn" in done.stdout, done.stderr
    (checkpoint,) = tmp_path.glob("logs/train/runs/*/checkpoints/best.ckpt")
    refused = call("eval.py", f"ckpt_path={checkpoint}")
    assert refused.returncode == 1 and "give its folder with plugins=<folder>" in refused.stderr
    evaluated = call("eval.py", f"ckpt_path={checkpoint}", plugin)
    assert evaluated.returncode == 0 and "val/mIoU" in evaluated.stdout, evaluated.stderr


def test_installed_packages_declare_an_entry_point(monkeypatch, tmp_path):
    package(tmp_path / "installed_parts", {"__init__.py": "raise RuntimeError('imported')", "heads/mine.py": ""})
    metadata = {"METADATA": "Name: parts\nVersion: 1.0\n", "entry_points.txt": "[spine.plugins]\nparts = installed_parts\n"}
    package(tmp_path / "parts-1.0.dist-info", metadata)
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins._installed.cache_clear()
    try:
        assert modules("head")["mine"] == "installed_parts.heads.mine"  # nothing was imported
        package(tmp_path / "installed_parts", {"heads/linear.py": ""})
        plugins._installed.cache_clear()
        with pytest.raises(InputError, match="'installed_parts' has heads/linear, a name that spine has already"):
            modules("head")
    finally:
        plugins._installed.cache_clear()


def test_parts_of_every_kind_may_be_named(tmp_path):
    folder = package(
        tmp_path / "kinds",
        {
            "heads/h.py": "", "tasks/t/spec.py": "", "tasks/t/task.py": "", "data/formats/f.py": "", "data/transforms/x.py": "",
            "losses/l.py": "", "callbacks/c.py": "",
        },
    )  # fmt: skip
    plugins.add(folder)
    for path, target in {
        "head": "kinds.heads.h.Head", "task": "kinds.tasks.t.task.Mine", "dataset": "kinds.data.formats.f.Mine",
        "augment.train[0]": "kinds.data.transforms.x.Mine", "task.loss": "kinds.losses.l.Mine",
        "callbacks.more.c": "kinds.callbacks.c.Mine",
    }.items():  # fmt: skip
        places.check_target(target, path)
    with pytest.raises(InputError, match="not allowed"):
        places.check_target("kinds.losses.l.Mine", "head")


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("missing", None, "There is no folder"),
        ("my-parts", {"heads/a.py": ""}, "rename the folder to a Python name"),
        ("json", {"heads/a.py": ""}, "There is another package named 'json'"),
        ("spine", {"heads/a.py": ""}, "There is another package named 'spine'"),
        ("clash", {"backbones/vit.py": ""}, "has backbones/vit, a name that spine has already"),
    ],
)
def test_mistakes_are_reported(tmp_path, name, files, message):
    folder = package(tmp_path / name, files) if files else tmp_path / name
    with pytest.raises(InputError, match=message):
        plugins.add(folder)


BROKEN = {
    "Level(dims[i], 4 * 2**i)": ("Level(dims[i] + 1, 4 * 2**i)", "spec says 17 channels"),
    "embed_dim=dims[-1]": ("embed_dim=7", "spec says embed_dim 7"),
    '[("stem.",), ': ("[", "is in 0 of the layer groups"),
}


@pytest.mark.parametrize("line", BROKEN)
def test_broken_backbones_are_found(tmp_path, line):
    text = (EXAMPLE / "backbones" / "plain_net.py").read_text()
    changed, message = BROKEN[line]
    assert line in text
    plugins.add(package(tmp_path / "broken", {"backbones/plain_net.py": text.replace(line, changed)}))
    with pytest.raises(AssertionError, match=message):
        testing.check_backbone("plain_net", heads=False)


@pytest.mark.parametrize("name", ["shapes"])
def test_data_sets_keep_what_they_promise(name):
    from spine.data.formats.shapes import Shapes

    testing.check_data(Shapes("val", size=(64, 64), length={"train": 4, "val": 4, "test": 4}), indices=(0, 3))


@pytest.mark.parametrize("name", modules("head"))
def test_heads_keep_what_they_promise(name):
    testing.check_head(name)


@pytest.mark.parametrize("name", spine.list_backbones())
def test_backbones_keep_what_they_promise(name):
    testing.check_backbone(name, heads=False)  # test_contract.py tests them with every head
