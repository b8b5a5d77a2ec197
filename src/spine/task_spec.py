"""The specification of a task: what is known about it without importing Lightning or torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from spine.errors import InputError
from spine.option_types import Schema

if TYPE_CHECKING:
    from spine.interfaces import Labels

HeadInput = Literal["pooled", "maps", "tokens"]  # what a head reads: the pooled embedding, feature maps, or tokens
INPUT_NAMES: Mapping[HeadInput, str] = {"pooled": "the pooled embedding", "maps": "feature maps", "tokens": "tokens"}


@dataclass(frozen=True)
class Protocol:
    """A way to evaluate a pre-trained backbone with a task, in place of training the whole network."""

    target: str  # a subclass of the task's class, such as spine.tasks.cls.linear_probe.LinearProbe
    options: Schema  # types and ranges of its keys in `protocol`; the class takes them as arguments
    trains: bool = True  # False: nothing is trained, so that there is no checkpoint


@dataclass(frozen=True)
class TaskSpec:
    """Facts about a task. Each folder of `spine.tasks` has one, as `SPEC` in its `spec.py`.

    The network of a task has a backbone and a head, unless `network` names another one.
    """

    name: str  # that of the folder
    needs: frozenset[str]  # sample keys that the task reads
    head_input: HeadInput | None = None  # what the task passes to its head; None: there is no head
    default_head: str | None = None
    network: str | None = None  # the NetworkDefinition of a network without backbone and head, by its full name
    network_options: Schema = field(default_factory=dict)  # keys of `task` that `network` reads, and not the constructor
    labels: Literal["classes", "mask_classes", "keypoints"] | None = None  # the field of Labels that counts the outputs
    num_outputs: int | None = None  # a fixed number of outputs; None and no `labels`: the patch size decides
    reads_tokenizer: bool = False  # needs `tokenizer=`; then a run has one output for each of its codes
    masking: tuple[str, ...] = ("drop", "replace")  # of masked images; "drop" needs as many masked patches in every image
    reads_pixels: bool = False  # images are not normalized: pixels are in 0..1
    pads_images: bool = False  # pads images to a multiple of the patch size of token networks, with ignored pixels
    auxiliary_losses: bool = False  # adds the losses of auxiliary outputs (`interfaces.TrainingOutputs`) in training
    takes_targets: bool = False  # its loss takes the probabilities of classes, `target` (B, classes), which mixup makes
    options: Schema = field(default_factory=dict)  # types and ranges of the constructor's options
    protocols: Mapping[str, Protocol] = field(default_factory=dict)  # by name, in addition to finetune

    def require_head(self) -> tuple[HeadInput, str]:
        """The input of the head, and the default head. Raises InputError if the task has no head."""
        if self.head_input is None or self.default_head is None:
            raise InputError(f"Task '{self.name}' has a network of its own, without backbone and head.")
        return self.head_input, self.default_head

    def count_outputs(self, labels: Labels) -> int | None:
        """The number of outputs of a head for the labels of a data set. None if the patch size decides."""
        return len(getattr(labels, self.labels)) if self.labels else self.num_outputs
