"""Transform pipelines: what steps declare, random numbers from the sample's generator only, composites and plug-ins."""

import pickle
import subprocess
import sys

import albumentations
import cv2
import numpy as np
import pytest
import torch
from command_line import run_command
from test_configs import composed

from spine import plugins
from spine.commands import train
from spine.config import checks, instantiate, places
from spine.data import build_data
from spine.data.data_module import Samples
from spine.data.formats.shapes import Shapes
from spine.data.sampler import Draw
from spine.data.transforms import CenterCrop, Resize, TopDownAffine, Transform
from spine.data.transforms.albumentations_adapter import Albumentations
from spine.errors import InputError
from spine.interfaces import SampleTransform
from spine.training.run_folder import RunFolder


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


# ---- what a step declares --------------------------------------------------------------------------------------------

WITH_KEYPOINTS = frozenset({"image", "keypoints"})


class Undeclared(SampleTransform):
    """A step that does not declare what it moves."""

    def __call__(self, sample, rng):
        return sample


class Recolor(Undeclared):
    geometric = False


class Shear(Undeclared):
    targets = frozenset({"image", "mask", "keypoints"})
    geometric = True


def prepared(*steps, needs=WITH_KEYPOINTS):
    transform = Transform(steps, [0] * 3, [1] * 3)
    transform.prepare(Shapes.labels, needs)
    return transform


@pytest.mark.parametrize(
    ("step", "name"),
    [
        (albumentations.RandomResizedCrop((32, 32)), "albumentations.RandomResizedCrop"),
        (albumentations.OneOf([albumentations.Blur(), albumentations.Rotate()]), "albumentations.Rotate"),
        (albumentations.SomeOf([albumentations.Sequential([albumentations.Affine()])], n=1), "albumentations.Affine"),
        (Undeclared(), "Undeclared"),
    ],
)
def test_steps_that_do_not_move_keypoints_are_refused_before_training(step, name):
    message = f"Augmentation '{name}' moves pixels of the image but not its keypoints, which the task needs. Use augment=pose, or"
    with pytest.raises(InputError, match=message):
        prepared(TopDownAffine((32, 32)), step)
    prepared(step, needs=frozenset({"image"}))


def test_a_step_that_does_not_move_the_mask_is_refused():
    with pytest.raises(
        InputError, match="'Undeclared' moves pixels of the image but not its mask.* augment=seg.* add 'mask' to its `targets`"
    ):
        prepared(Undeclared(), needs=frozenset({"image", "mask"}))
    prepared(albumentations.Rotate(), needs=frozenset({"image", "mask"}))  # albumentations moves masks


def test_steps_that_declare_what_they_do_work_with_keypoints():
    colors = albumentations.OneOf([albumentations.Blur(), albumentations.CoarseDropout(), albumentations.PixelDropout()])
    prepared(Resize((32, 32)), colors, albumentations.NoOp(), Recolor(), Shear())


@pytest.mark.parametrize("first", [Resize((32, 32)), Shear()])
def test_a_crop_by_box_comes_before_other_geometric_steps(first):
    with pytest.raises(InputError, match="TopDownAffine crops by the box in the original image"):
        prepared(first, TopDownAffine((32, 32)))
    prepared(Recolor(), TopDownAffine((32, 32)))


def test_steps_are_checked_when_a_split_is_opened():
    transform = Transform([albumentations.HorizontalFlip()], [0] * 3, [1] * 3)
    with pytest.raises(InputError, match="moves pixels of the image but not its keypoints"):
        Samples(Shapes("val"), transform, seed=0, needs=WITH_KEYPOINTS)


@pytest.mark.parametrize("step", [len, lambda sample, rng: sample, None, CenterCrop])
def test_only_transforms_are_steps(step):
    with pytest.raises(InputError, match="is not a transform. Use one of spine.data.transforms or of albumentations"):
        Transform([step], [0] * 3, [1] * 3)


def test_adjacent_transforms_of_albumentations_share_one_compose():
    blur, flip = albumentations.Blur(), albumentations.HorizontalFlip()
    steps = Transform([blur, flip, Resize((8, 8)), blur], [0] * 3, [1] * 3).steps
    assert [type(step) for step in steps] == [Albumentations, Resize, Albumentations]
    assert steps[0].compose.transforms == [blur, flip]


