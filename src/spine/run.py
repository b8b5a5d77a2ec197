"""Builds a run from its configuration, trains it, evaluates it. The command lines and this file are all that knows Hydra."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from spine import preflight, report
from spine.errors import InputError

# torch and Lightning are imported where they are used: a misspelt name is answered before they load

OUTSIDE_RUN_ID = ("ckpt_path", "task_name", "tags", "logger")  # what a run writes where does not change what it is


# ---- the command line ------------------------------------------------------------------------------------------------


def run_id(*, _root_: DictConfig) -> str:
    """A readable name that the configuration alone decides, so that a run that is started again finds its folder."""
    choices = _root_.hydra.runtime.choices
    keys = [key for key in _root_ if key != "hydra" and key not in OUTSIDE_RUN_ID]
    own = OmegaConf.masked_copy(_root_, [str(key) for key in _root_ if key != "hydra"])
    content = {key: value for key, value in OmegaConf.to_container(own, resolve=True).items() if key in keys}  # type: ignore[union-attr]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
    names = [choices.get(group) or preflight.named(content[group]) for group in ("backbone", "task", "dataset")]
    if variant := content["backbone"].get("variant"):
        names[0] += f"-{variant}"
    return "_".join([*names, digest])


OmegaConf.register_new_resolver("run_id", run_id, replace=True)


def command_line(main: Callable[[], Any]) -> None:
    """Runs a Hydra main. A person's mistake ends in one sentence; a sweep ends in one table, also where a job failed."""
    traced = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on, and we tell them
    try:
        main()
    except Exception as error:
        told = preflight.sentence(error)
        if traced or told is None:
            raise
        print(f"\n{told}\n(HYDRA_FULL_ERROR=1 shows the full trace.)", file=sys.stderr)
        sys.exit(1)
    finally:
        SweepTable.show()


class SweepTable(Callback):
    """Remembers where a sweep writes, and prints one table of its runs at the end."""

    folder: Path | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra before the first job."""
        SweepTable.folder = Path(config.hydra.sweep.dir)

    @classmethod
    def show(cls) -> None:
        """Prints it, where there was a sweep."""
        if cls.folder is None:
            return
        report.sweep_table(cls.folder)
        cls.folder = None


# ---- building --------------------------------------------------------------------------------------------------------


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as dictionaries, lists, words and numbers: what is checked, saved and read from here on."""
    return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[return-value]


def instantiate(part: str, node: dict[str, Any], *arguments: Any, **more: Any) -> Any:
    """Calls what an allowed `_target_` names with `arguments`, the node's other keys and `more`; our own parts' keys are checked.

    `part` is the node's place in the configuration, for the message about a key that the target does not take.
    """
    from spine.model import check_arguments

    target = preflight.target_of(node)
    own = {key: value for key, value in node.items() if key != "_target_"}
    if node["_target_"].startswith("spine."):
        check_arguments(target, own, part)
    return target(*arguments, **own, **more)


def build_data(config: dict[str, Any]) -> Any:
    """The DataModule of a plain configuration."""
    from spine.datasets.module import DataModule
    from spine.datasets.transforms import Transform
    from spine.model import task_facts

    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks the network for a newer version
    preflight.settle_input(config, report=False)  # nothing is left to do where the configuration was checked
    node = config["dataset"]
    own = {key: value for key, value in node.items() if key not in preflight.OF_LOADER}
    augment = config["augment"]
    multiple = preflight.padded_size(config)[1]

    def transform(split: str, data: Any) -> Transform:
        steps = [instantiate("augment", step) for step in augment["train" if split == "train" else "eval"]]
        return Transform(steps, node["mean"], node["std"], data.labels.flip_pairs, multiple)

    return DataModule(
        lambda split: instantiate("dataset", own, split=split),
        transform,
        needs=task_facts(preflight.named(config["task"])).needs,
        batch_size=node["batch_size"],
        num_workers=node["num_workers"],
        seed=config["seed"],
    )


def outputs_of(task: str, labels: Any) -> int | None:
    """How many outputs a task's head needs for a data set's labels; None where the patch decides."""
    kinds = {"cls": labels.classes, "seg": labels.mask_classes, "pose": labels.keypoints}
    return len(kinds[task]) if task in kinds else None


