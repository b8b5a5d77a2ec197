"""The rules of the house."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import spine
from spine.components import modules, task_spec

TASKS = {name: task_spec(name) for name in modules("task")}

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src" / "spine").rglob("*.py"))


def test_imports_go_one_way():
    tool = Path(sys.executable).with_name("lint-imports")
    if not tool.exists() and not shutil.which("lint-imports"):
        pytest.skip("import-linter is not installed")
    done = subprocess.run([str(tool) if tool.exists() else "lint-imports"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_short(path):
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", sorted((ROOT / "src/spine/backbones").glob("[a-z]*.py")), ids=lambda p: p.stem)
def test_backbone_files_name_their_paper(path):
    text = path.read_text()
    assert re.match(r'""".*arXiv \d{4}\.\d{5}', text, re.DOTALL)
    assert "VARIANTS" in text and f"def {path.stem}(" in text
    assert "http" not in text and "spine.checkpoints" not in text  # published files are described in spine.checkpoints


def test_no_drawers():
    for path in SOURCES:
        assert path.stem not in ("utils", "helpers", "common", "misc"), path
        assert "Manager" not in path.read_text(), path


def test_entry_points_are_thin():
    for name in ("train.py", "eval.py", "predict.py", "export.py", "doctor.py"):
        text = (ROOT / name).read_text()
        assert len(text.splitlines()) <= 25
        assert re.findall(r"^(?:import|from) (\S+)", text, re.MULTILINE) == [f"spine.commands.{name.removesuffix('.py')}"]


def test_names_are_answered_without_torch():
    code = "import sys, spine, spine.config.command_line; spine.list_backbones(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def choices(group):
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("[a-z]*.yaml"))


def test_conf_mirrors_code():
    assert choices("backbone") == spine.list_backbones()
    assert choices("head") == list(modules("head"))
    assert choices("task") == sorted(TASKS)
    assert choices("task") == sorted(path.parent.name for path in (ROOT / "src/spine/tasks").glob("*/task.py"))
    assert set(modules("dataset")) <= set(choices("dataset"))


@pytest.mark.parametrize("task", choices("task"))
def test_task_yaml_names_the_default_head(task):
    text = (ROOT / "conf/task" / f"{task}.yaml").read_text()
    assert f"override /head: {TASKS[task].default_head or 'null'}" in text
    assert ("override /backbone: null" in text) == (TASKS[task].network is not None)


@pytest.mark.parametrize("backbone", spine.list_backbones())
def test_backbone_yaml_lists_its_variants(backbone):
    text = (ROOT / "conf/backbone" / f"{backbone}.yaml").read_text()
    assert yaml.safe_load(text)["variant"] in spine.list_variants(backbone)
