"""ShuffleNet: tensor names of the authors and OpenMMLab."""

from __future__ import annotations

from spine.checkpoints.formats._common import BGR_255, conv_norm, numbered_blocks
from spine.checkpoints.input_settings import IMAGENET
from spine.checkpoints.mapping import Layout, Rule, classifier_bias

DEPTHS = (4, 8, 4)
OPENMMLAB_LAYERS = {  # of a unit: the branch and the position of the convolution in spine
    "g_conv_1x1_compress": ("branch_main_1", 0),
    "depthwise_conv3x3_bn": ("branch_main_1", 3),
    "g_conv_1x1_expand": ("branch_main_2", 0),
}

OFFICIAL = Layout(
    "official",
    (
        Rule("first_conv.**", "backbone.first_conv.**"),
        Rule("features.**", "backbone.features.**"),
        Rule("classifier.0.*", "head.linear.*"),
    ),
    head_options=classifier_bias,
    wrapper="state_dict",
    input_settings=BGR_255,
)
OPENMMLAB = Layout(  # with the paper's channel shuffle, and a bias in the classifier
    "openmmlab",
    (
        *conv_norm("backbone.conv1", "backbone.first_conv"),
        *(
            rule
            for stage, i, number in numbered_blocks(DEPTHS, start=0)
            for layer, (branch, position) in OPENMMLAB_LAYERS.items()
            for rule in conv_norm(
                f"backbone.layers.{stage}.{i}.{layer}", f"backbone.features.{number}.{branch}", (position, position + 1)
            )
        ),
        Rule("head.fc.*", "head.linear.*"),
    ),
    options={"paper_shuffle": True},
    head_options=classifier_bias,
    wrapper="state_dict",
    input_settings=IMAGENET,
)

LAYOUTS = (OFFICIAL, OPENMMLAB)