def build(config: dict[str, Any], split: str = "train") -> tuple[Any, Any]:
    """Task and DataModule of a plain, checked configuration. Writes into it what was found out: num_outputs, precision."""
    import torch

    from spine.model import load_weights
    from spine.precision import resolve_precision, set_float32_precision

    trainer = config["trainer"]
    trainer["precision"] = resolve_precision(trainer["precision"], trainer["accelerator"])
    set_float32_precision(trainer["precision"])
    task = preflight.named(config["task"])
    data = build_data(config)
    labels = data.split(split).data.labels
    outputs = outputs_of(task, labels)
    if config.get("num_outputs") not in (None, outputs):
        raise InputError(
            f"The checkpoint's head has {config['num_outputs']} outputs, but the data set has {outputs}. Evaluate it on data "
            f"with the classes or keypoints that it was trained for."
        )
    config["num_outputs"] = outputs
    opened = preflight.open_weights(config, outputs)
    model = preflight.build_model(config, outputs).to(memory_format=torch.channels_last)
    loaded = load_weights(model, preflight.parts(config, outputs)[0], opened) if opened is not None else None
    if config["compile"]:
        model.compile_parts()
    module = instantiate(
        "task",
        config["task"],
        model=model,
        optimizer=partial(instantiate, "optimizer", config["optimizer"]),
        schedule=partial(instantiate, "schedule", config["schedule"]),
        labels=labels,
    )
    if task == "mae":
        # only the network knows its patches, and only the data how many outputs the network has: the mask is set last
        data.patch_mask = (model.grid[0] * model.grid[1], module.mask_ratio)
        data.opened.clear()
    module.config = config
    module.weights = loaded
    return module, data


def make_trainer(config: dict[str, Any], folder: Path, task: Any) -> Any:
    """Lightning's Trainer with our callbacks and loggers; metrics.csv is always written."""
    import pytorch_lightning as pl
    from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint, RichProgressBar
    from pytorch_lightning.loggers import CSVLogger

    from spine.callbacks import EpochLines, Pictures
    from spine.model import check_arguments

    check_arguments(pl.Trainer.__init__, config["trainer"], "trainer")
    loggers = [CSVLogger(str(folder), name="", version="")]
    loggers += [instantiate("logger", node, folder=str(folder)) for node in (config.get("logger") or {}).values()]
    for logger in loggers[1:]:
        logger.log_hyperparams(config)
    node = config["callbacks"]
    callbacks = [
        ModelCheckpoint(
            folder / "checkpoints",
            "best",
            monitor=task.monitor,
            mode=task.mode,
            save_last=True,
            enable_version_counter=False,
        ),
        Pictures(
            str(folder / "pictures"),
            config["dataset"]["mean"],
            config["dataset"]["std"],
            loggers[1:],
            node["picture_every_n_epochs"],
        ),
        LearningRateMonitor("epoch"),
        RichProgressBar(refresh_rate=5) if sys.stdout.isatty() else EpochLines(),
    ]
    callbacks += [instantiate("callbacks.more", extra) for extra in (node.get("more") or {}).values()]
    return pl.Trainer(
        default_root_dir=str(folder),
        logger=loggers,
        callbacks=callbacks,
        enable_progress_bar=sys.stdout.isatty(),
        enable_model_summary=False,
        use_distributed_sampler=False,
        **config["trainer"],
    )


# ---- training --------------------------------------------------------------------------------------------------------


