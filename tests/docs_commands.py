"""The commands and Python blocks in README.md and docs/, and checks of commands that run nothing.

A command is a line of a block of bash, or a line of another code block or code in the text that begins with a program of PROGRAMS.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from spine import plugins
from spine.config import checks, places, values
from spine.config.command_line import PluginConfigs
from spine.config.overrides import quote_for_hydra
from spine.config.resolving import to_plain

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^\s*```(\w*)$")
OPTIONAL = re.compile(r" \[([\w.]+=[^\[\]]*|[\w./]+=\[[^\]]*\])\]")  # of a synopsis: [out=plan.json]
PLACEHOLDER = re.compile(r"<[^<>\n]+>")
NUMBERS = {"samples": "1000", "devices": "2"}  # keys whose placeholders stand for numbers


@dataclass(frozen=True)
class Code:
    """A command or a Python block of a page."""

    page: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def commands(page: Path) -> list[Code]:
    """Returns all commands of a page."""
    name, text = page.relative_to(ROOT).as_posix(), page.read_text()
    found, outside = [], []
    lines = iter(enumerate(text.splitlines(), start=1))
    language = None
    for number, line in lines:
        if fence := FENCE.match(line):
            language = None if language is not None else fence[1]
            continue
        is_code = language in ("bash", "console") or (language is None and line.startswith("    "))
        stripped = line.strip()
        if is_code and (STARTS.match(stripped) or (language == "bash" and stripped and not stripped.startswith("#"))):
            whole = stripped.removeprefix("$ ")
            while whole.endswith("\\"):
                whole = f"{whole[:-1].rstrip()} {next(lines)[1].strip()}"
            found.append(Code(name, number, whole))
        elif language is None and not is_code:
            outside.append((number, line))
    return found + list(_inline(name, outside))


def python_blocks(page: Path) -> list[Code]:
    """Returns the Python blocks of a page."""
    text = page.read_text()
    name = page.relative_to(ROOT).as_posix()
    found = re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [Code(name, text[: match.start()].count("\n") + 2, match[1]) for match in found]


def _inline(page: str, lines: list[tuple[int, str]]) -> Iterator[Code]:
    """The commands in the text outside of code blocks. Code may go over the end of a line."""
    text = "\n".join(line for _, line in lines)
    for match in re.finditer(r"`([^`]+)`", text):
        if STARTS.match(match[1]) and " " in match[1]:
            yield Code(page, lines[text[: match.start()].count("\n")][0], " ".join(match[1].split()))


def check(command: Code) -> None:
    """Composes and checks a command without running it. Raises AssertionError or InputError if it would not work."""
    text = OPTIONAL.sub(r" \1", command.text).replace(" [<key>=<value> ...]", "").replace(" experiment=<name>", "")
    text = re.sub(r"(\w+)=<[^<>]+>", lambda match: f"{match[1]}={NUMBERS.get(match[1], 'placeholder')}", text)
    text = re.sub(r"\$\w+", "folder", PLACEHOLDER.sub("placeholder", text))
    for part in re.split(r" (?:&&|\|) ", text):
        words = shlex.split(part.partition(" > ")[0], comments=True)
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # variables of the environment
            words = words[1:]
        words = [word for word in words if word != "..."]
        program = next((name for name in PROGRAMS if re.fullmatch(name, words[0])), None)
        assert program is not None, f"{words[0]} is not in PROGRAMS"
        if words[1:] and "placeholder" not in words[1]:
            PROGRAMS[program](words[1:], words[0])


# ---- programs ----


def _python(arguments: list[str], program: str) -> None:
    if arguments[0] == "-m":
        module = arguments[1]
        assert importlib.util.find_spec(module) is not None, f"there is no module {module}"
        if module.startswith("spine."):
            check_spine(module.removeprefix("spine."), arguments[2:])
        return
    script = Path(arguments[0])
    assert (ROOT / script).is_file(), f"there is no file {script}"
    if script.parent == Path("."):
        check_spine(script.stem, arguments[1:])


def _spine(arguments: list[str], program: str) -> None:
    assert (ROOT / f"src/spine/commands/{arguments[0]}.py").is_file(), f"there is no command {arguments[0]}"
    check_spine(arguments[0], arguments[1:])


def _starts_train(arguments: list[str], program: str) -> None:
    """torchrun, srun and batch scripts: what follows train.py, or the script, are arguments of train.py."""
    scripts = [word for word in (program, *arguments) if word.endswith((".py", ".sh", ".sbatch"))]
    assert scripts and (ROOT / scripts[0]).is_file(), f"there is no file {scripts[:1]}"
    given = [program, *arguments]
    check_spine("train", given[given.index(scripts[0]) + 1 :])


def _pip(arguments: list[str], program: str) -> None:
    assert arguments[0] == "install"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for option, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if option == "-r":
            assert (ROOT / value).is_file(), f"there is no file {value}"
        if match := re.fullmatch(r"(?:\.|spine)\[([\w,]+)\]", option):
            assert set(match[1].split(",")) <= set(extras), f"there is no extra {match[1]}"


def _make(arguments: list[str], program: str) -> None:
    assert f"\n{arguments[0]}:" in (ROOT / "Makefile").read_text(), f"there is no target {arguments[0]}"


def _other(arguments: list[str], program: str) -> None:
    """Programs whose arguments are not spine's."""


