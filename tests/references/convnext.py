"""ConvNeXt: timm's."""

from recording import CLASSES, Case, renamed

from spine.backbones.convnext import LAYOUT

TIMM = [
    (r"^stem\.", "downsample_layers.0."),
    (r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
    (r"^stages\.(\d)\.blocks\.(\d+)\.conv_dw\.", r"stages.\1.\2.dwconv."),
    (r"^stages\.(\d)\.blocks\.(\d+)\.mlp\.fc", r"stages.\1.\2.pwconv"),
    (r"^stages\.(\d)\.blocks\.", r"stages.\1."),
    (r"^head\.norm\.", "norm."),
    (r"^head\.fc\.", "head."),
]


def timm():
    import timm

    return timm.create_model("convnext_tiny", num_classes=CLASSES)


CASES = [Case("convnext-timm", "timm convnext_tiny", timm, "tiny", renamed(TIMM, LAYOUT))]
