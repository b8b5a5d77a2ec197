"""Plots of a study of Optuna."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)


def draw_study(study: optuna.Study, names: Sequence[str], folder: Path) -> list[Path]:
    """Draws the plots of a study as study_*.png in `folder`, and returns their paths.

    `names`: of its objectives. These are the history, the importance of each key, and slices; with
    two objectives also the Pareto front. Draws nothing before two trials have finished.
    """
    import matplotlib

    matplotlib.use("Agg")
    from optuna.importance import PedAnovaImportanceEvaluator
    from optuna.visualization import matplotlib as plots

    done = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    if len(done) < 2:
        return []
    written = []
    for index, name in enumerate(names):
        suffix = f"_{name.replace('/', '_')}" if len(names) > 1 else ""
        options = {"target_name": name, "target": functools.partial(_value, index) if len(names) > 1 else None}
        kinds: dict[str, Callable[..., object]] = {
            "history": plots.plot_optimization_history,
            # the other evaluators need scikit-learn
            "importance": functools.partial(plots.plot_param_importances, evaluator=PedAnovaImportanceEvaluator()),
            "slices": plots.plot_slice,
            "parallel": plots.plot_parallel_coordinate,
        }
        for plot, draw in kinds.items():
            written.append(_draw(folder / f"study_{plot}{suffix}.png", functools.partial(draw, study, **options)))
    if len(names) == 2:
        pareto = functools.partial(plots.plot_pareto_front, study, target_names=list(names))
        written.append(_draw(folder / "study_pareto.png", pareto))
    return [path for path in written if path is not None]


def _value(index: int, trial: optuna.trial.FrozenTrial) -> float:
    return trial.values[index]


def _draw(path: Path, plot: Callable[[], object]) -> Path | None:
    """Draws one plot. A plot that Optuna cannot draw of this study is left out."""
    import numpy as np
    from matplotlib import pyplot
    from matplotlib.ticker import NullFormatter

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental features of Optuna
            axes = plot()
        figure = np.ravel(np.asarray(axes, dtype=object))[0].figure
        for axis in figure.axes:  # labels of narrow axes would overlap
            axis.tick_params(axis="x", rotation=30)
            for side in (axis.xaxis, axis.yaxis):
                if side.get_scale() == "log":
                    side.set_minor_formatter(NullFormatter())
        figure.savefig(path, dpi=110, bbox_inches="tight")
    except (ValueError, RuntimeError) as error:
        log.warning("%s was not drawn: %s", path.name, error)
        return None
    finally:
        pyplot.close("all")
    return path
