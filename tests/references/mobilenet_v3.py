"""MobileNetV3: torchvision's, and timm's for what torchvision has otherwise or not at all (other widths, minimalistic models)."""

from recording import CLASSES, Case, renamed

from spine.backbones.mobilenet_v3 import LAYOUT

TIMM = [  # from timm's stages and blocks to torchvision's parts; number() then counts the blocks
    (r"^conv_stem\.", "stem.0."),
    (r"^bn1\.", "stem.1."),
    (r"^blocks\.\d\.0\.conv\.", "last.0."),
    (r"^blocks\.5\.0\.bn1\.", "last.1."),
    (r"^conv_head\.", "classifier.0."),
    (r"^classifier\.", "classifier.3."),
]


def torchvision():
    from torchvision.models import mobilenet_v3_large

    return mobilenet_v3_large(num_classes=CLASSES, dropout=0.0)


def timm(name):
    import timm

    return timm.create_model(name, num_classes=CLASSES, bn_eps=1e-3, bn_momentum=0.01, pad_type="")


def timm_names(state):
    """torchvision's names for those of timm's Small networks; the hidden layer is a 1x1 convolution there."""
    blocks = sorted({tuple(key.split(".")[1:3]) for key in state if key.startswith("blocks.")})[:-1]
    found = {}
    for key, value in state.items():
        name = renamed(TIMM)({key: value}).popitem()[0]
        if name.startswith("blocks."):
            _, stage, block, part, *rest = name.split(".")
            place = (stage, block)
            expands = f"blocks.{stage}.{block}.conv_pwl.weight" in state  # else depthwise and projection only
            squeezes = f"blocks.{stage}.{block}.se.conv_reduce.weight" in state
            parts = ["expand"] * expands + ["depthwise"] + ["squeeze"] * squeezes + ["project"]
            names = ("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")
            if not expands:
                names = ((), ("conv_dw", "bn1"), ("conv_pw", "bn2"))
            if part == "se":
                layer = {"conv_reduce": "fc1", "conv_expand": "fc2"}[rest[0]]
                tail = f"{parts.index('squeeze')}.{layer}.{rest[1]}"
            else:
                kind = next(i for i, pair in enumerate(names) if part in pair)
                tail = f"{parts.index(('expand', 'depthwise', 'project')[kind])}.{names[kind].index(part)}.{rest[0]}"
            name = f"features.{1 + blocks.index(place)}.block.{tail}"
        name = name.replace("stem.", "features.0.").replace("last.", f"features.{1 + len(blocks)}.")
        found[name] = value.flatten(1) if name == "classifier.0.weight" else value
    return renamed(LAYOUT)(found)


CASES = [
    Case("mobilenet_v3-torchvision", "torchvision mobilenet_v3_large", torchvision, "large_100", renamed(LAYOUT)),
    *(
        Case(f"mobilenet_v3-timm-{variant}", f"timm {name}", lambda name=name: timm(name), variant, timm_names)
        for name, variant in (
            ("tf_mobilenetv3_small_075", "small_075"),
            ("tf_mobilenetv3_small_minimal_100", "small_minimal_100"),
        )
    ),
]
