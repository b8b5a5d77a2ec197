"""The leaderboard of run folders."""

import csv
import json
import math
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from command_line import run_command
from PIL import Image

from spine.commands.leaderboard import leaderboard
from spine.errors import InputError
from spine.reporting.leaderboard.columns import duration, significant
from spine.reporting.leaderboard.page import MAX_POINTS, thin
from spine.reporting.leaderboard.pictures import MAX_WIDTH
from spine.reporting.leaderboard.ranking import make_groups, shortest_names
from spine.reporting.leaderboard.records import find_runs, flatten, part_name, read_run
from spine.reporting.leaderboard.seeds import seed_means

ROOT = Path(__file__).parents[1]
TARGETS = {"cls": "spine.tasks.cls.task.Classification", "seg": "spine.tasks.seg.task.Segmentation"}
COSTS = {
    "parameters": 2_500_000,
    "multiply_adds": 3e8,
    "images_per_s": 1234.5,
    "data_wait": 0.1,
    "peak_memory_mb": 900.0,
    "device": "CPU",
}


def run(folder, value=None, *, task="cls", backbone="vit", overrides=(), config=None, monitor="val/top1", mode="max", **files):
    """Writes a run folder. `value`: of the monitored metric; None: the run is not finished."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(
        "".join(f"- {override}\n" for override in (f"backbone={backbone}", *overrides))
    )
    content = {
        "task": {"_target_": TARGETS[task]},
        "dataset": {"_target_": "spine.data.formats.shapes.Shapes", "root": None},
        "backbone": {"_target_": f"spine.backbones.{backbone}.{backbone}"},
        "trainer": {"max_epochs": 2},
        **(config or {}),
    }
    (folder / "config.json").write_text(json.dumps(content))
    (folder / "metrics.csv").write_text("epoch,step,train/loss,val/top1\n0,9,2.0,0.3\n1,19,1.0,0.6\n")
    (folder / "starts.json").write_text(json.dumps({"starts": [{"time": "2026-11-25T10:00:00+00:00", "commit": "a" * 40}]}))
    if value is not None:
        metrics = {"val/loss": 0.5, monitor: value if math.isfinite(value) else None}
        results = {"metrics": metrics, "monitor": monitor, "mode": mode, "seconds": 65.0, "epochs": 2, "costs": COSTS}
        (folder / "metrics.json").write_text(json.dumps(results))
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def groups(folder, *options, **keywords):
    return make_groups([read_run(path) for path in find_runs([folder])], *options, **keywords)


def names(group):
    return [entry.name for entry in group.entries]


def test_the_best_run_is_first_and_runs_without_a_value_are_not_ranked(tmp_path):
    for name, value in (("a", 0.5), ("b", 0.9), ("c", math.nan), ("d", 0.5), ("e", 0.1)):
        run(tmp_path / name, value)
    (group,) = groups(tmp_path)
    assert names(group) == ["b", "a", "d", "e", "c"]
    assert [entry.rank for entry in group.entries] == [1, 2, 2, 4, None]


def test_a_smaller_loss_is_better(tmp_path):
    for name, value in (("a", 0.9), ("b", 0.2)):
        run(tmp_path / name, value, monitor="val/loss", mode="min")
    assert [names(group) for group in groups(tmp_path)] == [["b", "a"]]


def test_another_metric_sorts_in_its_own_direction(tmp_path):
    for name, top, loss in (("a", 0.9, 0.7), ("b", 0.8, 0.1)):
        folder = run(tmp_path / name, top)
        results = json.loads((folder / "metrics.json").read_text())
        results["metrics"]["val/loss"] = loss
        (folder / "metrics.json").write_text(json.dumps(results))
    assert names(groups(tmp_path)[0]) == ["a", "b"]
    assert names(groups(tmp_path, "val/loss")[0]) == ["b", "a"]
    assert names(groups(tmp_path, "val/loss", maximize=True)[0]) == ["a", "b"]


def test_runs_of_another_task_and_evaluations_have_their_own_tables(tmp_path):
    run(tmp_path / "train" / "a", 0.5)
    run(tmp_path / "train" / "b", 0.9)
    run(tmp_path / "train" / "c", 0.7, task="seg", monitor="val/mIoU")
    results = {"metrics": {"test/top1": 0.8}, "monitor": "test/top1", "mode": "max", "seconds": 1.0, "split": "test"}
    run(tmp_path / "eval" / "d", metrics_json=json.dumps(results))
    found = groups(tmp_path)
    assert found[0].title == "cls on shapes" and names(found[0]) == ["b", "a"]
    assert {group.title: names(group) for group in found[1:]} == {
        "seg on shapes": ["c"],
        "Evaluation of cls on shapes, test split": ["d"],
    }


def test_unfinished_runs_are_at_the_end_with_their_reason_and_best_value_so_far(tmp_path):
    run(tmp_path / "failed", error_txt="CUDA out of memory\n")
    run(tmp_path / "stopped", stopped_json='{"epoch": 2}')
    run(tmp_path / "killed")
    run(tmp_path / "finished", 0.1)
    (group,) = groups(tmp_path)
    assert names(group) == ["finished", "stopped", "killed", "failed"]
    by_name = {entry.name: entry for entry in group.entries}
    assert by_name["failed"].run.reason == "CUDA out of memory" and by_name["failed"].value == 0.6
    assert by_name["killed"].run.status == "interrupted" and "after 2 epochs" in by_name["killed"].run.reason
    assert all(by_name[name].rank is None for name in ("failed", "stopped", "killed"))


LOCK = """
import fcntl, sys, time
file = open(sys.argv[1], "a")
fcntl.lockf(file, fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(60)
"""


def test_a_run_whose_folder_is_locked_is_running(tmp_path):
    folder = run(tmp_path / "a")
    holder = subprocess.Popen([sys.executable, "-c", LOCK, folder / ".lock"], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "locked\n"
        record = read_run(folder)
        assert record.status == "running" and record.reason == "2 of 2 epochs are done"
    finally:
        holder.kill()
        holder.wait()
    assert read_run(folder).status == "interrupted"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("metrics.json", '{"metrics": {"val/top1": 0.5'),
        ("metrics.json", "[]"),
        ("metrics.json", '{"metrics": {"val/top1": "x"}, "monitor": "val/top1", "seconds": 1}'),
        ("metrics.json", '{"metrics": {}, "monitor": "val/top1", "seconds": 1, "costs": [1]}'),
        ("config.json", "{not json"),
        ("config.json", "[]"),
        ("config.json", "\x00\x01"),
    ],
)
def test_a_damaged_run_is_listed(tmp_path, capsys, file, content):
    run(tmp_path / "a", 0.5)
    (run(tmp_path / "b", 0.9) / file).write_text(content)
    leaderboard([str(tmp_path)])
    shown = capsys.readouterr().out
    assert "damaged" in shown and f"b damaged: {file} cannot be read" in shown


def test_a_half_written_metrics_file_leaves_the_results(tmp_path):
    folder = run(tmp_path / "a", 0.5, metrics_csv="epoch,step,val/top1\n0,9,0.3\n1,1x")
    record = read_run(folder)
    assert record.status == "finished" and record.metrics["val/top1"] == 0.5 and "metrics.csv cannot be read" in record.reason


def test_a_failed_run_without_config_json_belongs_to_the_task_of_its_hydra_configuration(tmp_path):
    folder = run(tmp_path / "a", error_txt="Unknown key\n")
    (folder / ".hydra" / "config.yaml").write_text((folder / "config.json").read_text().replace("null", '"${oc.env:HOME}"'))
    (folder / "config.json").unlink()
    assert read_run(folder).task == "cls" and read_run(folder).status == "failed"


def test_the_columns_are_the_keys_in_which_command_lines_differ(tmp_path):
    run(tmp_path / "a", 0.5, overrides=["optimizer.lr=0.1", "seed=0"], config={"optimizer": {"lr": 0.1}})
    run(tmp_path / "b", 0.9, backbone="swin", overrides=["seed=0"], config={"optimizer": {"lr": 0.002}})
    (group,) = groups(tmp_path)
    assert set(group.keys) == {"backbone", "optimizer.lr"}  # the default of the second run is in its configuration
    assert [entry.label for entry in group.entries] == ["swin", "vit"]  # as few keys as tell the runs apart


def test_spaces_and_keys_of_sweeps_and_loggers_make_no_columns(tmp_path):
    run(tmp_path / "a", 0.5, overrides=["'dataset.length={train: 64, val: 16}'", "sweep=optuna", "sweep.trials=4", "seed=0"])
    run(tmp_path / "b", 0.9, overrides=["'dataset.length={train:64,val:16}'", "logger=wandb", "seed=1"])
    (group,) = make_groups([read_run(folder) for folder in find_runs([tmp_path])])
    assert group.keys == ["seed"]


def test_without_command_lines_the_columns_are_keys_of_the_configuration(tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        folder = run(tmp_path / name, 0.5, config={"seed": seed})
        (folder / ".hydra" / "overrides.yaml").unlink()
    assert groups(tmp_path)[0].keys == ["seed"]


def test_runs_that_differ_in_their_seed_have_a_mean(tmp_path, capsys):
    for backbone, seed, value in (("vit", 0, 0.5), ("vit", 1, 0.7), ("swin", 0, 0.65)):
        run(tmp_path / f"{backbone}_{seed}", value, backbone=backbone, overrides=[f"seed={seed}"])
    run(tmp_path / "failed", backbone="vit", overrides=["seed=2"], error_txt="CUDA out of memory")
    (group,) = groups(tmp_path)
    swin, vit = seed_means(group)
    assert (swin.setting, swin.seeds, swin.mean) == (("swin",), 1, 0.65) and math.isnan(swin.deviation)
    assert vit.seeds == 2 and vit.mean == pytest.approx(0.6) and vit.deviation == pytest.approx(0.02**0.5)
    assert "Means over seeds" in page_of(tmp_path) and "Means over seeds" in capsys.readouterr().out


def test_without_repeated_settings_there_are_no_means(tmp_path):
    for backbone, seed in (("vit", 0), ("swin", 1)):
        run(tmp_path / backbone, 0.5, backbone=backbone, overrides=[f"seed={seed}"])
    assert seed_means(groups(tmp_path)[0]) == []


def test_files_are_written_with_unrounded_numbers(tmp_path):
    run(tmp_path / "a", 0.123456789, overrides=["seed=0"])
    run(tmp_path / "b", math.nan, overrides=["seed=1"])
    leaderboard([str(tmp_path), f"out={tmp_path / 'reports' / 'new'}"])
    with (tmp_path / "reports" / "new" / "leaderboard.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["val/top1"] == "0.123456789" and rows[0]["rank"] == "1" and rows[0]["seed"] == "0"
    assert rows[0]["parameters"] == "2500000" and rows[0]["images_per_s"] == "1234.5" and rows[0]["folder"] == str(tmp_path / "a")
    assert rows[1]["val/top1"] == "" and rows[1]["rank"] == "" and rows[1]["status"] == "finished"
    assert not list(tmp_path.rglob(".*.part"))


def test_the_table_is_not_cut_in_a_pipe(tmp_path, capsys):
    name = "a_very_long_name_of_a_run_" * 5
    run(tmp_path / name, 0.5, overrides=["dataset.transforms.train.some.long.key=[1,2,3]"])
    run(tmp_path / "b", 0.9, overrides=["dataset.transforms.train.some.long.key=[bold]"])
    leaderboard([str(tmp_path)])
    shown = capsys.readouterr().out
    assert name in shown and "dataset.transforms.train.some.long.key" in shown and "[bold]" in shown
    assert all(text in shown for text in ("0.9000", "2.50", "0.300", "1,230", "0:01:05"))


def page_of(folder, *arguments):
    leaderboard([str(folder), *arguments])
    return (folder / "leaderboard.html").read_text(encoding="utf-8")


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


HOSTILE = "</script><script>alert(1)</script><b>\"'&"


def test_texts_of_configurations_are_escaped(tmp_path):
    run(tmp_path / "a", 0.5, overrides=[f"'tags={HOSTILE}'".replace("'&", "''&")], config={"tags": HOSTILE})
    run(tmp_path / "b<i>", 0.9, error_txt=HOSTILE, config={"tags": "x"})
    page = page_of(tmp_path)
    assert "alert(1)</script>" not in page and "<b>" not in page and "b<i>" not in page
    configs = [each["config"]["tags"] for each in data_of(page)["runs"]]
    assert sorted(configs) == sorted([HOSTILE, "x"])


def test_the_page_needs_no_other_file_and_no_network(tmp_path):
    folder = run(tmp_path / "a", 0.5)
    (folder / "figures").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (1000, 2000, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "figures" / "val_confusion.png")
    (folder / "figures" / "val_damaged.png").write_text("not a picture")
    page = page_of(tmp_path)
    assert not re.findall(r'(?:src|href|url\()\s*=?\s*["\']?(?:https?:)?//', page)
    assert set(re.findall(r"https?://[^\s\"'<)]+", page)) <= {"http://www.w3.org/2000/svg"}  # a name, which is not fetched
    (record,) = data_of(page)["runs"]
    assert list(record["figures"]) == ["val_confusion"] and record["figures"]["val_confusion"].startswith(
        "data:image/webp;base64,"
    )
    assert record["originals"]["val_confusion"] == "a/figures/val_confusion.png"
    assert len(record["figures"]["val_confusion"]) < MAX_WIDTH * MAX_WIDTH


def test_the_table_of_the_page_is_there_without_javascript(tmp_path):
    run(tmp_path / "a", 0.5, overrides=["seed=7"])
    run(tmp_path / "b", error_txt="CUDA out of memory", overrides=["seed=8"])
    body = re.sub(r"<script.*?</script>", "", page_of(tmp_path), flags=re.S)
    assert all(text in body for text in ("0.5000", "2.50", "1,230", "CUDA out of memory", ">7<", ">8<"))


def test_the_page_has_curves_and_the_time_of_runs_that_were_started_once(tmp_path):
    run(tmp_path / "a", 0.5)
    twice = run(tmp_path / "b", 0.4)
    (twice / "starts.json").write_text(json.dumps({"starts": [{"time": "x", "commit": None}] * 2}))
    first, second = data_of(page_of(tmp_path))["runs"]
    assert first["history"]["val/top1"] == [[1, 2], [0.3, 0.6]]
    assert first["secondsPerEpoch"] == 32.5 and second["secondsPerEpoch"] is None


def test_equal_keys_are_stored_once(tmp_path):
    for i in range(3):
        run(tmp_path / str(i), 0.5, config={"seed": i, "same": "value"})
    data = data_of(page_of(tmp_path))
    assert data["common"]["same"] == "value" and all(list(each["config"]) == ["seed"] for each in data["runs"])


def test_long_curves_are_averaged_and_keep_gaps():
    xs, ys = thin([(float(i), float(i % 2)) for i in range(10 * MAX_POINTS)])
    assert len(xs) == MAX_POINTS and ys == [0.5] * MAX_POINTS
    assert thin([(1.0, math.nan), (2.0, 3.0)]) == [[1.0, 2.0], [None, 3.0]]


def test_folders_of_any_depth_are_found_once(tmp_path):
    run(tmp_path / "a" / "b" / "c", 0.5)
    (tmp_path / "a" / "b" / "c" / "checkpoints").mkdir()
    (tmp_path / "a" / "b" / "c" / "wandb" / "run").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c" / "wandb" / "run" / "config.json").write_text("{}")
    assert find_runs([tmp_path, tmp_path / "a", tmp_path / "a" / "b" / "c"]) == [tmp_path / "a" / "b" / "c"]


def test_several_folders_share_one_board_in_the_folder_that_holds_them(tmp_path):
    run(tmp_path / "one" / "a", 0.5)
    run(tmp_path / "two" / "a", 0.9)
    leaderboard([str(tmp_path / "one"), str(tmp_path / "two")])
    with (tmp_path / "leaderboard.csv").open(newline="") as file:
        assert [row["run"] for row in csv.DictReader(file)] == ["two/a", "one/a"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Which runs\\? Give one or more folders"),
        (["{}/nothing"], "There is no folder '.*nothing'"),
        (["{}/empty"], "There is no run in .*empty"),
        (["{}", "metrc=val/top1"], "Unknown key 'metrc'. Did you mean 'metric'"),
        (["{}", "metric=val/top2"], "No run has the metric 'val/top2'. Did you mean 'val/top1'"),
        (["{}", "metric="], "metric is empty"),
        (["{}", "mode=up"], "mode is 'up'; it must be max or min"),
        (["{}", "open=yes"], "open is 'yes'; it must be true or false"),
        (["{}", "out={}/file/below"], "cannot be written to .* Give another folder"),
    ],
)
def test_mistakes_are_reported(tmp_path, arguments, message):
    run(tmp_path / "a", 0.5)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=message):
        leaderboard([argument.format(tmp_path) for argument in arguments])


def test_a_folder_may_have_an_equals_sign_in_its_name(tmp_path, monkeypatch):
    run(tmp_path / "lr=0.1", 0.5)
    monkeypatch.chdir(tmp_path)
    leaderboard(["lr=0.1"])
    assert (tmp_path / "lr=0.1" / "leaderboard.html").is_file()


def test_numbers_and_names_are_short():
    assert [significant(n) for n in (0, 0.01524, 3.5, 999.6, 1234.5)] == ["0", "0.0152", "3.50", "1,000", "1,230"]
    assert duration(3725.4) == "1:02:05"
    assert shortest_names([Path("/x/one/a"), Path("/x/two/a"), Path("/x/two/b")]) == ["one/a", "two/a", "b"]
    assert part_name("spine.tasks.cls.task.Classification") == "cls" and part_name("spine.training.optimizers.adamw") == "adamw"
    assert dict(flatten({"a": {"b": [1, 2]}, "c": [{"d": None}], "e": {}})) == {"a.b": "[1, 2]", "c[0].d": "null", "e": "{}"}


def test_the_wheel_has_the_template_of_the_page(tmp_path):
    pytest.importorskip("hatchling")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path], cwd=ROOT, check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    files = {
        f"spine/reporting/leaderboard/templates/{path.name}"
        for path in (ROOT / "src/spine/reporting/leaderboard/templates").iterdir()
    }
    with zipfile.ZipFile(wheel) as archive:
        assert files <= set(archive.namelist()) and "spine/reporting/leaderboard/templates/page.html" in files


@pytest.mark.slow
def test_a_sweep_has_a_leaderboard(tmp_path):
    small = (
        "dataset.length={train: 8, val: 4, test: 4}", "dataset.batch_size=4", "dataset.num_workers=0", "trainer.max_epochs=2",
        "trainer.accelerator=cpu", "trainer.log_every_n_steps=1", "backbone=mobilenet_v2",
    )  # fmt: skip
    assert run_command("train.py", "-m", *small, "seed=0,1", folder=tmp_path).returncode == 0
    done = run_command("spine.leaderboard", "logs", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "cls on shapes: val/top1, higher is better" in done.stdout and "logs/leaderboard.html" in done.stdout
    runs = data_of((tmp_path / "logs" / "leaderboard.html").read_text())["runs"]
    assert [each["status"] for each in runs] == ["finished"] * 2 and {each["label"] for each in runs} == {"seed=0", "seed=1"}
    assert all({"val_confusion", "val_predictions"} <= set(each["figures"]) for each in runs)
    assert all(each["costs"]["images_per_s"] > 0 and len(each["history"]["val/top1"][0]) == 2 for each in runs)
    mistake = run_command("spine.leaderboard", "nothing", folder=tmp_path)
    assert (
        mistake.returncode == 1
        and mistake.stderr.startswith("There is no folder 'nothing'")
        and "Traceback" not in mistake.stderr
    )
