"""Records mmsegmentation's losses, for tests/test_segmentation_losses.py.

    python tests/recording_segmentation_losses.py       (with mmsegmentation 1.2.2 and mmcv-lite 2.1.0; spine is not needed)

Logits and masks are drawn as in the tests, in float64. mmsegmentation's losses convert labels to float32 with Tensor.float; here it is
Tensor.double, so that the whole computation has float64.
"""

# ruff: noqa: E402

import json
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

sys.modules["mmcv._ext"] = mock.MagicMock()  # mmcv-lite has no compiled operations; mmseg imports them, and none is used here

import mmseg
import torch
import torch.nn.functional as F
from mmseg.models.losses import CrossEntropyLoss, DiceLoss, FocalLoss, LovaszLoss
from mmseg.models.losses.focal_loss import py_sigmoid_focal_loss
from mmseg.structures.sampler import OHEMPixelSampler

RECORD = Path(__file__).with_name("records") / "segmentation_losses.json"
CLASSES, IGNORED, SHAPE = 5, 255, (2, 40, 48)
WEIGHTS = [1.0, 2.0, 0.5, 4.0, 3.0]


def examples():
    """Logits (2, 5, 40, 48), a mask in which the last class is absent, the same mask with ignored pixels, and masks of each class."""
    generator = torch.Generator().manual_seed(0)
    batch, height, width = SHAPE
    logits = 2 * torch.randn(batch, CLASSES, height, width, generator=generator, dtype=torch.float64)
    mask = torch.randint(0, CLASSES - 1, SHAPE, generator=generator)
    ignored = mask.clone()
    ignored[0, :7] = IGNORED
    layers = torch.randint(0, 2, (batch, CLASSES, height, width), generator=generator)
    return logits, mask, ignored, layers


def rows(values):
    """(B, C, H, W) -> (N, C)."""
    return values.movedim(1, -1).flatten(0, 2)


def ohem(logits, mask, loss, **options):
    """The loss of the pixels that OHEMPixelSampler chooses, as in BaseDecodeHead.loss_by_feat."""
    sampler = OHEMPixelSampler(SimpleNamespace(ignore_index=IGNORED, loss_decode=loss), **options)
    weight = sampler.sample(logits, mask[:, None])
    return loss(logits, mask, weight=weight, ignore_index=IGNORED)


def focal(logits, target, labeled, average_labeled, **options):
    """FocalLoss without a GPU takes no ignored pixels; the function that it calls does."""
    valid = rows(labeled[:, None].expand_as(logits))
    count = float(valid.sum()) if average_labeled else None
    return py_sigmoid_focal_loss(rows(logits), rows(target), valid_mask=valid, avg_factor=count, **options)


def losses():
    logits, mask, ignored, layers = examples()
    one_hot = F.one_hot(mask, CLASSES).movedim(-1, 1)
    targets = F.one_hot(ignored.where(ignored != IGNORED, 0), CLASSES).movedim(-1, 1)
    all_, labeled = CrossEntropyLoss(), CrossEntropyLoss(avg_non_ignore=True)
    where = ignored != IGNORED
    binary = LovaszLoss("binary", reduction="none")
    return {
        "cross entropy": labeled(logits, ignored, ignore_index=IGNORED),
        "cross entropy, all": all_(logits, ignored, ignore_index=IGNORED),
        "cross entropy, weights": CrossEntropyLoss(class_weight=WEIGHTS)(logits, mask, ignore_index=IGNORED),
        "binary cross entropy": CrossEntropyLoss(True, avg_non_ignore=True)(logits, ignored, ignore_index=IGNORED),
        "binary cross entropy, all": CrossEntropyLoss(True)(logits, ignored, ignore_index=IGNORED),
        "binary cross entropy of layers": CrossEntropyLoss(True)(logits, layers, ignore_index=IGNORED),
        "ohem": ohem(logits, ignored, all_, thresh=0.2, min_kept=100),
        "ohem, labeled": ohem(logits, ignored, labeled, thresh=0.2, min_kept=100),
        "ohem, min_kept": ohem(logits, ignored, all_, thresh=0.01, min_kept=700),
        "ohem, no threshold": ohem(logits, ignored, all_, min_kept=300),
        "dice": DiceLoss(use_sigmoid=False)(logits, mask),
        "dice, sigmoid": DiceLoss()(logits, mask),
        "dice, naive": DiceLoss(use_sigmoid=False, naive_dice=True)(logits, mask),
        "dice of layers": DiceLoss()(logits, layers),
        "lovasz": LovaszLoss(reduction="none")(logits, ignored, ignore_index=IGNORED),
        "lovasz, images": LovaszLoss(per_image=True)(logits, ignored, ignore_index=IGNORED),
        "lovasz, all": LovaszLoss(classes="all", reduction="none")(logits, ignored, ignore_index=IGNORED),
        "lovasz of layers": torch.stack(
            [binary(logits[:, i].contiguous(), layers[:, i].contiguous()) for i in range(CLASSES)]
        ).mean(),
        "focal": FocalLoss(alpha=0.25)(logits, one_hot),
        "focal, weights": FocalLoss(gamma=1.5, class_weight=WEIGHTS)(logits, one_hot),
        "focal, ignored": focal(logits, targets, where, True),
        "focal, ignored, all": focal(logits, targets, where, False),
        "focal of layers": FocalLoss()(logits, layers),
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # about avg_non_ignore
    with mock.patch.object(torch.Tensor, "float", torch.Tensor.double):
        values = {name: value.item() for name, value in losses().items()}
    content = {"made_with": {"mmsegmentation": mmseg.__version__, "torch": torch.__version__}, "losses": values}
    RECORD.write_text(json.dumps(content, indent=1) + "\n")