def color_jitter():
    return Albumentations([albumentations.ColorJitter(p=1.0), albumentations.HorizontalFlip(p=0.5)])


def test_albumentations_draw_from_the_generator_of_the_sample():
    image = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    one, two = color_jitter(), color_jitter()
    for seed in range(6):
        a = one({"image": image}, np.random.default_rng(seed))["image"]
        two({"image": image}, np.random.default_rng(99))  # earlier draws must not matter
        np.testing.assert_array_equal(a, two({"image": image}, np.random.default_rng(seed))["image"])
    assert len({one({"image": image}, np.random.default_rng(s))["image"].tobytes() for s in range(12)}) == 12


def test_albumentations_refuse_keypoints_that_they_would_not_move():
    step = Albumentations([albumentations.HorizontalFlip(p=1.0)])
    with pytest.raises(InputError, match="moves pixels of the image but not its keypoints"):
        step({"image": np.zeros((8, 8, 3), np.uint8), "keypoints": np.zeros((1, 3))}, np.random.default_rng(0))


def test_normalized_images_are_channels_last():
    image = np.random.default_rng(0).integers(0, 255, (8, 12, 3), np.uint8)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    out = Transform([], mean, std)({"image": image, "label": 3}, np.random.default_rng(0))
    expected = (image / 255 - mean) / std
    np.testing.assert_allclose(out["image"].permute(1, 2, 0).numpy(), expected, atol=1e-5)
    assert out["image"].stride() == (1, 36, 3) and out["label"].dtype == torch.int64


def test_padding_to_a_multiple_is_ignored_in_the_mask():
    out = Transform([], [0] * 3, [1] * 3, pad_multiple=16)(
        {"image": np.full((20, 30, 3), 9, np.uint8), "mask": np.ones((20, 30), np.uint8)}, None
    )
    assert out["image"].shape == (3, 32, 32) and out["mask"].shape == (32, 32)
    assert (out["mask"][20:] == 255).all() and (out["mask"][:, 30:] == 255).all() and (out["mask"][:20, :30] == 1).all()


# ---- composites of albumentations in a configuration -----------------------------------------------------------------


def of(name, **options):
    return {"_target_": f"albumentations.{name}", **options}


COLORS = [of("GaussianBlur"), of("HueSaturationValue"), of("RandomGamma")]
COMPOSITES = {
    "one of": of("OneOf", transforms=COLORS, p=0.5),
    "some of": of("SomeOf", transforms=COLORS, n=2, replace=True),
    "random order": of("RandomOrder", transforms=COLORS, n=3),
    "sequential": of("Sequential", transforms=COLORS, p=0.9),
    "nested": of(
        "OneOf",
        transforms=[of("Sequential", transforms=[of("SomeOf", transforms=COLORS, n=1), COLORS[0]], p=1.0), COLORS[1]],
        p=1.0,
    ),
}


def built(node, task="cls"):
    """The training samples of `shapes` with one augmentation, which is checked first as a command checks it."""
    config = composed(f"task={task}", "augment=none", "dataset.num_workers=0")
    config["augment"]["train"] += [node] if node else []
    return build_data(checks.prepare(config)).transformed("train", training=True)


@pytest.mark.parametrize("node", COMPOSITES.values(), ids=COMPOSITES.keys())
def test_composites_draw_from_the_generator_of_the_sample(node):
    one, two = built(node), built(node)
    draws = [Draw(epoch, 3) for epoch in range(8)]
    images = [one[draw]["image"] for draw in draws]
    assert len({image.numpy().tobytes() for image in images}) > 4
    two[Draw(99, 5)]  # earlier draws must not matter
    pickled = pickle.loads(pickle.dumps(one))  # as sent to a worker process
    for draw, image in reversed(list(zip(draws, images, strict=True))):
        assert torch.equal(two[draw]["image"], image) and torch.equal(pickled[draw]["image"], image)


