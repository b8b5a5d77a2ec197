"""ShuffleNet V2 as torchvision and OpenMMLab publish it: units with equal branches, which shuffle at their end."""

from __future__ import annotations

from spine.checkpoints.input_settings import IMAGENET, InputSettings
from spine.checkpoints.mapping import Layout, Rule, TensorConversion, bias_of_classifier

PLACES = [(stage, i) for stage, depth in enumerate((4, 8, 4)) for i in range(depth)]  # of our units, in order


OPTIONS = {"equal_branches": True}


LAYERS = {"branch1": ("branch_proj", (0, 2)), "branch2": ("branch_main", (0, 3, 5))}  # ours, and where its convolutions stand


# The authors' images, as OpenCV reads them
BGR_TO_255 = InputSettings(
    mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255), note="made for images in BGR order (blue first); spine's are RGB."
)


TORCHVISION = Layout(
    "torchvision",
    (
        Rule("conv1.*.*", "backbone.first_conv.*.*"),
        *(
            Rule(f"stage{stage + 2}.{i}.{theirs}.*.*", f"backbone.features.{n}.{ours}.*.*")
            for n, (stage, i) in enumerate(PLACES)
            for theirs, (ours, _) in LAYERS.items()
        ),
        Rule("conv5.*.*", "backbone.pooling.conv_last.*.*"),
        Rule("fc.*", "head.linear.*"),
    ),
    options=OPTIONS,
    head_options=bias_of_classifier,
    input=IMAGENET,
)


OPENMMLAB = Layout(
    "openmmlab",
    (
        Rule("backbone.conv1.conv.*", "backbone.first_conv.0.*"),
        Rule("backbone.conv1.bn.*", "backbone.first_conv.1.*"),
        *(
            Rule(f"backbone.layers.{stage}.{i}.{theirs}.{k}.{name}.*", f"backbone.features.{n}.{ours}.{place + norm}.*")
            for n, (stage, i) in enumerate(PLACES)
            for theirs, (ours, places) in LAYERS.items()
            for k, place in enumerate(places)
            for norm, name in enumerate(("conv", "bn"))
        ),
        Rule("backbone.layers.3.conv.*", "backbone.pooling.conv_last.0.*"),
        Rule("backbone.layers.3.bn.*", "backbone.pooling.conv_last.1.*"),
        Rule("head.fc.*", "head.linear.*"),
    ),
    options=OPTIONS,
    head_options=bias_of_classifier,
    input=IMAGENET,
    wrapper="state_dict",
)


OTHER_PUBLISHERS = (TORCHVISION, OPENMMLAB)


# The authors' names
OFFICIAL = Layout(
    "official",
    (
        Rule("first_conv.*.*", "backbone.first_conv.*.*"),
        Rule("features.*.branch_main.*.*", "backbone.features.*.branch_main.*.*"),
        Rule("features.*.branch_proj.*.*", "backbone.features.*.branch_proj.*.*"),
        Rule("conv_last.*.*", "backbone.pooling.conv_last.*.*"),
        Rule("classifier.0.*", "head.linear.*"),
    ),
    head_options=bias_of_classifier,
    forbidden=("first_conv.0.conv.weight",),
    wrapper="state_dict",
    input=BGR_TO_255,
)


TWICE = TensorConversion(lambda x, same: x, lambda x: (x, x))  # one tensor under two names


OFFICIAL_LARGE = Layout(
    "official",
    (
        *(Rule(f"first_conv.*.{name}.*", f"backbone.first_conv.*.{k}.*") for k, name in enumerate(("conv", "bn"))),
        *(Rule(f"features.*.*.*.{name}.*", f"backbone.features.*.*.*.{k}.*") for k, name in enumerate(("conv", "bn"))),
        *(Rule(f"features.*.*.*.*.{name}.*", f"backbone.features.*.*.*.*.{k}.*") for k, name in enumerate(("conv", "bn"))),
        *(
            Rule((f"features.*.*.se_block.{k}.*", f"features.*.*.se_fc{n}.*"), f"backbone.features.*.*.se_block.{k}.*", TWICE)
            for n, k in ((1, 0), (2, 2))
        ),
        *(Rule(f"conv_last.{name}.*", f"backbone.pooling.conv_last.{k}.*") for k, name in enumerate(("conv", "bn"))),
        Rule("fc.*", "head.linear.*"),
        Rule("predict_*.**", None),  # classifiers of the training alone
    ),
    required=("first_conv.0.conv.weight",),
    wrapper="state_dict",
    input=BGR_TO_255,
)


LAYOUTS = (OFFICIAL, OFFICIAL_LARGE, *OTHER_PUBLISHERS)
