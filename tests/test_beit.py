"""BEiT's pre-training: the frozen tokenizer, loss and metric, a step that equals the authors', and pictures."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from recording import RECORDS, draw, gradients, image_of
from recording_beit import CODES, COUNT, SIZE, tokenizer_image
from test_configs import composed
from tokenizer_file import tokenizer_file

import spine
from spine.checkpoints.tokenizer_files import load_tokenizer
from spine.config.building import build_run
from spine.config.completion import complete
from spine.interfaces import Labels
from spine.tasks.beit.task import NO_DECODER, MaskedImageModeling

SMALL = (
    "task=beit", "backbone=beit", "dataset.length={train: 8, val: 6, test: 4}", "dataset.batch_size=4", "dataset.num_workers=0",
    "trainer.max_epochs=2", "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.num_sanity_val_steps=0",
)  # fmt: skip


def with_tokenizer(*overrides, seed=0, decoder=True):
    return *SMALL, f"tokenizer={tokenizer_file(seed, decoder)}", *overrides


def built(*overrides, **tokenizer):
    return build_run(complete(composed(*with_tokenizer(*overrides, **tokenizer))))


def a_batch(run):
    """The first batch of the validation split, as the task receives it."""
    return run.task.on_after_batch_transfer(next(iter(run.data.loader("val"))), 0)


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
    assert image.shape == (4, 3, 32, 32) and image.min() >= 0 and image.max() <= 1


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
    assert all(value == pytest.approx(values[0], rel=1e-6) for value in values)


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
