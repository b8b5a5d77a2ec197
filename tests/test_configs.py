"""All configurations compose, their keys are arguments that exist, and they build."""

import functools
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import pytest
from hydra import compose, initialize_config_dir
from tokenizer_file import for_task

from spine.components import task_spec
from spine.config import checks, completion, instantiate, places, resolving, schemas, values
from spine.errors import InputError
from spine.models.assembly import NetworkConfig, network_of

CONF = Path(__file__).parents[1] / "conf"


def composed(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolving.to_plain(compose("train", list(overrides)))


def trained(folder, *overrides):
    """Trains the configuration of a command line in a folder, in this process."""
    from spine.commands import train
    from spine.training.run_folder import RunFolder

    train.train_run(composed(*overrides), RunFolder(folder))


def choices(group):
    return sorted(path.stem for path in (CONF / group).glob("[a-z]*.yaml"))


GROUPS = [p.name for p in CONF.iterdir() if p.is_dir() and p.name not in ("task",)]
SINGLE = [(group, choice) for group in GROUPS for choice in choices(group)]
TASKS_OF_BACKBONES = [task for task in choices("task") if task_spec(task).network is None]


def test_the_default_configuration_is_valid():
    checks.prepare(composed())


@pytest.mark.parametrize(("group", "choice"), SINGLE)
def test_every_choice_composes(group, choice):
    weights = ["backbone.weights=null"] if "weights: ???" in (CONF / group / f"{choice}.yaml").read_text() else []
    config = composed(f"{group}={choice}", *weights)
    places.check_targets(config)


@pytest.mark.parametrize(
    ("backbone", "task"),
    [
        (backbone, task)
        for number, backbone in enumerate(choices("backbone"))
        for task in sorted({"cls", TASKS_OF_BACKBONES[number % len(TASKS_OF_BACKBONES)]})
    ],
)
def test_every_backbone_fits_a_task(backbone, task):
    """Every backbone as a classifier, and with all tasks in turn; the slow tests of tests/test_runs.py train every pair."""
    checks.prepare(composed(f"backbone={backbone}", *for_task(task)))


@pytest.mark.parametrize(
    ("optimizer", "schedule", "task"),
    [
        (optimizer, schedule, choices("task")[(i + j) % len(choices("task"))])
        for i, optimizer in enumerate(choices("optimizer"))
        for j, schedule in enumerate(choices("schedule"))
    ],
)
def test_optimizers_and_schedules_build(optimizer, schedule, task):
    """Every pair of an optimizer and a schedule, with the tasks in turn."""
    config = composed(f"task={task}", f"optimizer={optimizer}", f"schedule={schedule}")
    import torch

    net = network_of(completion.complete(config), None if task == "mae" else 3).build()
    made = instantiate.instantiate("optimizer", config["optimizer"], net)
    assert isinstance(instantiate.instantiate("schedule", config["schedule"], made, 100, 10), torch.optim.lr_scheduler.LambdaLR)


@pytest.mark.parametrize("augment", choices("augment"))
def test_augmentations_build(augment):
    config = composed(f"augment={augment}")
    steps = places.augmentations(config)
    assert {path[: path.index("[")] for path, _ in steps} == {"augment.train", "augment.eval"}
    assert all(instantiate.instantiate(path, step) is not None for path, step in steps)
    assert "batch" in config["augment"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+optimizer.momentum=0.9"], "Unknown key 'optimizer.momentum'"),
        (["optimizer=sgd", "+optimizer.betas=[0.9,0.95]"], "Unknown key 'optimizer.betas'"),
        (["+trainer.max_epoch=3"], "Unknown key 'trainer.max_epoch'. Did you mean 'trainer.max_epochs'"),
        (["task=mae", "+task.ratio=0.5"], "Unknown key 'task.ratio'. Did you mean 'task.mask_ratio'"),
        (["+head.biass=true"], "Unknown key 'head.biass'. Did you mean 'bias'"),
        (["+dataset.lenght=3"], "Unknown key 'dataset.lenght'. Did you mean 'length'"),
        (["+callbacks.mor=3"], "Unknown key 'callbacks.mor'. Did you mean 'callbacks.more'"),
        (["logger=wandb", "+logger.wandb.onlin=true"], "Unknown key 'logger.wandb.onlin'. Did you mean 'logger.wandb.online'"),
        (["+augment.train.0.sise=3"], None),
        (["+foo=1"], "Unknown key 'foo'"),
        (["+sed=1"], "Unknown key 'sed'. Did you mean 'seed'"),
    ],
)
def test_unknown_keys_are_reported(overrides, message):
    if message is None:  # Hydra's grammar has no keys of list items
        config = composed()
        config["augment"]["train"][0]["sise"] = 3
        message = "Unknown key 'augment.train[0].sise'. Did you mean 'size'"
    else:
        config = composed(*overrides)
    with pytest.raises(InputError) as error:
        config = checks.prepare(config)
    assert str(error.value).startswith(message)


