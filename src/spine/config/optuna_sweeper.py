"""`sweep=optuna`: a sweep of Hydra whose jobs are the trials of a study of Optuna."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from spine.config import messages, sweep_jobs
from spine.config.resolving import to_plain
from spine.errors import InputError
from spine.training.study import check_installed, create_study

if TYPE_CHECKING:
    from spine.config.search_space import Space
    from spine.config.trials import Trial, Trials
    from spine.option_types import Config

NAME = "hydra_plugins.spine.OptunaSweeper"  # in conf/hydra/sweeper; Hydra takes sweepers of packages with this prefix only

log = logging.getLogger(__name__)


def register() -> None:
    """Makes the sweeper known to Hydra under NAME."""
    Plugins.instance().class_name_to_class[NAME] = OptunaSweeper


class OptunaSweeper(Sweeper):
    """Runs the trials of a study with the launcher of Hydra. The study is in the folder of the sweep."""

    config: DictConfig
    launcher: Launcher
    hydra_context: HydraContext

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `sweep`."""
        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.fixed: list[str] = []  # overrides that are the same in all trials
        self.launched = 0  # jobs

    def sweep(self, arguments: list[str]) -> None:
        """Runs trials until `sweep.trials` are finished or pruned. Raises the error of the first job that failed."""
        check_installed()
        space = self._read_arguments(arguments)
        config = self._checked(space)
        from spine.config.objectives import DIRECTIONS, objectives  # imports the task, and with it torch
        from spine.config.trials import Trials

        named, settings = objectives(config), config["sweep"]
        if sweep_jobs.started_here is not None:
            sweep_jobs.started_here.objectives = named
        folder = Path(self.config.hydra.sweep.dir).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")  # as Hydra's own sweeper does; loggers read it
        study = create_study(folder, [DIRECTIONS[way] for way in named.values()])
        trials = Trials(study, space, list(named), (settings["sampler"], settings["seed"]), self._compose)
        errors: list[Exception] = []
        try:
            while batch := trials.next_batch(self._parallel_trials(settings), settings["trials"]):
                errors += self._run(batch, trials, folder)
        finally:
            self._report(trials, folder)
        if errors:
            raise errors[0]

    def _read_arguments(self, arguments: list[str]) -> Space:
        """Returns the search space. The other arguments are the same in all trials."""
        from spine.config.search_space import read_space

        parsed = OverridesParser.create(config_loader=self.hydra_context.config_loader).parse_overrides(arguments)
        node = OmegaConf.to_container(self.config.sweep.space, resolve=True)
        assert isinstance(node, dict)
        space = read_space(
            {str(key): value for key, value in node.items()}, [each for each in parsed if each.is_sweep_override()]
        )
        for override in parsed:
            if not override.is_sweep_override():
                if (key := override.get_key_element()) in space:
                    raise InputError(f"{key} is in the search space and has a fixed value. Leave one of them out.")
                self.fixed.append(str(override.input_line))
        return space

    def _checked(self, space: Space) -> Config:
        """Returns the configuration of a trial. Raises InputError if a key of the space is unknown, or a value out of range.

        Each key is checked with its bounds or each of its choices, and the first values of the others.
        """
        from spine.config.places import check_targets
        from spine.config.values import check_values

        first = {key: dimension.probes()[0] for key, dimension in space.items()}
        for key, dimension in space.items():
            for value in dimension.probes():
                try:
                    composed = self._composed(self._overrides({**first, key: value}))
                    config = to_plain(OmegaConf.masked_copy(composed, [str(name) for name in composed if name != "hydra"]))
                    check_targets(config)
                    check_values(config)
                except Exception as error:
                    if (message := messages.user_message(error)) is None:
                        raise
                    raise InputError(f"The search space has {key}={value}. {message}") from error
        return config

    def _composed(self, overrides: list[str]) -> DictConfig:
        return self.hydra_context.config_loader.load_sweep_config(self.config, overrides)

    def _overrides(self, values: dict[str, str]) -> list[str]:
        return [*self.fixed, *(f"{key}={value}" for key, value in values.items())]

    def _compose(self, values: dict[str, str]) -> tuple[list[str], Path]:
        """Returns the overrides and the run folder of a trial with these values."""
        overrides = self._overrides(values)
        return overrides, Path(str(self._composed(overrides).hydra.sweep.subdir))

    def _parallel_trials(self, settings: Config) -> int:
        if settings["parallel_trials"] is not None:
            return settings["parallel_trials"]
        jobs = OmegaConf.select(self.config, "hydra.launcher.n_jobs") or 1
        return jobs if jobs > 0 else max(1, (os.cpu_count() or 1) + 1 + jobs)  # as joblib counts them

    def _run(self, batch: list[Trial], trials: Trials, folder: Path) -> list[Exception]:
        """Runs trials and tells the study how they ended. Returns the errors of those that failed.

        Trials with the same values share a folder and are run once.
        """
        unique = list({trial.folder: trial.overrides for trial in batch}.values())
        returns = self.launcher.launch(unique, initial_job_idx=self.launched)
        self.launched += len(unique)
        stop = sweep_jobs.started_here.stopped() if sweep_jobs.started_here is not None else None
        if stop is not None:  # the study learns of these trials when the command is given again
            raise stop
        for trial in batch:
            trials.tell(trial, folder)
        return [job._return_value for job in returns if isinstance(job._return_value, Exception)]

    def _report(self, trials: Trials, folder: Path) -> None:
        """Draws the plots of the study and logs its best trials."""
        from spine.reporting.study_plots import draw_study

        plots = draw_study(trials.study, trials.objectives, folder)
        for line in trials.summary():
            log.info("%s", line)
        if plots:
            log.info("Plots of the study: %s", " ".join(path.name for path in plots))