def test_a_composite_moves_image_and_mask_together():
    node = of("OneOf", transforms=[of("HorizontalFlip", p=1.0), of("VerticalFlip", p=1.0)], p=1.0)
    sample, plain = built(node, "seg")[Draw(0, 0)], built(None, "seg")[Draw(0, 0)]
    flips = [tuple(dims) for dims in ((-1,), (-2,)) if torch.equal(sample["image"], plain["image"].flip((dims[0],)))]
    assert len(flips) == 1 and torch.equal(sample["mask"], plain["mask"].flip(flips[0]))


def test_a_geometric_child_is_refused_for_keypoints():
    node = of("OneOf", transforms=[COLORS[0], of("Sequential", transforms=[of("Rotate")])])
    with pytest.raises(InputError, match="Augmentation 'albumentations.Rotate' moves pixels .* not its keypoints"):
        built(node, "pose")


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (of("OneOf", transforms=[of("GausianBlur")]), r"train\[1\].transforms\[0\]._target_=.* Did you mean 'albumentations.GaussianBlur'"),
        (
            of("OneOf", transforms=[of("Sequential", transforms=[COLORS[0], of("HueSaturationValu")])]),
            r"train\[1\].transforms\[0\].transforms\[1\]._target_=.* Did you mean 'albumentations.HueSaturationValue'",
        ),
        (of("OneOf", transforms=[of("Rotate", limits=3)]), r"key 'augment.train\[1\].transforms\[0\].limits'. Did you mean 'limit'"),
        (of("OneOf", transforms=[of("Rotate", limit="x")]), r"train\[1\].transforms\[0\]: Rotate does not take these values \(limit"),
        (of("OneOf", transforms=[{"p": 0.5}]), r"train\[1\].transforms\[0\] has no _target_; it should name a transform"),
        (of("OneOf", transforms=["Blur"]), r"train\[1\].transforms\[0\] has no _target_"),
        (of("OneOf", transforms=of("Blur")), r"augment.train\[1\].transforms is .*; it is a list of transforms"),
        (of("OneOf", transforms=[]), r"augment.train\[1\].transforms is \[\]; it is a list of transforms"),
        (of("OneOf", transforms=None), r"augment.train\[1\].transforms is None; it is a list of transforms"),
        (of("OneOf", transform=COLORS), r"augment.train\[1\] has no key 'transforms': OneOf needs a list"),
        (of("OneOf", transforms=COLORS, p=2), r"augment.train\[1\].p is 2; it must be a probability, 0 to 1"),
        (of("SomeOf", transforms=COLORS, n="two"), r"augment.train\[1\].n is 'two'; it must be a whole number of transforms"),
        (of("Blur", transforms=COLORS), "Unknown key 'augment.train\\[1\\].transforms'"),
        (
            of("OneOf", transforms=[{"_target_": "spine.data.transforms.Resize", "size": [8, 8]}]),
            r"transforms\[0\]._target_='spine.data.transforms.Resize' is not allowed: OneOf holds transforms of albumentations only",
        ),
    ],
)  # fmt: skip
def test_mistakes_in_composites_are_reported_with_their_place(node, message):
    with pytest.raises(InputError, match=message):
        built(node)


HOSTILE_CHILDREN = [
    "os.system", "builtins.open", "albumentations.load", "albumentations.Lambda", "albumentations.TextImage", "albumentations.Compose",
    "albumentations.ReplayCompose", "albumentations.core.serialization.load", "spine.data.transforms.cv2.imread", "unknown_module.Step",
    "albumentations.augmentations.crops.transforms.np.load",
]  # fmt: skip


def in_composites(target, depth):
    node = {"_target_": target}
    for name in ("OneOf", "SomeOf", "Sequential")[:depth]:
        node = of(name, transforms=[node])
    return node


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("target", HOSTILE_CHILDREN)
def test_children_that_are_no_transforms_are_refused(target, depth):
    node = in_composites(target, depth)
    with pytest.raises(InputError, match="is not allowed|does not exist"):
        places.check_targets({"augment": {"train": [node]}})
        instantiate.instantiate("augment.train[0]", node)


