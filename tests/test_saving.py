"""When last.ckpt is written within an epoch, which checkpoints are kept, and what happens if one is damaged."""

import os

import pytest
import torch
from interruptions import at_call
from test_resume import assert_equal_outcome, config, last, uninterrupted  # noqa: F401  (fixtures)

from spine.commands import train
from spine.errors import InputError
from spine.tasks.cls.task import Classification
from spine.training import checkpoints
from spine.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("blank_figures")

EVERY_STEP = ("callbacks.checkpoint_every_minutes=1.0e-9",)


def names(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "step"),
    [
        pytest.param("callbacks.checkpoint_every_minutes=1.0e-9", 7, marks=pytest.mark.slow),
        ("callbacks.checkpoint_every_steps=4", 4),
    ],
)
def test_a_run_saves_within_an_epoch_and_resumes_there(tmp_path, uninterrupted, monkeypatch, setting, step):  # noqa: F811
    """Call 10 is step 8: an epoch has 6 steps of training and 2 of validation."""
    at_call(monkeypatch, Classification, 10)
    with pytest.raises(RuntimeError):
        train.train_run(config(setting), RunFolder(tmp_path))
    monkeypatch.undo()
    assert last(tmp_path)["global_step"] == max(step, 6)
    train.train_run(config(setting), RunFolder(tmp_path))
    assert_equal_outcome(uninterrupted, tmp_path)


@pytest.mark.slow
def test_saving_within_epochs_changes_nothing(tmp_path, uninterrupted):  # noqa: F811
    train.train_run(config(*EVERY_STEP), RunFolder(tmp_path))
    assert_equal_outcome(uninterrupted, tmp_path)
    assert names(tmp_path) == ["best.ckpt", "last.ckpt", "previous.ckpt"]


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "truncated":
        del content[len(content) // 2 :]
    elif how == "flipped":  # one byte of a tensor: torch would load it
        content[len(content) // 2] ^= 0xFF
    else:
        content.clear()
    path.unlink()  # previous.ckpt may be a second name of the same file
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["truncated", *(pytest.param(how, marks=pytest.mark.slow) for how in ("flipped", "empty"))])
def test_a_damaged_last_falls_back_to_the_one_before(tmp_path, uninterrupted, monkeypatch, caplog, how):  # noqa: F811
    at_call(monkeypatch, Classification, 19)  # in the third epoch
    with pytest.raises(RuntimeError):
        train.train_run(config(), RunFolder(tmp_path))
    monkeypatch.undo()
    damage(tmp_path / "checkpoints" / "last.ckpt", how)
    train.train_run(config(), RunFolder(tmp_path))
    assert "The run resumes from the checkpoint before it." in caplog.text
    assert "damaged.ckpt" in names(tmp_path)
    assert_equal_outcome(uninterrupted, tmp_path)


def test_a_run_without_an_intact_checkpoint_is_not_trained_over(tmp_path, monkeypatch):
    at_call(monkeypatch, Classification, 19)
    with pytest.raises(RuntimeError):
        train.train_run(config(), RunFolder(tmp_path))
    monkeypatch.undo()
    for name in ("last.ckpt", "previous.ckpt"):
        damage(tmp_path / "checkpoints" / name, "truncated")
    with pytest.raises(InputError, match=r"There is no intact checkpoint before it. restart=true starts the run over"):
        train.train_run(config(), RunFolder(tmp_path))
    assert {"last.ckpt", "previous.ckpt"} <= set(names(tmp_path))


def test_the_best_checkpoints_are_kept_if_asked(tmp_path):
    train.train_run(config("callbacks.keep_best=2"), RunFolder(tmp_path))
    assert len([name for name in names(tmp_path) if name.startswith("top-")]) == 2 and "best.ckpt" in names(tmp_path)


def test_a_name_without_hard_links_is_replaced(tmp_path, monkeypatch):
    def refused(*args):
        raise OSError("not supported")

    monkeypatch.setattr(os, "link", refused)
    (tmp_path / "last.ckpt").write_text("one")
    checkpoints.keep_as(tmp_path / "last.ckpt", tmp_path / "previous.ckpt")
    assert (tmp_path / "previous.ckpt").read_text() == "one"


def test_a_checkpoint_that_cannot_be_written_keeps_both(tmp_path, monkeypatch):
    io = checkpoints.AtomicCheckpointIO()
    for value in (1, 2):
        io.save_checkpoint({"value": torch.tensor(value)}, tmp_path / "last.ckpt")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match="The previous one is kept"):
        io.save_checkpoint({"value": torch.tensor(3)}, tmp_path / "last.ckpt")
    monkeypatch.undo()
    assert [int(torch.load(tmp_path / name)["value"]) for name in ("last.ckpt", "previous.ckpt")] == [2, 1]
