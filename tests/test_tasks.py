"""Tasks with a plain Lightning Trainer: forward, fit, test, predict and loading from a checkpoint."""

import pytest
import pytorch_lightning as pl
import torch
from test_configs import composed
from tokenizer_file import for_task

from spine.commands.eval import checkpoint_config
from spine.components import modules, task_spec
from spine.config.building import build_run
from spine.config.completion import complete
from spine.errors import InputError
from spine.tasks.cls.task import Classification
from spine.tasks.seg.task import Segmentation

SMALL = ("dataset.length={train: 8, val: 6, test: 4}", "dataset.batch_size=4", "dataset.num_workers=0", "trainer.accelerator=cpu")


def trainer(folder):
    return pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, default_root_dir=folder, enable_progress_bar=False, enable_model_summary=False
    )  # fmt: skip


@pytest.mark.parametrize("name", list(modules("task")))
def test_tasks_work_with_a_plain_trainer(tmp_path, name):
    backbone = ["backbone=vit"] if task_spec(name).network is None else []
    run = build_run(complete(composed(*for_task(name), *backbone, "image_size=[64,64]", *SMALL)))
    plain = trainer(tmp_path)
    plain.fit(run.task, run.data)
    tested = plain.test(run.task, run.data, verbose=False)[0]
    assert "test/loss" in tested and run.task.monitor.replace("val/", "test/") in tested
    predictions = plain.predict(run.task, run.data.loader("val"))
    for key in predictions[0]:
        assert sum(len(batch[key]) for batch in predictions) == 6, key
    again = type(run.task).load_from_checkpoint(plain.checkpoint_callback.best_model_path)
    assert again.labels == run.task.labels and not again.training and again.options() == run.task.options()
    for key, value in run.task.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[key], value), key
    repeated = trainer(tmp_path).predict(again, run.data.loader("val"))
    torch.testing.assert_close(repeated[0], predictions[0])


def test_forward_is_the_networks(tmp_path):
    run = build_run(complete(composed("task=cls", *SMALL)))
    image = torch.randn(2, 3, 64, 64)
    run.task.eval()
    assert torch.equal(run.task(image), run.task.model(image))
    assert "keypoints" not in run.task.predict_step({"image": image}, 0)


def test_checkpoints_of_train_load_too(tmp_path):
    from spine.commands import train
    from spine.training.run_folder import RunFolder

    train.train_run(composed("task=cls", "task.smoothing=0.2", *SMALL, "trainer.max_epochs=1"), RunFolder(tmp_path))
    task = Classification.load_from_checkpoint(tmp_path / "checkpoints" / "best.ckpt")
    assert task.options()["smoothing"] == 0.2 and len(task.labels.classes) == task(torch.randn(1, 3, 64, 64)).shape[1]
    changed = Classification.load_from_checkpoint(tmp_path / "checkpoints" / "best.ckpt", smoothing=0.0)
    assert changed.options()["smoothing"] == 0.0
    with pytest.raises(InputError, match=r"is of task 'cls'; load it with that task's class"):
        Segmentation.load_from_checkpoint(tmp_path / "checkpoints" / "best.ckpt")
    (tmp_path / "other.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match="is not a checkpoint of spine"):
        Classification.load_from_checkpoint(tmp_path / "other.ckpt")


def test_training_without_an_optimizer_is_refused(tmp_path):
    run = build_run(complete(composed("task=cls", *SMALL)))
    task = Classification(model=run.task.model, labels=run.task.labels)
    with pytest.raises(InputError, match="The task has no optimizer"):
        trainer(tmp_path).fit(task, run.data)


def test_a_loss_of_ones_own_replaces_the_tasks():
    run = build_run(complete(composed("task=cls", *SMALL)))
    task = Classification(model=run.task.model, labels=run.task.labels, loss=torch.nn.MultiMarginLoss())
    batch = next(iter(run.data.loader("val")))
    loss, logits = task.eval().evaluate_batch(batch)
    assert torch.equal(loss, torch.nn.functional.multi_margin_loss(logits, batch["label"]))


def test_a_checkpoint_without_a_configuration_is_not_evaluated_by_the_command(tmp_path):
    run = build_run(complete(composed("task=cls", *SMALL)))
    run.task.config = {}  # a task that was constructed in a notebook
    plain = trainer(tmp_path)
    plain.fit(run.task, run.data)
    with pytest.raises(InputError, match=r"was not written by train.py and has no configuration"):
        checkpoint_config(plain.checkpoint_callback.best_model_path)
