"""A configuration names parts of the kind that its place takes, and a checkpoint's configuration runs nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest
import test_configs
import torch
from command_line import run_command

from spine.commands import eval as evaluate
from spine.config import instantiate, places, untrusted
from spine.errors import InputError

ROOT = Path(__file__).parents[1]
SMALL = (
    "dataset.length={train: 8, val: 4, test: 4}", "dataset.batch_size=4", "dataset.num_workers=0", "trainer.max_epochs=1",
    "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.num_sanity_val_steps=0",
)  # fmt: skip
HOSTILE = [
    ("backbone", "os.system"),
    ("backbone", "spine.backbones.vit.pad_same"),
    ("backbone", "spine.backbones.vit.ViT"),
    ("backbone", "spine.backbones.swin.published_row"),
    ("backbone", "spine.backbones.vit.torch.load"),
    ("backbone", "spine.backbones"),
    ("head", "spine.heads.linear.nn.Linear"),
    ("head", "spine.heads.linear.Head"),
    ("head", "spine.heads.linear.__builtins__"),
    ("head", "spine.heads.nothing.Linear"),
    ("head", "spine.heads.linear.Nothing"),
    ("dataset", "spine.data.data_module.DataModule"),
    ("dataset", "spine.data.image_files.read_image"),
    ("dataset", "spine.data.formats.image_folder.DataSet"),
    ("dataset", "torch.utils.data.Dataset"),
    ("task", "spine.tasks.base.Task"),
    ("task", "spine.tasks.cls.Task"),
    ("optimizer", "torch.optim.AdamW"),
    ("optimizer", "spine.training.optimizers.parameter_groups"),
    ("optimizer", "spine.training.schedules.cosine"),
    ("schedule", "spine.training.schedules._scaled"),
    ("schedule", "spine.training.schedules.LambdaLR"),
    ("logger.x", "pytorch_lightning.loggers.WandbLogger"),
    ("logger.x", "spine.training.loggers.wandb.os.system"),
    ("augment.train[0]", "builtins.open"),
    ("augment.train[0]", "subprocess.run"),
    ("augment.train[0]", "albumentations.core.hub_mixin.hf_hub_download"),
    ("augment.train[0]", "albumentations.core.serialization.load"),
    ("augment.train[0]", "albumentations.load"),
    ("augment.train[0]", "albumentations.from_dict"),
    ("augment.train[0]", "albumentations.Lambda"),
    ("augment.train[0]", "albumentations.augmentations.other.lambda_transform.Lambda"),
    ("augment.train[0]", "albumentations.TextImage"),
    ("augment.train[0]", "albumentations.FDA"),
    ("augment.train[0]", "albumentations.BasicTransform"),
    ("augment.train[0]", "albumentations.Compose"),
    ("augment.train[0]", "albumentations.ToTensorV2"),
    ("augment.train[0]", "albumentations.augmentations.crops.functional.crop"),
    ("augment.train[0]", "albumentations.augmentations.crops.transforms.np.load"),
    ("augment.train[0]", "spine.data.transforms.resize"),
    ("augment.train[0]", "spine.data.transforms.cv2.imread"),
    ("augment.train[0]", "spine.data.transforms.Transform"),
    ("callbacks.more.x", "pytorch_lightning.strategies.fsdp._lazy_load"),
    ("callbacks.more.x", "pytorch_lightning.strategies.FSDPStrategy"),
    ("callbacks.more.x", "pytorch_lightning.callbacks.model_checkpoint.shutil.rmtree"),
    ("callbacks.more.x", "pytorch_lightning.callbacks.model_checkpoint.torch.load"),
    ("callbacks.more.x", "pytorch_lightning.callbacks.LambdaCallback"),
    ("callbacks.more.x", "pytorch_lightning.callbacks.Callback"),
    ("callbacks.more.x", "spine.training.figures.render"),
    ("trainer.strategy", "pytorch_lightning.strategies.FSDPStrategy"),
    ("hydra.callbacks.x", "spine.backbones.vit.vit"),
    ("backbone.variant", "spine.backbones.vit.vit"),
    ("augment.train[0].size[0]", "albumentations.HorizontalFlip"),
]  # fmt: skip


def placed(path, node):
    """A configuration that holds `node` at a path such as augment.train[0]."""
    for part in reversed(path.replace("[0]", ".0").split(".")):
        node = [node] if part == "0" else {part: node}
    return node


def reached(path, node):
    """What a command does with a node: names are checked first, then the node is built."""
    places.check_targets(placed(path, node))
    return instantiate.target_of(path, node)


@pytest.mark.parametrize(("path", "target"), HOSTILE)
def test_names_that_are_no_part_of_their_place_are_refused(path, target):
    with pytest.raises(InputError, match="is not allowed|does not exist|cannot have a _target_"):
        reached(path, {"_target_": target})


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("augment.eval[0]", "albumentations.RandomResizedCrop"),
        ("augment.train[0]", "albumentations.augmentations.crops.transforms.RandomResizedCrop"),
        ("augment.train[0]", "spine.data.transforms.TopDownAffine"),
        ("callbacks.more.stop", "pytorch_lightning.callbacks.EarlyStopping"),
        ("callbacks.more.stop", "pytorch_lightning.callbacks.early_stopping.EarlyStopping"),
        ("backbone", "spine.backbones.vit.vit"),
        ("dataset", "spine.data.formats.shapes.Shapes"),
    ],
)
def test_parts_of_their_place_are_taken(path, target):
    assert reached(path, {"_target_": target}).__name__ == target.rpartition(".")[2]


def test_a_misspelt_part_is_told_with_the_nearest():
    with pytest.raises(InputError, match="does not exist. Did you mean 'pytorch_lightning.callbacks.EarlyStopping'"):
        instantiate.target_of("callbacks.more.stop", {"_target_": "pytorch_lightning.callbacks.EarlyStoping"})
    with pytest.raises(InputError, match="Did you mean 'albumentations.HorizontalFlip'"):
        instantiate.target_of("augment.train[0]", {"_target_": "albumentations.HorizontalFlp"})
    with pytest.raises(InputError, match=r"augment.train\[0\] has no _target_; it should name a transform"):
        places.check_targets({"augment": {"train": [{"p": 0.5}]}})


def test_names_are_refused_before_anything_is_imported():
    """Importing runs code: a folder on the path could hold any."""
    code = (
        "import sys; from spine.config import places; from test_targets import HOSTILE, placed\n"
        "from spine.errors import InputError\n"
        "before = set(sys.modules)\n"
        "for path, target in HOSTILE:\n"
        "    try: places.check_targets(placed(path, {'_target_': target}))\n"
        "    except InputError: pass\n"
        "assert set(sys.modules) == before, set(sys.modules) - before"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)


class Payload:
    """Unpickling it makes a file: harmless, and a proof that code ran."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (Path(self.path),))


