"""ConvNeXt as timm, torchvision, Hugging Face and OpenMMLab publish it."""

from __future__ import annotations

from dataclasses import replace

from spine.checkpoints.input_settings import IMAGENET, IMAGENET_BICUBIC
from spine.checkpoints.mapping import Layout, Rule, TensorConversion, with_input

SCALE = TensorConversion(lambda x: x.flatten(), lambda x: (x[:, None, None],))  # torchvision's layer scale lies on a map


TIMM = Layout(
    "timm",
    (
        Rule("stem.**", "backbone.downsample_layers.0.**"),
        Rule("stages.*.downsample.**", "backbone.downsample_layers.*.**"),
        Rule("stages.*.blocks.*.conv_dw.*", "backbone.stages.*.*.dwconv.*"),
        Rule("stages.*.blocks.*.mlp.fc1.*", "backbone.stages.*.*.pwconv1.*"),
        Rule("stages.*.blocks.*.mlp.fc2.*", "backbone.stages.*.*.pwconv2.*"),
        Rule("stages.*.blocks.*.**", "backbone.stages.*.*.**"),
        Rule("head.norm.*", "backbone.pooling.norm.*"),
        Rule("head.fc.*", "head.linear.*"),
    ),
)


TORCHVISION = Layout(
    "torchvision",
    (
        Rule("features.0.**", "backbone.downsample_layers.0.**"),
        *(Rule(f"features.{2 * i}.**", f"backbone.downsample_layers.{i}.**") for i in (1, 2, 3)),
        *(
            row
            for i in range(4)
            for row in (
                Rule(f"features.{2 * i + 1}.*.block.0.*", f"backbone.stages.{i}.*.dwconv.*"),
                Rule(f"features.{2 * i + 1}.*.block.2.*", f"backbone.stages.{i}.*.norm.*"),
                Rule(f"features.{2 * i + 1}.*.block.3.*", f"backbone.stages.{i}.*.pwconv1.*"),
                Rule(f"features.{2 * i + 1}.*.block.5.*", f"backbone.stages.{i}.*.pwconv2.*"),
                Rule(f"features.{2 * i + 1}.*.layer_scale", f"backbone.stages.{i}.*.gamma", SCALE),
            )
        ),
        Rule("classifier.0.*", "backbone.pooling.norm.*"),
        Rule("classifier.2.*", "head.linear.*"),
    ),
)


HUGGING_FACE = Layout(
    "hf",
    (
        Rule("convnext.embeddings.patch_embeddings.*", "backbone.downsample_layers.0.0.*"),
        Rule("convnext.embeddings.layernorm.*", "backbone.downsample_layers.0.1.*"),
        Rule("convnext.encoder.stages.*.downsampling_layer.**", "backbone.downsample_layers.*.**"),
        Rule("convnext.encoder.stages.*.layers.*.layernorm.*", "backbone.stages.*.*.norm.*"),
        Rule("convnext.encoder.stages.*.layers.*.layer_scale_parameter", "backbone.stages.*.*.gamma"),
        Rule("convnext.encoder.stages.*.layers.*.**", "backbone.stages.*.*.**"),
        Rule("convnext.layernorm.*", "backbone.pooling.norm.*"),
        Rule("classifier.*", "head.linear.*"),
    ),
    options={"pool_norm_eps": 1e-12},
)


OPENMMLAB = Layout(
    "openmmlab",
    (
        Rule("backbone.downsample_layers.**", "backbone.downsample_layers.**"),
        Rule("backbone.stages.*.*.depthwise_conv.*", "backbone.stages.*.*.dwconv.*"),
        Rule("backbone.stages.*.*.pointwise_conv1.*", "backbone.stages.*.*.pwconv1.*"),
        Rule("backbone.stages.*.*.pointwise_conv2.*", "backbone.stages.*.*.pwconv2.*"),
        Rule("backbone.stages.*.*.norm.*", "backbone.stages.*.*.norm.*"),
        Rule("backbone.stages.*.*.gamma", "backbone.stages.*.*.gamma"),
        Rule("backbone.norm3.*", "backbone.pooling.norm.*"),
        Rule("head.fc.*", "head.linear.*"),
    ),
)


OTHER_PUBLISHERS = (TIMM, TORCHVISION, HUGGING_FACE, OPENMMLAB)


# The authors' files hold `model`, and in it these names; those of dense tasks have a norm a level.
OFFICIAL = Layout(
    "official",
    (
        Rule("downsample_layers.**", "backbone.downsample_layers.**"),
        Rule("stages.**", "backbone.stages.**"),
        Rule("stem.*", "backbone.stem.*"),
        Rule("blocks.**", "backbone.blocks.**"),
        Rule("norm.*", "backbone.pooling.norm.*"),
        Rule("norm*.*", "backbone.norms.*.*"),
        Rule("head.*", "head.linear.*"),
    ),
    wrapper="model",
)


LAYOUTS = with_input(IMAGENET, (replace(OFFICIAL, input=IMAGENET_BICUBIC), *OTHER_PUBLISHERS))
