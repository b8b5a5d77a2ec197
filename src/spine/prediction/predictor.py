"""A trained model with everything around it: images in, typed predictions out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import overload

import numpy as np
import torch
from PIL import Image
from pytorch_lightning.plugins.precision import DoublePrecision, HalfPrecision, MixedPrecision, Precision
from torch import Tensor, nn

from spine.data.image_files import read_image
from spine.data.transforms.pipeline import to_pixels
from spine.errors import InputError
from spine.prediction.description import ModelDescription
from spine.prediction.items import Item, ItemBatch, collate_items, make_item
from spine.prediction.parts import prediction_class, task_class
from spine.prediction.prediction import Prediction
from spine.prediction.preprocessing import Boxes, Preprocessing, evaluation_steps, with_own_sizes
from spine.prediction.sources import ImageFile, Video, find_source
from spine.tasks.base import Batch, Task
from spine.tokenizers.dvae import DiscreteVAE
from spine.training.precision import device_type, resolve_precision

ImageInput = str | Path | np.ndarray | Image.Image  # (H, W, 3) or (H, W) uint8, RGB


class Predictor:
    """Predicts for images of any size, with the transforms and the inference of evaluations.

        model = spine.load("logs/.../checkpoints/best.ckpt")
        model.predict("photo.jpg").top(5)           # a path or an array (H, W, 3) uint8 RGB: one prediction
        model.predict(["a.jpg", "b.jpg"])           # a list of them: a list of predictions
        for found in model.stream("video.mp4"): ... # a folder, a pattern, a list of files, a video or a camera

    `description` says what the model is, `network` computes: a network of PyTorch, or a `BackendNetwork`.
    """

    def __init__(
        self,
        description: ModelDescription,
        network: nn.Module,
        *,
        tokenizer: DiscreteVAE | None = None,
        device: str | torch.device = "auto",
        precision: str | None = None,
    ):
        """`tokenizer`: of a network that predicts its tokens. `device`: such as cpu, cuda or cuda:1; auto for a GPU if there is one.

        `precision`: None for that of evaluations; 16-mixed becomes 32-true without a GPU. Raises InputError if the description does
        not fit this version of spine.
        """
        self.device = torch.device(device_type("auto") if device == "auto" else device)
        self.precision = _precision(precision or description.precision, self.device)
        steps = evaluation_steps(description)
        self.description = with_own_sizes(description, steps)
        self.task = _build_task(self.description, network, tokenizer)
        self.precision.convert_module(self.task)
        self.task.to(self.device).eval().requires_grad_(False)
        self.preprocessing = Preprocessing(self.description, steps, self.task.sample_extras())
        self.kind = prediction_class(description.task)

    @overload
    def predict(  # type: ignore[overload-overlap]  # text is a sequence of text
        self, images: ImageInput, *, boxes: Boxes | None = None, batch_size: int = 32
    ) -> Prediction: ...

    @overload
    def predict(
        self, images: Sequence[ImageInput], *, boxes: Sequence[Boxes] | None = None, batch_size: int = 32
    ) -> list[Prediction]: ...

    def predict(
        self,
        images: ImageInput | Sequence[ImageInput],
        *,
        boxes: Boxes | Sequence[Boxes] | None = None,
        batch_size: int = 32,
    ) -> Prediction | list[Prediction]:
        """Returns the prediction for an image, or a list with those for a list of images.

        `images`: paths, arrays (H, W, 3) or (H, W) uint8 in RGB order, or images of Pillow. `boxes`: for keypoints, the objects of the
        image, (n, 4): x, y, width, height in its pixels; a list of them for a list of images; None for whole images.
        Raises InputError if a file cannot be read, or an array is no image.
        """
        single = isinstance(images, str | Path | np.ndarray | Image.Image)
        listed: Sequence[ImageInput] = [images] if single else images  # type: ignore[assignment,list-item]
        of_each = [boxes] if single else list(boxes) if boxes is not None else [None] * len(listed)
        if len(of_each) != len(listed):
            raise InputError(f"There are boxes for {len(of_each)} images, and {len(listed)} images.")
        if boxes is not None and not self.preprocessing.finds_keypoints:
            raise InputError(f"boxes are for keypoints; this model is for task '{self.description.task}'.")
        items = (self._item(i, image, own) for i, (image, own) in enumerate(zip(listed, of_each, strict=True)))
        found = [prediction for batch in _batches(items, batch_size) for prediction in self.predict_batch(batch, batch_size)]
        return found[0] if single else found

    def stream(self, source: str | int | Path, *, batch_size: int = 1) -> Iterator[Prediction]:
        """Yields the predictions for the images of a source, in order.

        `source`: an image, a folder with its subfolders, a pattern such as `photos/*.jpg`, a text file with one path per line, a
        video, or the number of a camera. Raises InputError as `predict` does, or if there is nothing of that name.
        """
        found = find_source(source)
        items: Iterable[Item]
        if isinstance(found, Video):
            items = (self.frame_item(found, i, frame) for i, frame in enumerate(found.frames()))
        else:
            items = (self._item(file.index, file.path, None, file) for file in found)
        for batch in _batches(items, batch_size):
            yield from self.predict_batch(batch, batch_size)

    def frame_item(self, video: Video, index: int, frame: np.ndarray) -> Item:
        """Returns the item of a frame (H, W, 3) uint8."""
        return make_item(Item(index, f"{video.name}#{index:06}", pixels=frame), frame, self.preprocessing)

    def predict_batch(self, items: ItemBatch, batch_size: int) -> list[Prediction]:
        """Returns the predictions for the items of a batch, in order. The network gets at most `batch_size` samples at once."""
        inputs: Batch = {}
        outputs: Batch = {}
        if items.batch is not None:
            parts = [self._run(part) for part in _split(items.batch, batch_size)]
            inputs, outputs = _joined([part[0] for part in parts]), _joined([part[1] for part in parts])
        predictions, start = [], 0
        for item, count in zip(items.items, items.counts, strict=True):
            rows = slice(start, start + count)
            own = {key: value[rows] for key, value in inputs.items()} if count else {}
            found = {key: value[rows] for key, value in outputs.items()} if count else {}
            predictions.append(self.kind.of_item(item, own, found, self.task, self.to_pixels))
            start += count
        return predictions

    def to_pixels(self, image: Tensor) -> np.ndarray:
        """Converts normalized images (B, 3, H, W) to pixels (B, H, W, 3) uint8 RGB."""
        return to_pixels(image, self.description.mean, self.description.std, self.description.channels)

    def _item(self, index: int, image: ImageInput, boxes: Boxes | None, file: ImageFile | None = None) -> Item:
        if isinstance(image, str | Path):
            if os.path.isdir(image):
                raise InputError(f"'{image}' is a folder; model.stream('{image}') predicts for the images in it.")
            pixels, path = read_image(image), str(image)
            item = Item(index, file.name if file is not None else os.path.basename(path), path=path)
        else:
            pixels = check_pixels(image)
            item = Item(index, str(index), pixels=pixels)
        if boxes is not None:
            item = replace(item, boxes=check_boxes(boxes))
        return make_item(item, pixels, self.preprocessing)

    def _run(self, batch: Batch) -> tuple[Batch, dict[str, Tensor]]:
        """Returns the inputs and the outputs of the task for one batch, on the CPU."""
        moved = {key: value.to(self.device, non_blocking=True) for key, value in batch.items()}
        with self._computing():
            moved = self.task.on_after_batch_transfer(self.precision.convert_input(moved), 0)
            outputs = self.task.predict_batch(moved)
        added = {key: moved[key].cpu() for key in moved.keys() - batch.keys()}
        return {**batch, **added}, {key: value.cpu() for key, value in outputs.items()}

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Computes without gradients and in the precision of evaluations; leaves the settings of the process as they were."""
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if isinstance(self.precision, MixedPrecision) else "highest")
        try:
            with torch.inference_mode(), self.precision.forward_context():
                yield
        finally:
            torch.set_float32_matmul_precision(before)


