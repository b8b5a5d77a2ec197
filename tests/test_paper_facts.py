"""Tests the exact numbers of parameters and multiply-adds of all variants.

The numbers were measured with the authors' or the reference implementations on the meta device. All
parameters are counted. Multiply-adds are those of convolutions, linear layers and attention
products (torch's flop counter, halved), for batch size 1, evaluation mode and 1000 classes.
"""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import spine
from spine.components import task_spec
from spine.models.assembly import NetworkConfig

CLASSIFIERS = {  # backbone: {variant: (parameters, multiply-adds, image size)}
    "beit": {
        "base_patch16": (86530984, 17563828224, 224),
        "large_patch16": (304430568, 61554712576, 224),
    },
    "convnext": {
        "tiny": (28589128, 4455531264, 224),
        "small": (50223688, 8683712256, 224),
        "base": (88591464, 15354729472, 224),
        "large": (197767336, 34361433600, 224),
        "xlarge": (350196968, 60921030656, 224),
        "isotropic_small": (22308712, 4286367744, 224),
        "isotropic_base": (87083752, 16896331776, 224),
        "isotropic_large": (305942504, 59699224576, 224),
    },
    "hrnet": {
        "w18_small_v1": (13187464, 1601508352, 224),
        "w18_small_v2": (15597464, 2595712864, 224),
        "w18": (21299004, 4283537072, 224),
        "w30": (37712220, 8105781680, 224),
        "w32": (41232680, 8921133056, 224),
        "w40": (57557160, 12691997440, 224),
        "w44": (67064984, 14883104960, 224),
        "w48": (77469864, 17277996032, 224),
        "w64": (128059944, 28895395840, 224),
    },
    "mae": {
        "base_patch16": (86567656, 17563828224, 224),
        "large_patch16": (304326632, 61554712576, 224),
        "huge_patch14": (632045800, 167295109120, 224),
    },
    "mobilenet_v2": {
        "w035": (1677128, 59285808, 224),
        "w050": (1968680, 97131840, 224),
        "w075": (2636424, 209069792, 224),
        "w100": (3504872, 300774272, 224),
        "w110d": (4516520, 430516080, 224),
        "w120d": (5831144, 668857568, 224),
        "w130": (5386792, 509374560, 224),
        "w140": (6108776, 582195824, 224),
    },
    "mobilenet_v3": {
        "large_100": (5483032, 216589760, 224),
        "large_075": (3993528, 154560624, 224),
        "large_minimal_100": (3924288, 209136704, 224),
        "large_rw": (5479918, 216587936, 224),
        "small_100": (2542856, 56510400, 224),
        "small_075": (2041872, 43399344, 224),
        "small_050": (1593224, 24188688, 224),
        "small_minimal_100": (2044736, 52288448, 224),
    },
    "resnest": {
        "resnest14": (10611688, 2749405184, 224),
        "resnest26": (17069448, 3623391232, 224),
        "resnest50": (27483240, 5371160576, 224),
        "resnest101": (48275016, 13321472000, 256),
        "resnest200": (70201544, 35519694848, 320),
        "resnest269": (110929480, 77348702208, 416),
        "resnest50_fast_1s1x64d": (26217896, 4329459712, 224),
        "resnest50_fast_2s1x64d": (27483240, 4330711040, 224),
        "resnest50_fast_4s1x64d": (31912712, 4335112192, 224),
        "resnest50_fast_1s2x40d": (25946680, 4364642816, 224),
        "resnest50_fast_2s2x40d": (26943792, 4365622336, 224),
        "resnest50_fast_4s2x40d": (30417592, 4369060736, 224),
        "resnest50_fast_1s4x24d": (25677000, 4399827456, 224),
    },
    # multiply-adds of the backbone and of the classifier
    "segnext": {
        "tiny": (4160584, 887712640, 224),
        "small": (13963176, 2560591872, 224),
        "base": (26790824, 5082111488, 224),
        "large": (45149864, 9047734016, 224),
    },
    "shufflenet_v1": {
        "x1_0_g1": (1530936, 143078976, 224),
        "x1_0_g2": (1732848, 140836512, 224),
        "x1_0_g3": (1864728, 137460672, 224),
        "x1_0_g4": (1967344, 134339776, 224),
        "x1_0_g8": (2433768, 138365952, 224),
        "x0_5_g1": (533484, 38517408, 224),
        "x0_5_g3": (717324, 37589856, 224),
        "x0_5_g8": (1010448, 40469760, 224),
        "x0_25_g1": (208746, 11003184, 224),
        "x0_25_g3": (304902, 11009808, 224),
        "x0_25_g8": (454272, 19011840, 224),
        "x1_5_g3": (3441168, 292443552, 224),
        "x1_5_g8": (4268952, 290188800, 224),
        "x2_0_g3": (5449776, 524045184, 224),
        "x2_0_g8": (6521232, 521942016, 224),
    },
    "shufflenet_v2": {
        "x0_5": (1365792, 40476448, 224),
        "x1_0": (2278760, 145814296, 224),
        "x1_5": (3506720, 298970656, 224),
        "x2_0": (7402600, 590783000, 224),
        "large_50": (16575898, 2314702176, 224),  # counted from the table of the paper's appendix, which gives 2.3 G
        "large_164_se": (125120936, 12780652544, 224),  # with a bias; the authors' 140685664 minus three classifiers of 15564728
    },
    "swin": {
        "tiny": (28288354, 4490566656, 224),
        "small": (49606258, 8740875264, 224),
        "base": (87768224, 15430946816, 224),
        "large": (196532476, 34475759616, 224),
        "base_window12": (87903584, 47083134976, 384),
        "large_window12": (196735516, 103919087616, 384),
    },
    "vgg16": {
        "plain": (138357544, 15470264320, 224),
        "largefov": (21508904, 50892961472, 321),  # 20483904 and 50891937472 without the linear layer of 1000 classes
    },
    "vit": {
        "tiny_patch16": (5717416, 1253683200, 224),
        "small_patch32": (22878952, 1142909952, 224),
        "small_patch16": (22050664, 4598882304, 224),
        "base_patch32": (88224232, 4409186304, 224),
        "base_patch16": (86567656, 17563828224, 224),
        "base_patch8": (86576872, 78148337664, 224),
        "large_patch32": (306535400, 15377539072, 224),
        "large_patch16": (304326632, 61554712576, 224),
        "huge_patch14": (632045800, 167295109120, 224),
        "tiny_r_s16_p8": (6337704, 433681920, 224),
        "small_r26_s32": (36431912, 3463851008, 224),
        "base_r26_s32": (101383976, 6710859776, 224),
        "base_r50_s32": (110945832, 8457787392, 224),
        "base_r50_s16": (98659112, 21535358976, 224),
        "large_r50_s32": (328994856, 19413295104, 224),
        "large_r50_s16": (316483624, 65539088384, 224),
    },
    "xception": {
        "standard": (22855952, 8357403496, 299),
    },
}
OTHER_SIZES = [  # backbone, variant, parameters, multiply-adds, image size
    ("beit", "base_patch16", 86744104, 55484350464, 384),
    ("beit", "large_patch16", 304998888, 191066300416, 384),
    ("beit", "large_patch16", 305674728, 361986285568, 512),
    ("mae", "huge_patch14", 633028840, 731713423360, 448),
    ("convnext", "tiny", 28589128, 13092317184, 384),
    ("convnext", "xlarge", 350196968, 179029262336, 384),
    ("mobilenet_v2", "w100", 3504872, 221316608, 192),
    ("mobilenet_v2", "w100", 3504872, 154083200, 160),
    ("mobilenet_v2", "w100", 3504872, 99074048, 128),
    ("mobilenet_v2", "w100", 3504872, 56289152, 96),
    ("resnest", "resnest50", 27483240, 7014189056, 256),
    ("resnest", "resnest101", 48275016, 10200565760, 224),
    ("resnest", "resnest200", 70201544, 17408411648, 224),
    ("resnest", "resnest200", 70201544, 22735259648, 256),
    ("resnest", "resnest269", 110929480, 22434121728, 224),
    ("resnest", "resnest269", 110929480, 45772818432, 320),
    ("vgg16", "largefov", 21508904, 120905165824, 500),
    ("vgg16", "largefov", 21508904, 31387000832, 256),
    ("vit", "tiny_patch16", 5790376, 4682219520, 384),
    ("vit", "small_patch32", 22915432, 3442900992, 384),
    ("vit", "small_patch16", 22196584, 15490351104, 384),
    ("vit", "base_patch32", 88297192, 13043564544, 384),
    ("vit", "base_patch16", 86859496, 55484350464, 384),
    ("vit", "large_patch32", 306632680, 45275963392, 384),
    ("vit", "large_patch16", 304715752, 191066300416, 384),
    ("vit", "tiny_r_s16_p8", 6355944, 1326858240, 384),
    ("vit", "small_r26_s32", 36468392, 10263625728, 384),
    ("vit", "base_r50_s16", 98950952, 67155787776, 384),
    ("vit", "large_r50_s32", 329092136, 57136144384, 384),
    ("vit", "huge_patch14", 632721640, 544951797760, 392),
    ("vit", "huge_patch14", 633470440, 1016716764160, 518),
]
POSE = [  # HRNet with the heatmap head: variant, keypoints, parameters, multiply-adds, image size
    ("w32", 17, 28536113, 7645003776, (256, 192)),
    ("w32", 17, 28536113, 17201258496, (384, 288)),
    ("w48", 17, 63595745, 15691825152, (256, 192)),
    ("w48", 17, 63595745, 35306606592, (384, 288)),
    ("w32", 16, 28536080, 10193207296, (256, 256)),
    ("w48", 16, 63595696, 20922236928, (256, 256)),
]
PARSENET = [  # with vgg16 largefov: classes, parameters, multiply-adds, image size
    (21, 20528981, 50964233920, 321),
    (21, 20528981, 121074840576, 500),
    (60, 20608892, 51098498752, 321),
    (33, 20553569, 31455182848, 256),
]
SEGMENTERS = [  # SegNeXt with the hamburger head, 150 classes: variant, options, parameters, multiply-adds at 512x512 and at 1024x2048
    ("tiny", {}, 4263414, 6404341760, 51227852800),
    ("small", {}, 13932886, 15646261248, 125163208704),
    ("base", {}, 27636310, 34662645760, None),  # 64 bases: the number at 1024x2048 is not published
    ("large", {}, 48926550, 69685673984, None),
    ("base", {"rank": 16}, 27636310, 32685948928, 261473828864),  # OpenMMLab's configuration
    ("large", {"rank": 16}, 48926550, 65968209920, 527718154240),
]
# Networks of mmsegmentation 1.2.2 with their auxiliary heads: backbone, variant, head, options of the head, further options,
# classes, parameters, multiply-adds, image size. HRNet with `fcn` has 186878263296 multiply-adds there: spine projects maps before
# it upsamples them.
FCN = {"levels": (-1,), "channels": 512, "join": False, "concat_input": True}
LRASPP = {"levels": (0, 1, -1), "channels": 128, "branch_channels": (32, 64), "windows": True}
DILATED = {"output_stride": 8, "dilate_first": True}
STRIDES_2_TO_8 = {"stride_2_map": True, "output_stride": 8, "first_blocks": False, "tf_padding": True}
OPENMMLAB_SEGMENTERS = [
    ("swin", "tiny", "upernet", {}, {}, 150, 59941862, 236864792448, (512, 512)),
    ("convnext", "tiny", "upernet", {}, {}, 150, 60242636, 234636115968, (512, 512)),
    ("beit", "base_patch16", "upernet", {}, {}, 150, 163407980, 962176370688, (640, 640)),
    ("hrnet", "w48", "fcn", {"conv_bias": False}, {}, 19, 65858659, 172014698496, (512, 1024)),
    ("hrnet", "w48", "ocr", {"conv_bias": False}, {}, 19, 70371446, 324474437632, (512, 1024)),
    ("mobilenet_v2", "w100", "aspp", {}, {}, 19, 15244374, 136075051008, (512, 1024)),
    ("mobilenet_v2", "w100", "fcn", FCN, DILATED, 19, 9718822, 78234386432, (512, 1024)),
    ("mobilenet_v3", "large_100", "lraspp", LRASPP, STRIDES_2_TO_8, 19, 3284547, 17249763200, (512, 1024)),
]
ROWS = [(backbone, variant, *row) for backbone, table in CLASSIFIERS.items() for variant, row in table.items()]
LARGE = 40_000_000  # parameters; larger variants are counted by the slow tests


