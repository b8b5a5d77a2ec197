"""The accuracy of an exported file on the validation split, measured by the evaluation of its task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
from torch import nn

from spine.config.building import build_run
from spine.config.checks import prepare
from spine.errors import InputError
from spine.evaluation.evaluate import evaluate_split
from spine.exporting.model import evaluation_config
from spine.option_types import Config
from spine.prediction.backend import BackendNetwork
from spine.prediction.onnx_backend import OnnxBackend
from spine.prediction.predictor import Predictor


@dataclass(frozen=True)
class Accuracy:
    """The metric that selects the best checkpoint, of the network in PyTorch and of a file.

    higher_is_better: whether more of it is better.
    """

    metric: str
    higher_is_better: bool
    pytorch: float
    file: float

    @property
    def loss(self) -> float:
        """How much worse the file is: in points of a metric that is better if it is higher, else as a fraction of PyTorch's value."""
        if self.higher_is_better:
            return self.pytorch - self.file
        return (self.file - self.pytorch) / abs(self.pytorch) if self.pytorch else self.file

    def check(self, allowed: float) -> None:
        """Raises InputError if the file is worse by more than `allowed`."""
        if not self.loss <= allowed:
            raise InputError(
                f"{self.metric} on the validation split is {self.file:.4f} with the file and {self.pytorch:.4f} with PyTorch, worse "
                f"by more than the tolerance of {allowed:g}. No file was kept. More calibration_samples may help; a larger "
                f"tolerance=<number> accepts it."
            )


def measure_accuracy(config: Config, predictor: Predictor, file: Path) -> Accuracy:
    """Evaluates a network and its ONNX file on the validation split. `config`: that of export.yaml."""
    run = build_run(prepare(evaluation_config(config, predictor)), "val", predictor.description.labels)
    limit = config["trainer"].get("limit_val_batches", 1.0)
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_model_summary=False,
        enable_progress_bar=False, limit_val_batches=limit, use_distributed_sampler=False,
    )  # fmt: skip

    def evaluate(network: nn.Module) -> float:
        run.task.model = network
        return evaluate_split(trainer, run.task.eval(), run.data, "val")[run.task.monitor]

    network: nn.Module = predictor.task.model
    pytorch = evaluate(network)
    found = evaluate(BackendNetwork(predictor.description, OnnxBackend(file, "cpu")))
    return Accuracy(run.task.monitor, run.task.mode == "max", pytorch, found)
