"""ShuffleNet V2: tensor names of the authors, torchvision and OpenMMLab.

The units of torchvision and OpenMMLab have two equal branches and shuffle the channels at their end.
"""

from __future__ import annotations

from spine.checkpoints.formats._common import BGR_255, conv_norm, numbered_blocks
from spine.checkpoints.input_settings import IMAGENET
from spine.checkpoints.mapping import Layout, Rule, TensorConversion, classifier_bias

UNITS = numbered_blocks((4, 8, 4), start=0)
EQUAL_BRANCHES = {"equal_branches": True}
# Branches of a unit in torchvision and OpenMMLab: the name in spine, and the positions of its convolutions there.
BRANCHES = {"branch1": ("branch_proj", (0, 2)), "branch2": ("branch_main", (0, 3, 5))}
DUPLICATED = TensorConversion(lambda x, same: x, lambda x: (x, x))  # the file stores the tensor under two names

OFFICIAL = Layout(
    "official",
    (
        Rule("first_conv.*.*", "backbone.first_conv.*.*"),
        Rule("features.*.branch_main.*.*", "backbone.features.*.branch_main.*.*"),
        Rule("features.*.branch_proj.*.*", "backbone.features.*.branch_proj.*.*"),
        Rule("conv_last.*.*", "backbone.pooling.conv_last.*.*"),
        Rule("classifier.0.*", "head.linear.*"),
    ),
    head_options=classifier_bias,
    forbidden=("first_conv.0.conv.weight",),
    wrapper="state_dict",
    input_settings=BGR_255,
)
OFFICIAL_LARGE = Layout(
    "official",
    (
        *conv_norm("first_conv.*", "backbone.first_conv.*"),
        *conv_norm("features.*.*.*", "backbone.features.*.*.*"),
        *conv_norm("features.*.*.*.*", "backbone.features.*.*.*.*"),
        *(
            Rule(
                (f"features.*.*.se_block.{i}.*", f"features.*.*.se_fc{layer}.*"),
                f"backbone.features.*.*.se_block.{i}.*",
                DUPLICATED,
            )
            for layer, i in ((1, 0), (2, 2))
        ),
        *conv_norm("conv_last", "backbone.pooling.conv_last"),
        Rule("fc.*", "head.linear.*"),
        Rule("predict_*.**", None),  # classifiers that are used in training only
    ),
    required=("first_conv.0.conv.weight",),
    wrapper="state_dict",
    input_settings=BGR_255,
)
TORCHVISION = Layout(
    "torchvision",
    (
        Rule("conv1.*.*", "backbone.first_conv.*.*"),
        *(
            Rule(f"stage{stage + 2}.{i}.{source}.*.*", f"backbone.features.{number}.{target}.*.*")
            for stage, i, number in UNITS
            for source, (target, _) in BRANCHES.items()
        ),
        Rule("conv5.*.*", "backbone.pooling.conv_last.*.*"),
        Rule("fc.*", "head.linear.*"),
    ),
    options=EQUAL_BRANCHES,
    head_options=classifier_bias,
    input_settings=IMAGENET,
)
OPENMMLAB = Layout(
    "openmmlab",
    (
        *conv_norm("backbone.conv1", "backbone.first_conv"),
        *(
            rule
            for stage, i, number in UNITS
            for source, (target, positions) in BRANCHES.items()
            for k, position in enumerate(positions)
            for rule in conv_norm(
                f"backbone.layers.{stage}.{i}.{source}.{k}",
                f"backbone.features.{number}.{target}",
                (position, position + 1),
            )
        ),
        *conv_norm("backbone.layers.3", "backbone.pooling.conv_last"),
        Rule("head.fc.*", "head.linear.*"),
    ),
    options=EQUAL_BRANCHES,
    head_options=classifier_bias,
    wrapper="state_dict",
    input_settings=IMAGENET,
)

LAYOUTS = (OFFICIAL, OFFICIAL_LARGE, TORCHVISION, OPENMMLAB)
