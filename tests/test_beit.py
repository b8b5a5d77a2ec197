"""BEiT's pre-training: block masks, two views of a crop, the frozen tokenizer, and a step that equals the authors'."""

import copy
import json
import random
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from recording import RECORDS, draw, gradients, image_of
from recording_beit import CODES, COUNT, SIZE, to_hex, tokenizer_image
from test_configs import composed, trained
from test_evaluate import evaluated
from tokenizer_file import tokenizer_file

import spine
from spine.checkpoints.run_checkpoint import TOKENIZER_COPY, read_checkpoint
from spine.checkpoints.tokenizer_files import load_tokenizer
from spine.commands import eval as evaluate
from spine.config import checks, replay
from spine.config.building import build_run
from spine.config.completion import complete
from spine.data.data_module import collate
from spine.data.formats.shapes import Shapes
from spine.data.sampler import Draw
from spine.data.transforms import CenterRegion, RandomRegion, Resize, Transform, TwoViews
from spine.errors import InputError
from spine.interfaces import Labels
from spine.tasks.beit.masking import BlockPatchMask
from spine.tasks.beit.task import NO_DECODER, MaskedImageModeling
from spine.training.run_folder import RunFolder

SMALL = (
    "task=beit", "backbone=beit", "dataset.length={train: 8, val: 6, test: 4}", "dataset.batch_size=4", "dataset.num_workers=0",
    "trainer.max_epochs=2", "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.num_sanity_val_steps=0",
)  # fmt: skip


def with_tokenizer(*overrides, seed=0, decoder=True):
    return *SMALL, f"tokenizer={tokenizer_file(seed, decoder)}", *overrides


def built(*overrides, **tokenizer):
    return build_run(complete(composed(*with_tokenizer(*overrides, **tokenizer))))


def a_batch(run, split="val"):
    """The first batch of a split, as the task receives it."""
    return run.task.on_after_batch_transfer(next(iter(run.data.loader(split))), 0)


# ---- block masks -----------------------------------------------------------------------------------------------------


class PythonNumbers:
    """Random numbers of Python's generator, drawn by the calls that the authors' code makes."""

    def __init__(self, seed):
        self.random_state = random.Random(seed)

    def random(self):
        return self.random_state.random()

    def integers(self, low, high):
        return self.random_state.randint(low, high - 1)


@pytest.mark.parametrize("case", json.loads((RECORDS / "beit-masks.json").read_text())["cases"])
def test_the_same_numbers_give_the_masks_of_the_authors(case):
    mask = BlockPatchMask(tuple(case["grid"]), case["max_masked"], case["min_block"])
    assert len(case["masks"]) == 100
    for seed, expected in enumerate(case["masks"]):
        assert to_hex(mask.draw(PythonNumbers(seed))) == expected, seed


def test_the_mask_of_the_paper_has_75_of_196_patches_in_blocks_of_16_and_is_scaled():
    def scaled(*grid):
        mask = BlockPatchMask.scaled(grid, 75, 16)
        return mask.max_masked, mask.min_area

    assert scaled(14, 14) == (75, 16)
    assert scaled(24, 24) == (220, 16)  # the smallest block grows with no grid
    assert scaled(7, 7) == (19, 4)
    assert scaled(2, 2) == (2, 1)
    assert BlockPatchMask.scaled((14, 14), 40, 8).max_masked == 40


@pytest.mark.parametrize("grid", [(1, 1), (1, 5), (2, 2), (3, 2), (4, 4), (7, 5), (14, 14), (20, 30)])
def test_every_mask_has_a_masked_patch_and_no_more_than_allowed(grid):
    mask = BlockPatchMask.scaled(grid, 75, 16)
    counts = [int(mask(np.random.default_rng(seed)).sum()) for seed in range(200)]
    assert 1 <= min(counts) and max(counts) <= mask.max_masked


def test_masks_depend_on_seed_epoch_and_index_only():
    samples = built().data.transformed("train", training=True)
    masks = [samples[Draw(epoch, index)]["patch_mask"] for epoch, index in ((0, 0), (0, 0), (1, 0), (0, 1))]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2]) and not torch.equal(masks[0], masks[3])


