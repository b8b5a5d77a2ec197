"""Runs of task=beit: the copy of the tokenizer, evaluation, resuming, and mistakes."""

import json
import shutil

import pytest
import torch
from interruptions import at_call
from test_beit import SMALL, built, with_tokenizer
from test_configs import composed, trained
from test_evaluate import evaluated
from tokenizer_file import tokenizer_file

from spine.checkpoints.run_checkpoint import TOKENIZER_COPY, read_checkpoint
from spine.checkpoints.tokenizer_files import load_tokenizer
from spine.commands import eval as evaluate
from spine.config import checks, replay
from spine.config.building import build_run
from spine.config.completion import complete
from spine.data.collation import collate
from spine.data.sampler import Draw
from spine.errors import InputError
from spine.tasks.beit.task import MaskedImageModeling
from spine.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("blank_figures")

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


@pytest.mark.slow
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


def test_the_second_view_follows_the_image_size_of_an_evaluation(finished):
    config = complete(evaluated(finished / "checkpoints" / "best.ckpt", "image_size=[96,64]"))
    assert config["augment"]["eval"][-1]["second_size"] == [48, 32]


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


@pytest.mark.slow
def test_an_interrupted_run_equals_an_uninterrupted_one_although_its_tokenizer_was_moved(tmp_path, monkeypatch):
    options = ("backbone.drop_path_rate=0.1", "trainer.max_epochs=3", "callbacks.checkpoint_every_steps=1")
    folders = [tmp_path / "whole", tmp_path / "parts"]
    for folder in folders:
        folder.mkdir()
    original = tmp_path / "original.safetensors"
    shutil.copy(tokenizer_file(), original)
    trained(folders[0], *SMALL, *options, f"tokenizer={original}")
    at_call(monkeypatch, MaskedImageModeling, 6)
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
        (with_tokenizer("image_size=[100,100]"), "cuts images into 16x16 patches; 100x100 is not a multiple"),
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
    config = complete(composed(*with_tokenizer()))
    config["num_outputs"] = 8192
    with pytest.raises(InputError, match="The checkpoint's head predicts 8192 codes, but the tokenizer '.*' has 512"):
        build_run(config)


def test_a_file_that_is_no_tokenizer_is_refused_before_data_is_read(finished, tmp_path):
    with pytest.raises(InputError, match="is a checkpoint of task 'beit', and not a tokenizer"):
        trained(tmp_path, *SMALL, f"tokenizer={finished / 'checkpoints' / 'last.ckpt'}")
