"""The report of a run."""

import csv
import json
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from browser import BROWSER, open_page
from PIL import Image
from test_configs import trained
from test_leaderboard import HOSTILE, data_of, run
from tokenizer_file import for_task

from spine.command_lines import sibling_command
from spine.commands.report import report
from spine.components import modules
from spine.errors import InputError
from spine.reporting.confusions import confusion_file, confusion_rows
from spine.reporting.report import pictures
from spine.reporting.report.classes import read_classes, read_confusion
from spine.reporting.report.origin import next_commands
from spine.reporting.report.page import write_report
from spine.reporting.tables import write_rows
from spine.training import run_report
from spine.training.run_report import RunReport, write_quietly

TINY = (
    "dataset.length={train: 16, val: 8, test: 4}", "dataset.batch_size=8", "dataset.num_workers=0", "trainer.max_epochs=2",
    "trainer.accelerator=cpu", "trainer.log_every_n_steps=1",
)  # fmt: skip
COUNTS = np.array([[8, 2, 0], [0, 5, 0], [0, 0, 0]])
needs_browser = pytest.mark.skipif(BROWSER is None, reason="there is no browser on this machine")


def finished(folder, **options):
    """Writes the folder of a finished run with everything that a report shows."""
    run(folder, 0.123456789, **options)
    (folder / "changes.json").write_text(json.dumps({"choices": {"task": "cls"}, "values": {"optimizer.lr": ["0.002", "0.1"]}}))
    (folder / "weights.txt").write_text("matched backbone.stem.weight\nnew head.weight\nunused classifier.bias\n")
    write_rows(confusion_file(folder, "val"), confusion_rows(COUNTS, ("cat", "dog", "cow")))
    rows = [("class", "images", "accuracy"), ("cat", 10, 0.8), ("dog", 5, 1.0), ("cow", 0, "")]
    (folder / "val_classes.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    start = {
        "time": "2026-11-25T10:00:00+00:00", "commit": "a" * 40, "command": "python train.py optimizer.lr=0.1", "device": "a CPU",
        "processes": 1, "versions": {"torch": "2.13"}, "seeds": {"seed": 0}, "weights": "net.pth",
    }  # fmt: skip
    (folder / "starts.json").write_text(json.dumps({"starts": [start]}))
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "best.ckpt").touch()
    (folder / "figures").mkdir()
    for name in ("predictions", "worst_predictions", "best_predictions", "confusion", "calibration"):
        Image.new("RGB", (60, 40), "red").save(folder / "figures" / f"val_{name}.png")
    for kind in ("worst", "best"):
        (folder / "figures" / f"val_{kind}_samples.csv").write_text(
            "loss,index,prediction,truth,file\n2.5,7,cat (90%),dog,a/b.jpg\n"
        )
    return folder


def page_of(folder, **options):
    return write_report(folder, **options).read_text(encoding="utf-8")


def shown_metrics(page):
    """The metrics of a page: name -> (value, text)."""
    return {
        name: (float(value), text)
        for name, value, text in re.findall(r'data-metric="([^"]+)" data-value="([^"]+)">([^<]+)<', page)
    }


