"""The notebook of docs/guides/notebooks.md: a plain Lightning Trainer, at most 20 lines."""

import json
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).parents[1]


def shown_code():
    text = (ROOT / "docs/guides/notebooks.md").read_text()
    return text.partition("<!-- notebook -->\n```python\n")[2].partition("```\n<!-- /notebook -->")[0]


def test_the_notebook_is_that_of_the_guide_and_short():
    notebook = json.loads((ROOT / "examples" / "convnext_on_a_folder.ipynb").read_text())
    (cell,) = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert "".join(cell["source"]) == shown_code().rstrip()
    lines = [line for line in shown_code().splitlines() if line]
    assert len(lines) <= 20 and max(map(len, lines)) <= 120


def test_the_notebook_trains_and_predicts(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for brightness, name in ((60, "dark"), (190, "light")):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                image = rng.integers(brightness - 40, brightness + 40, (40, 50, 3), np.uint8)
                cv2.imwrite(str(folder / f"{i}.png"), image)
    code = shown_code()
    small = {
        '"tiny"': '"micro"', ', weights="imagenet1k"': "", "(224, 224)": "(32, 32)", "batch_size=32": "batch_size=4, num_workers=0",
        "max_epochs=5": 'max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False',
    }  # fmt: skip
    for old, new in small.items():
        assert old in code
        code = code.replace(old, new)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code, names)
    assert sum(len(batch["label"]) for batch in names["predictions"]) == 4
    assert names["task"].labels.classes == ("dark", "light")
