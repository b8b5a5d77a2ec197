"""ShuffleNet V2 as torchvision and OpenMMLab publish it: units with equal branches, which shuffle at their end."""

from __future__ import annotations

from spine.inputs import IMAGENET, InputSettings
from spine.names import Layout, Row, bias_of_classifier

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
        Row("conv1.*.*", "backbone.first_conv.*.*"),
        *(
            Row(f"stage{stage + 2}.{i}.{theirs}.*.*", f"backbone.features.{n}.{ours}.*.*")
            for n, (stage, i) in enumerate(PLACES)
            for theirs, (ours, _) in LAYERS.items()
        ),
        Row("conv5.*.*", "backbone.pooling.conv_last.*.*"),
        Row("fc.*", "head.linear.*"),
    ),
    options=OPTIONS,
    head_options=bias_of_classifier,
    input=IMAGENET,
)

OPENMMLAB = Layout(
    "openmmlab",
    (
        Row("backbone.conv1.conv.*", "backbone.first_conv.0.*"),
        Row("backbone.conv1.bn.*", "backbone.first_conv.1.*"),
        *(
            Row(f"backbone.layers.{stage}.{i}.{theirs}.{k}.{name}.*", f"backbone.features.{n}.{ours}.{place + norm}.*")
            for n, (stage, i) in enumerate(PLACES)
            for theirs, (ours, places) in LAYERS.items()
            for k, place in enumerate(places)
            for norm, name in enumerate(("conv", "bn"))
        ),
        Row("backbone.layers.3.conv.*", "backbone.pooling.conv_last.0.*"),
        Row("backbone.layers.3.bn.*", "backbone.pooling.conv_last.1.*"),
        Row("head.fc.*", "head.linear.*"),
    ),
    options=OPTIONS,
    head_options=bias_of_classifier,
    input=IMAGENET,
    wrapper="state_dict",
)

LAYOUTS = (TORCHVISION, OPENMMLAB)