def exploits(beside):
    """Changes to a checkpoint's configuration that would unpickle the file `beside` it, or run something else of its choice."""
    evil = {"_target_": "pytorch_lightning.strategies.fsdp._lazy_load", "filename": str(beside)}
    return {
        "callback": {"callbacks": {"figure_every_n_epochs": 0, "more": {"x": evil}}},
        "logger": {"logger": {"x": evil}},
        "hydra callback": {"hydra": {"callbacks": {"x": evil}}},
        "hydra logging": {
            "hydra": {"job_logging": {"version": 1, "handlers": {"x": {"()": "os.mkdir", "path": f"{beside}.ran"}}}}
        },
        "defaults": {"defaults": [{"/hydra/launcher": "x"}]},
        "augmentation": {"augment": {"train": [evil], "eval": [evil]}},
        "strategy": {"trainer": {"strategy": evil, "precision": "32-true"}},
        "optimizer": {"optimizer": {**evil, "lr": 0.1}},
        "weights": {"backbone": {"_target_": "torch.hub.load", "repo_or_dir": str(beside)}},
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint of a run of one epoch."""
    folder = tmp_path_factory.mktemp("run")
    test_configs.trained(folder, "task=cls", *SMALL)
    return folder / "checkpoints" / "best.ckpt"


def test_the_payload_would_run(tmp_path):
    """The exploit is real: the helper of Lightning that the old allow-list accepted unpickles."""
    from pytorch_lightning.strategies.fsdp import _lazy_load

    torch.save(Payload(tmp_path / "ran"), tmp_path / "beside.pt")
    _lazy_load(tmp_path / "beside.pt")
    assert (tmp_path / "ran").exists()


def foreign_checkpoint(folder, trained, name):
    """A checkpoint with one of the exploits, beside the file that it would unpickle."""
    torch.save(Payload(folder / "ran"), folder / "beside.pt")
    content = torch.load(trained, weights_only=True)
    for key in ("config", "config_source"):
        content[key] = {**content[key], **exploits(folder / "beside.pt")[name]}
    torch.save(content, folder / "foreign.ckpt")
    return folder / "foreign.ckpt"


@pytest.mark.parametrize("name", list(exploits("")))
def test_a_checkpoints_configuration_is_stripped_or_refused(tmp_path, trained, name):
    path = foreign_checkpoint(tmp_path, trained, name)
    if name in ("callback", "logger"):
        assert "_lazy_load" not in str(evaluate.checkpoint_config(str(path)))
    elif name == "strategy":  # a dictionary where the trainer takes a name
        with pytest.raises(InputError, match=r"trainer.strategy cannot have a _target_"):
            evaluate.checkpoint_config(str(path))
    else:
        with pytest.raises(InputError, match="Unknown key|is not allowed"):
            evaluate.checkpoint_config(str(path))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("eval.py", ["ckpt_path=foreign.ckpt"]),
        ("export.py", ["ckpt_path=foreign.ckpt", "out=a.safetensors"]),
        ("train.py", ["task=cls", *SMALL, "trainer.max_epochs=2", "ckpt_path=foreign.ckpt"]),
        ("train.py", ["task=cls", *SMALL, "backbone.weights=foreign.ckpt"]),
    ],
)
def test_the_commands_run_nothing_of_a_foreign_checkpoint(tmp_path, trained, script, arguments):
    foreign_checkpoint(tmp_path, trained, "callback")
    done = run_command(script, *arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()


def test_the_exploit_on_the_command_line_is_refused(tmp_path):
    arguments = (
        "+callbacks.more.x._target_=pytorch_lightning.strategies.fsdp._lazy_load",
        "+callbacks.more.x.filename=beside.pt",
    )
    done = run_command("train.py", *arguments, folder=tmp_path)
    assert done.returncode == 1 and "callbacks.more.x._target_=" in done.stderr and "is not allowed" in done.stderr


def test_what_a_checkpoint_brings_is_stripped(trained):
    config = torch.load(trained, weights_only=True)["config"]
    config["backbone"]["weights"] = "imagenet1k"
    config["logger"] = {"wandb": {"_target_": "spine.training.loggers.wandb.wandb", "online": True}}
    config["callbacks"]["more"] = {"stop": {"_target_": "pytorch_lightning.callbacks.EarlyStopping", "monitor": "val/loss"}}
    kept = untrusted.strip_untrusted(config)
    assert kept["callbacks"]["more"] == {} and kept["logger"] == {} and kept["backbone"]["weights"] is None
    assert config["callbacks"]["more"] and config["logger"]  # the caller's own is untouched
    assert kept["optimizer"] == config["optimizer"]
    assert evaluate.checkpoint_config(str(trained))["task"] == config["task"]


@pytest.mark.parametrize("value", ["${oc.env:HOME}", "${oc.decode:${tags}}", "a ${run_id:} b"])
def test_a_checkpoint_asks_no_resolver(trained, value):
    config = torch.load(trained, weights_only=True)["config"]
    with pytest.raises(InputError, match=r"dataset.root of the checkpoint's configuration"):
        untrusted.strip_untrusted({**config, "dataset": {**config["dataset"], "root": value}})
    augment = {"train": config["augment"]["train"], "eval": "${augment.train}"}
    untrusted.strip_untrusted({**config, "image_size": "${dataset.image_size}", "augment": augment})


def test_values_that_a_transform_of_albumentations_refuses_are_told():
    node = {"_target_": "albumentations.RandomResizedCrop", "size": [64, 64], "scale": [2, 3]}
    with pytest.raises(InputError, match=r"augment.train\[0\]: RandomResizedCrop does not take these values \(scale"):
        instantiate.instantiate("augment.train[0]", node)
    node = {"_target_": "spine.data.transforms.Resize", "size": [64]}
    with pytest.raises(InputError, match=r"augment.eval\[0\]: Resize does not take these values"):
        instantiate.instantiate("augment.eval[0]", node)
    node = {"_target_": "pytorch_lightning.callbacks.EarlyStopping", "monitor": "val/top1", "mode": "up"}
    with pytest.raises(InputError, match=r"callbacks.more.stop: EarlyStopping does not take these values"):
        instantiate.instantiate("callbacks.more.stop", node)
