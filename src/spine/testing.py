"""Checks of what backbones, heads and data sets promise. spine's own tests use them, and so can those of a plug-in.

    from spine import plugins, testing

    plugins.add("my_parts")
    testing.check_backbone("plain_net")

Each check raises AssertionError or InputError with the promise that is not kept.
"""

from __future__ import annotations

import itertools
from typing import cast

import numpy as np
import torch
from torch import Tensor

from spine.components import backbone_builder, backbone_module, head_class, modules, task_spec
from spine.interfaces import Backbone, DataSet, TrainingOutputs
from spine.models.assembly import NetworkConfig, head_fits
from spine.models.masked import MaskedModel

SIZE = (64, 96)  # height, width of the images
OUTPUTS = 5


def check_backbone(name: str, variant: str = "micro", heads: bool = True) -> None:
    """Checks a backbone: specification, levels, pooling, layer groups, masked forms, and that every fitting head trains on it.

    `variant` should be small: it is built about twenty times on the CPU. `heads` false leaves the heads out.
    """
    assert variant in backbone_module(name).VARIANTS, f"{name} has no variant '{variant}'"
    every = _built(name, variant, use="maps")
    image = torch.randn(2, 3, *SIZE)
    maps = every(image).maps
    levels = every.spec.levels
    assert len(maps) == len(levels), f"spec has {len(levels)} levels, forward returns {len(maps)} maps"
    for level, x in zip(levels, maps, strict=True):
        assert x.shape[:2] == (2, level.channels), f"spec says {level.channels} channels, the map has shape {tuple(x.shape)}"
        for side, whole in zip(x.shape[2:], SIZE, strict=True):
            assert abs(side - whole / level.stride) <= 1, f"spec says stride {level.stride}, the map has shape {tuple(x.shape)}"
    strides = [level.stride for level in levels]
    assert strides == sorted(strides), f"levels go from fine to coarse; their strides are {strides}"
    for chosen in ((0,), (-1,), tuple(range(1, len(levels)))):
        _check_levels(name, variant, every, chosen, image)
    pooled = _built(name, variant, use="pooled")
    embedding = pooled.pool(pooled(image))
    assert embedding.shape == (2, pooled.spec.embed_dim), (
        f"spec says embed_dim {pooled.spec.embed_dim}, pool returns {tuple(embedding.shape)}"
    )
    for use in ("pooled", "maps", *sorted(every.spec.masking)):
        _check_layer_groups(_built(name, variant, use=use))
    for task, head in _fitting() if heads else ():
        check_network(name, head, task, variant)


def check_head(name: str, backbone: str = "convnext") -> None:
    """Checks a head: it builds and trains on a backbone for every task that passes its input kind."""
    reads = head_class(name).reads
    tasks = [task for task in modules("task") if head_fits(head_class(name), task_spec(task))]
    assert tasks, f"no task passes '{reads}' to its head and takes its output"
    for task in tasks:
        check_network(backbone, name, task)