@functools.cache
def yaml_node(group, choice):
    """Returns the node of a choice in the default configuration."""
    return composed(f"{group}={choice}")[group]


def signature(target, path):
    """Returns the arguments of a target that a configuration may set, with their defaults."""
    import inspect

    given = {
        "self", "split", "spec", "num_outputs", "model", "tokenizer", "optimizer", "total_steps", "steps_per_epoch", "global_batch_size",
        "run", "use", "image_size",
    }  # fmt: skip
    function = instantiate.target_of(path, {"_target_": target})
    parameters = inspect.signature(function).parameters.values()
    own = {p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD and p.name not in given}
    if path in ("optimizer", "schedule"):  # further options are in a TypedDict
        (options,) = typing.get_args(typing.get_type_hints(function)["options"])
        own |= {name: inspect.Parameter.empty for name in typing.get_type_hints(options) if name not in given}
    return own


@pytest.mark.parametrize(("place", "target"), [(place, target) for place, parts in schemas.PARTS.items() for target in parts])
def test_schemas_have_the_arguments_of_the_signatures(place, target):
    path = "logger.x" if place == "logger" else place
    schema, own = schemas.PARTS[place][target], signature(target, path)
    assert set(schema) == set(own)
    for key, default in own.items():
        if not isinstance(default, type):  # inspect.Parameter.empty: no default
            value = list(default) if isinstance(default, tuple) else default
            assert values.fits(value, schema[key].kind), key


@pytest.mark.parametrize("task", choices("task"))
def test_task_specs_have_the_arguments_of_the_signatures(task):
    spec = task_spec(task)
    own = signature(composed(f"task={task}")["task"]["_target_"], "task")
    assert set(spec.options) == set(own)
    assert all(values.fits(default, spec.options[key].kind) for key, default in own.items())


REPEATED = [
    (g, c) for g in ("optimizer", "schedule", "task", "head", "logger") for c in choices(g) if (g, c) != ("logger", "all")
]


@pytest.mark.parametrize(("group", "choice"), REPEATED)
def test_yamls_have_the_defaults_of_the_signatures(group, choice):
    """An argument that is left out in Python has the default of the command line."""
    node = yaml_node(group, choice)
    path, node = (f"logger.{choice}", node[choice]) if group == "logger" else (group, node)
    # recipes of papers; an interpolation of the tags of the run
    differing = {("adamw_mae", "betas"), ("adamw_dvae", "weight_decay"), ("wandb", "tags")}
    for key, default in signature(node["_target_"], path).items():
        if key in node and key != "lr" and (choice, key) not in differing and not isinstance(default, type):
            value = list(default) if isinstance(default, tuple) else default
            published = group in ("backbone", "head") and node[key] is None  # null: the published value or the default
            assert node[key] == value or published, key


