"""Records mmsegmentation's class scores, merged views, counts and metrics, for tests/test_segmentation_inference.py.

    python tests/recording_segmentation_inference.py       (with mmsegmentation 1.2.2 and mmcv-lite 2.1.0; spine is not needed)

The network is one convolution with stride 4. Its weights and the images are drawn as in the tests, in float64.
"""

# ruff: noqa: E402

import json
import sys
from pathlib import Path
from unittest import mock

sys.modules["mmcv._ext"] = mock.MagicMock()  # mmcv-lite has no compiled operations; mmseg imports them, and none is used here

import mmcv
import mmseg
import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.evaluation.metrics import IoUMetric
from mmseg.models.segmentors import EncoderDecoder, SegTTAModel
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import stack_batch
from torch import nn

RECORD = Path(__file__).with_name("records") / "segmentation_inference.json"
CLASSES = 5
CASES = {  # size of the image at the input of the network, size of the original image, multiple to which the network is padded, crops
    "whole": {"image": [60, 90], "original": [60, 90], "multiple": 1, "slide": None},
    "whole resized": {"image": [61, 90], "original": [97, 143], "multiple": 1, "slide": None},
    "whole padded": {"image": [60, 90], "original": [41, 64], "multiple": 32, "slide": None},
    "slide": {"image": [70, 101], "original": [97, 140], "multiple": 1, "slide": {"crop": [40, 36], "stride": [27, 24]}},
    "aligned corners": {"image": [61, 90], "original": [97, 143], "multiple": 32, "slide": None, "align_corners": True},
    "slide with aligned corners": {
        "image": [70, 101], "original": [97, 140], "multiple": 1, "slide": {"crop": [40, 36], "stride": [27, 24]}, "align_corners": True,
    },
    "slide with a smaller image": {"image": [30, 70], "original": [30, 70], "multiple": 1, "slide": {"crop": [40, 40], "stride": [26, 40]}},
}  # fmt: skip
VIEWS = {"image": [48, 64], "original": [55, 70], "scales": [0.5, 1.0, 1.75]}
STEP = 19  # of the scores that are recorded


def drawn(seed, *shape):
    """Random float64 numbers that depend on the seed only."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@MODELS.register_module()
class OneConvolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = drawn(1, CLASSES, 3, 7, 7)

    def forward(self, image):
        return (nn.functional.conv2d(image, self.weight, stride=4, padding=3),)


def segmentor(slide=None, align_corners=False):
    """EncoderDecoder whose head returns the features of the network."""
    test = {"mode": "whole"} if slide is None else {"mode": "slide", "crop_size": slide["crop"], "stride": slide["stride"]}
    head = {
        "type": "FCNHead", "in_channels": CLASSES, "in_index": 0, "channels": CLASSES, "num_convs": 0, "concat_input": False,
        "dropout_ratio": 0, "num_classes": CLASSES, "align_corners": align_corners,
    }  # fmt: skip
    net = EncoderDecoder({"type": "mmseg.OneConvolution"}, head, test_cfg=ConfigDict(test)).double().eval()
    with torch.no_grad():
        net.decode_head.conv_seg.weight.copy_(torch.eye(CLASSES)[:, :, None, None])
        net.decode_head.conv_seg.bias.zero_()
    return net


@torch.no_grad()
def predicted(net, image, original, multiple=1, **meta):
    """The data sample that mmsegmentation predicts for one image (3, H, W)."""
    sample = SegDataSample(metainfo={"ori_shape": tuple(original), "img_shape": tuple(image.shape[-2:]), **meta})
    inputs, (padding,) = stack_batch([image], size_divisor=multiple, pad_val=0)  # as SegDataPreProcessor, which needs float32
    sample.set_metainfo(padding)
    return net.predict(inputs, [sample])[0]


def scores(case):
    found = predicted(
        segmentor(case["slide"], case.get("align_corners", False)),
        drawn(2, 3, *case["image"]),
        case["original"],
        case["multiple"],
    )
    logits = found.seg_logits.data
    return {
        "shape": list(logits.shape),
        "scores": logits.flatten()[::STEP].tolist(),
        "classes": found.pred_sem_seg.data.flatten()[::STEP].tolist(),
    }


def merged():
    """The classes of averaged views; mmcv resizes and mirrors the image."""
    net, image = segmentor(), drawn(3, *VIEWS["image"], 3).numpy()
    samples = []
    for scale in VIEWS["scales"]:
        for flip in (False, True):
            view = mmcv.imrescale(image, scale)
            view = mmcv.imflip(view) if flip else view
            tensor = torch.from_numpy(view.copy()).permute(2, 0, 1)
            sample = predicted(net, tensor, VIEWS["original"], flip=flip, flip_direction="horizontal", img_path="")
            sample.gt_sem_seg = PixelData(data=torch.zeros(1, *VIEWS["original"]))
            samples.append(sample)
    found = SegTTAModel(module=net).merge_preds([samples])[0]
    return found.pred_sem_seg.data.flatten().tolist()


def metrics():
    """Counts and metrics of random masks with ignored pixels, one class that is never predicted, and one that never occurs."""
    generator = torch.Generator().manual_seed(4)
    truth = torch.randint(0, 4, (3, 20, 30), generator=generator)
    prediction = torch.where(
        torch.rand(3, 20, 30, generator=generator) < 0.5, truth, torch.randint(0, 3, (3, 20, 30), generator=generator)
    )
    truth[:, :3] = 255
    areas = [IoUMetric.intersect_and_union(*pair, CLASSES, 255) for pair in zip(prediction, truth, strict=True)]
    totals = [sum(each) for each in zip(*areas, strict=True)]
    found = IoUMetric.total_area_to_metrics(*totals, ["mIoU", "mDice", "mFscore"])
    return {
        "counts": {
            name: total.tolist() for name, total in zip(("intersection", "union", "prediction", "truth"), totals, strict=True)
        },
        "metrics": {name: value.tolist() for name, value in found.items()},
    }


if __name__ == "__main__":
    content = {
        "made_with": {"mmsegmentation": mmseg.__version__, "mmcv": mmcv.__version__, "torch": torch.__version__},
        "step": STEP,
        "cases": {name: {**case, **scores(case)} for name, case in CASES.items()},
        "views": {**VIEWS, "classes": merged()},
        "masks": metrics(),
    }
    RECORD.write_text(json.dumps(content, separators=(",", ":")) + "\n")
    print(f"{RECORD}: {RECORD.stat().st_size // 1024} KiB", file=sys.stderr)