def quiet() -> None:
    """Silences what says nothing to a user: advice on workers, Lightning's tips and device lists, pending deprecations."""
    import logging
    import warnings

    warnings.filterwarnings("ignore", ".*LeafSpec.*")
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*It is recommended to use .*sync_dist=True.*")  # our metrics have gathered already
    warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", ".*Experiment logs directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", ".*number of training batches .* is smaller than the logging interval.*")
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def train(cfg: DictConfig) -> float | None:
    """Trains one run; returns the value of optimized_metric, for sweepers. In its folder: metrics, curves, pictures, checkpoints."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    for leftover in ("error.txt", "metrics.json"):
        (folder / leftover).unlink(missing_ok=True)
    try:
        return _train(plain(cfg), folder)
    except Exception as error:
        (folder / "error.txt").write_text((preflight.sentence(error) or f"{type(error).__name__}: {error}") + "\n")
        raise


def _train(config: dict[str, Any], folder: Path) -> float | None:
    start = time.perf_counter()
    preflight.check(config)  # before Lightning, which takes seconds to import
    import pytorch_lightning as pl

    quiet()
    pl.seed_everything(config["seed"], verbose=False)
    task, data = build(config)
    if config["ckpt_path"]:
        report.keep_history(folder)
    trainer = make_trainer(config, folder, task)
    if trainer.is_global_zero:
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        if task.weights is not None:
            print(task.weights)
            (folder / "weights.txt").write_text(task.weights.full())
        _announce(config, task, data, folder)
    trainer.fit(task, data, ckpt_path=config["ckpt_path"], weights_only=True if config["ckpt_path"] else None)
    if trainer.interrupted:
        raise KeyboardInterrupt
    best = trainer.checkpoint_callback.best_model_path if trainer.checkpoint_callback else ""
    if best:
        trainer.loggers = []  # the curves end with training; what follows is the result
        values = measure(trainer, task, data, "val", best)
    else:  # fast_dev_run writes no checkpoint
        values = {
            key: float(value) for key, value in trainer.callback_metrics.items() if "/" in key and not key.startswith("lr-")
        }
    if trainer.is_global_zero:
        report.draw_curves(folder)
        report.results(folder, task.monitor, values, time.perf_counter() - start, checkpoint=best)
    metric = config["optimized_metric"]
    if metric is not None and metric not in values:
        raise InputError(f"optimized_metric '{metric}' was not measured. Choices: {', '.join(sorted(values))}.")
    return values[metric] if metric else None


def _announce(config: dict[str, Any], task: Any, data: Any, folder: Path) -> None:
    parameters = sum(parameter.numel() for parameter in task.model.parameters())
    backbone, size = config["backbone"], config["image_size"]
    print(
        f"{preflight.named(backbone)} {backbone.get('variant')} + {preflight.named(config['head'])}, "
        f"{parameters / 1e6:.2f} M parameters, task {task.name}, {size[0]}x{size[1]} pixels, "
        f"{len(data.split('train'))} training samples, precision {config['trainer']['precision']}\n{folder}",
        flush=True,
    )


def measure(trainer: Any, task: Any, data: Any, split: str, checkpoint: str) -> dict[str, float]:
    """Evaluates a checkpoint on a split: metric values by name. Training and eval.py end in this same function."""
    import torch

    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    task.load_state_dict(state)
    task.split = split
    values = trainer.validate(task, dataloaders=data.loader(split), verbose=False)[0]
    return {key: float(value) for key, value in values.items()}


# ---- evaluation ------------------------------------------------------------------------------------------------------


def checkpoint_config(path: str) -> dict[str, Any]:
    """The configuration that a checkpoint of ours carries. InputError where the file is none."""
    import torch

    if not Path(path).is_file():
        raise InputError(f"There is no checkpoint '{path}'. Give ckpt_path=logs/.../checkpoints/best.ckpt.")
    try:
        config = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["config"]
    except Exception as error:
        raise InputError(f"'{path}' is not a checkpoint of spine, or it is cut short. Nothing in it was run.") from error
    check = dict(config)
    preflight.check_targets(check)
    return check


def register_checkpoint(arguments: list[str]) -> None:
    """Makes the configuration inside ckpt_path=... the base that eval.yaml is composed on, so that overrides are checked against it."""
    from hydra.core.config_store import ConfigStore

    paths = [argument.split("=", 1)[1] for argument in arguments if argument.startswith("ckpt_path=")]
    if not paths:
        raise InputError("Which checkpoint? Give ckpt_path=logs/.../checkpoints/best.ckpt.")
    ConfigStore.instance().store("checkpoint", checkpoint_config(paths[0].strip("'\"")))


def evaluate(cfg: DictConfig) -> dict[str, float]:
    """Evaluates a checkpoint on a split; prints its metrics, writes metrics.json and pictures."""
    start = time.perf_counter()
    folder = Path(HydraConfig.get().runtime.output_dir)
    config = plain(cfg)
    checkpoint, split = config.pop("ckpt_path"), config.pop("split")
    config["backbone"]["weights"] = None  # everything comes from the checkpoint
    preflight.check(config)
    import pytorch_lightning as pl

    quiet()
    pl.seed_everything(config["seed"], verbose=False)
    task, data = build(config, split)
    trainer = make_trainer(config, folder, task)
    values = measure(trainer, task, data, split, checkpoint)
    if trainer.is_global_zero:
        report.results(folder, task.monitor.replace("val/", f"{split}/"), values, time.perf_counter() - start, checkpoint)
    return values


def export(cfg: DictConfig) -> None:
    """Writes the weights of a checkpoint under a publisher's names, or our own."""
    import torch

    from spine import names, weights
    from spine.model import backbone_module

    config = plain(cfg)
    checkpoint, publisher, out = config.pop("ckpt_path"), config.pop("format"), config.pop("out")
    config["backbone"]["weights"] = None
    preflight.check(config)
    model = preflight.build_model(config, config["num_outputs"])
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    model.load_state_dict({key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")})
    backbone = preflight.named(config["backbone"])
    module = backbone_module(backbone)
    defaults = {name: p.default for name, p in inspect.signature(getattr(module, backbone)).parameters.items()}
    options = {**defaults, **preflight.parts(config, config["num_outputs"])[1]}
    layouts = (*module.LAYOUTS, names.OWN)
    layout = names.layout_for(model.state_dict(), layouts, publisher, options, defaults)
    metadata = {"spine": version("spine"), "backbone": backbone, "variant": config["backbone"]["variant"] or defaults["variant"]}
    weights.write(model.state_dict(), layout, out, {**metadata, "image_size": json.dumps(config["image_size"])})
    print(f"{out}: {backbone} {config['backbone']['variant']} under the names of {publisher}")
    if layout is not names.OWN:
        for key, theirs in names.differing(layout, layouts, options, defaults).items():
            print(
                f"{publisher}'s network has {key} {theirs:g} by default; build it with {options[key]:g}, as this one was trained."
            )