@pytest.mark.slow
@pytest.mark.parametrize("place", ["backbone", "head", "dataset"])
def test_ranges_belong_to_existing_options(place):
    known = {"backbone": {"weights", "layout"}, "head": {"levels"}, "dataset": set(schemas.LOADER_KEYS)}[place]
    for choice in choices(place):
        node = yaml_node(place, choice)
        known |= set(signature(node["_target_"], place))
        values.check_schema({k: v for k, v in node.items() if k in schemas.OPTIONS[place]}, schemas.OPTIONS[place], place)
    assert set(schemas.OPTIONS[place]) <= known


@pytest.mark.parametrize("place", ["backbone", "head", "dataset"])
def test_all_signatures_have_type_hints(place):
    """An option without a resolvable annotation would not be checked."""
    import typing

    for choice in choices(place):
        target = instantiate.target_of(place, yaml_node(place, choice))
        hints = typing.get_type_hints(target if place == "backbone" else target.__init__)
        for key, default in signature(f"{target.__module__}.{target.__name__}", place).items():
            value = list(default) if isinstance(default, tuple) else default
            assert key in hints, key
            if not isinstance(default, type):
                assert values.fits(value, hints[key]) and not values.fits([{"a": "b"}], hints[key]), key


def test_variant_null_is_the_default_of_the_builder():
    checks.prepare(composed("backbone.variant=null"))


@functools.cache
def folder(*overrides, sweep=False):
    """Returns the run folder of a command line, or the folder of a job in its sweep."""
    from omegaconf import OmegaConf

    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", [*overrides, *(["hydra.mode=MULTIRUN"] if sweep else [])], return_hydra_config=True)
    return OmegaConf.select(config, "hydra.sweep.subdir" if sweep else "hydra.run.dir")


def test_the_run_id_depends_on_the_configuration():
    base = folder("task=seg")
    assert base == folder.__wrapped__("task=seg")  # composed again
    assert base.startswith("logs/train/runs/convnext-micro_seg_shapes_")
    others = [
        folder("task=seg", other)
        for other in ("seed=1", "optimizer.lr=0.1", "trainer.val_every_n_steps=7", "dataset.batch_size=4")
    ]
    assert len({base, folder("task=cls"), *others}) == 6


@pytest.mark.slow
def test_the_run_id_depends_on_the_samples_of_a_step_and_not_on_their_division():
    def small(*overrides):
        return folder("task=seg", *overrides)

    wide = small("dataset.global_batch_size=32")
    for division in ("dataset.batch_size=4", "trainer.devices=3", "+trainer.num_nodes=2", "trainer.strategy=ddp"):
        assert small("dataset.global_batch_size=32", division) == wide
    assert small("dataset.global_batch_size=48") != wide
    two = small("dataset.batch_size=16", "trainer.devices=2", "trainer.strategy=ddp")
    assert (
        two
        == small("dataset.batch_size=32", "trainer.devices=1")
        == small("dataset.batch_size=8", "trainer.devices=2", "+trainer.num_nodes=2")
    )
    others = (
        small("dataset.batch_size=16", "trainer.devices=1"), small("dataset.batch_size=32", "trainer.devices=2"),
        small("dataset.batch_size=32", "trainer.devices=auto"), small("dataset.batch_size=32", "trainer.devices=[0]"),
        small("dataset.batch_size=16", "trainer.devices=1", "trainer.accumulate_grad_batches=2"),
    )  # fmt: skip
    assert len({two, *others}) == 6
    assert folder("task=seg", "trainer.devices=1", sweep=True) != folder("task=seg", "trainer.devices=2", sweep=True)


NEUTRAL = (
    "logger=tensorboard", "tags=[a]", "ckpt_path=a.ckpt", "restart=true", "dataset.num_workers=5", "trainer.max_time=00:01:00:00",
    "trainer.log_every_n_steps=1", "trainer.max_epochs=7", "trainer.max_steps=7", "callbacks.keep_best=2", "sweep.retries=1",
    "callbacks.figure_every_n_epochs=3", "callbacks.report_every_minutes=5", "optimized_metric=val/mIoU",
)  # fmt: skip


