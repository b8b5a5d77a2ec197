"""MobileNetV3 as timm, OpenMMLab and d-li14 (github.com/d-li14/mobilenetv3.pytorch) publish it.

Which of our layers a name stands for depends on where squeeze-and-excitation is: Large, Small and the minimalistic two have a layout each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from spine.checkpoints.input_settings import HALF, IMAGENET
from spine.checkpoints.mapping import FLATTEN, UNFLATTEN, Layout, Rule, TensorConversion, with_input

Names = tuple[str, str]  # of a convolution and its norm, or of two layers that squeeze


Parts = tuple[Names, Names, Names, Names]  # expansion, depthwise convolution, squeeze-and-excitation, projection


NONE: Names = ("", "")


class Kind(NamedTuple):
    """What its names are made of."""

    repeats: tuple[int, ...]  # blocks of timm's stages
    squeezed: tuple[int, ...] = ()  # blocks with squeeze-and-excitation

    def places(self) -> Iterator[tuple[int, int, int]]:
        """timm's stage and place in it, and our number, of each block."""
        stages = ((stage, i) for stage, count in enumerate(self.repeats) for i in range(count))
        return ((*place, n) for n, place in enumerate(stages, 1))


LARGE = Kind((1, 2, 3, 4, 2, 3), (4, 5, 6, 11, 12, 13, 14, 15))


SMALL = Kind((1, 2, 3, 2, 3), (1, *range(4, 12)))


def pair(theirs: str, ours: str, names: Names) -> tuple[Rule, ...]:
    """A convolution and its norm."""
    return tuple(Rule(f"{theirs}.{name}.*" if theirs else f"{name}.*", f"{ours}.{k}.*") for k, name in enumerate(names))


def both(theirs: str) -> Names:
    """A convolution and its norm in mmcv's words."""
    return f"{theirs}.conv", f"{theirs}.bn"


def small_has(kind: Kind, mark: str) -> dict[str, tuple[str, ...]]:
    """A name that only files of Small have."""
    return {"required" if kind is SMALL else "forbidden": (mark,)}


def block(kind: Kind, n: int, theirs: str, parts: Parts, linear: TensorConversion | None = None) -> Iterator[Rule]:
    """Rows of block `n`; `linear` where the squeezing layers are no convolutions there. The first block does not expand."""
    expand, depthwise, squeeze, project = parts
    ours = f"backbone.features.{n}.block"
    before = (depthwise,) if n == 1 else (expand, depthwise)
    after = len(before)
    for k, names in enumerate(before):
        yield from pair(theirs, f"{ours}.{k}", names)
    if n in kind.squeezed:
        for k, name in enumerate(squeeze, 1):
            yield Rule(f"{theirs}.{name}.weight", f"{ours}.{after}.fc{k}.weight", linear)
            yield Rule(f"{theirs}.{name}.bias", f"{ours}.{after}.fc{k}.bias")
        after += 1
    yield from pair(theirs, f"{ours}.{after}", project)


def layout(publisher: str, stem: Names, blocks: Iterable[Rule], last: Names, tail: tuple[Rule, ...], **facts: Any) -> Layout:
    """Stem, blocks, last convolution; `tail` is the hidden layer and the classifier."""
    ends = (*pair("", "backbone.features.0", stem), *pair("", "backbone.pooling.conv", last))
    return Layout(publisher, (*ends, *blocks, *tail), **facts)


def timm(publisher: str, kind: Kind, options: dict[str, Any]) -> Layout:
    """timm's; the layer behind the average is a 1x1 convolution there."""
    squeeze = ("se.conv_reduce", "se.conv_expand")
    parts: Parts = (("conv_pw", "bn1"), ("conv_dw", "bn2"), squeeze, ("conv_pwl", "bn3"))
    first: Parts = (NONE, ("conv_dw", "bn1"), squeeze, ("conv_pw", "bn2"))
    places = kind.places()
    blocks = (row for stage, i, n in places for row in block(kind, n, f"blocks.{stage}.{i}", first if n == 1 else parts))
    tail = (
        Rule("conv_head.weight", "backbone.pooling.hidden.weight", FLATTEN),
        Rule("conv_head.bias", "backbone.pooling.hidden.bias"),
        Rule("classifier.*", "head.linear.*"),
    )
    stages = len(kind.repeats)
    marks = {  # names that tell the kinds apart, and whether this one has them
        "blocks.0.0.se.conv_reduce.weight": 1 in kind.squeezed,
        "blocks.2.0.se.conv_reduce.weight": 4 in kind.squeezed,
        "blocks.5.0.conv_dw.weight": stages == 6,
    }
    return layout(
        publisher,
        ("conv_stem", "bn1"),
        blocks,
        (f"blocks.{stages}.0.conv", f"blocks.{stages}.0.bn1"),
        tail,
        options=options,
        required=tuple(mark for mark, has in marks.items() if has),
        forbidden=tuple(mark for mark, has in marks.items() if not has),
    )


