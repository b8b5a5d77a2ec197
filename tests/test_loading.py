"""Images are decoded, resized and normalized in the fast ways of training, and are those of the slow ways."""

import gc
import io
import warnings
import weakref
from functools import partial
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from spine.data.collation import collate
from spine.data.data_module import DataModule, Samples
from spine.data.formats.image_folder import ImageFolder
from spine.data.formats.shapes import Shapes
from spine.data.image_files import decode
from spine.data.jpeg import decode_reduced, read_jpeg_header
from spine.data.sampler import Draw
from spine.data.transforms import HorizontalFlip, RandomErasing, RandomResizedCrop, Resize, Transform, random_resized_crop
from spine.data.transforms.normalization import Normalization
from spine.data.transforms.resizing import resize, resize_fast
from spine.data.transforms.two_views import Region
from spine.data.workers import available_cores, count_workers
from spine.encoded_image import EncodedImage
from spine.errors import InputError
from spine.training.progress import RunProgress
from spine.training.speed import Speed, data_wait_advice
from spine.training.step_statistics import StepStatistics

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
TOLERANCE = 1.5  # levels of 255 on average, for a picture with noise
TURNED = Image.Exif()
TURNED[0x0112] = 6


def photo(height, width, seed=0):
    """A picture with smooth parts, edges and fine texture."""
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(0, 256, (9, 12, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
        center, radius = (int(rng.integers(width)), int(rng.integers(height))), int(rng.integers(5, max(6, height // 4)))
        cv2.circle(image, center, radius, rng.integers(0, 256, 3).tolist(), -1, cv2.LINE_AA)
    noise = rng.normal(0, 6, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def jpeg(image, **options):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", **{"quality": 90, **options})
    return np.frombuffer(buffer.getvalue(), np.uint8)


@pytest.mark.parametrize("size", [(50, 70), (64, 300), (300, 64), (400, 500), (65, 63), (64, 64)])
def test_the_fast_resize_is_within_one_level_of_pillow(size):
    image, target = photo(*size), (64, 64)
    exact, fast = resize(image, target, "bilinear"), resize_fast(image, target)
    assert fast.shape == exact.shape and np.abs(fast.astype(int) - exact).max() <= 1
    assert fast.flags.c_contiguous  # other orders of the axes make every later step slower


def test_images_of_pillow_cause_no_warning():
    """PyTorch warns of arrays that cannot be written to."""
    transform = Transform([RandomResizedCrop((32, 32), interpolation="bicubic")], MEAN, STD)
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            transform({"image": photo(50, 70)}, np.random.default_rng(0), normalize=False)
    finally:
        torch.set_warn_always(False)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}])
def test_the_header_of_a_jpeg_file_has_its_size(options):
    header = read_jpeg_header(jpeg(photo(40, 61), **options))
    assert header == (40, 61, False)


def test_other_files_have_no_jpeg_header():
    data = jpeg(photo(40, 61))
    buffer = io.BytesIO()
    Image.fromarray(photo(40, 61)).save(buffer, "PNG")
    assert read_jpeg_header(np.frombuffer(buffer.getvalue(), np.uint8)) is None
    assert all(read_jpeg_header(data[:length]) is None for length in range(0, 150))
    assert read_jpeg_header(jpeg(photo(40, 61), exif=TURNED)) == (40, 61, True)


@pytest.mark.parametrize(("height", "width", "scale"), [(250, 400, 1), (400, 561, 2), (900, 1203, 4), (2405, 2100, 8)])
def test_a_crop_is_decoded_at_a_reduced_scale_within_the_tolerance(height, width, scale, monkeypatch):
    """The region is that of the whole decoded image, rounded to pixels of the reduced image."""
    image = photo(height, width)
    encoded = EncodedImage(jpeg(image), "photo.jpg")
    crop = RandomResizedCrop((128, 128), scale=(0.6, 1.0), interpolation="bilinear", fast=True)
    used = []
    monkeypatch.setattr(random_resized_crop, "decode_reduced", lambda data, n: used.append(n) or decode_reduced(data, n))
    mask = (np.arange(height)[:, None] + np.arange(width) > (height + width) / 2).astype(np.uint8)
    points = np.array([[width * 0.5, height * 0.5, 2], [width * 0.4, height * 0.6, 2]], np.float32)
    for seed in range(6):
        first, second = np.random.default_rng(seed), np.random.default_rng(seed)
        part = crop.read(encoded, {"keypoints": points, "mask": mask}, second)
        drawn = crop.draw((height, width), first)
        rounded = Region(*(side * used[-1] for side in drawn.divided(used[-1], (height, width)))) if scale > 1 else drawn
        assert all(abs(a - b) < 1.5 * scale for a, b in zip(drawn, rounded, strict=True))
        whole = crop._resized({"image": decode(encoded), "keypoints": points, "mask": mask}, rounded, first)
        assert first.random() == second.random()  # the same numbers are drawn
        assert np.abs(part["image"].astype(int) - whole["image"]).mean() <= (TOLERANCE if scale > 1 else 0)
        np.testing.assert_allclose(part["keypoints"], whole["keypoints"], atol=1e-3)
        np.testing.assert_allclose(part["affine"], whole["affine"], atol=1e-3)
        np.testing.assert_array_equal(part["mask"], whole["mask"])
    assert max(used, default=1) == scale


@pytest.mark.parametrize("case", ["turned", "stored", "png", "other size"])
def test_files_that_cannot_be_decoded_in_part_are_decoded_whole(case):
    image, points = photo(400, 600), np.array([[100, 200, 2]], np.float32)
    data = jpeg(image, exif=TURNED)
    if case == "png":
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        data = np.frombuffer(buffer.getvalue(), np.uint8)
    encoded = EncodedImage(data, "photo", (600, 400) if case == "other size" else None, upright=case != "stored")
    crop = RandomResizedCrop((64, 64), scale=(1.0, 1.0), interpolation="bilinear", fast=True)
    whole = crop({"image": decode(encoded), "keypoints": points}, np.random.default_rng(1))
    part = crop.read(encoded, {"keypoints": points}, np.random.default_rng(1))
    if case == "stored":  # decoded in part: its stored pixels are asked for
        assert np.abs(part["image"].astype(int) - whole["image"]).mean() < 5
    else:
        np.testing.assert_array_equal(part["image"], whole["image"])
        np.testing.assert_array_equal(part["keypoints"], whole["keypoints"])


def test_a_broken_file_is_reported():
    crop = RandomResizedCrop((64, 64), interpolation="bilinear", fast=True)
    for broken in (np.zeros(0, np.uint8), jpeg(photo(400, 600))[:160]):
        with pytest.raises(InputError, match="'a.jpg' cannot be decoded"):
            crop.read(EncodedImage(broken, "a.jpg"), {}, np.random.default_rng(0))


def test_the_fast_crop_needs_the_bilinear_filter():
    with pytest.raises(InputError, match="fast=true needs interpolation=bilinear, not random"):
        RandomResizedCrop((64, 64), fast=True)


def test_a_flip_moves_mask_and_keypoints_and_swaps_left_and_right():
    data = Shapes("train")
    flip = HorizontalFlip(p=1.0)
    flip.prepare(data.labels, frozenset({"image", "keypoints"}))
    raw = data.load(0)
    width = raw["mask"].shape[1]
    out = flip({**raw}, np.random.default_rng(0))
    np.testing.assert_array_equal(out["image"], raw["image"][:, ::-1])
    np.testing.assert_array_equal(out["mask"], raw["mask"][:, ::-1])
    order = list(range(len(raw["keypoints"])))
    for a, b in data.labels.flip_pairs:
        order[a], order[b] = b, a
    np.testing.assert_allclose(out["keypoints"][:, 0], width - 1 - raw["keypoints"][order, 0])
    drawn = [np.array_equal(HorizontalFlip()({**raw}, np.random.default_rng(i))["image"], raw["image"]) for i in range(40)]
    assert 10 < sum(drawn) < 30


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_batches_are_normalized_as_single_images_are(channels):
    pixels = np.stack([photo(20, 33, seed) for seed in range(3)])
    normalization = Normalization(MEAN, STD, channels)
    order = slice(None, None, -1 if channels == "bgr" else 1)
    expected = (pixels * normalization.scale + normalization.shift)[..., order]
    single = np.stack([normalization.image(image) for image in pixels])[..., order]
    batch = normalization.batch(torch.from_numpy(np.ascontiguousarray(pixels[..., order])).permute(0, 3, 1, 2))
    np.testing.assert_array_equal(single, expected)
    np.testing.assert_array_equal(batch.permute(0, 2, 3, 1).numpy(), expected)
    np.testing.assert_allclose(expected[..., order], (pixels / 255 - MEAN) / STD, atol=1e-5)
    assert batch.dtype == torch.float32 and batch.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("steps", "options", "stays"),
    [
        ([Resize((40, 40))], {}, True),
        ([Resize((40, 40))], {"channels": "bgr"}, True),
        ([Resize((40, 40))], {"pad_multiple": 32}, False),
        ([Resize((64, 64)), RandomErasing(1.0, "pixel")], {}, False),
    ],
)
def test_loaders_send_pixels_and_return_the_normalized_samples(steps, options, stays):
    data = DataModule(
        partial(Shapes, length={"train": 8}),
        steps,
        needs={"image", "label"},
        batch_size=4,
        num_workers=0,
        mean=MEAN,
        std=STD,
        **options,
    )
    loader = data.loader("train", training=True)
    assert (loader.dataset[Draw(0, 1)]["image"].dtype == torch.uint8) == stays
    for batch in loader:
        samples = [data.transformed("train", training=True)[Draw(0, index)] for index in batch["index"].tolist()]
        assert batch["image"].dtype == torch.float32 and batch["image"].is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(batch["image"], torch.stack([sample["image"] for sample in samples]))


def test_images_of_large_files_are_read_in_part_from_a_folder(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "train" / name / "1.jpg").write_bytes(jpeg(photo(500, 700, ord(name))).tobytes())
    images = []
    for fast in (False, True):
        step = RandomResizedCrop((64, 64), scale=(0.9, 1.0), interpolation="bilinear", fast=fast)
        data = ImageFolder("train", root=str(tmp_path))
        samples = Samples(data, Transform([step], [0] * 3, [1] * 3), 0, frozenset({"image", "label"}))
        images.append([samples[Draw(0, index)] for index in range(2)])
    for whole, part in zip(*images, strict=True):
        assert whole["label"] == part["label"] and (whole["image"] - part["image"]).abs().mean() < 0.05
        assert not torch.equal(whole["image"], part["image"])


def training(workers, **options):
    data = DataModule(
        partial(Shapes, length={"train": 40}), [RandomResizedCrop((32, 32), interpolation="bilinear", fast=True), HorizontalFlip()],
        needs={"image", "label"}, batch_size=8, num_workers=workers, seed=3, **options,
    )  # fmt: skip
    return data.loader("train", training=True)


def contents(batches):
    return [(batch["index"].tolist(), batch["image"].numpy().tobytes()) for batch in batches]


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(4, marks=pytest.mark.slow)])
def test_epochs_are_the_same_for_any_number_of_workers_and_when_they_are_resumed(workers, monkeypatch):
    monkeypatch.setattr("spine.data.workers.available_cores", lambda: 4)
    expected = []
    for epoch in range(3):
        alone = training(0)  # a new loader for each epoch: nothing was prefetched
        alone.batch_sampler.set_epoch(epoch)
        expected.append(contents(alone))
    loader = training(workers)
    assert loader.num_workers == workers
    for epoch in range(3):
        loader.batch_sampler.set_epoch(epoch)
        assert contents(loader) == expected[epoch]
    loader.batch_sampler.set_epoch(1)  # not the epoch that follows
    assert contents(loader) == expected[1]
    batches = iter(loader)
    loader.batch_sampler.set_epoch(2)
    assert contents([next(batches) for _ in range(2)]) == expected[2][:2]
    state = loader.state_dict()
    loader.batch_sampler.set_epoch(0)  # an epoch that is left early, as with limit_train_batches
    assert contents(loader) == expected[0]
    resumed = training(workers)
    resumed.load_state_dict(state)
    assert contents(resumed) == expected[2][2:]
    resumed.batch_sampler.set_epoch(1)
    assert contents(resumed) == expected[1]


