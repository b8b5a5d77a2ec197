"""The package that `pip wheel .` builds, and the `spine` command."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from spine import __main__ as command

ROOT = Path(__file__).parents[1]


def test_the_wheel_has_code_yaml_files_command_and_dependencies(tmp_path):
    pytest.importorskip("hatchling")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path], cwd=ROOT, check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
        entry_points = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    code = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src/spine").rglob("*.py")}
    yamls = {f"spine/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert code | yamls <= names
    assert not [name for name in names if not name.startswith("spine")]
    assert "spine = spine.__main__:main" in entry_points
    pinned = {line.partition("==")[0] for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line}
    declared = [line.removeprefix("Requires-Dist: ") for line in metadata.splitlines() if line.startswith("Requires-Dist")]
    direct = pinned - {"albucore"}  # albumentations needs it in this version
    assert {name for name in direct if not any(line.startswith(name) for line in declared)} == set()


def test_the_command_lists_and_refuses(capsys):
    command.main([])
    listed = capsys.readouterr().out
    assert all(f"  {name} " in listed for name in ("train", "eval", "export", "profile"))
    with pytest.raises(SystemExit, match="Unknown command 'trian'. Did you mean 'train'"):
        command.main(["trian"])


@pytest.mark.parametrize("call", [["-m", "spine", "train"], ["train.py"]])
def test_the_command_is_the_script(call, tmp_path):
    script = [ROOT / call[0]] if call[0].endswith(".py") else call
    done = subprocess.run([sys.executable, *script, "backbone=convnex"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "Unknown backbone 'convnex'. Did you mean 'convnext'" in done.stderr


def test_profile_is_a_module_too(tmp_path):
    done = subprocess.run([sys.executable, "-m", "spine.profile", "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "python -m spine.profile backbone=all" in done.stdout
