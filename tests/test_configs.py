"""Every configuration composes, names arguments that exist, and builds."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from spine.config import building, checks, resolving, targets
from spine.errors import InputError

CONF = Path(__file__).parents[1] / "conf"


def composed(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolving.plain(compose("train", list(overrides)))


def choices(group):
    return sorted(path.stem for path in (CONF / group).glob("[a-z]*.yaml"))


GROUPS = [p.name for p in CONF.iterdir() if p.is_dir() and p.name not in ("task",)]
SINGLE = [(group, choice) for group in GROUPS for choice in choices(group)]


def test_the_bare_command_composes_and_fits():
    checks.check(composed())


@pytest.mark.parametrize(("group", "choice"), SINGLE)
def test_every_choice_composes(group, choice):
    config = composed(f"{group}={choice}")
    targets.check_targets(config)


@pytest.mark.parametrize("task", choices("task"))
@pytest.mark.parametrize("backbone", choices("backbone"))
def test_every_backbone_fits_every_task(backbone, task):
    checks.check(composed(f"backbone={backbone}", f"task={task}"))


@pytest.mark.parametrize("task", choices("task"))
@pytest.mark.parametrize("optimizer", choices("optimizer"))
@pytest.mark.parametrize("schedule", choices("schedule"))
def test_optimizers_and_schedules_build(task, optimizer, schedule):
    if task == "mae" and optimizer == "sgd":
        pytest.skip("MAE's yaml sets betas, which SGD does not have")
    config = composed(f"task={task}", f"optimizer={optimizer}", f"schedule={schedule}")
    import torch

    net = building.build_model(config, num_outputs=None if task == "mae" else 3)
    made = targets.instantiate("optimizer", config["optimizer"], net)
    assert isinstance(targets.instantiate("schedule", config["schedule"], made, 100), torch.optim.lr_scheduler.LambdaLR)


@pytest.mark.parametrize("augment", choices("augment"))
def test_augmentations_build(augment):
    config = composed(f"augment={augment}")
    for split in ("train", "eval"):
        assert all(targets.instantiate("augment", step) is not None for step in config["augment"][split])


def test_keys_that_a_part_does_not_take_are_named(tmp_path):
    config = composed("task=mae", "optimizer=sgd", "+trainer.max_epoch=3", "+task.ratio=0.5")
    with pytest.raises(InputError, match="Unknown key 'optimizer.betas'"):
        targets.instantiate("optimizer", config["optimizer"], None)
    with pytest.raises(InputError, match="Unknown key 'trainer.max_epoch'. Did you mean 'max_epochs'"):
        building.build_trainer(config, tmp_path, None)
    with pytest.raises(InputError, match="Unknown key 'task.ratio'. Did you mean 'mask_ratio'"):
        targets.instantiate("task", config["task"])


def test_no_variant_means_the_builders_own():
    checks.check(composed("backbone.variant=null"))


def test_a_configuration_cannot_run_what_it_likes():
    for target in ("os.system", "builtins.open", "torch.load", "spinex.evil", "subprocess.run"):
        with pytest.raises(InputError, match=rf"augment.train\[0\]._target_='{target}' is not allowed"):
            targets.check_targets({"augment": {"train": [{"_target_": target}]}})


def test_the_run_id_follows_the_configuration(tmp_path):
    from omegaconf import OmegaConf

    def name(*overrides):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("train", list(overrides), return_hydra_config=True)
        return OmegaConf.select(config, "hydra.run.dir")

    base = name("task=seg")
    assert base == name("task=seg") == name("task=seg", "logger=tensorboard", "tags=[a]")
    assert base.startswith("logs/train/runs/convnext-micro_seg_shapes_")
    assert len({base, name("task=cls"), name("task=seg", "seed=1"), name("task=seg", "optimizer.lr=0.1")}) == 4