def slow_if_large(rows, column):
    return [pytest.param(*row, marks=pytest.mark.slow if row[column] > LARGE else ()) for row in rows]


SLOW_ROWS = [pytest.param(*row, marks=pytest.mark.slow) for row in OTHER_SIZES]  # the variants themselves are in ROWS


def count(backbone, size, **options):
    return count_of(lambda: spine.create_model(backbone, image_size=size, **options), size)


def count_of(build, size):
    with torch.device("meta"):
        net = build().eval()
        image = torch.empty(1, 3, *size)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(image)
    return sum(parameter.numel() for parameter in net.parameters()), counter.get_total_flops() / 2


@pytest.mark.parametrize(("backbone", "variant", "parameters", "macs", "size"), [*slow_if_large(ROWS, 2), *SLOW_ROWS])
def test_classifier_has_the_published_size(backbone, variant, parameters, macs, size):
    assert count(backbone, (size, size), variant=variant, num_outputs=1000) == (parameters, macs)


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "keypoints", "parameters", "macs", "size"), slow_if_large(POSE, 2))
def test_hrnet_for_pose_has_the_published_size(variant, keypoints, parameters, macs, size):
    assert count("hrnet", size, variant=variant, task="pose", num_outputs=keypoints) == (parameters, macs)


@pytest.mark.parametrize(("classes", "parameters", "macs", "size"), PARSENET)
def test_parsenet_has_the_expected_size(classes, parameters, macs, size):
    options = {"variant": "largefov", "task": "seg", "head": "parsenet", "num_outputs": classes}
    assert count("vgg16", (size, size), **options) == (parameters, macs)


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "head_options", "parameters", "macs", "macs_cityscapes"), slow_if_large(SEGMENTERS, 2))
def test_segnext_has_the_published_size(variant, head_options, parameters, macs, macs_cityscapes):
    options = {"variant": variant, "task": "seg", "head": "hamburger", "num_outputs": 150, "head_options": head_options}
    assert count("segnext", (512, 512), **options) == (parameters, macs)
    if macs_cityscapes is not None:
        assert count("segnext", (1024, 2048), **options) == (parameters, macs_cityscapes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "variant", "head", "head_options", "options", "classes", "parameters", "macs", "size"), OPENMMLAB_SEGMENTERS
)
def test_segmenter_has_the_size_of_openmmlabs(backbone, variant, head, head_options, options, classes, parameters, macs, size):
    """With the auxiliary head in the second coarsest map, if OpenMMLab's network has one."""
    network = NetworkConfig(backbone, head, task_spec("seg"), classes, size, auxiliary_head={} if head_options is FCN else None)
    network = network.with_options({"variant": variant, **options}, head_options)
    assert count_of(network.build, size) == (parameters, macs)