def test_workers_end_as_soon_as_their_loader_is_not_used_any_more():
    """A reference cycle would leave them to the garbage collector, which closes their queues first: 5 seconds for each."""
    loader = training(1)
    next(iter(loader))
    iterator = weakref.ref(loader.stream)
    gc.disable()
    try:
        del loader
        assert iterator() is None
    finally:
        gc.enable()


def test_the_next_epoch_is_requested_before_an_epoch_ends():
    loader = training(1)
    first = loader.batch_sampler
    assert len(list(loader)) == len(loader) == 5
    assert loader.upcoming == (1, 0)
    stream = loader.stream
    first.set_epoch(1)
    second = list(loader)
    assert loader.stream is stream and len(second) == 5  # the workers went on without a new start
    sent = loader._iterator._send_idx
    assert sent > 10  # batches of the third epoch


@pytest.mark.parametrize(
    ("requested", "cores", "processes", "accelerated", "expected"),
    [
        (None, 1, 1, True, 0), (None, 2, 1, True, 1), (None, 8, 1, True, 7), (None, 64, 1, True, 16), (None, 64, 8, True, 7),
        (None, 1, 1, False, 0), (None, 2, 1, False, 1), (None, 16, 1, False, 4), (None, 2, 4, True, 0),
        (0, 8, 1, True, 0), (3, 8, 1, True, 3), (30, 8, 1, True, 8), (-1, 8, 1, True, 8), (-1, 8, 4, True, 2),
    ],
)  # fmt: skip
def test_the_number_of_workers_fits_the_cores(requested, cores, processes, accelerated, expected, monkeypatch):
    monkeypatch.setattr("spine.data.workers.available_cores", lambda: cores)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert count_workers(requested, processes, accelerated) == expected
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")  # torchrun
    assert count_workers(-1, 1, accelerated) == max(1, cores // 4)


def test_cores_that_this_process_may_not_use_do_not_count(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {1, 5, 6}, raising=False)
    assert available_cores() == 3


def test_a_run_that_waits_for_data_is_told_what_to_change(monkeypatch):
    monkeypatch.setattr("spine.training.speed.available_cores", lambda: 8)
    advice = data_wait_advice(Speed(100.0, 0.43), 60.0, workers=2, cached=False)
    assert "waits for data 43% of the time" in advice
    assert "dataset.num_workers is 2, and 8 cores" in advice and "dataset.cache" in advice and "augment.train" in advice
    advice = data_wait_advice(Speed(100.0, 0.43), 60.0, workers=8, cached=True)
    assert "num_workers" not in advice and "dataset.cache" not in advice and "augment.train" in advice
    assert data_wait_advice(Speed(100.0, 0.1), 60.0, workers=0, cached=False) is None
    assert data_wait_advice(Speed(100.0, 0.9), 5.0, workers=0, cached=False) is None  # too short to say


def test_the_advice_is_given_once_in_a_run(caplog):
    progress = RunProgress(False, StepStatistics())
    trainer = SimpleNamespace(
        train_dataloader=SimpleNamespace(num_workers=0, seconds_waited=0.0), datamodule=SimpleNamespace(memory=None)
    )
    progress.epoch.restart(trainer)
    progress.epoch.start -= 30.0
    trainer.train_dataloader.seconds_waited = 20.0
    with caplog.at_level("WARNING"):
        progress._advise(trainer)
        progress._advise(trainer)
    assert caplog.text.count("Training waits for data 6") == 1


def test_images_of_different_types_in_a_batch_are_refused():
    samples = [{"image": torch.zeros(3, 4, 4, dtype=kind)} for kind in (torch.uint8, torch.float32)]
    with pytest.raises(InputError, match="images of different types"):
        collate(samples)