def check_network(backbone: str, head: str, task: str, variant: str = "micro") -> None:
    """Checks that a network computes an output and that every parameter gets a gradient (process groups stop at one that does not)."""
    spec = task_spec(task)
    outputs = OUTPUTS if spec.labels else None
    options = {"variant": variant}
    net = NetworkConfig(backbone, head, spec, outputs, image_size=(64, 64), backbone_options=options).build().train()
    out = _run(net, torch.randn(4, 3, 64, 64))
    if isinstance(out, TrainingOutputs):
        out = torch.cat([out.output.flatten(), *(extra.flatten() for extra, _ in out.auxiliary)])
    assert out.isfinite().all(), f"{backbone} with {head}: the output is not finite"
    out.float().square().mean().backward()
    missing = [key for key, p in net.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing, f"{backbone} with {head}: no gradient reaches {', '.join(missing[:3])}"
    if isinstance(net, MaskedModel):
        _check_masked_only(net.eval(), torch.randn(2, 3, 64, 64), head)


def check_data(data: DataSet, indices: tuple[int, ...] = (0,)) -> None:
    """Checks a split of a data set: labels, and the types and shapes of the samples at `indices`, which are read twice."""
    assert len(data) > max(indices), f"the data set has {len(data)} samples"
    data.check(data.provides)
    for index in indices:
        sample, again = (cast(dict[str, object], data.load(index)) for _ in range(2))
        assert data.provides <= sample.keys(), f"provides {sorted(data.provides)}, load gives {sorted(sample)}"
        for key, value in sample.items():
            assert np.array_equal(np.asarray(value), np.asarray(again[key])), (
                f"'{key}' of sample {index} differs when it is read again"
            )
        image = np.asarray(sample["image"])
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3, "image is (H, W, 3) uint8"
        if "label" in data.provides and data.labels.several_classes:
            label = np.asarray(sample["label"])
            assert label.dtype == np.uint8 and label.shape == (len(data.labels.classes),) and set(label) <= {0, 1, 255}, (
                "label is (classes,) uint8 of 0, 1 and 255 with labels.several_classes"
            )
        elif "label" in data.provides:
            assert 0 <= cast(int, sample["label"]) < len(data.labels.classes), "label is an index into labels.classes"
        if "mask" in data.provides:
            mask, classes = np.asarray(sample["mask"]), len(data.labels.mask_classes)
            shape, values = (image.shape[:2], range(classes))
            if data.labels.multi_label:
                shape, values = ((*image.shape[:2], classes), range(2))
            assert mask.dtype == np.uint8 and mask.shape == shape, (
                "mask is (H, W) uint8, or (H, W, classes) with labels.multi_label"
            )
            assert set(np.unique(mask)) <= {*values, 255}, "mask holds class indices, or 0 and 1 with labels.multi_label, and 255"
            assert len(data.labels.palette) in (0, len(data.labels.mask_classes)), "labels.palette has one color for each class"
        if "keypoints" in data.provides:
            assert np.asarray(sample["keypoints"]).shape == (len(data.labels.keypoints), 3), (
                "keypoints are (K, 3): x, y, visibility"
            )
            assert len(data.labels.sigmas) == len(data.labels.keypoints), "labels.sigmas has one number for each keypoint"


def _built(name: str, variant: str, **options: object) -> Backbone:
    net = backbone_builder(name)(variant, **options)
    assert isinstance(net, Backbone), f"{name} builds {type(net).__name__}, which is not a Backbone"
    return net.eval()


def _check_levels(name: str, variant: str, every: Backbone, levels: tuple[int, ...], image: Tensor) -> None:
    """A network built for some levels computes the same maps as one built for all."""
    some = _built(name, variant, use="maps", levels=levels)
    own = some.state_dict()
    some.load_state_dict({key: value for key, value in every.state_dict().items() if key in own}, strict=True)
    count = len(every.spec.levels)
    with torch.no_grad():
        maps, chosen = every(image).maps, some(image).maps
    for level, x in zip(sorted(level % count for level in levels), chosen, strict=True):
        assert torch.allclose(x, maps[level], rtol=1e-5, atol=1e-6), (
            f"level {level} differs if {name} is built for levels {levels}"
        )


def _check_layer_groups(net: Backbone) -> None:
    for key, _ in net.named_parameters():
        count = sum(key.startswith(group) for group in net.layer_groups())
        assert count == 1, f"'{key}' is in {count} of the layer groups; every parameter belongs to one"


def _fitting() -> list[tuple[str, str]]:
    """Pairs of task and head that fit together."""
    pairs = itertools.product(modules("task"), modules("head"))
    return [(task, head) for task, head in pairs if head_fits(head_class(head), task_spec(task))]


def _check_masked_only(net: MaskedModel, image: Tensor, head: str) -> None:
    """The outputs of the masked patches alone are those among the outputs of all patches."""
    patch_mask = _patch_mask(net, image)
    with torch.no_grad():
        every, masked = net(image, patch_mask), net(image, patch_mask, masked_only=True)
    assert masked.shape == every[patch_mask].shape and torch.allclose(masked, every[patch_mask], rtol=1e-4, atol=1e-5), (
        f"{head} with masked_only=True does not return the outputs of the masked patches"
    )


def _patch_mask(net: MaskedModel, image: Tensor) -> Tensor:
    return torch.arange(net.grid[0] * net.grid[1]).expand(len(image), -1) % 4 > 0


def _run(net: torch.nn.Module, image: Tensor) -> Tensor | TrainingOutputs:
    return net(image, _patch_mask(net, image)) if isinstance(net, MaskedModel) else net(image)
