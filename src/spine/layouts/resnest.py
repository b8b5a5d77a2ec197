"""ResNeSt as OpenMMLab publishes it; timm has kept the authors' names."""

from __future__ import annotations

from spine.names import Layout, Row

OPENMMLAB = Layout(
    "openmmlab",
    (
        *(Row(f"backbone.stem.{i}.conv.*", f"backbone.conv1.{3 * i}.*") for i in range(3)),
        *(Row(f"backbone.stem.{i}.bn.*", f"backbone.conv1.{3 * i + 1}.*") for i in range(2)),
        Row("backbone.stem.2.bn.*", "backbone.bn1.*"),
        *(Row(f"backbone.layer1.*.downsample.{i}.*", f"backbone.stages.layer1.*.downsample.{i + 1}.*") for i in range(2)),
        Row("backbone.layer*.**", "backbone.stages.layer*.**"),
        Row("head.fc.*", "head.linear.*"),
    ),
    wrapper="state_dict",
)

LAYOUTS = (OPENMMLAB,)
