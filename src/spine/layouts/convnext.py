"""ConvNeXt as timm, torchvision, Hugging Face and OpenMMLab publish it."""

from __future__ import annotations

from spine.names import Layout, Row, Transform

SCALE = Transform(lambda x: x.flatten(), lambda x: (x[:, None, None],))  # torchvision's layer scale lies on a map

TIMM = Layout(
    "timm",
    (
        Row("stem.**", "backbone.downsample_layers.0.**"),
        Row("stages.*.downsample.**", "backbone.downsample_layers.*.**"),
        Row("stages.*.blocks.*.conv_dw.*", "backbone.stages.*.*.dwconv.*"),
        Row("stages.*.blocks.*.mlp.fc1.*", "backbone.stages.*.*.pwconv1.*"),
        Row("stages.*.blocks.*.mlp.fc2.*", "backbone.stages.*.*.pwconv2.*"),
        Row("stages.*.blocks.*.**", "backbone.stages.*.*.**"),
        Row("head.norm.*", "backbone.pooling.norm.*"),
        Row("head.fc.*", "head.linear.*"),
    ),
)

TORCHVISION = Layout(
    "torchvision",
    (
        Row("features.0.**", "backbone.downsample_layers.0.**"),
        *(Row(f"features.{2 * i}.**", f"backbone.downsample_layers.{i}.**") for i in (1, 2, 3)),
        *(
            row
            for i in range(4)
            for row in (
                Row(f"features.{2 * i + 1}.*.block.0.*", f"backbone.stages.{i}.*.dwconv.*"),
                Row(f"features.{2 * i + 1}.*.block.2.*", f"backbone.stages.{i}.*.norm.*"),
                Row(f"features.{2 * i + 1}.*.block.3.*", f"backbone.stages.{i}.*.pwconv1.*"),
                Row(f"features.{2 * i + 1}.*.block.5.*", f"backbone.stages.{i}.*.pwconv2.*"),
                Row(f"features.{2 * i + 1}.*.layer_scale", f"backbone.stages.{i}.*.gamma", SCALE),
            )
        ),
        Row("classifier.0.*", "backbone.pooling.norm.*"),
        Row("classifier.2.*", "head.linear.*"),
    ),
)

HUGGING_FACE = Layout(
    "hf",
    (
        Row("convnext.embeddings.patch_embeddings.*", "backbone.downsample_layers.0.0.*"),
        Row("convnext.embeddings.layernorm.*", "backbone.downsample_layers.0.1.*"),
        Row("convnext.encoder.stages.*.downsampling_layer.**", "backbone.downsample_layers.*.**"),
        Row("convnext.encoder.stages.*.layers.*.layernorm.*", "backbone.stages.*.*.norm.*"),
        Row("convnext.encoder.stages.*.layers.*.layer_scale_parameter", "backbone.stages.*.*.gamma"),
        Row("convnext.encoder.stages.*.layers.*.**", "backbone.stages.*.*.**"),
        Row("convnext.layernorm.*", "backbone.pooling.norm.*"),
        Row("classifier.*", "head.linear.*"),
    ),
    options={"pool_norm_eps": 1e-12},
)

OPENMMLAB = Layout(
    "openmmlab",
    (
        Row("backbone.downsample_layers.**", "backbone.downsample_layers.**"),
        Row("backbone.stages.*.*.depthwise_conv.*", "backbone.stages.*.*.dwconv.*"),
        Row("backbone.stages.*.*.pointwise_conv1.*", "backbone.stages.*.*.pwconv1.*"),
        Row("backbone.stages.*.*.pointwise_conv2.*", "backbone.stages.*.*.pwconv2.*"),
        Row("backbone.stages.*.*.norm.*", "backbone.stages.*.*.norm.*"),
        Row("backbone.stages.*.*.gamma", "backbone.stages.*.*.gamma"),
        Row("backbone.norm3.*", "backbone.pooling.norm.*"),
        Row("head.fc.*", "head.linear.*"),
    ),
)

LAYOUTS = (TIMM, TORCHVISION, HUGGING_FACE, OPENMMLAB)
