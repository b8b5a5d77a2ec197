"""Records the start of a run, and says what has changed since an earlier one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from spine import plugins
from spine.config.schemas import LOADER_KEYS
from spine.data.building import limit_seed
from spine.reporting.fingerprint import file_sha256, fingerprint
from spine.reporting.provenance import COMPARED, INPUTS, RunFacts, cpu_name, differences
from spine.training.run_folder import RunFolder

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from spine.config.building import Run

log = logging.getLogger(__name__)
SEEDS = ("seed", "split_seed")  # of a data set


def record_start(run: Run, trainer: pl.Trainer, folder: RunFolder, original: RunFolder | None = None) -> None:
    """Adds the start of a run to starts.json.

    Logs a warning if data, weights or tokenizer differ from those of the previous start. `original`: the run
    that this one repeats; then everything that differs from it is logged.
    """
    earlier = folder.starts()
    start = folder.record_start(run_facts(run, trainer), [path for name, path in plugins.packages().items() if name != "spine"])
    if earlier:
        changed = differences(earlier[-1], start, INPUTS)
        if changed:
            log.warning(
                "This run continues with other inputs than it had before: %s. It is not the same run any more.", _listed(changed)
            )
    elif original is not None and (starts := original.starts()):
        changed = differences(starts[-1], start)
        same = [name for name in COMPARED if name not in changed]
        log.info("Repeating %s. The same as then: %s.", original.path, ", ".join(same) or "nothing")
        if changed:
            log.warning("Not the same as in the original run: %s.", _listed(changed))


def run_facts(run: Run, trainer: pl.Trainer) -> RunFacts:
    """Returns the inputs of a run and its devices."""
    config, node = run.config, run.config["dataset"]
    options = {key: value for key, value in node.items() if key not in (*LOADER_KEYS, "root")}
    if node.get("k_fold") is not None:
        options |= {key: node.get(key, 0) for key in ("k_fold", "fold", "fold_seed")}
    limit = {} if node.get("limit") is None else {"limit": node["limit"], "limit_seed": limit_seed(node, config["seed"])}
    splits = ("train",) if config["trainer"]["limit_val_batches"] == 0 else ("train", "val")
    weights = run.load_report.file.path if run.load_report is not None else None
    device, tokenizer = trainer.strategy.root_device, run.task.tokenizer
    return {
        "seeds": {"seed": config["seed"]} | {f"dataset.{key}": node[key] for key in SEEDS if node.get(key) is not None},
        "data": {
            split: fingerprint(run.data.split(split), options | (limit if split == "train" else {}), node.get("root"))
            for split in splits
        },
        "weights": weights,
        "weights_sha256": file_sha256(weights) if weights is not None else None,
        "tokenizer_sha256": tokenizer.sha256 if tokenizer is not None else None,
        "processes": trainer.world_size,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "monitor": run.task.monitor,
        "mode": run.task.mode,
    }


def _listed(changed: dict[str, str]) -> str:
    return "; ".join(f"{name} ({text})" for name, text in changed.items())
