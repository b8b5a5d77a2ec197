"""Every configuration composes, names arguments that exist, and builds."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from spine import preflight, run

CONF = Path(__file__).parents[1] / "conf"


def composed(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return run.plain(compose("train", list(overrides)))


def choices(group):
    return sorted(path.stem for path in (CONF / group).glob("[a-z]*.yaml"))


GROUPS = [p.name for p in CONF.iterdir() if p.is_dir() and p.name not in ("task",)]
SINGLE = [(group, choice) for group in GROUPS for choice in choices(group)]


def test_the_bare_command_composes_and_fits():
    preflight.check(composed())


@pytest.mark.parametrize(("group", "choice"), SINGLE)
def test_every_choice_composes(group, choice):
    config = composed(f"{group}={choice}")
    preflight.check_targets(config)


@pytest.mark.parametrize("task", choices("task"))
@pytest.mark.parametrize("backbone", choices("backbone"))
def test_every_backbone_fits_every_task(backbone, task):
    preflight.check(composed(f"backbone={backbone}", f"task={task}"))


@pytest.mark.parametrize("task", choices("task"))
@pytest.mark.parametrize("optimizer", choices("optimizer"))
@pytest.mark.parametrize("schedule", choices("schedule"))
def test_optimizers_and_schedules_build(task, optimizer, schedule):
    if task == "mae" and optimizer == "sgd":
        pytest.skip("MAE's yaml sets betas, which SGD does not have")
    config = composed(f"task={task}", f"optimizer={optimizer}", f"schedule={schedule}")
    import torch

    net = preflight.build_model(config, num_outputs=None if task == "mae" else 3)
    made = run.instantiate("optimizer", config["optimizer"], net)
    assert isinstance(run.instantiate("schedule", config["schedule"], made, 100), torch.optim.lr_scheduler.LambdaLR)


@pytest.mark.parametrize("augment", choices("augment"))
def test_augmentations_build(augment):
    config = composed(f"augment={augment}")
    for split in ("train", "eval"):
        assert all(run.instantiate("augment", step) is not None for step in config["augment"][split])


def test_keys_that_a_part_does_not_take_are_named(tmp_path):
    config = composed("task=mae", "optimizer=sgd", "+trainer.max_epoch=3", "+task.ratio=0.5")
    with pytest.raises(preflight.InputError, match="Unknown key 'optimizer.betas'"):
        run.instantiate("optimizer", config["optimizer"], None)
    with pytest.raises(preflight.InputError, match="Unknown key 'trainer.max_epoch'. Did you mean 'max_epochs'"):
        run.make_trainer(config, tmp_path, None)
    with pytest.raises(preflight.InputError, match="Unknown key 'task.ratio'. Did you mean 'mask_ratio'"):
        run.instantiate("task", config["task"])


def test_no_variant_means_the_builders_own():
    preflight.check(composed("backbone.variant=null"))


def test_a_configuration_cannot_run_what_it_likes():
    for target in ("os.system", "builtins.open", "torch.load", "spinex.evil", "subprocess.run"):
        with pytest.raises(preflight.InputError, match=rf"augment.train\[0\]._target_='{target}' is not allowed"):
            preflight.check_targets({"augment": {"train": [{"_target_": target}]}})


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


@pytest.mark.parametrize(
    ("variant", "overrides", "expected"),
    [
        ("tiny", (), (256, 16)),
        ("base", (), (512, 64)),
        ("large", (), (1024, 64)),
        ("large", ("head.rank=16",), (1024, 16)),
        ("base", ("head.channels=64", "head.rank=8"), (64, 8)),
    ],
)
def test_a_named_segmenter_is_the_published_one_and_an_explicit_key_wins(variant, overrides, expected):
    config = composed("backbone=segnext", f"backbone.variant={variant}", "task=seg", "head=hamburger", *overrides)
    preflight.check(config)
    assert (config["head"]["channels"], config["head"]["rank"]) == expected  # checkpoints say what was built
    import torch

    with torch.device("meta"):
        head = preflight.build_model(config, 5).head
    assert (head.align.conv.out_channels, head.hamburger.ham.rank) == expected


@pytest.mark.parametrize(
    ("backbone", "variant", "overrides", "bias"),
    [
        ("shufflenet_v1", "x1_0_g3", (), False),
        ("shufflenet_v2", "null", (), False),
        ("shufflenet_v2", "large_164_se", (), True),
        ("shufflenet_v2", "x1_0", ("head.bias=true",), True),
        ("convnext", "tiny", (), True),
        ("convnext", "tiny", ("head.bias=false",), False),
    ],
)
def test_a_named_classifier_is_the_published_one_and_an_explicit_key_wins(backbone, variant, overrides, bias):
    config = composed(f"backbone={backbone}", f"backbone.variant={variant}", "task=cls", *overrides)
    preflight.check(config)
    assert config["head"] == {**config["head"], "bias": bias, "dropout": 0.0}
    import torch

    with torch.device("meta"):
        assert (preflight.build_model(config, 5).head.linear.bias is not None) == bias


def test_published_head_options_are_options_of_heads():
    import inspect

    import spine
    from spine.model import backbone_module, head_class

    for backbone in spine.list_backbones():
        for head, variants in getattr(backbone_module(backbone), "HEAD_OPTIONS", {}).items():
            assert set(variants) <= set(spine.list_variants(backbone))
            for options in variants.values():
                assert options and set(options) <= set(inspect.signature(head_class(head).__init__).parameters)