def test_lraspp_has_the_published_size():
    """torchvision's `lraspp_mobilenet_v3_large`, with the 21 classes of Pascal VOC."""
    with torch.device("meta"):
        net = spine.create_model("mobilenet_v3", variant="large_100", task="seg", head="lraspp", num_outputs=21)
    assert sum(parameter.numel() for parameter in net.parameters()) == 3221538


def test_every_variant_is_in_the_table():
    for backbone in spine.list_backbones():
        assert {"micro", *CLASSIFIERS[backbone]} == set(spine.list_variants(backbone))


def test_hamburger_has_the_published_size():
    """The head of SegNeXt-T has 64, 160 and 256 input channels and 150 classes."""
    from spine.heads.hamburger import HamburgerHead
    from spine.interfaces import FeatureSpec, Level

    spec = FeatureSpec((Level(64, 8), Level(160, 16), Level(256, 32)), embed_dim=256)
    with torch.device("meta"):
        built = HamburgerHead(spec, 150, channels=256)
    assert sum(parameter.numel() for parameter in built.parameters()) == 359830


@pytest.mark.parametrize("backbone", ["mae", "vit"])
@pytest.mark.parametrize(
    ("variant", "encoder", "decoder", "macs"),
    [
        ("base_patch16", 85798656, 26109184, 9781133312),
        ("large_patch16", 303301632, 26240256, 20755783680),
        ("huge_patch14", 630764800, 26309708, 48561911808),
    ],
)
def test_mae_has_the_published_size(backbone, variant, encoder, decoder, macs):
    """Encoder of the visible quarter of the patches, and decoder, at 224 px.

    Frozen position embeddings count as parameters.
    """
    with torch.device("meta"):
        net = spine.create_model(backbone, variant=variant, task="mae")
    assert sum(parameter.numel() for parameter in net.backbone.parameters()) == encoder
    assert sum(parameter.numel() for parameter in net.head.parameters()) == decoder
    visible = (224 // net.patch_size) ** 2 // 4
    with torch.device("meta"):
        patch_mask = torch.arange(4 * visible)[None] >= visible
    net.backbone.forward_masked = lambda image, mask, masking: _masked_on_meta(net.backbone, image, visible)
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.empty(1, 3, 224, 224), patch_mask)
    assert counter.get_total_flops() / 2 == macs


@pytest.mark.parametrize(("variant", "parameters"), [("base_patch16", 91965776), ("large_patch16", 311534016)])
def test_masked_beit_has_the_published_size(variant, parameters):
    """One relative position bias table for all blocks, a mask token, a last norm, and 8192 visual tokens."""
    with torch.device("meta"):
        net = spine.create_model("beit", variant=variant, task="beit")
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters


def _masked_on_meta(backbone, image, visible):
    """`forward_masked` with a slice in place of the mask, because the meta device has no values."""
    from spine.interfaces import Tokens

    patches, cls_token, _ = backbone.embed(image)
    x = backbone.norm(backbone.blocks(torch.cat([cls_token, patches[:, :visible]], dim=1)))
    return Tokens(x[:, 1:], x[:, 0])


@pytest.mark.parametrize("backbone", spine.list_backbones())
def test_micro_backbone_has_less_than_a_million_parameters(backbone):
    with torch.device("meta"):
        net = spine.create_model(backbone, variant="micro", num_outputs=10)
    assert sum(parameter.numel() for parameter in net.backbone.parameters()) < 1_000_000