def openmmlab(kind: Kind) -> Layout:
    """OpenMMLab's, whose hidden layer is the head's."""
    squeeze = ("se.conv1.conv", "se.conv2.conv")
    parts: Parts = (both("expand_conv"), both("depthwise_conv"), squeeze, both("linear_conv"))
    blocks = (row for _, _, n in kind.places() for row in block(kind, n, f"backbone.layer{n}", parts))
    stem, last = both("backbone.layer0"), both(f"backbone.layer{sum(kind.repeats) + 1}")
    tail = (Rule("head.layers.0.fc.*", "backbone.pooling.hidden.*"), Rule("head.layers.1.fc.*", "head.linear.*"))
    told = small_has(kind, "backbone.layer1.se.conv1.conv.weight")
    return layout("openmmlab", stem, blocks, last, tail, wrapper="state_dict", **told)


def d_li14(kind: Kind) -> Layout:
    """d-li14's, whose blocks are flat and number their activations too."""
    parts: Parts = (("0", "1"), ("3", "4"), ("5.fc.0", "5.fc.2"), ("7", "8"))
    first: Parts = (NONE, ("0", "1"), ("3.fc.0", "3.fc.2"), ("4", "5"))
    numbers = range(1, sum(kind.repeats) + 1)
    blocks = (row for n in numbers for row in block(kind, n, f"features.{n}.conv", first if n == 1 else parts, UNFLATTEN))
    stem, last = ("features.0.0", "features.0.1"), ("conv.0", "conv.1")
    tail = (Rule("classifier.0.*", "backbone.pooling.hidden.*"), Rule("classifier.3.*", "head.linear.*"))
    options = {"norm_eps": 1e-5, "squeeze_before_act": True}
    return layout("d_li14", stem, blocks, last, tail, options=options, **small_has(kind, "features.1.conv.3.fc.0.weight"))


# timm's `tf_` files hold TensorFlow's weights under the same names, so that they must be called so; only they are minimalistic too.
OTHER_PUBLISHERS = (
    *(timm("timm", kind, {"norm_eps": 1e-5}) for kind in (LARGE, SMALL)),  # some of ImageNet's mean, some of 0, some of 0.5
    *with_input(
        replace(HALF, interpolation="bilinear"),
        (timm("timm_tf", kind, {"tf_padding": True}) for kind in (LARGE, SMALL, Kind(LARGE.repeats), Kind(SMALL.repeats))),
    ),
    *with_input(IMAGENET, (*map(openmmlab, (LARGE, SMALL)), *map(d_li14, (LARGE, SMALL)))),
)


# torchvision's names; the last convolution is number 16 of Large and 12 of Small.
BEYOND_SMALL = ("features.13.block.0.0.weight",)


TORCHVISION_LARGE, TORCHVISION_SMALL = (
    Layout(
        "torchvision",
        (
            Rule(f"features.{last}.*.*", "backbone.pooling.conv.*.*"),
            Rule("features.**", "backbone.features.**"),
            Rule("classifier.0.*", "backbone.pooling.hidden.*"),
            Rule("classifier.3.*", "head.linear.*"),
        ),
        required=needs,
        forbidden=lacks,
    )
    for last, needs, lacks in ((16, BEYOND_SMALL, ()), (12, (), BEYOND_SMALL))
)


LAYOUTS = (*with_input(IMAGENET, (TORCHVISION_LARGE, TORCHVISION_SMALL)), *OTHER_PUBLISHERS)
