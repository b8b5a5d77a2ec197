"""Opens trained models for predictions: checkpoints of runs, exported files, and published weights."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from spine.checkpoints.loading import LoadReport
from spine.checkpoints.run_checkpoint import has_averaged_weights, read_checkpoint
from spine.checkpoints.tokenizer_files import load_tokenizer
from spine.command_lines import quote_path
from spine.config.building import build_task
from spine.config.checks import prepare
from spine.config.model_source import compose_model
from spine.config.schemas import PREDICTION
from spine.config.stored import saved_labels, trained_size
from spine.config.tokenizer import check_tokenizer
from spine.errors import InputError
from spine.models.assembly import task_of
from spine.option_types import Config
from spine.prediction.backend import BackendNetwork
from spine.prediction.description import ModelDescription
from spine.prediction.predictor import Predictor
from spine.prediction.published import published_labels
from spine.tokenizers.dvae import DiscreteVAE
from spine.training.precision import resolve_precision

log = logging.getLogger(__name__)


def load(
    path: str | Path,
    *,
    device: str | torch.device = "auto",
    precision: str | None = None,
    backbone: str | None = None,
    variant: str | None = None,
    task: str = "cls",
    classes: Sequence[str] | str | Path | None = None,
    tokenizer: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> Predictor:
    """Opens a trained model for predictions.

    path: a checkpoint of a run, an exported ONNX file, or with `backbone` a file of published weights.
    device: cpu, cuda, cuda:1 and so on; auto for a GPU if there is one. precision: None for that of evaluations.
    backbone, variant, task, classes: of published weights; classes: the names of the outputs, or a text file with one per line.
    tokenizer: its file, of a model that predicts tokens; None for the one that the run was trained with.
    overrides: keys of the configuration, as on the command line, such as ["task.flip_test=true"].

        model = spine.load("logs/.../checkpoints/best.ckpt")
        model = spine.load("convnext_tiny.pth", backbone="convnext", variant="tiny", classes="imagenet.txt")

    Raises InputError if the file is missing, damaged or of another kind, or if names or options do not fit.
    """
    given = list(overrides)
    if tokenizer is not None:
        given.append(f"tokenizer={quote_path(Path(tokenizer))}")
    if Path(path).suffix == ".onnx":
        return load_onnx(path, tokenizer, device)
    if backbone is None:
        given.append(f"ckpt_path={quote_path(Path(path))}")
    else:
        given += [f"backbone={backbone}", f"backbone.weights={quote_path(Path(path))}", f"task={task}"]
        given += [f"backbone.variant={variant}"] if variant is not None else []
    return open_predictor(compose_model(given), classes, device, precision)


def load_onnx(path: str | Path, tokenizer: str | Path | None = None, device: str | torch.device = "auto") -> Predictor:
    """Opens an exported ONNX file with ONNX Runtime. It computes in the precision of the file.

    Raises InputError if the file is missing, or was not exported by spine.
    """
    from spine.prediction.onnx_backend import open_onnx  # needs the packages of the extra `export`

    description, backend = open_onnx(path, device)
    codes = load_tokenizer(tokenizer) if tokenizer is not None else None
    return Predictor(description, BackendNetwork(description, backend), tokenizer=codes, device=device, precision="32-true")


def open_predictor(
    config: Config,
    classes: Sequence[str] | str | Path | None = None,
    device: str | torch.device = "auto",
    precision: str | None = None,
) -> Predictor:
    """Opens the model of a plain configuration of predict.yaml: that of `ckpt_path`, else that of `backbone.weights`.

    `classes`: the names of the outputs of published weights. Raises InputError if parts of the configuration do not fit together.
    """
    checkpoint = config.get("ckpt_path")
    config = prepare_model(config)
    trainer = config["trainer"]
    trainer["precision"] = resolve_precision(trainer["precision"], trainer["accelerator"])
    tokenizer = load_tokenizer(config["tokenizer"]) if task_of(config).reads_tokenizer else None
    if checkpoint is None:
        description, network = _published(config, classes, tokenizer)
    elif classes is not None:
        raise InputError("classes names the outputs of published weights; a checkpoint has the names that it was trained with.")
    else:
        description, network = _of_run(config, checkpoint, tokenizer)
    return Predictor(description, network, tokenizer=tokenizer, device=device, precision=precision)


def prepare_model(config: Config) -> Config:
    """Returns the complete configuration of a model, without what belongs to data and training.

    Raises InputError for the first mistake.
    """
    config = copy.deepcopy(config)
    config = {key: value for key, value in config.items() if key not in (*PREDICTION, "out")} | {"ckpt_path": None}
    if config["augment"]["eval"] is not None:
        steps = config["augment"]["eval"]
        config["augment"] = {"train": steps, "eval": copy.deepcopy(steps), "batch": None}
    if "protocol" in config:
        config["protocol"] = {"name": "finetune"}
    check_tokenizer(config)
    return prepare(config, with_files=False)


def _of_run(config: Config, checkpoint: str, tokenizer: DiscreteVAE | None) -> tuple[ModelDescription, torch.nn.Module]:
    """Builds the network of a run with the weights of its checkpoint."""
    labels = saved_labels(checkpoint)
    if labels is None:
        raise InputError(
            f"'{checkpoint}' was written by an older version of spine, without the names of its outputs. Evaluate it with eval.py."
        )
    task, _ = build_task(config, labels, tokenizer, trained_size(checkpoint, config))
    content = read_checkpoint(checkpoint)
    task.check_checkpoint(content)
    own = task.state_dict()  # a protocol has more tensors, such as the other classifiers of a linear probe
    task.load_state_dict({name: tensor for name, tensor in content["state_dict"].items() if name in own})
    if has_averaged_weights(content):
        log.info("The weights of '%s' are their moving average (EMA).", checkpoint)
    return ModelDescription.of_task(config, task, str(checkpoint)), task.model


def _published(
    config: Config, classes: Sequence[str] | str | Path | None, tokenizer: DiscreteVAE | None
) -> tuple[ModelDescription, torch.nn.Module]:
    """Builds a network with published weights."""
    labels, config["num_outputs"] = published_labels(config, classes)
    task, report = build_task(config, labels, tokenizer)
    assert report is not None  # there are weights
    log.info("%s", report)
    _check_head(report, config)
    return ModelDescription.of_task(config, task, config["backbone"]["weights"]), task.model


def _check_head(report: LoadReport, config: Config) -> None:
    """Raises InputError if the head was not in the file: its predictions would be random."""
    missing = [name for name in report.new if name.startswith("head.")]
    if missing:
        shapes = f" ({report.mismatched[missing[0]]})" if missing[0] in report.mismatched else ""
        raise InputError(
            f"'{config['backbone']['weights']}' has no head for task '{task_of(config).name}' with {config['num_outputs']} outputs: "
            f"{missing[0]} is not in it{shapes}, so that predictions would be random. Give a file of the whole network, with classes= "
            f"as many names as it has outputs."
        )
