"""The documentation is right: commands compose, Python blocks run, pages of models are current, the site has no broken link."""

import html.parser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import docs_commands
import model_cards
import pytest
from docs_commands import PAGES, ROOT, Code, check, commands
from docs_files import prepare_files
from hydra import compose, initialize_config_dir

from spine import plugins

# Pages that are checked by default; CI checks all of them. A command takes 0.15 s; the blocks of other pages train or build a lot.
QUICK_COMMANDS = ("README.md", "docs/index.md", "docs/quickstart.md")
QUICK_BLOCKS = (
    "README.md",
    "docs/guides/keypoints.md",
    "docs/keypoints.md",
    "docs/pretraining.md",
    "docs/segmentation.md",
    "docs/tokenizers.md",
)
WRONG = {  # commands that are shown with their error message, or need a file that the page shows
    "python train.py backbone=convnex": "Could not find 'backbone/convnex'",
    "python train.py backbone.varient=tiny": "Could not override 'backbone.varient'",
    "python train.py trainer.max_epochs=abc": "trainer.max_epochs is 'abc'",
    "python train.py task=pose dataset=image_folder": "Task 'pose' reads keypoints",
    "python train.py experiment=lr_search": "Could not find 'experiment/lr_search'",
    "python train.py --config-dir my_conf experiment=my_experiment": "Could not find 'experiment/my_experiment'",
}


def page_name(page):
    return page.relative_to(ROOT).as_posix()


def marked(pages, quick):
    """Returns the pages as parameters; those that are not quick are slow."""
    return [page if page_name(page) in quick else pytest.param(page, marks=pytest.mark.slow) for page in pages]


@pytest.fixture(autouse=True)
def _plugins_of_pages(monkeypatch):
    """Plug-ins that a page adds are forgotten afterwards. Their folders are relative to the repository."""
    monkeypatch.setattr(plugins, "_added", {})
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    docs_commands.register_plugins()


@pytest.mark.parametrize("page", marked([page for page in PAGES if commands(page)], QUICK_COMMANDS), ids=page_name)
def test_commands_compose_and_fit(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for command in {command.text: command for command in commands(page)}.values():
        expected, message = WRONG.get(command.text), None
        try:
            check(command)
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
        if expected is None:
            assert message is None, f"{command}\n{message}"
        else:
            assert expected in str(message), command


def test_a_wrong_command_is_found():
    for text in (
        "python train.py task=seg head.chanels=3",
        "python train.py task=segg",
        "python -m spine.plan experiment=vgg16_imagenet1k",
        "python eval.py ckpt_path=best.ckpt tsk.flip_test=true",
        "python train.py -m backbone=vit,swinn",
        "pip install -e .[nothing]",
        "python benchmarks/nothing.py",
        "make nothing",
        "pyton train.py",
    ):
        with pytest.raises(Exception, match=r"."):
            check(Code("page", 1, text))


def test_the_experiment_on_the_page_of_sweeps_composes(tmp_path):
    page = (ROOT / "docs" / "sweeps.md").read_text()
    (text,) = re.findall(r"```yaml\n(# @package _global_.*?)```", page, re.DOTALL)
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "lr_search.yaml").write_text(text)
    docs_commands.check_spine("train", [f"hydra.searchpath=[file://{tmp_path}]", "experiment=lr_search"])


@pytest.mark.parametrize(
    "page", marked([page for page in PAGES if docs_commands.python_blocks(page)], QUICK_BLOCKS), ids=page_name
)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    """The blocks of a page run one after the other, on tiny files and networks (docs_files.SMALLER)."""
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "blocks"}
    files = prepare_files(page_name(page), tmp_path)
    for block in docs_commands.python_blocks(page):
        code = compile(files.smaller(block.text), f"{block.page}:{block.line}", "exec")
        if "import tritonclient" not in block.text:  # which asks a server
            exec(code, names)
        for name in [name for name in names if name.startswith("test_")]:
            test = names.pop(name)
            if test.__code__.co_argcount == 0:
                test()


@pytest.mark.slow
def test_pages_of_models_are_current():
    """`python tests/model_cards.py` writes them."""
    written = {path.name: path.read_text() for path in model_cards.PAGES.glob("*.md")}
    assert written == model_cards.pages()


def test_every_part_is_in_the_reference():
    reference = "".join(path.read_text() for path in (ROOT / "docs" / "reference").glob("*.md"))
    for folder in ("heads", "data/formats", "tasks"):
        for path in (ROOT / "src/spine" / folder).glob("[a-z]*"):
            module = f"spine.{folder.replace('/', '.')}.{path.stem}."
            assert path.name in ("base.py", "mean_loss.py", "protocols.py", "samples.py") or module in reference, module
    for name in re.findall(r'"(\w+)"', (ROOT / "src/spine/data/transforms/__init__.py").read_text().partition("__all__")[2]):
        assert name in ("Step", "resize") or f".{name}\n" in reference, name


def test_help_fits_on_a_screen_and_names_all_choices():
    with initialize_config_dir(str(docs_commands.CONF), version_base="1.3"):
        text = compose("train", return_hydra_config=True).hydra.help.template
    assert len(text.splitlines()) <= 40 and max(map(len, text.splitlines())) <= 100
    assert "Examples" in text
    for group in ("task", "backbone", "head", "dataset", "augment", "optimizer", "schedule", "protocol", "logger"):
        for path in (docs_commands.CONF / group).glob("[!_]*.yaml"):
            assert re.search(rf"\b{path.stem}\b", text), path.stem
    commands_shown = [line.split("   ")[0] for line in text.replace("$$", "$").splitlines() if line.startswith("  python")]
    assert len(commands_shown) == 6
    for line in commands_shown:
        check(Code("help", 1, line.strip()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("python train.py backbone=conv", "backbone=convnext"),
        ("python train.py task=seg trainer.max_ep", "trainer.max_epochs="),
        ("python eval.py spl", "split="),
        ("python predict.py sour", "source="),
    ],
)
def test_hydra_completes_choices_and_keys(line, expected):
    done = subprocess.run(
        [sys.executable, line.split()[1], "-sc", "query=bash"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line))},
    )
    assert expected in done.stdout.split(), done.stderr


class Links(html.parser.HTMLParser):
    """The links, images and anchors of a page."""

    def __init__(self, page: Path):
        super().__init__()
        self.targets: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(page.read_text())

    def handle_starttag(self, tag, attributes):
        for key, value in attributes:
            if key in ("href", "src") and value and tag in ("a", "img", "script", "link"):
                self.targets.add(value)
            elif key == "id" and value:
                self.anchors.add(value)


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_every_link_leads_somewhere(tmp_path):
    for name in ("mkdocs.yml", "mkdocs_docstrings.py", "docs", "src"):
        source = ROOT / name
        shutil.copytree(source, tmp_path / name) if source.is_dir() else shutil.copy(source, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--clean", "--strict"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / "site"
    pages = {page: Links(page) for page in site.rglob("*.html") if page.name != "404.html"}
    assert len(pages) == len(list((tmp_path / "docs").rglob("*.md")))
    for page, links in pages.items():
        for target in links.targets:
            link = urlsplit(target)
            if link.scheme or link.netloc:
                assert link.scheme in ("https", "http", "mailto") and page != site, target
                continue
            file = (page.parent / unquote(link.path)).resolve() if link.path else page
            file = file / "index.html" if file.is_dir() else file
            assert file.is_file(), f"{page.relative_to(site)}: {target}"
            if link.fragment and file in pages:
                assert unquote(link.fragment) in pages[file].anchors | {"__skip", "top"}, f"{page.relative_to(site)}: {target}"
