"""`rerun=<run folder>` repeats a run and compares the two."""

import json

import pytest
from test_runs import call

from spine.checkpoints.run_checkpoint import read_checkpoint
from spine.config import rerun
from spine.errors import InputError
from spine.reporting.comparison import compare_runs, describe

pytestmark = pytest.mark.usefixtures("blank_figures")

SMALL = (
    "backbone=vit", "backbone.drop_path_rate=0.1", "dataset.length={train: 16, val: 4, test: 4}", "dataset.batch_size=4",
    "dataset.num_workers=0", "trainer.max_epochs=2", "trainer.accelerator=cpu", "trainer.log_every_n_steps=1",
)  # fmt: skip


def write_run(folder, losses, top1):
    folder.mkdir()
    rows = "".join(f"{step},0,{loss},{step * 7}\n" for step, loss in enumerate(losses))
    (folder / "metrics.csv").write_text(f"step,epoch,train/loss_step,train/images_per_s\n{rows}")
    (folder / "metrics.json").write_text(json.dumps({"metrics": {"val/top1": top1, "val/loss": None}}))
    return folder


def test_equal_runs_are_identical_apart_from_timings(tmp_path):
    one, other = write_run(tmp_path / "one", [0.5, "nan"], 0.3), write_run(tmp_path / "other", [0.5, "nan"], 0.3)
    text = (other / "metrics.csv").read_text()
    (other / "metrics.csv").write_text(text.replace(",7\n", ",8\n"))
    comparison = compare_runs(one, other)
    assert comparison == {"identical": True, "curves": {}, "results": {}}
    assert describe(comparison, "val/top1") == "The curves and results are identical bit for bit."


def test_the_first_difference_of_runs_is_described(tmp_path):
    one, other = write_run(tmp_path / "one", [0.5, 0.25, 0.1], 0.3), write_run(tmp_path / "other", [0.5, 0.251, 0.2, 0.1], 0.4)
    comparison = compare_runs(one, other)
    loss = comparison["curves"]["train/loss_step"]
    assert (loss["step"], loss["one"], loss["other"]) == (1, 0.25, 0.251) and loss["largest"] == 0.1
    assert describe(comparison, "val/top1") == (
        "1 curve differs, first train/loss_step in step 1: 0.25 and 0.251, at most 0.1 apart. "
        "1 result differs, such as val/top1: 0.3 and 0.4."
    )


def test_a_repetition_gets_a_new_folder_unless_it_is_unfinished_with_the_same_overrides(tmp_path):
    from omegaconf import OmegaConf

    root = OmegaConf.create({"hydra": {"overrides": {"task": ["rerun=run", "seed=1"]}}})
    folder = tmp_path / "run_rerun_1"
    assert rerun.rerun_folder(str(tmp_path / "run"), _root_=root) == str(folder)
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text("- rerun=run\n- seed=1\n")
    assert rerun.rerun_folder(str(tmp_path / "run/"), _root_=root) == str(folder)
    root.hydra.overrides.task = ["rerun=run", "seed=2"]
    assert rerun.rerun_folder(str(tmp_path / "run"), _root_=root) == str(tmp_path / "run_rerun_2")
    root.hydra.overrides.task = ["rerun=run", "seed=1"]
    (folder / "metrics.json").write_text("{}")
    assert rerun.rerun_folder(str(tmp_path / "run"), _root_=root) == str(tmp_path / "run_rerun_2")


@pytest.mark.parametrize(
    ("files", "arguments", "message"),
    [
        ({}, ["rerun="], "Which run?"),
        ({}, ["rerun=nothing"], "There is no folder 'nothing'"),
        ({}, ["rerun=."], "'.' is not the folder of a run"),
        ({"config.json": {}, "starts.json": {"starts": [{}]}}, ["rerun=."], "has no results yet: finish it"),
        ({}, ["-m", "rerun=.", "seed=1,2"], "leave out -m"),
        (
            {
                "config.json": {"backbone": {"_target_": "os.system"}},
                "starts.json": {"starts": [{}]},
                "metrics.json": {"metrics": {}},
            },
            ["rerun=."],
            "os.system",
        ),
        (
            {"config.json": {"hydra": {}}, "starts.json": {"starts": [{}]}, "metrics.json": {"metrics": {}}},
            ["rerun=."],
            "hydra",
        ),
    ],
)
def test_mistakes_and_untrusted_parts_have_a_message(tmp_path, monkeypatch, files, arguments, message):
    monkeypatch.chdir(tmp_path)
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        rerun.register_run(arguments)


@pytest.mark.slow
def test_a_repeated_run_has_the_same_loss_curve(tmp_path):
    call("train.py", "task=mae", "backbone=vit", *SMALL[2:], "trainer.max_epochs=1", folder=tmp_path)
    (weights,) = tmp_path.glob("logs/train/runs/*/checkpoints/best.ckpt")
    call("train.py", "task=cls", *SMALL, f"backbone.weights={weights}", "hydra.run.dir=first", folder=tmp_path)
    done = call("train.py", "rerun=first", folder=tmp_path)
    assert "The same as then: commit, uncommitted changes, versions, data, seeds, weights, tokenizer, machine." in done.stdout
    assert "The curves and results are identical bit for bit." in done.stdout
    again = tmp_path / "first_rerun_1"
    outcome = json.loads((again / "rerun.json").read_text())
    assert outcome["identical"] and outcome["overrides"] == [] and outcome["differences"] == {}
    starts = [json.loads((folder / "starts.json").read_text())["starts"][0] for folder in (tmp_path / "first", again)]
    assert starts[0]["weights_sha256"] == starts[1]["weights_sha256"] is not None
    configs = [read_checkpoint(folder / "checkpoints" / "last.ckpt")["config"] for folder in (tmp_path / "first", again)]
    assert {**configs[0], "logger": {}} == configs[1]
    done = call("train.py", "rerun=first", "seed=7", folder=tmp_path)
    assert "seeds (seed 0 → 7)" in done.stderr and "curves differ, first train/loss_step in step 0" in done.stdout
    done = call("train.py", "rerun=first", "optimizer.l=1", folder=tmp_path, ok=False)
    assert done.returncode == 1 and "Did you mean 'optimizer.lr'?" in done.stderr and "Traceback" not in done.stderr
