"""sweep=optuna: search space, objectives, the study and its resume, pruning, and plots."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from command_line import run_command
from omegaconf import OmegaConf
from optuna.trial import TrialState

from spine.config import resolving
from spine.config.objectives import objectives
from spine.config.overrides import quote_for_hydra
from spine.config.search_space import Choices, Range, override_text, read_space
from spine.config.trials import Trials
from spine.errors import InputError
from spine.reporting.study_plots import draw_study
from spine.training.pruning import PruneTrial
from spine.training.study import check_installed, create_study

ROOT = Path(__file__).parents[1]
CLS = {"task": {"_target_": "spine.tasks.cls.task.Classification"}}
MAE = {"task": {"_target_": "spine.tasks.mae.task.MaskedAutoencoding"}}


# Search space


def test_keys_are_dotted_or_nested_and_values_are_lists_or_ranges():
    space = read_space(
        {
            "optimizer.lr": {"low": 1e-5, "high": 1e-2, "log": True},
            "head": {"channels": {"low": 64, "high": 256, "step": 64}},
            "backbone": ["vit", "swin"],
            "image_size": [[64, 64], [96, 96]],
            "seed": None,
        }
    )
    assert space == {
        "optimizer.lr": Range(1e-5, 1e-2, log=True),
        "head.channels": Range(64, 256, 64),
        "backbone": Choices(("vit", "swin")),
        "image_size": Choices(("[64,64]", "[96,96]")),
    }
    assert space["head.channels"].whole and not space["optimizer.lr"].whole


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0.1, "x is 0.1; it must be a list of values"),
        ("vit", "x is 'vit'; it must be a list"),
        ([], "at least one"),
        ([1, 1], "different values"),
        ({"low": 1, "hihg": 2}, "Did you mean 'high'"),
        ({"low": 1}, "x.high is null; it must be a number"),
        ({"low": "a", "high": 2}, "x.low is 'a'; it must be a number"),
        ({"low": 2, "high": 1}, "low must be smaller than high"),
        ({"low": 0, "high": 1, "log": True}, "numbers above 0 only"),
        ({"low": 0, "high": 1, "log": "yes"}, "x.log is 'yes'; it must be true or false"),
        ({"low": 0, "high": 1, "step": 2}, "x.step is 2; it must be above 0 and at most 1"),
        ({"low": 1, "high": 9, "step": 2, "log": True}, "Use one of them"),
    ],
)
def test_mistakes_in_the_space_are_reported(value, message):
    with pytest.raises(InputError, match=message.replace(".", r"\.")):
        read_space({"x": value})


def test_an_empty_space_and_a_key_that_is_given_twice_are_mistakes():
    with pytest.raises(InputError, match="The search space is empty"):
        read_space({"seed": None})
    with pytest.raises(InputError, match="has a.b twice"):
        read_space({"a.b": [1, 2], "a": {"b": [1, 2]}})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"), (True, "true"), (0.1, "0.1"), ("vit", "vit"), ("true", '"true"'), ("a b", '"a b"'), ("", '""'), ("1e3", '"1e3"'),
        ([1, "a"], "[1,a]"), ({"train": 4}, "{train:4}"), ("images/x.png", "images/x.png"),
    ],
)  # fmt: skip
def test_values_are_written_as_hydra_reads_them(value, text):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    assert override_text(value) == text
    assert OverridesParser.create().parse_override(f"x={text}").value() == value


def test_a_key_of_the_space_may_have_dots_on_the_command_line():
    assert quote_for_hydra(["sweep.space.optimizer.lr={low: 1, high: 2}"]) == ["++sweep.space={optimizer.lr: {low: 1, high: 2}}"]
    assert quote_for_hydra(["sweep.trials=3"]) == ["sweep.trials=3"]


@pytest.mark.parametrize(
    ("changes", "same"),
    [({"trials": 50}, True), ({"parallel_trials": 4}, True), ({"space": {"seed": [1, 3]}}, False), ({"seed": 1}, False)],
)
def test_the_folder_depends_on_the_space_and_not_on_the_number_of_trials(monkeypatch, changes, same):
    monkeypatch.setattr(sys, "argv", ["train.py", "sweep=optuna"])
    sweep = {"space": {"seed": [1, 2]}, "trials": 20, "seed": 0, "sampler": "tpe", "objectives": None, "pruner": None}
    names = [resolving.sweep_id(_root_=OmegaConf.create({"sweep": {**sweep, **more}})) for more in ({}, changes)]
    assert (names[0] == names[1]) == same and names[0].startswith("seed_")


# Objectives


@pytest.mark.parametrize(
    ("config", "given", "expected"),
    [
        (CLS, None, {"val/top1": "max"}),
        (MAE, None, {"val/loss": "min"}),
        (CLS, ["val/loss"], {"val/loss": "min"}),
        (CLS, ["val/top1", "latency_ms"], {"val/top1": "max", "latency_ms": "min"}),
        (CLS, {"val/top5": "max"}, {"val/top5": "max"}),
    ],
)
def test_objectives_have_the_direction_of_the_task(config, given, expected):
    assert objectives({**config, "sweep": {"objectives": given}}) == expected


@pytest.mark.parametrize(
    ("config", "given", "message"),
    [
        (CLS, ["val/top5"], "Give its direction"),
        (CLS, {"val/loss": "max"}, "val/loss: max, but min is better"),
        (CLS, [], "is empty"),
        (MAE, ["latency_ms"], "takes masked images"),
    ],
)
def test_a_direction_is_never_guessed_or_reversed(config, given, message):
    with pytest.raises(InputError, match=message):
        objectives({**config, "sweep": {"objectives": given}})


def test_a_pruner_needs_one_metric_of_validation():
    for given in (["val/top1", "val/loss"], ["latency_ms"]):
        with pytest.raises(InputError, match="sweep.pruner needs exactly one objective"):
            objectives({**CLS, "sweep": {"objectives": given, "pruner": "median"}})


# The study


class Sweep:
    """A sweep whose runs are written by the test."""

    def __init__(self, folder, names=("val/loss",), sampler="tpe"):
        check_installed()
        self.folder = folder
        self.space = {"lr": Range(1e-5, 1e-2, log=True), "backbone": Choices(("vit", "swin"))}
        self.names, self.sampler = names, sampler
        self.restart()

    def restart(self):
        """Does what a new command does."""
        study = create_study(self.folder, ["minimize"] * len(self.names))
        self.trials = Trials(study, self.space, self.names, (self.sampler, 0), self.compose)

    @staticmethod
    def compose(values):
        return [f"{key}={value}" for key, value in values.items()], Path("_".join(values.values()))

    def end(self, trial, **files):
        folder = self.folder / trial.folder
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            (folder / name.replace("_", ".")).write_text(json.dumps(content))
        self.trials.tell(trial, self.folder)

    def finish(self, trial, value=None):
        value = float(trial.overrides[0].partition("=")[2]) if value is None else value
        metrics = {"val/loss": value, "val/top1": 0.5}
        results = {"metrics": metrics, "monitor": "val/top1", "mode": "max", "seconds": 1.0, "costs": {"latency_ms": 3.0}}
        self.end(trial, metrics_json=results)

    def states(self):
        return [trial.state for trial in self.trials.study.get_trials(deepcopy=False)]

    def values(self):
        return [(trial.params["lr"], trial.params["backbone"]) for trial in self.trials.study.get_trials(deepcopy=False)]


@pytest.mark.parametrize("sampler", ["tpe", pytest.param("random", marks=pytest.mark.slow), "nsga2"])
def test_a_killed_study_repeats_the_trial_that_ran_and_goes_on_as_if_it_had_not_been_killed(tmp_path, sampler):
    studies = []
    for name, kills in (("whole", False), ("killed", True)):
        (tmp_path / name).mkdir()
        sweep = Sweep(tmp_path / name, sampler=sampler)
        while batch := sweep.trials.next_batch(1, 14):
            if kills and batch[0].number in (3, 12):
                sweep.restart()
                assert sweep.trials.next_batch(1, 14) == batch  # the same trial in the same folder
            sweep.finish(batch[0])
        studies.append(sweep.values())
    assert studies[0] == studies[1] and len(set(studies[0])) == 14


def test_finished_trials_are_counted_and_more_can_follow(tmp_path):
    sweep = Sweep(tmp_path)
    for trial in sweep.trials.next_batch(2, 2):
        sweep.finish(trial)
    assert sweep.trials.next_batch(2, 2) == []
    sweep.restart()
    assert [trial.number for trial in sweep.trials.next_batch(4, 3)] == [2]


def test_a_failed_trial_does_not_stop_the_study_and_the_next_command_repeats_it(tmp_path):
    sweep = Sweep(tmp_path)
    (first,) = sweep.trials.next_batch(1, 2)
    (tmp_path / first.folder).mkdir()
    (tmp_path / first.folder / "error.txt").write_text("out of memory")
    sweep.trials.tell(first, tmp_path)
    (second,) = sweep.trials.next_batch(1, 2)
    sweep.finish(second)
    assert sweep.trials.next_batch(1, 2) == [] and sweep.states() == [TrialState.FAIL, TrialState.COMPLETE]
    sweep.restart()
    (repeated,) = sweep.trials.next_batch(1, 2)
    assert repeated.overrides == first.overrides and repeated.folder == first.folder
    sweep.finish(repeated)
    sweep.restart()
    assert sweep.trials.next_batch(1, 2) == []


def test_a_value_that_is_not_finite_is_a_failure_and_a_stopped_run_stays_running(tmp_path):
    sweep = Sweep(tmp_path)
    one, two, three = sweep.trials.next_batch(3, 3)
    sweep.finish(one, float("nan"))
    sweep.end(two, stopped_json={"epoch": 2})
    sweep.end(three, pruned_json={"epoch": 1, "metrics": {}, "monitor": "val/loss", "mode": "min"})
    assert sweep.states() == [TrialState.FAIL, TrialState.RUNNING, TrialState.PRUNED]


def test_an_objective_that_was_not_measured_names_the_measured_ones(tmp_path):
    sweep = Sweep(tmp_path, names=("val/lss",))
    with pytest.raises(InputError, match=r"'val/lss' was not measured. Choices: latency_ms, val/loss, val/top1"):
        sweep.finish(sweep.trials.next_batch(1, 1)[0])


def test_the_summary_names_the_best_trial_or_the_pareto_front(tmp_path):
    sweep = Sweep(tmp_path, names=("val/loss", "latency_ms"))
    for trial, loss in zip(sweep.trials.next_batch(2, 2), (0.2, 0.1), strict=True):
        sweep.finish(trial, loss)
    (line,) = sweep.trials.summary()
    assert line.startswith("Pareto-optimal trial 1: val/loss 0.1  latency_ms 3  with lr=")


# Pruning


class Trainer:
    sanity_checking, should_stop, is_global_zero, current_epoch = False, False, True, 0

    def __init__(self, value):
        self.callback_metrics = {"val/loss": value}
        self.state = type("State", (), {"fn": "fit"})
        self.strategy = type("Strategy", (), {"broadcast": staticmethod(lambda value: value)})


def test_a_trial_that_is_worse_than_the_others_is_pruned_also_after_a_resume(tmp_path):
    sweep = Sweep(tmp_path)
    for number in range(5):
        (trial,) = sweep.trials.next_batch(1, 9)
        (tmp_path / trial.folder).mkdir()
        callback = PruneTrial(tmp_path / trial.folder, "val/loss", "median", epochs=3)
        trainer = Trainer(float(number))
        if number == 4:
            callback.on_validation_end(trainer, None)
            callback = PruneTrial(tmp_path / trial.folder, "val/loss", "median", epochs=3)  # the run is resumed in this epoch
        callback.on_validation_end(trainer, None)
        assert trainer.should_stop == (number == 4) and callback.pruned_epoch == (1 if number == 4 else None)
        if number < 4:
            sweep.finish(trial, float(number))
    assert len(sweep.trials.study.get_trials()[-1].intermediate_values) == 1


def test_only_trials_of_a_study_are_pruned(tmp_path):
    Sweep(tmp_path)
    callback = PruneTrial(tmp_path / "other", "val/loss", "hyperband", epochs=3)
    trainer = Trainer(5.0)
    callback.on_validation_end(trainer, None)
    assert not trainer.should_stop


# Plots


@pytest.mark.parametrize("names", [("val/loss",), ("val/loss", "latency_ms")])
def test_a_study_is_drawn(tmp_path, names):
    sweep = Sweep(tmp_path, names=names)
    assert draw_study(sweep.trials.study, names, tmp_path) == []
    for number, trial in enumerate(sweep.trials.next_batch(5, 5)):
        sweep.finish(trial, 1 / (number + 1))
    drawn = {path.name for path in draw_study(sweep.trials.study, names, tmp_path)}
    assert drawn == {path.name for path in tmp_path.glob("study_*.png")}
    assert ("study_pareto.png" in drawn) == (len(names) == 2) and len(drawn) >= 3


# The command line

SMALL = (
    "dataset.length={train: 8, val: 4, test: 4}", "dataset.batch_size=4", "dataset.num_workers=0", "trainer.accelerator=cpu",
    "backbone=mobilenet_v2", "trainer.max_epochs=2",
)  # fmt: skip
LR = "sweep.space.optimizer.lr={low: 1e-4, high: 1e-2, log: true}"


def search(folder, *arguments):
    return run_command("train.py", "sweep=optuna", *SMALL, *arguments, folder=folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sweep.space.optimizer.lr={low: -1, high: 1}",), "optimizer.lr is -1; it must be a learning rate above 0"),
        (("sweep.space.optimizer.rl=[1,2]",), "Unknown key 'optimizer.rl'. Did you mean 'optimizer.lr'?"),
        (("sweep.space.task=[cls,sgg]",), "Unknown task 'sgg'. Did you mean 'seg'?"),
        ((LR, "optimizer.lr=0.1"), "optimizer.lr is in the search space and has a fixed value"),
        (("sweep.space.optimizer.lr=[0.1,",), "'sweep.space.optimizer.lr=[0.1,' cannot be read"),
        ((LR, "sweep.sampler=cmaes"), "sweep.sampler is 'cmaes'; it must be tpe, random or nsga2"),
    ],
)
def test_mistakes_are_reported_before_the_first_trial(tmp_path, arguments, message):
    done = search(tmp_path, *arguments)
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not list(tmp_path.rglob("study.db"))


@pytest.mark.slow
def test_a_study_continues_prunes_and_ends_with_a_table(tmp_path):
    space = (LR, "sweep.objectives=[val/loss]", "sweep.pruner=median")
    first = search(tmp_path, *space, "sweep.trials=1")
    assert first.returncode == 0 and "1 run: 1 finished." in first.stdout, first.stderr
    (folder,) = tmp_path.glob("logs/train/multiruns/lr_*")
    study = optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder}/study.db")
    distribution = optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)
    for _ in range(4):  # better than any run can be
        study.add_trial(
            optuna.trial.create_trial(
                params={"optimizer.lr": 1e-3}, distributions={"optimizer.lr": distribution}, value=0.0,
                intermediate_values={1: 0.0, 2: 0.0}, user_attrs={"folder": "none"},
            )
        )  # fmt: skip
    second = search(tmp_path, *space, "sweep.trials=6")
    assert second.returncode == 0 and "2 runs: 1 finished, 1 pruned." in second.stdout, second.stderr
    assert "Pruned after epoch 1" in second.stdout and "epoch 2/2" not in second.stdout
    (pruned,) = folder.glob("*/pruned.json")
    assert json.loads(pruned.read_text())["epoch"] == 1 and not (pruned.parent / "metrics.json").exists()
    with (folder / "sweep.csv").open(newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["finished", "pruned"]
    assert list(tmp_path.glob("logs/train/multiruns/*")) == [folder] and (folder / "study_history.png").is_file()


@pytest.mark.slow
def test_parallel_trials_with_accuracy_against_latency(tmp_path):
    command = (  # a process of its own, because the workers of joblib end with their interpreter
        sys.executable, ROOT / "train.py", "sweep=optuna", *SMALL, "sweep.space.schedule=[cosine,poly]", LR, "sweep.trials=2",
        "sweep.objectives=[val/top1,latency_ms,parameters]", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2",
    )  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "2 runs: 2 finished." in done.stdout, done.stderr
    assert "is launching 2 jobs" in done.stdout
    costs = [json.loads(path.read_text())["costs"] for path in tmp_path.glob("logs/train/multiruns/*/*/metrics.json")]
    assert all(cost["latency_ms"] > 0 for cost in costs) and len(costs) == 2