def test_children_are_refused_before_anything_is_imported(tmp_path):
    """Importing runs code: a folder on the path could hold any."""
    (tmp_path / "hostile.py").write_text("raise SystemExit('imported')")
    code = (
        "import sys; from spine.config import places\n"
        "from spine.errors import InputError\n"
        "before = set(sys.modules)\n"
        "for depth in (1, 2):\n"
        "    node = {'_target_': 'hostile.Step'}\n"
        "    for _ in range(depth): node = {'_target_': 'albumentations.OneOf', 'transforms': [node]}\n"
        "    try: places.check_targets({'augment': {'train': [node]}}); raise SystemExit('accepted')\n"
        "    except InputError as error: assert 'hostile.Step' in str(error) and 'is not allowed' in str(error)\n"
        "assert set(sys.modules) == before, set(sys.modules) - before"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


CHILDREN = "[{_target_: albumentations.GaussianBlur}, {_target_: albumentations.RandomGamma}]"
TYPED = f"[{{_target_: albumentations.OneOf, transforms: {CHILDREN}, p: 0.5}}]"
RUN = (
    "trainer.fast_dev_run=true",
    "trainer.accelerator=cpu",
    "dataset.batch_size=2",
    "dataset.length={train: 4, val: 2, test: 2}",
)


def test_a_composite_is_typed_on_the_command_line(tmp_path):
    config = composed("task=cls", f"augment.train={TYPED}", "dataset.num_workers=1", *RUN)
    assert config["augment"]["train"][0]["transforms"][1] == of("RandomGamma")
    train.train_run(config, RunFolder(tmp_path))


@pytest.mark.slow
def test_a_composite_on_a_real_command_line_and_in_a_yaml(tmp_path):
    done = run_command("train.py", "task=cls", *RUN, f"augment.train={TYPED}", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "mine/conf/augment").mkdir(parents=True)
    yaml = f"train: {TYPED}\neval: [{{_target_: spine.data.transforms.Resize, size: '${{image_size}}'}}]\n"
    (tmp_path / "mine/conf/augment/blurred.yaml").write_text(yaml)
    done = run_command("train.py", "task=cls", *RUN, "plugins=./mine", "augment=blurred", folder=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_size_of_a_child_follows_the_image_size(tmp_path):
    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / split / name / "0.png"), noise(40, 50))
    crop = "{_target_: albumentations.RandomResizedCrop, size: '${image_size}'}"
    config = composed(
        "dataset=image_folder",
        f"dataset.root={tmp_path}",
        f"augment.train=[{{_target_: albumentations.OneOf, transforms: [{crop}], p: 1.0}}]",
    )
    assert build_data(checks.prepare(config)).transformed("train", training=True)[Draw(0, 0)]["image"].shape == (3, 224, 224)


# ---- steps of a plug-in ----------------------------------------------------------------------------------------------

PLUGIN = """
from spine.interfaces import SampleTransform


class Invert(SampleTransform):
    geometric = {geometric}

    def __init__(self, strength: int = 255):
        self.strength = strength

    def __call__(self, sample, rng):
        sample["image"] = self.strength - sample["image"]
        return sample
"""


@pytest.mark.parametrize("geometric", [True, False])
def test_a_step_of_a_plugin_is_checked_like_other_steps(tmp_path, monkeypatch, geometric):
    name = f"own_steps_{geometric}".lower()
    monkeypatch.setattr(plugins, "_added", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / name / "data/transforms").mkdir(parents=True)
    (tmp_path / name / "data/transforms/invert.py").write_text(PLUGIN.format(geometric=geometric))
    (tmp_path / name / "data/transforms/__init__.py").write_text("from .invert import Invert\n")
    plugins.add(tmp_path / name)
    for module in ("", ".invert"):
        node = {"_target_": f"{name}.data.transforms{module}.Invert", "strength": 255}
        plain, inverted = built(None)[Draw(0, 0)]["image"], built(node)[Draw(0, 0)]["image"]
        assert (plain - inverted).abs().max() > 1
    if geometric:
        with pytest.raises(InputError, match="Augmentation 'Invert' moves pixels .* add 'keypoints' to its `targets`"):
            built(node, "pose")
    else:
        built(node, "pose")
