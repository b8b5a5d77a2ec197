"""Joins a backbone and a head to a network for one task: what `spine.create_model` returns and what a task trains."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import spine
from spine import weights as weight_files
from spine.downloads import Published, fetch, published, row_of_file
from spine.errors import InputError, nearest
from spine.inputs import InputSettings
from spine.interfaces import Backbone, FeatureSpec, Head, Reads, Tokens


class TaskFacts(NamedTuple):
    """What is known of a task before Lightning is imported."""

    feeds: Reads  # what it hands to its head
    head: str  # the default one
    needs: frozenset[str]  # sample keys it reads
    num_outputs: int | None = None  # where neither the caller nor a data set says it


TASKS = {
    "cls": TaskFacts("pooled", "linear", frozenset({"image", "label"})),
    "pose": TaskFacts("maps", "heatmap", frozenset({"image", "keypoints"})),
    "seg": TaskFacts("maps", "fcn", frozenset({"image", "mask"})),
    "mae": TaskFacts("tokens", "mae_decoder", frozenset({"image"})),
    "beit": TaskFacts("tokens", "token_classifier", frozenset({"image", "visual_tokens"}), 8192),  # words of the DALL-E tokenizer
}


class Network(nn.Module):
    """A backbone and a head."""

    def __init__(self, backbone: Backbone, head: Head):
        super().__init__()
        self.backbone = backbone
        self.head = head

    def compile_parts(self, backend: str | Callable = "inductor") -> None:
        """Compiles what a call of this network runs: encoder, pooling and head, masked or not.

        In place, so that the names in the state dict stay. Compiling the backbone alone would leave out `pool` and `forward_masked`,
        because `nn.Module.compile` compiles `__call__` only. `backend` is torch.compile's.
        """
        self.compile(backend=backend)


class Model(Network):
    """image (B, 3, H, W) -> the head's answer."""

    @property
    def patch_size(self) -> int | None:
        """P of token models, whose image sides must be multiples of it; None where any size does."""
        return self.backbone.spec.patch_size

    def forward(self, image: Tensor) -> Tensor:
        """cls: (B, classes); pose: (B, K, h, w); seg: (B, classes, h, w) at the head's own stride."""
        features = self.backbone(image)
        return self.head(self.backbone.pool(features) if self.head.reads == "pooled" else features)