# ---- two views -------------------------------------------------------------------------------------------------------


def noise(height=90, width=120):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_both_views_are_the_same_region_resized_with_two_filters():
    """Bicubic for the network, Lanczos for the tokenizer, as torchvision resizes a crop of a PIL image."""
    image, region = noise(), RandomRegion()
    steps = Transform([region, TwoViews((64, 48), (32, 24))], [0] * 3, [1] * 3)
    steps.prepare(Shapes.labels, frozenset({"image"}))
    for seed in range(20):
        top, left, height, width = region.draw(image.shape[:2], np.random.default_rng(seed))
        crop = Image.fromarray(image[top : top + height, left : left + width])
        sample = steps({"image": image}, np.random.default_rng(seed))
        first, second = (np.asarray(crop.resize((w, h), way)) for h, w, way in ((64, 48, 3), (32, 24, 1)))
        assert sample["tokenizer_image"].dtype == torch.uint8 and sample["tokenizer_image"].shape == (3, 32, 24)
        assert np.array_equal(sample["tokenizer_image"].permute(1, 2, 0), second)
        assert np.allclose(sample["image"].permute(1, 2, 0) * 255, first, atol=1e-4)


def test_regions_are_inside_the_image_and_have_the_areas_and_shapes_that_are_asked_for():
    region, rng = RandomRegion((0.2, 0.6), (0.75, 4 / 3)), np.random.default_rng(0)
    for _ in range(300):
        top, left, height, width = region.draw((90, 120), rng)
        assert 0 <= top <= 90 - height and 0 <= left <= 120 - width
        assert 0.19 < height * width / (90 * 120) < 0.61 and 0.73 < width / height < 1.36
    assert RandomRegion((1.0, 1.0)).draw((10, 90), rng) == (0, 38, 10, 13)  # no region fits: the largest one in the center


def test_evaluation_crops_the_center_with_the_shape_of_the_network():
    sample = CenterRegion((64, 32))({"image": noise()}, np.random.default_rng(0))
    assert np.array_equal(sample["image"], noise()[:, 38:83])  # 90 x 45 of 90 x 120
    assert CenterRegion((64, 32), 0.5)({"image": noise()}, np.random.default_rng(0))["image"].shape == (45, 22, 3)


def test_nothing_moves_pixels_after_the_views_are_made():
    transform = Transform([TwoViews((64, 64), (32, 32)), Resize((32, 32))], [0] * 3, [1] * 3)
    with pytest.raises(InputError, match="TwoViews makes both views of an image: put it after every other step"):
        transform.prepare(Shapes.labels, frozenset({"image"}))


def test_the_second_view_has_one_token_for_each_patch_of_the_network():
    completed = complete(composed(*with_tokenizer("image_size=[96,64]")))
    assert [completed["augment"][mode][-1]["second_size"] for mode in ("train", "eval")] == [[48, 32], [48, 32]]
    run = built("backbone=convnext", "image_size=[96,64]")
    batch = a_batch(run)
    assert batch["tokenizer_image"].shape == (4, 3, 24, 16) and batch["tokens"].shape == batch["patch_mask"].shape == (4, 6)


def test_the_augmentation_of_beit_works_for_other_tasks():
    run = build_run(complete(composed("task=mae", "augment=beit", *SMALL[2:])))
    assert "tokenizer_image" not in run.data.transformed("train", training=True)[Draw(0, 0)]


# ---- the tokenizer ---------------------------------------------------------------------------------------------------


def test_the_tokenizer_is_frozen_and_no_part_of_the_task():
    task = built().task
    task.train()
    network = task.tokenizer.network
    assert not network.training and not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    own = {id(parameter) for parameter in task.parameters()}
    assert own.isdisjoint(map(id, network.parameters()))
    assert not any("tokenizer" in name for name in (*task.state_dict(), *dict(task.named_modules())))
    task.bfloat16()
    assert next(network.parameters()).dtype == torch.float32


