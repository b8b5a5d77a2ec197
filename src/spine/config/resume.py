"""Finds out whether a run is finished, or from which checkpoint it is resumed, and checks that checkpoint."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from spine import console
from spine.checkpoints.run_checkpoint import read_checkpoint, verify_checkpoint
from spine.config.values import format_value
from spine.errors import InputError
from spine.option_types import Config
from spine.reporting.tables import print_results
from spine.training.run_folder import RunFolder, TrainingResults

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)
# keys of optimizers and schedules that older checkpoints lack, with the values that these trained with
ADDED_KEYS = {
    "optimizer.eps": 1e-8, "optimizer.head_lr_scale": 1.0, "optimizer.lr_scales": None, "optimizer.no_decay": None,
    "optimizer.decay_norm_and_bias": False, "optimizer.lr_batch_size": None,
    "schedule.min_lr": None, "schedule.min_lr_ratio": 0.0, "schedule.warmup_epochs": None, "schedule.warmup_steps": None,
    "schedule.warmup_start": None, "schedule.warmup_start_ratio": None, "schedule.warmup_reaches_lr": False,
    "schedule.warmup_mode": "prefix", "schedule.per_epoch": False, "schedule.delay": 0,
    "callbacks.ema": None, "callbacks.freeze": None,
}  # fmt: skip


def finished_results(config: Config, folder: RunFolder) -> dict[str, float] | None:
    """Prints and returns the results of a finished run.

    Returns None if there is something to train.
    """
    results = folder.read_results()
    if results is None or config["trainer"]["fast_dev_run"]:
        return None
    if results.get("stopped_by_max_time") not in (None, config["trainer"]["max_time"]):
        return None  # a different max_time ended the run, so that it may continue
    if _gets_more_steps(config, results) or _gets_more_epochs(config, results):
        if _gets_more_steps(config, results):
            log.info(
                "This run was finished after %d steps and continues to %d, with the learning rates of a schedule of that many steps.",
                results["steps"], config["trainer"]["max_steps"],
            )  # fmt: skip
            return None
        log.info(
            "This run was finished after %d epochs and continues to %d. The learning rate schedule now has %d epochs: the "
            "learning rate continues with the value that this schedule has after epoch %d.",
            results["epochs"], config["trainer"]["max_epochs"], config["trainer"]["max_epochs"], results["epochs"],
        )  # fmt: skip
        return None
    values = {key: math.nan if value is None else value for key, value in results["metrics"].items()}
    if console.process_rank() == 0:
        print_results(folder.path, results["monitor"], values, results["seconds"], results.get("evaluation", ""))
        log.info("This run is finished; nothing was done. restart=true trains it again and keeps this folder under another name.")
    return values


def _gets_more_steps(config: Config, results: TrainingResults) -> bool:
    """Returns whether trainer.max_steps ended the run and is higher now."""
    before, now = results.get("max_steps", -1), config["trainer"].get("max_steps") or -1
    return now > before > 0 and results["steps"] >= before


def _gets_more_epochs(config: Config, results: TrainingResults) -> bool:
    """Returns whether trainer.max_epochs is higher than it was when the run was finished."""
    before, now = results.get("max_epochs"), config["trainer"]["max_epochs"]
    return before is not None and now is not None and now > before > 0


def checkpoint_to_resume(config: Config, folder: RunFolder) -> str | None:
    """Returns last.ckpt of the folder if it exists, otherwise ckpt_path of the configuration."""
    ckpt_path = config["ckpt_path"]
    if config["trainer"]["fast_dev_run"]:
        return ckpt_path
    if (last := intact_checkpoint(folder)) is not None:
        if ckpt_path not in (None, "last") and Path(ckpt_path).resolve() != folder.last.resolve():
            log.warning("ckpt_path is not used: this run has already begun. restart=true starts it over from ckpt_path.")
        log.info("Resuming from %s", last)
        return str(last)
    if ckpt_path == "last":
        return None
    if ckpt_path is not None:
        log.info("Resuming from %s; best.ckpt will be the best checkpoint of this run alone.", ckpt_path)
    return ckpt_path


def intact_checkpoint(folder: RunFolder) -> Path | None:
    """Returns last.ckpt if it is intact, otherwise previous.ckpt, or None if there is neither.

    A damaged last.ckpt is renamed to damaged.ckpt. Raises InputError if no checkpoint is intact.
    """
    damaged = ""
    for path in (folder.last, folder.previous):
        if not path.is_file():
            continue
        try:
            verify_checkpoint(path)
        except InputError as error:
            damaged = damaged or str(error)
            continue
        if damaged:
            log.warning("%s The run resumes from the checkpoint before it.", damaged)
            if console.process_rank() == 0 and folder.last.is_file():
                folder.last.replace(folder.last.with_name("damaged.ckpt"))
        return path
    if damaged:
        raise InputError(
            f"{damaged} There is no intact checkpoint before it. restart=true starts the run over and keeps this folder."
        )
    return None


def metrics_rows(config: Config, path: str) -> int:
    """Returns how many rows of metrics.csv belong to the checkpoint from which a run is resumed.

    Raises InputError if it cannot be resumed: if it holds weights only, or if options of optimizer
    or schedule were changed. The states of both are restored from the checkpoint.
    """
    state = read_checkpoint(path)
    if "loops" not in state or "optimizer_states" not in state:
        raise InputError(f"'{path}' holds weights only and cannot be resumed. Start a run from it with backbone.weights={path}.")
    if changed := changed_on_resume(state["config"], config):
        raise InputError(
            f"A resumed run takes optimizer and schedule from its checkpoint, and this command changes them: {'; '.join(changed)}. "
            f"Resume with the values of the checkpoint, or start another run from its weights with backbone.weights={path}."
        )
    return state.get("metrics_rows", 0)


def check_resume(path: str, config: Config, model: nn.Module) -> None:
    """Raises InputError if a checkpoint belongs to another task or network than the run to resume.

    Compares task, backbone and head, and names and shapes of the tensors. The number of outputs of
    the head may differ: it is compared once the data set is open. `model` may be on the meta
    device.
    """
    content = read_checkpoint(path)
    saved = content["config"]
    for place in ("task", "backbone", "head"):
        in_checkpoint, in_run = ((node.get(place) or {}).get("_target_") for node in (saved, config))
        if in_checkpoint != in_run:
            raise InputError(
                f"'{path}' was trained with {place} {in_checkpoint}, this run has {in_run}. Resume with the parts of the checkpoint."
            )
    tensors = {key.removeprefix("model."): value for key, value in content["state_dict"].items() if key.startswith("model.")}
    own = model.state_dict()
    mismatches = [key for key in (*tensors, *own) if key not in tensors or key not in own]
    mismatches += [
        key
        for key, value in tensors.items()
        if not key.startswith(("head.", "auxiliary_head.")) and key in own and value.shape != own[key].shape
    ]
    if mismatches:
        variants = [(node.get("backbone") or node["task"]).get("variant") for node in (saved, config)]
        part = "backbone" if "backbone" in config else "network"
        hint = f" Its {part} is the variant {variants[0]}, this run's {variants[1]}." if variants[0] != variants[1] else ""
        raise InputError(
            f"'{path}' is a checkpoint of another network: {len(mismatches)} tensors differ, such as '{mismatches[0]}'.{hint} "
            f"Resume with the configuration of the checkpoint."
        )


def changed_on_resume(saved: Config, new: Config) -> list[str]:
    """Returns the keys of optimizer, schedule, EMA and freezing that differ from a checkpoint, with both values.

    Their states are restored from the checkpoint, so that these keys have no effect on a resumed
    run.
    """
    before, now = _fixed_on_resume(saved), _fixed_on_resume(new)
    absent = object()
    return [
        f"{key} ({_value(before, key)} in the checkpoint, {_value(now, key)} now)"
        for key in sorted({*before, *now})
        if before.get(key, ADDED_KEYS.get(key, absent)) != now.get(key, ADDED_KEYS.get(key, absent))
    ]


def _fixed_on_resume(config: Config) -> Config:
    """Returns the dotted paths and the values of the keys that a resumed run cannot change."""
    callbacks = {key: (config.get("callbacks") or {}).get(key) for key in ("ema", "freeze")}
    return dict(_leaves({"optimizer": config.get("optimizer"), "schedule": config.get("schedule"), "callbacks": callbacks}))


def _leaves(node: Config, path: str = "") -> Iterator[tuple[str, object]]:
    """Yields the dotted path and the value of every key that holds no dictionary."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _value(leaves: Config, key: str) -> str:
    return format_value(leaves[key]) if key in leaves else "not set"