class MaskedModel(Network):
    """image (B, 3, H, W), patch_mask (B, N) True = hidden -> what the head says of every patch (B, N, outputs).

    A backbone that has a masked form encodes the visible patches only ("drop") or puts a token in the place of hidden ones ("replace").
    For the others hidden patches are painted over with a learned pixel, and the pixels of the coarsest map are the tokens, as in SimMIM
    (Xie et al., arXiv 2111.09886).
    """

    def __init__(self, backbone: Backbone, head: Head, spec: FeatureSpec, masking: str, in_chans: int = 3):
        """`masking`: drop, replace or paint; `spec`: what the head was told."""
        super().__init__(backbone, head)
        self.masking = masking
        self.patch_size: int = spec.patch_size  # type: ignore[assignment]
        self.grid: tuple[int, int] = spec.grid  # type: ignore[assignment]
        self.painted_pixel = nn.Parameter(torch.zeros(1, in_chans, 1, 1)) if masking == "paint" else None

    @staticmethod
    def painted_spec(spec: FeatureSpec, image_size: tuple[int, int]) -> FeatureSpec:
        """What the head is told of a painted image: the pixels of the coarsest map are its patches."""
        channels, stride = spec.levels[-1]
        if image_size[0] % stride or image_size[1] % stride:
            near = [max(side // stride, 1) * stride for side in image_size]
            raise InputError(
                f"Masked patches are {stride} pixels wide for this backbone; the image size {image_size[0]}x{image_size[1]} is "
                f"not a multiple. Choose one, such as {near[0]}x{near[1]}."
            )
        grid = (image_size[0] // stride, image_size[1] // stride)
        return dataclasses.replace(spec, embed_dim=channels, patch_size=stride, grid=grid, masking=frozenset({"replace"}))

    def forward(self, image: Tensor, patch_mask: Tensor) -> Tensor:
        """(B, 3, H, W), (B, N) -> (B, N, P * P * 3) for MAE, (B, N, words) for BEiT."""
        if self.painted_pixel is None:
            tokens = self.backbone.forward_masked(image, patch_mask, self.masking)
        else:
            tokens = Tokens(self.backbone(self.paint(image, patch_mask)).maps[-1].flatten(2).transpose(1, 2))
        return self.head(tokens, patch_mask)

    def paint(self, image: Tensor, patch_mask: Tensor) -> Tensor:
        """Covers the hidden patches of images (B, 3, H, W) with the learned pixel (with zeros where none is painted)."""
        hidden = patch_mask.view(-1, 1, image.shape[-2] // self.patch_size, image.shape[-1] // self.patch_size).to(image.dtype)
        hidden = F.interpolate(hidden, image.shape[-2:], mode="nearest")
        pixel = 0.0 if self.painted_pixel is None else self.painted_pixel.to(image.dtype)
        return image * (1.0 - hidden) + pixel * hidden


def backbone_module(name: str) -> ModuleType:
    """The file of a backbone; InputError with the nearest spelling where there is none of that name."""
    names = spine.list_backbones()
    if name not in names:
        raise InputError(f"Unknown backbone '{name}'.{nearest(name, names)} Choices: {', '.join(names)}.")
    return importlib.import_module(f"spine.backbones.{name}")


def head_class(name: str) -> type[Head]:
    """The head of a file in spine.heads; InputError with the nearest spelling where there is none of that name."""
    names = list_heads()
    if name not in names:
        raise InputError(f"Unknown head '{name}'.{nearest(name, names)} Choices: {', '.join(names)}.")
    module = importlib.import_module(f"spine.heads.{name}")
    return next(
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Head) and value.__module__ == module.__name__
    )


def list_heads() -> list[str]:
    """Names of all heads: the files of spine.heads."""
    return sorted(path.stem for path in Path(__file__).with_name("heads").glob("*.py") if path.stem != "__init__")


def check_arguments(function: Callable, arguments: dict[str, Any], owner: str) -> None:
    """InputError naming the first of `arguments` that `function` does not take, with the nearest spelling."""
    parameters = inspect.signature(function).parameters.values()
    allowed = [p.name for p in parameters if p.name != "self" and p.kind is not inspect.Parameter.VAR_KEYWORD]
    for key in arguments:
        if key not in allowed:
            raise InputError(f"Unknown key '{owner}.{key}'.{nearest(key, allowed)} Choices: {', '.join(sorted(allowed))}.")


def build(
    backbone: str,
    head: str,
    task: str,
    num_outputs: int | None,
    *,
    image_size: tuple[int, int] | None = None,
    levels: tuple[int, ...] | None = None,
    backbone_options: dict[str, Any] | None = None,
    head_options: dict[str, Any] | None = None,
) -> Model | MaskedModel:
    """Builds the backbone for what the head reads, then the head from what the backbone states. InputError on any misfit."""
    module, head_type, facts = backbone_module(backbone), head_class(head), task_facts(task)
    phrase = {"pooled": "the pooled embedding", "maps": "feature maps", "tokens": "tokens"}
    if head_type.reads != facts.feeds:
        fitting = [name for name in list_heads() if head_class(name).reads == facts.feeds]
        raise InputError(
            f"Task '{task}' hands {phrase[facts.feeds]} to its head; '{head}' reads {phrase[head_type.reads]}. "
            f"Heads for {task}: {', '.join(fitting)}."
        )
    if levels is not None and head_type.reads != "maps":
        raise InputError(f"head.levels chooses among feature maps; head '{head}' reads {phrase[head_type.reads]}.")
    make = getattr(module, backbone)
    options = dict(backbone_options or {})
    if options.get("variant") is None:
        options.pop("variant", None)  # the builder's own default
    elif (variant := options["variant"]) not in module.VARIANTS:
        choices = list(module.VARIANTS)
        raise InputError(f"Unknown variant '{variant}' of {backbone}.{nearest(variant, choices)} Choices: {', '.join(choices)}.")
    check_arguments(make, options, "backbone")
    check_arguments(head_type.__init__, head_options or {}, "head")
    head_options = settle_head_options(backbone, head, options.get("variant"), head_options or {})
    if image_size is not None and "image_size" in inspect.signature(make).parameters:
        options["image_size"] = tuple(image_size)
    if head_type.reads == "pooled":
        net = make(**options, use="pooled")
        return Model(net, head_type(net.spec, _known(num_outputs, task), **head_options))
    with torch.device("meta"):  # what the backbone offers is known before any weight is made
        offered = make(**options, use="maps").spec
    if head_type.reads == "maps":
        chosen = levels if levels is not None else head_type.choose_levels(offered)
        net = make(**options, use="maps", levels=chosen)
        return Model(net, head_type(net.spec, _known(num_outputs, task), **head_options))
    masking = next((way for way in head_type.masking if way in offered.masking), "paint")
    net = make(**options, use="maps", levels=(-1,)) if masking == "paint" else make(**options, use=masking)
    in_chans = options.get("in_chans", 3)
    spec = MaskedModel.painted_spec(net.spec, image_size or (224, 224)) if masking == "paint" else net.spec
    outputs = num_outputs or facts.num_outputs or spec.patch_size**2 * in_chans  # type: ignore[operator]
    return MaskedModel(net, head_type(spec, outputs, **head_options), spec, masking, in_chans)


def settle_head_options(backbone: str, head: str, variant: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a head with every None replaced: by those of the published network, else by the head's own default.

    `variant` None is the builder's own. Options that the published network has and `options` does not mention are added.
    """
    module = backbone_module(backbone)
    if variant is None:
        variant = inspect.signature(getattr(module, backbone)).parameters["variant"].default
    published_options = getattr(module, "HEAD_OPTIONS", {}).get(head, {}).get(variant, {})
    own = inspect.signature(head_class(head).__init__).parameters
    defaults = {key: own[key].default for key, value in options.items() if value is None and key in own}
    return {**defaults, **published_options, **{key: value for key, value in options.items() if value is not None}}


def _known(num_outputs: int | None, task: str) -> int:
    if num_outputs is None:
        raise InputError(f"num_outputs is missing: task '{task}' needs the number of its classes or keypoints.")
    return num_outputs


def task_facts(task: str) -> TaskFacts:
    """Facts of a task by name; InputError with the nearest spelling where there is none."""
    if task not in TASKS:
        raise InputError(f"Unknown task '{task}'.{nearest(task, list(TASKS))} Choices: {', '.join(TASKS)}.")
    return TASKS[task]


class Opened(NamedTuple):
    """A weights file, and the options of the network that it is for."""

    source: weight_files.Source
    backbone_options: dict[str, Any]
    head_options: dict[str, Any]
    row: Published | None = None  # of the weight table, where it was asked for by name or the file has a published name
    input_settings: InputSettings = InputSettings()  # of the images that it was evaluated on, as far as row and file tell


def open_weights(
    make: partial, path: str | Path, backbone_options: dict[str, Any], head_options: dict[str, Any], layout: str | None = None
) -> Opened:
    """Reads a file and completes the options: the conventions of its layout, and where no variant is named the one it was made for.

    `path` may be a name of the backbone's weight table, whose file is fetched. `make` is `build` with everything but the two options.
    What the caller names stays as it is.
    """
    opened = read_weights(make.args[0], path, backbone_options, layout)
    head = _head_options_of(opened.source, make.args[1])
    given = {key: value for key, value in head_options.items() if value is not None}
    opened = opened._replace(head_options={**head, **given})
    if "variant" in opened.backbone_options:
        return opened
    return opened._replace(backbone_options={**opened.backbone_options, "variant": variant_of(make, opened)[0]})


def read_weights(backbone: str, path: str | Path, backbone_options: dict[str, Any], layout: str | None = None) -> Opened:
    """Reads a file, or the one of a name in the weight table, and what it tells without building a network: all but the variant."""
    module, row = backbone_module(backbone), None
    if not Path(path).is_file() and not Path(path).suffix:
        builder = inspect.signature(getattr(module, backbone))
        variant = backbone_options.get("variant") or builder.parameters["variant"].default
        row = published(str(path), module.WEIGHTS, variant)
        path, layout = fetch(row.address, row.sha256), layout or row.layout
        backbone_options = {**backbone_options, "variant": variant}
    else:
        row = row_of_file(Path(path), module.WEIGHTS)
        layout = layout or (row.layout if row else None)
    source = weight_files.understand(path, module.LAYOUTS, layout)
    options = {**source.layout.options, **{key: value for key, value in backbone_options.items() if key != "variant" or value}}
    settings = row.input_settings if row else weight_files.input_settings(source)
    return Opened(source, options, {}, row, settings)


def _head_options_of(source: weight_files.Source, head: str) -> dict[str, Any]:
    """What a file tells of the head called `head`: its layout's conventions, or in our own checkpoints what it was built with."""
    parameters = set(inspect.signature(head_class(head).__init__).parameters)
    told = source.layout.head_options
    found = dict(told(source.tensors) if callable(told) else told)
    node = source.config.get("head")
    if isinstance(node, dict) and str(node.get("_target_", "")).startswith(f"spine.heads.{head}."):
        kept = parameters - {"dropout"}  # a number of the training, not of the network
        found |= {key: value for key, value in node.items() if key in kept and value is not None}
    return found if set(found) <= parameters else {}  # a layout speaks of its own head only


def variant_of(make: partial, opened: Opened) -> tuple[str, float]:
    """The variant of which a file holds most, and how much, by building each on the meta device."""
    shares, refused = {}, InputError("")
    for variant in backbone_module(make.args[0]).VARIANTS:
        options = {**opened.backbone_options, "variant": variant}
        try:
            with torch.device("meta"):
                net = make(backbone_options=options, head_options=opened.head_options)
        except InputError as error:  # a patch of 14 pixels and an image that is a multiple of 16
            refused = error
            continue
        report, _ = weight_files.compare(net, opened.source)
        # tables that fit as they are tell Swin's windows apart
        shares[variant] = (report.share, -len(report.unused) - len(report.resized))
        if shares[variant] == (1.0, 0):  # no other can be better
            break
    if not shares:
        raise refused
    best = max(shares, key=lambda variant: shares[variant])
    return best, shares[best][0]


def load_weights(model: nn.Module, make: partial, opened: Opened) -> weight_files.Report:
    """Loads an opened file into the network made with its options; a file of another variant is named."""
    backbone, asked = make.args[0], opened.backbone_options["variant"]

    def sibling() -> str | None:
        other, share = variant_of(make, opened)
        return f"{backbone} {other}" if other != asked and share >= weight_files.FLOOR else None

    return weight_files.load(model, opened.source, f"{backbone} {asked}", sibling)


def create_model(
    backbone: str,
    *,
    variant: str | None = None,
    task: str = "cls",
    num_outputs: int | None = None,
    weights: str | Path | None = None,
    layout: str | None = None,
    head: str | None = None,
    image_size: tuple[int, int] | int | None = None,
    head_options: dict[str, Any] | None = None,
    **options: Any,
) -> Model | MaskedModel:
    """Builds a network for one task.

    backbone: one of spine.list_backbones(); variant: one of spine.list_variants(backbone), the paper's middle size by default.
    task: cls image (B, 3, H, W) -> (B, num_outputs) logits; pose -> (B, num_outputs, H / 4, W / 4) heatmaps; seg ->
        (B, num_outputs, h, w) logits at the head's own stride; mae image, patch_mask (B, N) True = hidden -> (B, N, P * P * 3),
        N = (H / P) * (W / P), P = net.patch_size, patches in raster order, pixels in the order row, column, channel; beit image,
        patch_mask -> (B, N, 8192) logits of visual words (a network to train with a tokenizer of your own; no task trains it yet).
    weights: a name of the backbone's weight table, such as imagenet1k, or a file (pth, pt, bin, ckpt, safetensors, npz) of the backbone
        or of the whole network, in any published layout. Conventions that come with a layout (epsilons, padding, pooling) are set, and
        of a file without `variant` its own is built.
    layout: its name where the file cannot tell, such as timm_tf.
    head: a file of spine.heads, the task's own by default; head_options: arguments of its constructor.
    image_size: (height, width) or one number; networks with a table of positions are built for it (224 by default).
    options: any argument of the backbone's builder, such as drop_path_rate or in_chans.
    Images are normalised; every network has .backbone and .head. Builds on the meta device too, where no weights are given.
    Raises ValueError where names, parts, sizes or weights do not fit.
    """
    if variant is not None:
        options["variant"] = variant
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    own_head = dict(head_options or {})
    make = partial(build, backbone, head or task_facts(task).head, task, num_outputs, image_size=size)
    if weights is None:
        return make(backbone_options=options, head_options=own_head)
    opened = open_weights(make, weights, options, own_head, layout)
    model = make(backbone_options=opened.backbone_options, head_options=opened.head_options)
    print(load_weights(model, make, opened))
    return model