def test_tokens_are_those_of_the_tokenizer_in_float32_also_under_autocast():
    run = built()
    batch = next(iter(run.data.loader("val")))
    pixels = batch["tokenizer_image"].float() / 255
    expected = load_tokenizer(tokenizer_file()).encode(pixels)
    assert len(expected.unique()) > 4
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(run.task.tokens(batch), expected)
    image = torch.from_numpy(run.task.tokenizer.decode(expected, (4, 4)).numpy())
    assert image.shape == (4, 3, 32, 32) and 0 <= image.min() and image.max() <= 1


def test_the_hash_of_a_tokenizer_is_that_of_its_encoder():
    alone, whole, other = (
        built(seed=seed, decoder=decoder).task.tokenizer for seed, decoder in ((0, False), (0, True), (1, True))
    )
    assert alone.sha256 == whole.sha256 != other.sha256
    assert whole.has_decoder and not alone.has_decoder


# ---- loss and metric -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "head"), [("beit", "token_classifier"), ("convnext", "token_classifier"), ("vit", "mae_decoder")]
)
def test_training_computes_the_logits_of_masked_patches_only(backbone, head):
    run = built(f"backbone={backbone}", f"head={head}", "image_size=[64,64]")
    batch, model = a_batch(run), run.task.model.eval()
    patch_mask = batch["patch_mask"]
    everywhere, masked = model(batch["image"], patch_mask), model(batch["image"], patch_mask, masked_only=True)
    assert everywhere.shape == (*patch_mask.shape, 512) and masked.shape == (int(patch_mask.sum()), 512)
    torch.testing.assert_close(masked, everywhere[patch_mask])
    evaluated_loss, output = run.task.eval().evaluate_batch(batch)
    assert output.shape == everywhere.shape
    torch.testing.assert_close(evaluated_loss, F.cross_entropy(masked, batch["tokens"][patch_mask]))
    run.task.train()
    model.eval()  # without random operations and with the same statistics
    trained_loss, output = run.task.evaluate_batch(batch)
    assert output.shape == masked.shape
    torch.testing.assert_close(trained_loss, evaluated_loss)


def test_masks_of_different_sizes_are_never_dropped():
    """A backbone that drops masked patches needs as many of them in every image."""
    with torch.device("meta"):
        assert spine.create_model("vit", variant="micro", task="beit", head="mae_decoder").masking == "pixel"
        assert spine.create_model("vit", variant="micro", task="mae").masking == "drop"
        assert spine.create_model("beit", variant="micro", task="beit", head="mae_decoder").masking == "replace"


def test_loss_and_accuracy_count_every_masked_patch_of_the_split_once():
    """Batches of any size give the same values, although images have different numbers of masked patches."""
    values = []
    for batch_size in (1, 4, 6):
        run = built(f"dataset.batch_size={batch_size}", "image_size=[112,112]")
        task = run.task.eval()
        torch.manual_seed(0)
        for parameter in task.model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        counts, correct, losses = 0, 0, 0.0
        task.on_validation_epoch_start()
        for batch in run.data.loader("val"):
            batch = task.on_after_batch_transfer(batch, 0)
            with torch.no_grad():
                output = task.validation_step(batch, 0)
            masked, tokens = output[batch["patch_mask"]], batch["tokens"][batch["patch_mask"]]
            counts += len(tokens)
            correct += int((masked.argmax(1) == tokens).sum())
            losses += float(F.cross_entropy(masked, tokens, reduction="sum"))
        value = task.compute_metrics()["masked_accuracy"], float(task.split_loss.compute())
        assert value[0] == pytest.approx(correct / counts, abs=1e-7) and value[1] == pytest.approx(losses / counts, rel=1e-6)
        values.append((counts, *value))
    assert values[0] == pytest.approx(values[1], rel=1e-6) == pytest.approx(values[2], rel=1e-6)


