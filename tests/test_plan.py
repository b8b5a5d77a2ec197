"""`python -m spine.plan`: steps, memory and files of a plan, and what it says about mistakes. See test_recipes.py for the values."""

import json

import pytest
import torch
from command_line import run_command
from test_configs import composed

import spine
from spine.config.planning import count_steps, make_plan
from spine.errors import InputError
from spine.profiling import count_saved_bytes
from spine.reporting.plan import print_plan

KEYS = [
    "parameters", "multiply_adds", "global_batch_size", "steps", "learning_rates", "parameter_groups", "drop_path", "train_augmentation",
    "eval_augmentation", "batch_augmentation", "ema_decay",
]  # fmt: skip


def plan(*overrides, samples=1000, devices=1):
    return make_plan(composed(*overrides), samples, devices)


def command(*arguments, folder):
    return run_command("spine.plan", *arguments, folder=folder)


@pytest.mark.slow
def test_the_command_prints_the_plan_and_writes_it_with_a_plot(tmp_path):
    done = command("backbone=mobilenet_v2", "samples=1000", "out=plans/plan.json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "186 steps of 32 samples, 31 an epoch of 1,000 samples" in done.stdout
    written = json.loads((tmp_path / "plans" / "plan.json").read_text())
    assert list(written) == KEYS and written["steps"] == 186 and len(written["learning_rates"]) == 100
    assert (tmp_path / "plans" / "plan.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plans"]  # no run folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "samples is missing: give the number of training images, such as samples=1281167 for ImageNet-1k."),
        (["samples=many"], "samples is many; it must be a whole number, 1 or more."),
        (["samples=10"], "samples is 10, fewer than an optimizer step has: 32. Give more, or a smaller batch."),
        (["samples=1000", "experiment=convnext_tiny"], "Unknown experiment 'convnext_tiny'."),
        (["samples=1000", "out=plan.txt"], "out is 'plan.txt'; it must be the name of a JSON file, such as out=plan.json."),
        (["samples=1000", "optimizer.lr=-1"], "optimizer.lr is -1; it must be a learning rate above 0."),
        (["-m", "samples=1000", "seed=1,2"], "spine.plan shows one run, and not a sweep: leave out -m."),
    ],
)
def test_mistakes_get_one_sentence(arguments, message, tmp_path):
    done = command(*arguments, folder=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr and "Traceback" not in done.stderr


def test_an_incomplete_last_step_of_an_epoch_is_left_out():
    assert count_steps({"max_epochs": 3}, 1000, 300) == (3, 9)
    assert count_steps({"max_epochs": 3, "max_steps": 5}, 1000, 300) == (3, 5)
    assert count_steps({"max_epochs": -1, "max_steps": 5}, 1000, 300) == (3, 5)
    assert count_steps({"max_epochs": 3, "limit_train_batches": 2}, 1000, 300) == (2, 6)
    with pytest.raises(InputError, match="no end"):
        count_steps({"max_epochs": -1}, 1000, 300)


@pytest.mark.slow
def test_the_plan_of_a_segmentation_has_its_losses_auxiliary_head_and_evaluation(capsys):
    loss = "{_target_: spine.tasks.seg.losses.OhemCrossEntropy, threshold: 0.9}"
    slide = ("task=seg", "image_size=[64,96]", "task.inference=slide", f"task.loss={loss}")
    print_plan(plan(*slide, "backbone=swin", "head=upernet"))
    printed = capsys.readouterr().out
    assert "Losses:\n  OhemCrossEntropy threshold=0.9\n" in printed
    assert "Auxiliary head:\n  level=2 weight=0.4 channels=256" in printed
    assert "Evaluation: at the resolution of the original images; crops of 64x96, 42x64 apart\n" in printed
    print_plan(plan("backbone=mobilenet_v2"))
    assert not any(word in capsys.readouterr().out for word in ("Losses:", "Auxiliary head:", "Evaluation:"))


def test_a_step_has_the_samples_of_all_devices():
    assert plan("dataset.batch_size=16", devices=4).global_batch_size == 64
    given = plan("dataset.batch_size=16", "dataset.global_batch_size=100", devices=4)
    assert (given.global_batch_size, given.micro_batch_size) == (100, 13)  # 25 on a device, as 13 and 12


def test_the_learning_rate_is_scaled_with_the_batch():
    rates = [rate for _, rate in plan("optimizer.lr=0.1", "optimizer.lr_batch_size=64", "schedule=constant").learning_rates]
    assert rates == [pytest.approx(0.05)] * 100


def test_frozen_parameters_are_in_no_group():
    groups = plan("callbacks.freeze={names: ['^backbone']}").parameter_groups
    assert set(groups) == {"head.linear.weight", "head.linear.bias"}


def test_a_linear_probe_trains_the_head_only():
    groups = plan("protocol=linear", "protocol.lr_factors=[1.0]").parameter_groups
    assert set(groups) == {"head.linear.weight", "head.linear.bias"}


@pytest.mark.parametrize("task", ["seg", "pose", "mae", "beit", "dvae"])
def test_every_task_has_a_plan_without_data_and_tokenizer(task):
    dataset = {"seg": ["dataset=mask_folder"], "pose": ["dataset=coco_keypoints"]}.get(task, [])
    made = plan(f"task={task}", *dataset)
    assert made.parameters > 0 and made.multiply_adds and made.memory.activations > 0


def test_the_state_of_the_optimizer_is_counted():
    adamw, sgd = plan("optimizer=adamw").memory, plan("optimizer=sgd").memory
    assert adamw.optimizer == pytest.approx(2 * adamw.gradients, rel=0.01)  # two averages, and counters
    assert sgd.optimizer == sgd.gradients
    assert sgd.ema == 0 and plan("callbacks.ema={decay: 0.99}").memory.ema == pytest.approx(adamw.weights, rel=0.01)


def test_saved_tensors_are_the_same_on_the_meta_device():
    image = torch.zeros(2, 3, 64, 64)
    real = count_saved_bytes(spine.create_model("convnext", variant="micro", num_outputs=10), [image])
    with torch.device("meta"):
        assert count_saved_bytes(spine.create_model("convnext", variant="micro", num_outputs=10), [image.to("meta")]) == real
