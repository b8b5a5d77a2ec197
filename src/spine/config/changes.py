"""In what a configuration differs from the defaults, for the report of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from spine.config.conf_folder import conf_folder
from spine.reporting.run_record import Changes, flatten

GROUPS = (
    "experiment", "debug", "task", "protocol", "backbone", "head", "auxiliary_head", "dataset", "augment", "optimizer", "schedule",
    "trainer", "callbacks", "logger", "sweep",
)  # fmt: skip
SETTINGS = ("experiment", "debug")  # groups that only set the keys of others


def find_changes(config: Mapping[str, object], choices: Mapping[str, str | None]) -> Changes:
    """Returns in what a resolved configuration of train.yaml differs from the defaults. Hydra must be initialized.

    The defaults are the values that the same choices of backbone, task, data set and so on have without an experiment
    and without single keys. `choices`: group of the configuration -> the chosen option.
    """
    chosen = {group: str(choices[group]) for group in GROUPS if choices.get(group) is not None}
    parts = [f"{group}={choice}" for group, choice in chosen.items() if group not in SETTINGS]
    defaults = OmegaConf.to_container(compose("train", overrides=parts), resolve=True)
    before, after = dict(flatten(defaults)), dict(flatten(dict(config)))
    keys = [*after, *(key for key in before if key not in after)]
    values = {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}
    return {"choices": chosen, "values": values}


def changes_of_command(overrides: Sequence[str]) -> Changes:
    """Returns the same for the overrides of a command line. Raises an error of Hydra if they do not fit the files in `conf`."""
    known = GlobalHydra.instance().is_initialized()
    with nullcontext() if known else initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = compose("train", overrides=list(overrides), return_hydra_config=True)
        own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        content: dict[str, object] = OmegaConf.to_container(own, resolve=True)  # type: ignore[assignment]
        return find_changes(content, config.hydra.runtime.choices)