PROGRAMS: dict[str, Callable[[list[str], str], None]] = {
    "python": _python,
    "spine": _spine,
    "torchrun|srun|sbatch|examples/.*": _starts_train,
    "pip": _pip,
    "make": _make,
    r"pytest|zensical|git|cd|\.|source|eval|wandb|tensorboard|docker|curl|ruff": _other,
}
STARTS = re.compile(rf"(?:\$ )?(?:[A-Z_]+=\S+ )*(?:{'|'.join(PROGRAMS)})(?: |$)")


# ---- spine's commands ----


def check_spine(name: str, arguments: list[str]) -> None:
    """Checks the arguments of a command of spine: names, keys, types, ranges, and whether task and data fit."""
    if not arguments or {"--help", "-sc"} & set(arguments):  # without arguments: the name of a command in the text
        return
    if not (CONF / f"{name}.yaml").is_file():  # commands without Hydra
        module = importlib.import_module(f"spine.commands.{name}")
        keys = {argument.partition("=")[0] for argument in arguments if "=" in argument}
        assert keys <= set(module.DEFAULTS if name == "profile" else module.KEYS), keys
    elif name in ("plan", "pack"):
        _check_config({key: value for key, value in _composed(name, arguments).items() if key not in _keys_of(name)}, arguments)
    elif name == "train":
        if not any(argument.startswith("rerun=") for argument in arguments):
            _check_config(_composed("train", arguments), arguments)
    elif name == "doctor":
        _composed("doctor", arguments)  # it needs no task that fits
    else:
        _check_on_checkpoint(name, arguments)


def _check_on_checkpoint(name: str, arguments: list[str]) -> None:
    """A command on a checkpoint, which may be of any task, or on published weights, with the keys of train.py."""
    if not any(argument.startswith("ckpt_path=") for argument in arguments):
        given = [argument for argument in arguments if argument.partition("=")[0] not in _keys_of(name)]
        return _check_config(_composed("train", given), given)
    errors = []
    for task, path in checkpoints().items():
        from spine.commands.eval import register_checkpoint

        register_checkpoint([f"ckpt_path={path}"])
        try:
            given = [f"ckpt_path={path}" if argument.startswith("ckpt_path=") else argument for argument in arguments]
            config = _composed(name, given)
            return _check_config({key: value for key, value in config.items() if key not in _keys_of(name)}, given)
        except Exception as error:
            errors.append(f"{task}: {error}")
    raise AssertionError("\n".join(errors))


@functools.cache
def _keys_of(name: str) -> set[str]:
    """The keys of a command that are not keys of train.py."""
    keys = set(re.findall(r"^(\w+):", (CONF / f"{name}.yaml").read_text(), re.MULTILINE))
    return keys - set(_composed("train", [])) - {"hydra", "defaults"}


@functools.cache
def checkpoints() -> dict[str, Path]:
    """Files with the configuration of each task, and without weights."""
    import atexit
    import shutil
    import tempfile

    import torch

    folder = Path(tempfile.mkdtemp(prefix="spine_docs_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    found = {}
    for task in ("cls", "seg", "pose", "mae", "dvae"):
        found[task] = folder / f"{task}.ckpt"
        torch.save({"config": _composed("train", [f"task={task}"]), "state_dict": {}}, found[task])
    return found


def _composed(name: str, arguments: list[str]) -> dict:
    given = _without_flags(arguments)
    plugins.from_command_line(given)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return to_plain(compose(name, list(_first_jobs(quote_for_hydra(given)))))


def _without_flags(arguments: list[str]) -> list[str]:
    """Returns the arguments without options of Hydra, some of which have a value."""
    rest, kept = iter(arguments), []
    for argument in rest:
        if argument in ("--cfg", "--config-dir", "--info"):
            next(rest)
        elif not argument.startswith("-"):
            kept.append(argument)
    return kept


def _first_jobs(arguments: list[str]) -> Iterator[str]:
    """The overrides of the first job of a sweep. Other choices of a group must exist."""
    for override in OverridesParser.create().parse_overrides(arguments):
        if not override.is_sweep_override():
            yield str(override.input_line)
            continue
        options = list(override.sweep_string_iterator()) if override.is_discrete_sweep() else [override.value().start]
        key = override.get_key_element()
        if (CONF / key).is_dir():
            assert all((CONF / key / f"{option}.yaml").is_file() for option in options), f"{key}={options}"
        yield f"{key}={options[0]}"


def _check_config(config: dict, arguments: list[str]) -> None:
    places.check_targets(config)
    values.check_values(config)
    if "task" in config and "dataset" in config:
        checks.check_data(config, with_files=False)
    if "backbone" in config:
        checks.check_network_options(config)


def register_plugins() -> None:
    """Lets Hydra find the yaml files of plug-ins."""
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    if PluginConfigs not in Plugins.instance().discover(SearchPathPlugin):
        Plugins.instance().register(PluginConfigs)


__all__ = ["PAGES", "ROOT", "Code", "check", "commands", "python_blocks", "register_plugins"]