def test_a_loss_of_ones_own_is_called_with_logits_and_tokens_of_masked_patches():
    run = built()
    task = MaskedImageModeling(
        load_tokenizer(tokenizer_file()), model=run.task.model, labels=Labels(), loss=torch.nn.MultiMarginLoss()
    )
    batch = a_batch(run)
    loss, logits = task.eval().evaluate_batch(batch)
    patch_mask = batch["patch_mask"]
    assert torch.equal(loss, F.multi_margin_loss(logits[patch_mask], batch["tokens"][patch_mask]))


def test_a_step_equals_the_authors(tmp_path):
    """Loss and gradients of a training step, with the authors' weights, tokenizer, images and masks, in float64."""
    record = json.loads((RECORDS / "beit-step.json").read_text())
    for name in ("keys", "encoder_keys"):
        torch.save(draw({key: tuple(shape) for key, shape in record[name].items()}), tmp_path / f"{name}.pth")
    tokenizer = load_tokenizer(tmp_path / "encoder_keys.pth")
    torch.set_default_dtype(torch.float64)
    try:
        model = spine.create_model(
            "beit", variant="micro", task="beit", num_outputs=CODES, image_size=SIZE, weights=tmp_path / "keys.pth"
        )
    finally:
        torch.set_default_dtype(torch.float32)
    task = MaskedImageModeling(tokenizer, model=model, labels=Labels()).train()
    masks = torch.tensor(record["masks"]).bool().flatten(1)
    assert len(masks.sum(1).unique()) > 1, "images have different numbers of masked patches"
    batch = {"image": image_of(SIZE, COUNT), "patch_mask": masks, "tokenizer_image": tokenizer_image()}
    assert task.tokens(batch).tolist() == record["tokens"]
    loss, _ = task.evaluate_batch(batch)
    loss.backward()
    assert abs(loss.item() - record["loss"]) < 1e-9 * record["loss"]
    found, expected = gradients(model, dict), record["step"]
    assert found.keys() == expected.keys() and len(found) > 90
    largest = max(norm for norm, _ in expected.values())
    for name, (norm, product) in expected.items():
        scale = max(norm, 1e-4 * largest)
        assert abs(found[name][0] - norm) < 1e-6 * scale and abs(found[name][1] - product) < 1e-6 * scale, name


# ---- pictures and predictions ----------------------------------------------------------------------------------------


def rows_of(run):
    batch = a_batch(run)
    _, output = run.task.eval().evaluate_batch(batch)
    (figure,) = run.task.draw(batch, output.detach(), lambda image: np.zeros((len(image), 64, 64, 3), np.uint8)).values()
    axes = np.array(figure.axes).reshape(4, -1)
    return batch, output, axes


def test_the_figure_shows_predicted_tokens_where_masked_and_true_ones_elsewhere():
    run = built()
    batch, output, axes = rows_of(run)
    assert [row[0].get_ylabel() for row in axes] == ["masked input", "predicted tokens", "true tokens", "original"]
    shown = torch.where(batch["patch_mask"], output.argmax(-1), batch["tokens"])
    for row, tokens in ((axes[1], shown), (axes[2], batch["tokens"])):
        expected = (run.task.tokenizer.decode(tokens, (4, 4)) * 255).round().byte().permute(0, 2, 3, 1)
        for axis, image in zip(row, expected, strict=True):
            assert np.array_equal(axis.images[0].get_array(), image)


def test_without_a_decoder_the_figure_says_so():
    _, _, axes = rows_of(built(decoder=False))
    assert [text.get_text() for row in axes for axis in row for text in axis.texts] == [NO_DECODER] * 2
    assert axes[0][0].images and axes[3][0].images and not axes[1][0].images


def test_predictions_need_no_second_view_and_views_say_how_many_tokens_are_right():
    run = built()
    batch = a_batch(run)
    task = run.task.eval()
    _, output = task.evaluate_batch(batch)
    predicted = task.predict_batch({key: batch[key] for key in ("image", "patch_mask")})
    assert torch.equal(predicted["tokens"], output.argmax(-1))
    output = F.one_hot(batch["tokens"], 512).float()
    view = task.view_samples(output, batch)[0]
    count = int(batch["patch_mask"][0].sum())
    assert view.prediction == f"{count} of {count} masked tokens"
    assert task.sample_losses(output, batch).shape == (4,)


