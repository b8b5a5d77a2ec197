"""The study of a sweep with Optuna. Imports optuna where it is used: it is an optional package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from spine.errors import InputError

if TYPE_CHECKING:
    import optuna

Direction = Literal["maximize", "minimize"]
STUDY = "study.db"  # in the folder of the sweep
BUSY_SECONDS = 120  # how long a process waits while others write to the study


def check_installed() -> None:
    """Raises InputError if optuna is not installed. Otherwise turns its own messages off."""
    try:
        import optuna
    except ImportError as error:
        raise InputError(f"sweep=optuna needs the package '{error.name}': pip install -e .[sweep]") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def create_study(folder: Path, directions: list[Direction]) -> optuna.Study:
    """Returns the study of the sweep in `folder`. `directions`: maximize or minimize for each objective."""
    import optuna

    return optuna.create_study(study_name=folder.name, storage=_storage(folder), directions=directions, load_if_exists=True)


def load_study(folder: Path, pruner: str, epochs: int) -> optuna.Study:
    """Returns the existing study of the sweep in `folder` with a pruner, for runs of `epochs` epochs."""
    import optuna

    rules = {
        "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1 + epochs // 5),
        "hyperband": lambda: optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs),
    }
    return optuna.load_study(study_name=folder.name, storage=_storage(folder), pruner=rules[pruner]())


def _storage(folder: Path) -> optuna.storages.RDBStorage:
    import optuna

    return optuna.storages.RDBStorage(f"sqlite:///{folder / STUDY}", engine_kwargs={"connect_args": {"timeout": BUSY_SECONDS}})