def _build_task(description: ModelDescription, network: nn.Module, tokenizer: DiscreteVAE | None) -> Task:
    """Builds the task of a description. Raises InputError if it needs a tokenizer, or another one."""
    options = dict(description.task_options)
    if description.tokenizer is not None:
        if tokenizer is None:
            raise InputError("This model predicts the tokens of a tokenizer, and none is given. Give tokenizer=<file>.")
        options["tokenizer"] = tokenizer
    try:
        task = task_class(description.task)(model=network, labels=description.labels, **options)
    except TypeError as error:
        raise InputError(f"The options of task '{description.task}' do not fit this version of spine ({error}).") from error
    if description.tokenizer is not None:
        task.check_checkpoint({"tokenizer": description.tokenizer})
    return task


def _precision(name: str, device: torch.device) -> Precision:
    """Returns Lightning's plug-in for a precision. Raises InputError for an unknown one."""
    name = resolve_precision(str(name), device.type)
    name = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true", "64": "64-true"}.get(name, name)
    if name == "32-true" or (name == "16-mixed" and device.type == "cpu"):
        return Precision()
    if name in ("16-mixed", "bf16-mixed"):
        return MixedPrecision(name, device.type)  # type: ignore[arg-type]
    if name in ("16-true", "bf16-true"):
        return HalfPrecision(name)  # type: ignore[arg-type]
    if name == "64-true":
        return DoublePrecision()
    raise InputError(f"precision is '{name}'; choices: auto, 32-true, 16-mixed, bf16-mixed, 16-true, bf16-true, 64-true.")


def _batches(items: Iterable[Item], size: int) -> Iterator[ItemBatch]:
    iterator = iter(items)
    return map(collate_items, iter(lambda: list(islice(iterator, size)), []))


def _split(batch: Batch, size: int) -> Iterator[Batch]:
    """Yields a batch in parts of at most `size` samples."""
    count = len(batch["image"])
    for start in range(0, count, size):
        yield batch if count <= size else {key: value[start : start + size] for key, value in batch.items()}


def _joined(parts: Sequence[Batch]) -> Batch:
    """Returns the values of several batches as one."""
    return parts[0] if len(parts) == 1 else {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def check_pixels(image: np.ndarray | Image.Image) -> np.ndarray:
    """Returns an image as (H, W, 3) uint8 RGB. Raises InputError if an array has another type or shape."""
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim not in (2, 3):
        found = f"{image.dtype} of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"An image is {found}; it should be a path, or an array (H, W, 3) or (H, W) of uint8 in RGB order.")
    pixels = image[..., None] if image.ndim == 2 else image
    if pixels.shape[2] not in (1, 3) or not pixels.size:
        raise InputError(f"An image has shape {image.shape}; it should be (H, W, 3) or (H, W), in RGB order.")
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def check_boxes(boxes: Boxes) -> Boxes:
    """Returns boxes as (n, 4) float32. Raises InputError if they have another shape, or no area."""
    found = np.asarray(boxes, np.float32).reshape(-1, 4) if np.size(boxes) % 4 == 0 else np.zeros((1, 4), np.float32)
    if not np.isfinite(found).all() or (found[:, 2:] <= 0).any():
        raise InputError("boxes should be (n, 4): x, y, width, height of each object in pixels, with a width and height above 0.")
    return found
