"""What every task shares: the steps of training, evaluation and prediction, the optimizer, and the content of checkpoints."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self, TypedDict

import numpy as np
import pytorch_lightning as pl
from matplotlib.figure import Figure
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from spine.checkpoints.run_checkpoint import has_averaged_weights, read_checkpoint
from spine.components import task_spec
from spine.errors import InputError
from spine.interfaces import DataSet, Labels, SampleExtra
from spine.models.assembly import network_class
from spine.models.sharding import shard
from spine.option_types import Config
from spine.tasks.mean_loss import MeanLoss
from spine.tasks.samples import SampleView
from spine.tokenizers.frozen import FrozenTokenizer

log = logging.getLogger(__name__)
Batch = dict[str, Tensor]
ToPixels = Callable[[Tensor], np.ndarray]  # normalized images (B, 3, H, W) -> (B, H, W, 3) uint8
MakeOptimizer = Callable[[nn.Module], Optimizer]
MakeSchedule = Callable[[Optimizer, int, int], LRScheduler]  # optimizer, number of steps of the training, and of an epoch


class TaskArguments(TypedDict, total=False):
    """The arguments that every task passes on to `Task`."""

    model: nn.Module
    labels: Labels
    optimizer: MakeOptimizer | None
    schedule: MakeSchedule | None
    loss: nn.Module | None


class Task(pl.LightningModule):
    """Trains and evaluates a network. A subclass defines the loss, the metrics, the predictions and the figures.

    Works with spine's commands and with a plain `pl.Trainer`.
    """

    name: ClassVar[str]
    monitor: ClassVar[str]  # the metric that selects the best checkpoint
    mode: ClassVar[str] = "max"
    tokenizer: FrozenTokenizer | None = None  # of tasks that predict its tokens
    trains: ClassVar[bool] = True  # False: nothing is trained, and `training_batches` are read before an evaluation

    def __init__(
        self,
        model: nn.Module,
        labels: Labels,
        optimizer: MakeOptimizer | None = None,
        schedule: MakeSchedule | None = None,
        loss: nn.Module | None = None,
    ):
        """`model`: a network of `spine.create_model`. `labels`: those of the data set.

        `optimizer` makes the optimizer of a network, for example `partial(adamw, lr=1e-3)`; only training needs it. `schedule` makes its
        learning rate schedule; None keeps the rate constant. `loss` replaces the loss of
        the task's paper; the class of each task says what it is called with.
        """
        super().__init__()
        self.model, self.labels, self.loss = model, labels, loss
        self.make_optimizer, self.make_schedule = optimizer, schedule
        self.split = "val"  # the name of what is evaluated
        self.config: Config = {}  # the complete configuration of the run; saved in every checkpoint
        self.config_source: Config = {}  # the same with its interpolations, so that overrides reach what depends on them
        self.train_loss, self.split_loss = MeanLoss(), MeanLoss()  # of the epoch, and of the evaluated split
        self.training_batches: Iterable[Batch] | None = None  # of the training split, without augmentation
        self.step_weight: Tensor | float | None = None  # of a micro-batch in its optimizer step; None: all have the same weight

    def forward(self, image: Tensor, *more: Tensor) -> Tensor:
        """The output of the network for images (B, 3, H, W), and patch_mask (B, N) for masked networks."""
        return self.model(image, *more)

    def evaluate_batch(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss () and the output of the network for one batch. Training and evaluation share this step."""
        raise TypeError(f"{type(self).__name__} does not define evaluate_batch.")

    def validate_batch(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss () and the output for one batch of an evaluation, for the metrics and figures. By default that of `evaluate_batch`."""
        return self.evaluate_batch(batch)

    def describe_evaluation(self) -> str:
        """How evaluations are made, in words, if the task has several ways. It is printed and written with the results."""
        return ""

    def predict_batch(self, batch: Batch) -> dict[str, Tensor]:
        """Predictions by name for one batch, which needs no ground truth."""
        raise TypeError(f"{type(self).__name__} does not define predict_batch.")

    def loss_weight(self, batch: Batch) -> float | Tensor:
        """The weight of a batch in the mean of several: the number of images that its loss averages over. A loss of one's own is
        assumed to average over the same as the loss of the task.
        """
        return 0.0 if "spare" in batch else float(len(batch["image"]))

    def sample_extras(self) -> Mapping[str, SampleExtra]:
        """What the data module adds to every sample for this task: functions of a random generator by sample key."""
        return {}

    def update_metrics(self, output: Tensor, batch: Batch) -> None:
        """Updates the metrics with one evaluated batch."""

    def compute_metrics(self) -> dict[str, float]:
        """Metric values by name, without the split, of all batches since the last call. Resets the metrics."""
        return {}

    def draw(self, batch: Batch, output: Tensor, to_pixels: ToPixels) -> dict[str, Figure]:
        """Figures by name of one evaluated batch; `to_pixels` turns normalized images into pixels."""
        return {}

    def sample_losses(self, output: Tensor, batch: Batch) -> Tensor | None:
        """The loss (B,) of each sample of an evaluated batch. The samples with the highest and the lowest losses are reported.

        None: the task has no loss of single samples.
        """
        return None

    def view_samples(self, output: Tensor, batch: Batch) -> list[SampleView]:
        """What the loggers show of each sample of an evaluated batch."""
        return [SampleView() for _ in output]

    def confusion_counts(self) -> tuple[np.ndarray, tuple[str, ...]] | None:
        """The confusion matrix (classes, classes) of the whole evaluation, ground truth in rows, and the names of the classes.

        Every process calls it before the metrics are reset. None: the task has none.
        """
        return None

    def table_of_classes(self) -> Sequence[Mapping[str, object]]:
        """The rows of a table with one row for each class, of the whole evaluation; empty if the task has none.

        Every process calls it before the metrics are reset.
        """
        return ()

    def result_file(self) -> tuple[str, object] | None:
        """The name of a file without suffix, and its content in JSON: the predictions of the whole evaluation. None: there is none.

        Every process calls it before the metrics are reset.
        """
        return None

    def evaluated_data(self) -> DataSet | None:
        """The data set that is evaluated; None if the loader is not one of spine."""
        if self._trainer is None:
            return None
        loaders = self.trainer.test_dataloaders if self.trainer.testing else self.trainer.val_dataloaders
        data = getattr(getattr(loaders, "dataset", None), "data", None)
        return data if isinstance(data, DataSet) else None

    def draw_summary(self) -> dict[str, Figure]:
        """Figures by name of the whole evaluation, drawn before its metrics are reset."""
        return {}

    def configure_model(self) -> None:
        """Shards the network over the processes, with trainer=fsdp."""
        mesh = self.device_mesh
        if mesh is not None:
            shard(self.model, mesh["data_parallel"])

    # ---- training ----

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        loss, _ = self.evaluate_batch(batch)
        value = loss.detach()  # one that is not finite has no weight: its step is skipped, or it ends the run
        self.train_loss.update(value.nan_to_num(), self.loss_weight(batch) * value.isfinite())
        return loss

    def backward(self, loss: Tensor, *args: object, **kwargs: object) -> None:
        """The gradients of the loss, weighted if micro-batches of an optimizer step have different weights."""
        super().backward(loss if self.step_weight is None else loss * self.step_weight, *args, **kwargs)

    def on_train_epoch_start(self) -> None:
        """Resets the mean loss of the epoch; an epoch that is resumed continues with the mean of its checkpoint."""
        self.train_loss.reset(self.device)

    def on_train_epoch_end(self) -> None:
        """Logs the mean loss of the epoch. It goes to the loggers here, so that it is written before the epoch is saved."""
        value = self.train_loss.compute()
        self.log("train/loss", value, logger=False)
        values = {"train/loss": float(value)} | {f"train/{key}": each for key, each in self.training_values().items()}
        for logger in self.loggers:
            logger.log_metrics({**values, "epoch": self.current_epoch}, step=self.global_step - 1)

    def training_values(self) -> dict[str, float]:
        """Values by name that are logged with the mean loss of a training epoch, such as the weight of a part of the loss."""
        return {}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer of the network's parameters, and its schedule, which is stepped after every step."""
        if self.make_optimizer is None:
            raise InputError("The task has no optimizer, which training needs: give optimizer=partial(adamw, lr=1e-3).")
        optimizer = self.optimizer_of(self.make_optimizer)
        if self.make_schedule is None:
            return {"optimizer": optimizer}
        self.trainer.fit_loop.setup_data()
        total, batches = int(self.trainer.estimated_stepping_batches), self.trainer.num_training_batches
        steps_per_epoch = math.ceil(batches / self.trainer.accumulate_grad_batches)
        schedule = self.make_schedule(optimizer, total, steps_per_epoch)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def optimizer_of(self, make: MakeOptimizer) -> Optimizer:
        """The optimizer of the parameters that are trained: those of the network."""
        return make(self.model)

    # ---- evaluation and prediction ----

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Updates loss and metrics with a batch; returns the output of the network for the figures."""
        loss, output = self.validate_batch(batch)
        if "spare" not in batch:
            self.split_loss.update(loss, self.loss_weight(batch))
            self.update_metrics(output, batch)
        return output

    def on_validation_epoch_start(self) -> None:
        """Resets the mean loss of the split."""
        self.split_loss.reset(self.device)

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics of the split. Every process takes part, also one that had no sample."""
        values = {f"{self.split}/loss": float(self.split_loss.compute())}
        values |= {f"{self.split}/{key}": value for key, value in self.compute_metrics().items()}
        shown = {key: value for key, value in values.items() if key == self.monitor}
        self.log_dict(shown, prog_bar=True)
        self.log_dict({key: value for key, value in values.items() if key not in shown})

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The same as `validation_step`, for `trainer.test`."""
        return self.validation_step(batch, batch_idx)

    def on_test_epoch_start(self) -> None:
        """Names the metrics after the test split."""
        self.split = "test"
        self.on_validation_epoch_start()

    def on_test_epoch_end(self) -> None:
        """Logs the metrics of the test split."""
        self.on_validation_epoch_end()
        self.split = "val"

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Predictions by name for one batch, for `trainer.predict`."""
        return self.predict_batch(batch)

    # ---- checkpoints ----

    def options(self) -> Config:
        """The arguments of the constructor that belong to the task alone, such as `smoothing`. Saved in checkpoints."""
        return {}

    def on_save_checkpoint(self, checkpoint: Config) -> None:
        """Adds what loading needs: the configuration, the parts of the network, and the names of classes and keypoints."""
        checkpoint["config"] = self.config
        checkpoint["config_source"] = self.config_source
        checkpoint["labels"] = dataclasses.asdict(self.labels)
        checkpoint["task"] = {"name": self.name, "options": self.options()}
        if (network := getattr(self.model, "config", None)) is not None:
            checkpoint["network"] = network.to_dict()
        checkpoint["train_loss"] = self.train_loss.state()

    def on_load_checkpoint(self, checkpoint: Config) -> None:
        """Restores the mean loss of an epoch that is resumed."""
        self.check_checkpoint(checkpoint)
        saved = checkpoint.get("train_loss", [])
        if isinstance(saved, dict):  # written by an earlier version
            saved = [[float(saved["mean_value"] * saved["weight"]), float(saved["weight"])]]
        if saved:
            self.train_loss.load(saved, self.trainer.global_rank, self.trainer.world_size)

    def check_checkpoint(self, checkpoint: Config) -> None:
        """Raises InputError if a checkpoint that is evaluated or resumed does not belong to the inputs of this task."""

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path, **changes: object) -> Self:  # type: ignore[override]
        """The task of a checkpoint, with its network and weights, in evaluation mode.

        `changes`: arguments of the constructor, such as an optimizer for further training. A checkpoint of `train.py` and one of a plain
        `pl.Trainer` both work. Nothing in the file is run. Raises InputError if the file is not a checkpoint of this task.
        """
        content = read_checkpoint(str(checkpoint_path))
        if "network" not in content:
            raise InputError(f"'{checkpoint_path}' was written by an older version of spine; evaluate it with eval.py.")
        saved = content["task"]
        if saved["name"] != cls.name:
            raise InputError(f"'{checkpoint_path}' is of task '{saved['name']}'; load it with that task's class.")
        network = network_class(task_spec(cls.name)).from_dict(content["network"])
        task = cls(model=network.build(), labels=Labels.from_dict(content["labels"]), **{**saved["options"], **changes})
        own = task.state_dict()  # a protocol has more tensors, such as the other classifiers of a linear probe
        task.load_state_dict({name: tensor for name, tensor in content["state_dict"].items() if name in own})
        if has_averaged_weights(content):
            log.info("The weights of '%s' are their moving average (EMA).", checkpoint_path)
        task.config, task.config_source = content.get("config", {}), content.get("config_source", {})
        return task.eval()