@pytest.mark.parametrize("override", NEUTRAL)
def test_neutral_keys_do_not_change_the_run_folder(override):
    assert folder("task=seg") == folder("task=seg", override)


@pytest.mark.parametrize("override", NEUTRAL)
def test_jobs_of_a_sweep_have_different_folders(override):
    assert folder("task=seg", override, sweep=True) != folder("task=seg", sweep=True)
    assert folder("task=seg", "tags=[a]", sweep=True) != folder("task=seg", "tags=[b]", sweep=True)


@pytest.mark.parametrize(
    ("variant", "overrides", "expected"),
    [
        ("tiny", (), (256, 16)),
        ("base", (), (512, 64)),
        pytest.param("large", (), (1024, 64), marks=pytest.mark.slow),
        pytest.param("large", ("head.rank=16",), (1024, 16), marks=pytest.mark.slow),
        ("base", ("head.channels=64", "head.rank=8"), (64, 8)),
    ],
)
def test_head_options_of_published_segmenters_can_be_overridden(variant, overrides, expected):
    config = composed("backbone=segnext", f"backbone.variant={variant}", "task=seg", "head=hamburger", *overrides)
    config = checks.prepare(config)
    assert (config["head"]["channels"], config["head"]["rank"]) == expected  # saved in checkpoints
    import torch

    with torch.device("meta"):
        head = NetworkConfig.from_config(config, 5).build().head
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
def test_head_options_of_published_classifiers_can_be_overridden(backbone, variant, overrides, bias):
    config = composed(f"backbone={backbone}", f"backbone.variant={variant}", "task=cls", *overrides)
    config = checks.prepare(config)
    assert config["head"] == {**config["head"], "bias": bias, "dropout": 0.0}
    import torch

    with torch.device("meta"):
        assert (NetworkConfig.from_config(config, 5).build().head.linear.bias is not None) == bias


def test_options_of_published_systems_are_arguments_of_their_parts():
    import inspect

    import spine
    from spine.components import backbone_builder, backbone_module, head_class
    from spine.models.assembly import AUXILIARY_HEAD

    assert set(yaml_node("auxiliary_head", "fcn")) == set(AUXILIARY_HEAD)
    for backbone in spine.list_backbones():
        for head, variants in getattr(backbone_module(backbone), "SYSTEMS", {}).items():
            in_yaml = set(yaml_node("head", head))
            assert set(variants) <= set(spine.list_variants(backbone))
            for system in variants.values():
                assert set(system.head) <= set(inspect.signature(head_class(head).__init__).parameters)
                assert set(system.head) <= in_yaml  # configurations of older versions are recognized by it
                assert set(system.backbone) <= set(inspect.signature(backbone_builder(backbone)).parameters)
                assert set(system.auxiliary_head or {}) <= set(AUXILIARY_HEAD)


@pytest.mark.parametrize(
    ("kind", "description", "valid", "invalid"),
    [
        (float, "a number", (1, 0.5), ("1", True, None, float("nan"))),
        (int | None, "a whole number or null", (1, None), (1.0, "1", True)),
        (bool, "true or false", (True,), (1, "true", None)),
        (tuple[int, int], "a list of 2: a whole number, a whole number", ([1, 2],), ([1], [1, 2, 3], ["1", 2], 1)),
        (Sequence[int], "a list, each item a whole number", ([1], []), (1, [0.5])),
        (
            Mapping[int, int | None],
            "a dictionary: each key is a whole number, each value is a whole number or null",
            ({0: 0, 255: None}, {}),
            ({"a": 0}, {0: "a"}, [0]),
        ),
        (Literal["avg", "token"], "one of avg, token", ("avg",), ("max", None)),
    ],
)
def test_types_are_checked_strictly_and_described(kind, description, valid, invalid):
    assert values.describe_type(kind) == description
    assert all(values.fits(value, kind) for value in valid)
    assert not any(values.fits(value, kind) for value in invalid)
