"""Writes docs/models/: one page for each system, from its docstring, the tables of variants and weights, and the experiments.

python tests/model_cards.py
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import torch
from test_paper_facts import CLASSIFIERS, count

import spine
from spine.checkpoints.published import weight_table_of
from spine.components import backbone_module, default_variant

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "models"
MICRO_SIZE = 64  # pixels: the size of the default data set
ALSO = {"vgg16": " and ParseNet"}  # systems whose backbone has another name
ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")
EXPERIMENT = re.compile(r"override /backbone: (\w+)")


def paper(backbone: str) -> tuple[str, str, str]:
    """Returns the name of a system, the line about its paper, and the text about its idea and differences."""
    source = (ROOT / "src/spine/backbones" / f"{backbone}.py").read_text()
    first, _, text = (ast.get_docstring(ast.parse(source)) or "").partition("\n\n")
    line, text = (ARXIV.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", part) for part in (" ".join(first.split()), text))
    return re.split(r":| \(", first)[0] + ALSO.get(backbone, ""), line, text


def rounded(number: float) -> str:
    return f"{number / 1e9:,.2f} G" if number >= 1e9 else f"{number / 1e6:,.2f} M"


def variants(backbone: str) -> list[str]:
    """Returns the rows of the table of variants: classifiers of 1000 classes."""
    rows = ["| `backbone.variant` | parameters | multiply-adds | pixels |", "|---|--:|--:|--:|"]
    sizes = {"micro": (*count(backbone, (MICRO_SIZE, MICRO_SIZE), variant="micro", num_outputs=1000), MICRO_SIZE)}
    default = default_variant(backbone)
    for name, (parameters, macs, size) in (sizes | CLASSIFIERS[backbone]).items():
        mark = " (default in Python)" if name == default else ""
        rows.append(f"| `{name}`{mark} | {rounded(parameters)} | {rounded(macs)} | {size} |")
    return rows


def weights(backbone: str) -> list[str]:
    """Returns the rows of the table of weights that can be downloaded by name."""
    rows = ["| variant | `backbone.weights` | pixels | license | published result |", "|---|---|--:|---|---|"]
    for variant, files in weight_table_of(backbone).items():
        for name, row in files.items():
            size = "x".join(map(str, row.image_size)) if isinstance(row.image_size, tuple) else row.image_size or ""
            rows.append(f"| `{variant}` | [`{name}`]({row.address}) | {size} | {row.license} | {row.metric} |")
    return rows


def experiments() -> dict[str, list[tuple[str, list[str]]]]:
    """Returns the names of the experiments of each backbone, with the comments at their heads."""
    texts = {path.stem: path.read_text() for path in sorted((ROOT / "conf/experiment").glob("*.yaml"))}
    found: dict[str, list[tuple[str, list[str]]]] = {}
    for name, text in texts.items():
        chosen, base = EXPERIMENT.search(text), text
        while chosen is None and (parent := re.search(r"^  - (\w+)$", base, re.MULTILINE)) and parent[1] in texts:
            base = texts[parent[1]]
            chosen = EXPERIMENT.search(base)
        head = [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")]
        found.setdefault(chosen[1] if chosen else "", []).append((name, head))
    return found


def result(head: list[str]) -> str:
    """Returns the sentences on results at the head of an experiment."""
    text = " ".join(line for line in head if not line.startswith(("python ", "@package")))
    found = re.search(r"((?:Published|Result|There is no published result).*?(?:[Nn]ot measured here\.|$))", text)
    return found[1] if found else "No result is recorded."


def comparison() -> dict[str, list[str]]:
    """Returns the row of each backbone in the comparison on Fashion-MNIST of docs/results.md."""
    text = (ROOT / "docs/results.md").read_text().partition("### Fourteen backbones in the same time")[2].partition("\n### ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")]
    return {row[0]: row for row in rows[1:]}


def card(backbone: str, recipes: list[tuple[str, list[str]]], measured: list[str]) -> str:
    """Returns the page of one backbone."""
    name, line, text = paper(backbone)
    systems = list(getattr(backbone_module(backbone), "SYSTEMS", {}))
    pairs = " and ".join(f"`head={head}`" for head in systems)
    lines = [
        f"# {name}",
        "",
        "<!-- Written by `python tests/model_cards.py`. -->",
        "",
        line,
        "",
        text,
        "",
        "```bash",
        f"python train.py backbone={backbone} task=cls",
        f"python train.py backbone={backbone} backbone.variant={default_variant(backbone)} task=seg",
        "```",
        "",
        "## Variants",
        "",
        "Classifiers of 1000 classes. Tests compare the exact numbers with those of the published networks.",
        "",
        *variants(backbone),
        "",
    ]
    if pairs:
        lines += [f"With {pairs}, it is a published network with its options: [heads](../heads.md#published-pairs).", ""]
    lines += ["## Weights", ""]
    table = weights(backbone)
    lines += [*table, ""] if len(table) > 2 else ["No weights can be downloaded by name.", ""]
    lines += [
        "Results are those of the publishers. Files of other publishers open by their path: [published weights](../weights.md).",
        "",
        "## Recipes",
        "",
        *([] if recipes else ["There is no experiment of this backbone.", ""]),
    ]
    if recipes:
        lines += ["| `experiment` | result |", "|---|---|", *(f"| `{key}` | {result(head)} |" for key, head in recipes), ""]
        lines += ["What was compared with the authors' code: [recipes](../recipes.md).", ""]
    lines += [
        "## Measured here",
        "",
        f"On Fashion-MNIST, after 7 minutes of training on one core: top-1 {measured[2]} on the test images (`micro`, "
        f"{measured[3]} M parameters, {measured[5]} images/s in training). The table of all backbones, with commands and hardware: "
        "[results](../results.md#fourteen-backbones-in-the-same-time).",
        "",
    ]
    return "\n".join(lines)


def index() -> str:
    """Returns the page that lists all systems."""
    lines = [
        "# Models",
        "",
        "<!-- Written by `python tests/model_cards.py`. -->",
        "",
        "Every backbone works with every task and with every head that fits the task. `micro` has less than one million parameters "
        "and is the default of the command line; the other variants are those of the papers.",
        "",
        "| system | `backbone` | variants | parameters | multiply-adds | weights by name |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for backbone in spine.list_backbones():
        sizes = CLASSIFIERS[backbone].values()
        names = sum(map(len, weight_table_of(backbone).values()))
        ranges = [
            f"{low} to {high}" if low != high else low
            for low, high in ((rounded(min(row[i] for row in sizes)), rounded(max(row[i] for row in sizes))) for i in range(2))
        ]
        lines.append(
            f"| [{paper(backbone)[0]}]({backbone}.md) | `{backbone}` | {len(sizes)} | {ranges[0]} | {ranges[1]} | {names} |"
        )
    lines += ["", "Classifiers of 1000 classes, at the image sizes of the papers. Without `micro`.", ""]
    return "\n".join(lines)


def pages() -> dict[str, str]:
    """Returns the content of each file in docs/models."""
    recipes, rows = experiments(), comparison()
    cards = {f"{name}.md": card(name, recipes.get(name, []), rows[name]) for name in spine.list_backbones()}
    return {"index.md": index(), **cards}


if __name__ == "__main__":
    torch.set_default_dtype(torch.float32)
    PAGES.mkdir(exist_ok=True)
    for file, text in pages().items():
        (PAGES / file).write_text(text)