# ---- runs ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run whose tokenizer was moved away afterwards."""
    folder = tmp_path_factory.mktemp("run")
    original = folder / "original.safetensors"
    shutil.copy(tokenizer_file(), original)
    trained(folder, *SMALL, f"tokenizer={original}")
    original.unlink()
    return folder


def test_a_run_keeps_one_copy_of_its_tokenizer_and_the_hash_in_every_checkpoint(finished):
    state = read_checkpoint(finished / "checkpoints" / "last.ckpt")
    assert not any("tokenizer" in name or "encoder" in name for name in state["state_dict"])
    kept, tokenizer = load_tokenizer(finished / TOKENIZER_COPY), load_tokenizer(tokenizer_file())
    assert all(torch.equal(tensor, tokenizer.state_dict()[name]) for name, tensor in kept.state_dict().items())
    sha256 = built().task.tokenizer.sha256
    assert state["tokenizer"] == {"sha256": sha256, "num_codes": 512}
    (start,) = RunFolder(finished).starts()
    assert start["tokenizer_sha256"] == sha256


def test_a_checkpoint_is_evaluated_and_loaded_after_the_tokenizer_was_moved(finished, tmp_path):
    checkpoint = finished / "checkpoints" / "best.ckpt"
    values = evaluate.evaluate_config(evaluated(checkpoint, "trainer.accelerator=cpu"), RunFolder(tmp_path))
    assert values == json.loads((finished / "metrics.json").read_text())["metrics"]
    assert list((tmp_path / "figures").glob("val_tokens.png"))
    task = MaskedImageModeling.load_from_checkpoint(checkpoint)
    assert task.max_masked == 75 and task.tokenizer.num_codes == 512
    moved = tmp_path / "best.ckpt"
    shutil.copy(checkpoint, moved)
    with pytest.raises(InputError, match="There is no tokenizer '.*original.safetensors'"):
        MaskedImageModeling.load_from_checkpoint(moved)
    given = MaskedImageModeling.load_from_checkpoint(moved, tokenizer=load_tokenizer(tokenizer_file()))
    assert torch.equal(given.model.head.lm_head.weight, task.model.head.lm_head.weight)


def test_another_tokenizer_is_refused_in_evaluation(finished, tmp_path):
    checkpoint = finished / "checkpoints" / "best.ckpt"
    config = evaluated(checkpoint, f"tokenizer={tokenizer_file(1)}", "trainer.accelerator=cpu")
    with pytest.raises(InputError, match="was trained with another tokenizer, which has other weights"):
        evaluate.evaluate_config(config, RunFolder(tmp_path))


def test_a_batch_is_made_again_after_the_tokenizer_was_moved(finished):
    record = {"epoch": 1, "step": 1, "indices": [0, 3]}
    (finished / "bad_batch.json").write_text(json.dumps(record))
    batch = replay.replay(finished)
    samples = built().data.transformed("train", training=True)
    expected = collate([samples[Draw(0, index)] for index in (0, 3)])
    assert all(torch.equal(batch[key], value) for key, value in expected.items())


def test_an_interrupted_run_equals_an_uninterrupted_one_although_its_tokenizer_was_moved(tmp_path, monkeypatch):
    options = ("backbone.drop_path_rate=0.1", "trainer.max_epochs=3", "callbacks.checkpoint_every_steps=1")
    folders = [tmp_path / "whole", tmp_path / "parts"]
    for folder in folders:
        folder.mkdir()
    original = tmp_path / "original.safetensors"
    shutil.copy(tokenizer_file(), original)
    trained(folders[0], *SMALL, *options, f"tokenizer={original}")
    step, calls = MaskedImageModeling.evaluate_batch, [0]

    def fails_once(self, batch):
        calls[0] += 1
        if calls[0] == 6:
            raise RuntimeError("the machine is gone")
        return step(self, batch)

    monkeypatch.setattr(MaskedImageModeling, "evaluate_batch", fails_once)
    with pytest.raises(RuntimeError):
        trained(folders[1], *SMALL, *options, f"tokenizer={original}")
    original.unlink()
    trained(folders[1], *SMALL, *options, f"tokenizer={original}")
    one, two = (read_checkpoint(folder / "checkpoints" / "last.ckpt") for folder in folders)
    assert one["global_step"] == two["global_step"] == 6
    assert all(torch.equal(tensor, two["state_dict"][name]) for name, tensor in one["state_dict"].items())
    metrics = [json.loads((folder / "metrics.json").read_text())["metrics"] for folder in folders]
    assert metrics[0] == metrics[1]


