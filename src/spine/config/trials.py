"""The trials of a study of Optuna: which run next, and how they ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from spine.errors import InputError
from spine.reporting.sweeps import Job

if TYPE_CHECKING:
    from spine.config.search_space import Space

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
SAMPLERS = {
    "tpe": optuna.samplers.TPESampler,
    "random": optuna.samplers.RandomSampler,
    "nsga2": optuna.samplers.NSGAIISampler,
}


@dataclass(frozen=True)
class Trial:
    """A trial that runs, or is about to."""

    number: int
    overrides: list[str]
    folder: Path  # of its run


class Trials:
    """Asks a study for trials and tells it how they ended.

    A trial that did not end, because the sweep was stopped or killed, stays running in the study:
    it is returned again, with its folder, in which the run resumes.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        objectives: Sequence[str],
        sampler: tuple[str, int],
        compose: Callable[[dict[str, str]], tuple[list[str], Path]],
    ):
        """`objectives`: their names. `sampler`: its name and seed.

        `compose`: returns the overrides and the run folder of a trial with these values.
        """
        self.study, self.space, self.objectives, self.compose = study, space, objectives, compose
        self.sampler, self.seed = sampler
        self.failed = 0  # trials that failed since this object was created
        self._repeat_failed()

    def _repeat_failed(self) -> None:
        """Puts the trials that failed in an earlier command first in line again, with the same values."""
        trials = self.study.get_trials(deepcopy=False)
        repeated = {trial.user_attrs.get("repeats") for trial in trials}
        for trial in trials:
            if trial.state == TrialState.FAIL and "folder" in trial.user_attrs and trial.number not in repeated:
                self.study.enqueue_trial(trial.params, user_attrs={"repeats": trial.number})

    def next_batch(self, size: int, total: int) -> list[Trial]:
        """Returns at most `size` trials to run next, and none when `total` are finished or pruned.

        First those that an earlier command has left running, then new ones. Trials that failed now
        are not replaced: whatever they fail from might never end.
        """
        trials = self.study.get_trials(deepcopy=False)
        left = []
        for trial in trials:
            if trial.state == TrialState.RUNNING and "folder" in trial.user_attrs:
                left.append(self._trial(trial))
            elif trial.state == TrialState.RUNNING:  # the process was killed before the trial was complete
                self.study.tell(trial.number, state=TrialState.FAIL)
        finished = sum(trial.state in FINISHED for trial in trials)
        new = min(size, total - finished - self.failed) - len(left)
        return [*left[:size], *(self._ask() for _ in range(new))]

    def _trial(self, trial: FrozenTrial | optuna.Trial) -> Trial:
        return Trial(trial.number, trial.user_attrs["overrides"], Path(trial.user_attrs["folder"]))

    def _ask(self) -> Trial:
        """Returns a new trial.

        The sampler gets a new seed for each trial, from its own seed and the number of the trial: a
        study that was stopped goes on as if it had not been.
        """
        state = np.random.SeedSequence((self.seed, len(self.study.get_trials(deepcopy=False)))).generate_state(1)
        self.study.sampler = SAMPLERS[self.sampler](seed=int(state[0]))
        trial = self.study.ask()
        overrides, folder = self.compose({key: dimension.suggest(trial, key) for key, dimension in self.space.items()})
        trial.set_user_attr("overrides", overrides)
        trial.set_user_attr("folder", str(folder))
        return self._trial(trial)

    def tell(self, trial: Trial, root: Path) -> None:
        """Tells the study how a trial ended, as its run folder in `root` shows. A stopped one stays running.

        Raises InputError if an objective was not measured.
        """
        job = Job.read(root / trial.folder)
        if job.status == "finished":
            if missing := [name for name in self.objectives if name not in job.values and name != job.monitor]:
                raise InputError(f"The objective '{missing[0]}' was not measured. Choices: {', '.join(sorted(job.values))}.")
            values = [job.values.get(name, math.nan) for name in self.objectives]
            if all(map(math.isfinite, values)):
                self.study.tell(trial.number, values)
                return
        if job.status == "pruned":
            self.study.tell(trial.number, state=TrialState.PRUNED)
        elif job.status != "stopped":
            self.study.tell(trial.number, state=TrialState.FAIL)
            self.failed += 1

    def summary(self) -> list[str]:
        """Returns one line for the best trial, or for each Pareto-optimal one of several objectives."""
        word = "Best" if len(self.objectives) == 1 else "Pareto-optimal"
        lines = []
        for trial in self.study.best_trials:
            values = "  ".join(f"{name} {value:.4g}" for name, value in zip(self.objectives, trial.values, strict=True))
            chosen = " ".join(f"{key}={value}" for key, value in trial.params.items())
            lines.append(f"{word} trial {trial.number}: {values}  with {chosen}\n  {trial.user_attrs['folder']}")
        return lines