def visible(page):
    """The texts of a page without scripts, styles and tags."""
    body = re.sub(r"<(script|style).*?</\1>", "", page, flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


def test_the_numbers_of_the_report_are_those_of_the_files(tmp_path):
    folder = finished(tmp_path / "a")
    page = page_of(folder)
    results = json.loads((folder / "metrics.json").read_text())["metrics"]
    assert shown_metrics(page) == {name: (value, f"{value:.4f}") for name, value in results.items()}
    assert next(iter(shown_metrics(page))) == "val/top1"  # the metric that selects the best checkpoint
    text = visible(page)
    assert all(each in text for each in ("0:01:05", "1,230", "10.0%", "2.50 M", "0.300 G", "900 MB"))
    loss, top = ({line["label"]: line["points"] for line in panel["lines"]} for panel in data_of(page)["panels"][::-1])
    assert loss == {"train": [[1, 2], [2.0, 1.0]]} and top == {"val": [[1, 2], [0.3, 0.6]]}


def test_the_report_has_pictures_tables_configuration_weights_and_commands(tmp_path):
    folder = finished(tmp_path / "a")
    page = page_of(folder)
    text = visible(page)
    assert page.count('src="data:image/webp;base64,') == 4  # the confusion matrix is a table
    assert text.index("highest losses") < text.index("lowest losses") < text.index("Confusion matrix") < text.index("Classes")
    assert "2.5 7 cat (90%) dog a/b.jpg" in text and "cat dog 20.0% 2" in text
    assert text.index("optimizer.lr 0.1 0.002") < text.index("All ")  # differences from the defaults come first
    assert "1 tensor new, randomly initialized" in text and "net.pth" in text and "a CPU" in text
    checkpoint = f"ckpt_path={folder}/checkpoints/best.ckpt"
    assert f"python train.py rerun={folder}" in text and f"python eval.py {checkpoint}" in text
    assert f"python predict.py {checkpoint} source=" in text and f"python export.py {checkpoint} format=onnx out=" in text


def test_the_report_of_an_evaluation_names_its_split_and_checkpoint_and_has_no_curves(tmp_path):
    results = {
        "metrics": {"test/top1": 0.8}, "monitor": "test/top1", "mode": "max", "seconds": 1.0, "split": "test", "checkpoint": "a/best.ckpt"
    }  # fmt: skip
    page = page_of(run(tmp_path / "a", metrics_json=json.dumps(results)))
    assert shown_metrics(page) == {"test/top1": (0.8, "0.8000")} and "Of a/best.ckpt on the test split" in visible(page)
    assert 'id="curves"' not in page and "defaults of this run" not in page


@pytest.mark.parametrize(
    ("files", "status", "notice"),
    [
        ({"error_txt": "CUDA out of memory"}, "failed", "CUDA out of memory"),
        ({"stopped_json": '{"epoch": 2}'}, "stopped", "in epoch 2"),
        ({"metrics_json": '{"metrics": '}, "damaged", "metrics.json cannot be read"),
    ],
)
def test_a_run_that_is_not_finished_has_a_report_with_the_reason(tmp_path, files, status, notice):
    text = visible(page_of(run(tmp_path / "a", **files)))
    assert status in text and notice in text and "0.6000" in text  # the last value in metrics.csv


def test_the_report_of_a_running_training_shows_where_it_is_and_loads_itself_again(tmp_path):
    folder = run(tmp_path / "a")
    page = page_of(folder, running=True, progress="epoch 2/5, step 20, 0:01:00 left")
    assert '<meta http-equiv="refresh"' in page and "0:01:00 left" in page and "best value so far" not in visible(page)
    start = {"time": "x", "command": "python train.py", "monitor": "val/top1", "mode": "max"}
    (folder / "starts.json").write_text(json.dumps({"starts": [start]}))
    assert "best value so far" in visible(page_of(folder, running=True))
    assert '<meta http-equiv="refresh"' not in page_of(folder, running=False)


def test_the_report_needs_no_other_file_and_stays_small(tmp_path, monkeypatch):
    folder = finished(tmp_path / "a")
    pixels = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    for i in range(4):
        Image.fromarray(pixels).save(folder / "figures" / f"val_noise{i}.png")
    monkeypatch.setattr(pictures, "MAX_BYTES", 150_000)
    page = page_of(folder)
    assert len(page) < 350_000 and "There is no room" in page and 'href="figures/val_noise' in page
    assert not re.findall(r'\ssrc="(?!data:)|url\((?!data:)', re.sub(r"<script.*?</script>", "", page, flags=re.S))
    assert pictures.MAX_WIDTH >= 1200 and "default-src 'none'" in page


def test_texts_of_a_run_are_escaped(tmp_path):
    folder = finished(tmp_path / "b<i>", config={"tags": HOSTILE})
    (folder / "val_classes.csv").write_text('class,images,accuracy\n"</script><script>alert(1)</script>",1,0.5\n')
    page = page_of(folder)
    assert "alert(1)</script>" not in page and "b<i>" not in page and "&lt;script&gt;alert(1)" in page


def test_a_confusion_matrix_is_stored_without_its_zeros(tmp_path):
    path = confusion_file(tmp_path, "val")
    write_rows(path, confusion_rows(COUNTS, ("cat", "dog", "cow")))
    assert len(path.read_text().splitlines()) == 1 + 4  # the diagonal names all classes
    matrix = read_confusion(tmp_path, "val")
    assert matrix.classes == ["cat", "dog", "cow"]
    assert [[cell.count for cell in row] for row in matrix.rows] == COUNTS.tolist()
    assert [(each.truth, each.prediction, each.count, each.fraction) for each in matrix.most] == [("cat", "dog", 2, 0.2)]
    assert read_confusion(tmp_path, "test") is None


def test_the_least_accurate_class_is_first_and_classes_without_a_value_are_last(tmp_path):
    (tmp_path / "val_classes.csv").write_text("keypoint,labeled,PCK,pixels\nnose,4,0.9,2.5\neye,0,,\near,3,0.25,11.0\n")
    table = read_classes(tmp_path, "val")
    assert table.title == "Keypoints" and [row[0].text for row in table.rows] == ["ear", "nose", "eye"]
    assert [cell.text for cell in table.rows[0]] == ["ear", "3", "0.2500", "11.00"] and table.rows[0][2].share == 0.25


def test_commands_are_started_as_the_run_was(tmp_path):
    assert sibling_command("python train.py a=1", "eval", "b=2") == "python eval.py b=2"
    assert sibling_command("python '/a b/train.py'", "eval", "b=2") == "python '/a b/eval.py' b=2"
    assert sibling_command("spine train a=1", "eval", "b=2") == "spine eval b=2"
    commands = next_commands(tmp_path / "a b=1" / "best.ckpt", "python train.py")
    assert commands["evaluate"] == f"""python eval.py 'ckpt_path="{tmp_path}/a b=1/best.ckpt"'"""


# While training


class Clock:
    """Replaces `time` in a module."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


def test_a_running_training_writes_seldom_and_only_on_the_first_process(tmp_path, monkeypatch):
    clock, written = Clock(), []
    monkeypatch.setattr(run_report, "time", clock)

    def write(folder, running, progress):
        written.append(clock.now)
        clock.now += 3.0  # seconds that writing takes

    monkeypatch.setattr(run_report, "write_quietly", write)
    progress = SimpleNamespace(position=lambda trainer: "")
    callback = RunReport(tmp_path, 1.0, SimpleNamespace(save=lambda: None), progress)
    first, second = SimpleNamespace(is_global_zero=True), SimpleNamespace(is_global_zero=False)
    callback.on_train_start(first, None)
    for clock.now in (59.0, 61.0, 200.0, 363.0, 365.0):
        callback.on_train_batch_end(second, None, None, None, 0)
        callback.on_train_batch_end(first, None, None, None, 0)
    assert written == [61.0, 365.0]  # one percent of the time at most: 3 of 300 seconds


def test_a_report_that_cannot_be_written_does_not_end_a_run(tmp_path, caplog):
    (finished(tmp_path / "a") / "report.html").mkdir()
    caplog.set_level("WARNING")
    write_quietly(tmp_path / "a")
    assert "report.html could not be written" in caplog.text


LOCKED = """
import sys
from pathlib import Path
from spine.errors import InputError
from spine.training.run_folder import RunFolder
try:
    with RunFolder(Path(sys.argv[1])).locked():
        print("free")
except InputError:
    print("locked")
"""


def test_writing_its_report_does_not_release_the_lock_of_a_run(tmp_path):
    from spine.training.run_folder import RunFolder

    folder = RunFolder(run(tmp_path / "a"))
    with folder.locked():
        write_quietly(folder.path, running=True)
        other = subprocess.run([sys.executable, "-c", LOCKED, folder.path], capture_output=True, text=True, check=True)
    assert other.stdout == "locked\n" and (folder.path / "report.html").is_file()


# The command


def test_the_command_writes_the_reports_of_all_runs_in_a_folder(tmp_path, capsys):
    for name in ("a", "b"):
        (finished(tmp_path / "sweep" / name) / "changes.json").unlink()
    report([str(tmp_path / "sweep")])
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "sweep" / name / "report.html") for name in ("a", "b")]
    text = visible((tmp_path / "sweep" / "a" / "report.html").read_text())
    assert "optimizer.lr 0.1 0.002" in text  # from the command line in starts.json


def test_a_command_of_another_version_leaves_the_defaults_out(tmp_path, caplog):
    folder = finished(tmp_path / "a")
    (folder / "changes.json").unlink()
    starts = (folder / "starts.json").read_text().replace("optimizer.lr=0.1", "no.such.key=1")
    (folder / "starts.json").write_text(starts)
    report([str(folder)])
    assert "the defaults are not known" in caplog.text
    assert "The defaults of this run are not known" in visible((folder / "report.html").read_text())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Which runs\\? Give one or more folders"),
        (["{}/nothing"], "There is no folder '.*nothing'"),
        (["{}/empty"], "There is no run in .*empty"),
        (["{}", "opn=true"], "Unknown key 'opn'. Did you mean 'open'"),
        (["{}", "open=yes"], "open is 'yes'; it must be true or false"),
    ],
)
def test_mistakes_are_reported(tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        report([argument.format(tmp_path) for argument in arguments])


# In a browser

LOOK = """
const area = find(".u-over").getBoundingClientRect();
const point = (x) => ({ clientX: area.left + x * area.width, clientY: area.top + 20, bubbles: true, button: 0, movementX: 1 });
const at = (type, x) => find(".u-over").dispatchEvent(new MouseEvent(type, point(x)));
find(".u-over").dispatchEvent(new PointerEvent("pointermove", point(0.98)));
at("mouseenter", 0.98);
at("mousemove", 0.98);
requestAnimationFrame(() => {
  document.body.dataset.tip = find("#tip").hidden ? "" : find("#tip").textContent;
  at("mousedown", 0.6);
  at("mousemove", 0.9);
  at("mouseup", 0.9);
  requestAnimationFrame(() => {
    document.body.dataset.zoomed = charts.every((chart) => chart.scales.x.min > 1.3) && !find("[data-zoom]").hidden;
    find("[data-zoom]").click();
    requestAnimationFrame(() => (document.body.dataset.whole = charts.every((chart) => chart.scales.x.min === 1)));
  });
});
find(".sortable thead th button").click();
document.body.dataset.sorted = findAll(".sortable tbody tr").map((row) => row.firstChild.textContent).join();
find("[data-enlarge]").click();
document.body.dataset.enlarged = find("#viewer").open && find("#viewer img").src.startsWith("data:");
document.body.dataset.wide = document.documentElement.scrollWidth > innerWidth;
"""


@needs_browser
@pytest.mark.slow
def test_a_report_opened_in_a_browser_shows_values_zooms_sorts_and_enlarges(tmp_path):
    folder = finished(tmp_path / "a")
    page, complaints = open_page(write_report(folder), LOOK)
    assert complaints == []
    found = dict(re.findall(r'data-(\w+)="([^"]*)"', re.search(r"<body[^>]*>", page)[0]))
    assert "top1, epoch 2" in found["tip"] and "0.6" in found["tip"]
    assert found["zoomed"] == found["whole"] == found["enlarged"] == "true" and found["wide"] == "false"
    assert found["sorted"] == "cat,cow,dog" or found["sorted"] == "dog,cow,cat"
    assert page.count("<canvas") == 2


@needs_browser
@pytest.mark.slow
def test_the_browser_reports_scripts_that_fail_and_files_that_do_not_load(tmp_path):
    path = write_report(finished(tmp_path / "a"))
    path.write_text(path.read_text().replace("<header>", '<img src="http://localhost:1/a.png"><header>'))
    _, complaints = open_page(path, "noSuchFunction();")
    assert len(complaints) == 2


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("task", list(modules("task")))
def test_the_report_of_every_task_opens_in_a_browser_with_the_numbers_of_its_files(tmp_path, task):
    backbone = ["backbone=vit"] if task in ("mae", "beit") else ["backbone=mobilenet_v2"] if task != "dvae" else []
    trained(tmp_path, *for_task(task), *backbone, *TINY)
    path = tmp_path / "report.html"
    page, complaints = open_page(path)
    assert complaints == [] and path.stat().st_size < 8_000_000
    results = json.loads((tmp_path / "metrics.json").read_text())
    measured = {name: value for name, value in results["metrics"].items() if name.count("/") < 2 and value is not None}
    assert {name: value for name, (value, _) in shown_metrics(page).items()} == measured
    panels = [panel["title"] for panel in data_of(page)["panels"] if panel["first"]]
    assert "loss" in panels and page.count("<canvas") == len(panels) and "There is no number yet" not in visible(page)
    text = visible(page)
    assert "Predictions" in text and "highest losses" in text and "lowest losses" in text
    with (tmp_path / "figures" / "val_worst_samples.csv").open(newline="") as file:
        assert all(f"{float(row['loss']):.4g}" in text for row in csv.DictReader(file))
    if task in ("cls", "seg"):
        assert 'class="matrix numbered"' in page and "Classes" in text
    if task == "pose":
        assert "Keypoints" in text