# ---- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            SMALL,
            r"Task 'beit' predicts the tokens of a tokenizer, and none is given. Give tokenizer=<file>: a published file, or the "
            r"best.ckpt of a tokenizer that you train first with\n    python train.py task=dvae dataset=shapes",
        ),
        ((*SMALL, "tokenizer=nothing.ckpt"), "There is no tokenizer 'nothing.ckpt'."),
        (("task=cls", f"tokenizer={tokenizer_file()}"), "but task 'cls' reads none. Leave it out, or use task=beit."),
        ((*SMALL, "tokenizer=3"), "tokenizer is 3; it must be the path of a checkpoint of task=dvae"),
        (with_tokenizer("augment=cls"), "needs each image at the size of its tokenizer too, which augment.train does not make"),
        (with_tokenizer("image_size=[100,100]"), "BEiT cuts images into 16x16 patches; 100x100 is not a multiple"),
        (with_tokenizer("backbone=convnext", "image_size=[80,80]"), "Masked patches are 32 pixels wide for this backbone"),
        (with_tokenizer("task.max_masked=0"), "task.max_masked is 0; it must be a whole number of patches"),
    ],
)
def test_mistakes_are_reported_in_one_sentence(overrides, message):
    with pytest.raises(InputError, match=message):
        checks.prepare(composed(*overrides))


def test_a_second_view_of_another_size_is_refused():
    config = composed(*with_tokenizer())
    config["augment"]["train"][-1]["second_size"] = [64, 64]
    with pytest.raises(
        InputError, match=r"second_size of augment.train is \[64, 64\]; for the 4x4 patches of this network it is"
    ):
        checks.prepare(config)
    run = built()
    batch = next(iter(run.data.loader("val")))
    with pytest.raises(InputError, match=r"has 24x32 pixels. The network has 4x4 patches: .* second_size=\[32,32\]"):
        run.task.tokens({**batch, "tokenizer_image": batch["tokenizer_image"][:, :, :24]})
    with pytest.raises(InputError, match="The image for the tokenizer is missing"):
        run.task.tokens({})


def test_a_checkpoint_with_another_vocabulary_is_refused(finished, tmp_path):
    """Of a run that is resumed, and of one that is evaluated."""
    state = torch.load(finished / "checkpoints" / "last.ckpt", weights_only=True)
    state["tokenizer"] = {"sha256": "0" * 64, "num_codes": 8192}
    torch.save(state, tmp_path / "other.ckpt")
    (tmp_path / "run").mkdir()
    with pytest.raises(InputError, match="another tokenizer, which has a vocabulary of 8192 codes; this one has 512. Give the"):
        trained(tmp_path / "run", *with_tokenizer("trainer.max_epochs=3", f"ckpt_path={tmp_path / 'other.ckpt'}"))
    config = copy.deepcopy(complete(composed(*with_tokenizer())))
    config["num_outputs"] = 8192
    with pytest.raises(InputError, match="The checkpoint's head predicts 8192 codes, but the tokenizer '.*' has 512"):
        build_run(config)


def test_a_file_that_is_no_tokenizer_is_refused_before_data_is_read(finished, tmp_path):
    with pytest.raises(InputError, match="is a checkpoint of task 'beit', and not a tokenizer"):
        trained(tmp_path, *SMALL, f"tokenizer={finished / 'checkpoints' / 'last.ckpt'}")
