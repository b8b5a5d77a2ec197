"""ShuffleNet as OpenMMLab publishes it: with the paper's shuffle, and a classifier with a bias."""

from __future__ import annotations

from spine.checkpoints.input_settings import IMAGENET, InputSettings
from spine.checkpoints.mapping import Layout, Rule, bias_of_classifier

PLACES = [(stage, i) for stage, depth in enumerate((4, 8, 4)) for i in range(depth)]  # of our units, in order


LAYERS = {
    "g_conv_1x1_compress": ("branch_main_1", 0),
    "depthwise_conv3x3_bn": ("branch_main_1", 3),
    "g_conv_1x1_expand": ("branch_main_2", 0),
}


# The authors' images, as OpenCV reads them
BGR_TO_255 = InputSettings(
    mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255), note="made for images in BGR order (blue first); spine's are RGB."
)


OPENMMLAB = Layout(
    "openmmlab",
    (
        Rule("backbone.conv1.conv.*", "backbone.first_conv.0.*"),
        Rule("backbone.conv1.bn.*", "backbone.first_conv.1.*"),
        *(
            Rule(f"backbone.layers.{stage}.{i}.{theirs}.{name}.*", f"backbone.features.{n}.{ours}.{place + norm}.*")
            for n, (stage, i) in enumerate(PLACES)
            for theirs, (ours, place) in LAYERS.items()
            for norm, name in enumerate(("conv", "bn"))
        ),
        Rule("head.fc.*", "head.linear.*"),
    ),
    options={"paper_shuffle": True},
    head_options=bias_of_classifier,
    input=IMAGENET,
    wrapper="state_dict",
)


OTHER_PUBLISHERS = (OPENMMLAB,)


# The authors' names
OFFICIAL = Layout(
    "official",
    (
        Rule("first_conv.**", "backbone.first_conv.**"),
        Rule("features.**", "backbone.features.**"),
        Rule("classifier.0.*", "head.linear.*"),
    ),
    head_options=bias_of_classifier,
    wrapper="state_dict",
    input=BGR_TO_255,
)


LAYOUTS = (OFFICIAL, *OTHER_PUBLISHERS)
