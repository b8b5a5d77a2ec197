"""Creates networks by name."""

from __future__ import annotations

import logging
from pathlib import Path

from spine.components import task_spec
from spine.models.assembly import NetworkConfig
from spine.models.masked import MaskedModel
from spine.models.network import Model
from spine.models.pretrained import load_weights, resolve_weights
from spine.option_types import Options

log = logging.getLogger(__name__)


def create_model(
    backbone: str,
    *,
    variant: str | None = None,
    task: str = "cls",
    num_outputs: int | None = None,
    weights: str | Path | None = None,
    layout: str | None = None,
    head: str | None = None,
    image_size: tuple[int, int] | int | None = None,
    head_options: Options | None = None,
    auxiliary_head: Options | None = None,
    **options: object,
) -> Model | MaskedModel:
    """Creates a network for one task.

    backbone: one of `spine.list_backbones()`.
    variant: one of `spine.list_variants(backbone)`; default: the paper's middle size.
    task: cls: image (B, 3, H, W) -> logits (B, num_outputs); pose: -> heatmaps (B, num_outputs, H / 4, W / 4), with
        head="simcc" logits (B, num_outputs, X + Y) of the bins of columns and rows; seg: -> logits (B, num_outputs, h, w) at the
        stride of the head; mae: image, patch_mask (B, N) -> pixels (B, N, P * P * 3), in the order row,
        column, channel; beit: image, patch_mask -> logits of visual tokens (B, N, num_outputs), 8192 of them by default. True in
        patch_mask means masked; patches are in raster order; P = net.patch_size, N = (H / P) * (W / P).
    weights: a name in the backbone's weight table, such as imagenet1k, or a file (pth, pt, bin, ckpt, safetensors, npz, index of a
        TensorFlow checkpoint) of the backbone or the whole network, in any published layout. The conventions of the layout (epsilons,
        padding, pooling) are applied. Without `variant`, the variant of the file is built. The logger `spine` reports what was loaded:
        as a warning if tensors of the network or of the file are left over.
    layout: the name of the file's layout, such as timm_tf, if the file alone cannot tell.
    head: a module of `spine.heads`; default: the task's default head.
    head_options: arguments of its constructor.
    auxiliary_head: options of a second head for training, such as {"level": 2, "weight": 0.4}; {"weight": 0} for none; default: that of
        the published network, if it has one. In training mode the network then returns TrainingOutputs.
    image_size: (height, width) or one number, for networks with position embeddings and for head="simcc"; default: 224.
    options: other arguments of the backbone's builder, such as drop_path_rate or in_chans.

    Images are normalized. Every network has `.backbone` and `.head`. Without `weights`, networks can be built on the meta device.
    Raises ValueError if a name is unknown, or if parts, sizes or weights do not fit together.
    """
    if variant is not None:
        options["variant"] = variant
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    spec = task_spec(task)
    network = NetworkConfig(
        backbone,
        head or spec.require_head()[1],
        spec,
        num_outputs,
        image_size=size,
        backbone_options=options,
        head_options=dict(head_options or {}),
        auxiliary_head=auxiliary_head,
    )
    if weights is None:
        return network.build()
    resolved = resolve_weights(network, weights, layout)
    model = resolved.network.build()
    report = load_weights(model, resolved)
    incomplete = report.new or report.unused
    log.log(logging.WARNING if incomplete else logging.INFO, "%s", report)  # warnings are shown in notebooks as well
    return model
