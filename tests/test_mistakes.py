"""Messages for mistakes give the value, the allowed values and what to do, without a traceback."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_line import run_command
from test_configs import composed, trained

from spine.config import checks, messages, overrides, resume, schemas
from spine.errors import InputError
from spine.models.assembly import NetworkConfig

pytestmark = pytest.mark.usefixtures("blank_figures")

ROOT = Path(__file__).parents[1]
NAMES = [
    (
        ["backbone=convnex"],
        "Unknown backbone 'convnex'. Did you mean 'convnext'? Choices: beit, convnext, hrnet, mae, "
        "mobilenet_v2, mobilenet_v3, resnest, segnext, shufflenet_v1, shufflenet_v2, swin, vgg16, vit, xception.",
    ),
    (["backbone.varient=tiny"], "Unknown key 'backbone.varient'. Did you mean 'backbone.variant'?"),
    (["trainer.max_epoch=3"], "Unknown key 'trainer.max_epoch'. Did you mean 'trainer.max_epochs'?"),
    (["bakbone=vit"], "Unknown key 'bakbone'. Did you mean 'backbone'?"),
    (["task=segg", "backbone=vit"], "Unknown task 'segg'. Did you mean 'seg'?"),
    (["-m", "backbone=convnext,vitt"], "Unknown backbone 'vitt'. Did you mean 'vit'?"),
    (["task=seg", "head.chanels=3"], "Unknown key 'head.chanels'. Did you mean 'head.channels'?"),
    (["optimizer=null"], "optimizer cannot be null; choose one of its names"),
    (
        ["dataset.root=my data ü"],
        "Hydra cannot read 'dataset.root=my data ü' as key=value. Quote it for Hydra inside the shell's ",
    ),
]
VALUES = [  # found without importing torch
    (["trainer.max_epochs=abc"], "trainer.max_epochs is 'abc'; it must be a whole number of epochs, 1 or more."),
    (["trainer.max_epochs=2.5"], "trainer.max_epochs is 2.5; it must be a whole number of epochs"),
    (["trainer.max_epochs=0"], "trainer.max_epochs is 0; it must be"),
    (["trainer.max_epochs=true"], "trainer.max_epochs is true; it must be"),
    (["trainer.max_epochs=-1"], "trainer.max_epochs is -1, which has no end"),
    (["trainer.max_epochs=null"], "trainer.max_epochs is null, which has no end"),
    (["trainer.precision=fp16"], "trainer.precision is 'fp16'; it must be one of auto, 32-true, 16-mixed"),
    (["trainer.accelerator=cuda0"], "trainer.accelerator is 'cuda0'; it must be one of auto, cpu"),
    (["trainer.devices=0"], "trainer.devices is 0; it must be a number of devices"),
    (["trainer.devices=two"], "trainer.devices is 'two'; it must be a number of devices"),
    (["trainer.strategy=dpp"], "trainer.strategy is 'dpp'; it must be one of Lightning's strategies: auto"),
    (["trainer.max_time=15"], "trainer.max_time is 15; it must be a duration as days:hours:minutes:seconds"),
    (["trainer.limit_val_batches=1.5"], "trainer.limit_val_batches is 1.5; it must be a whole number of batches, or a fraction"),
    (["trainer.gradient_clip_val=nan"], "trainer.gradient_clip_val is nan; it must be a finite number."),
    (["+trainer.enable_model_summary=true"], "trainer.enable_model_summary cannot be set: spine prints"),
    (["+trainer.default_root_dir=x"], "trainer.default_root_dir cannot be set: a run writes to its run folder"),
    (["dataset.batch_size=abc"], "dataset.batch_size is 'abc'; it must be a whole number of samples, 1 or more."),
    (["dataset.batch_size=0"], "dataset.batch_size is 0; it must be"),
    (["dataset.num_workers=abc"], "dataset.num_workers is 'abc'; it must be a whole number of processes, 0 or more"),
    (["dataset.root=5"], "dataset.root is 5; it must be the path of a folder"),  # the embedded data set does not use it
    (["dataset.mean=[0.5,0.5]"], "dataset.mean is [0.5, 0.5]; it must be three numbers"),
    (["dataset.std=[0,1,1]"], "dataset.std is [0, 1, 1]; it must be three numbers above 0"),
    (["dataset.length.val=0"], "dataset.length is {'train': 4000, 'val': 0, 'test': 200}; it must be a number of samples"),
    (["image_size=64"], "image_size is 64; it must be two numbers of pixels"),
    (["image_size=[64,0]"], "image_size is [64, 0]; it must be two numbers of pixels"),
    (["optimizer.lr=-1"], "optimizer.lr is -1; it must be a learning rate above 0."),
    (["optimizer.lr=abc"], "optimizer.lr is 'abc'; it must be a learning rate above 0."),
    (["optimizer.lr=inf"], "optimizer.lr is inf; it must be a finite number."),
    (["optimizer.betas=[0.9,1]"], "optimizer.betas is [0.9, 1]; it must be two numbers, 0 or more and below 1."),
    (["optimizer.layer_decay=0"], "optimizer.layer_decay is 0; it must be a factor for each layer"),
    (["schedule.warmup=5"], "schedule.warmup is 5; it must be a fraction of all steps, 0 or more and below 1."),
    (["task=mae", "task.mask_ratio=1"], "task.mask_ratio is 1; it must be the fraction of masked patches"),
    (
        ["task=seg", "head=hamburger", "head.rank=abc"],
        "head.rank is 'abc'; it must be a whole number of bases, 1 or more, or null.",
    ),
    (["task=seg", "head.levels=2"], "head.levels is 2; it must be a list of feature levels"),
    (["backbone.drop_path_rate=1"], "backbone.drop_path_rate is 1; it must be a probability"),
    (["+backbone.in_chans=1"], "backbone.in_chans is 1; it must be 3: data sets provide color images."),
    (["seed=abc"], "seed is 'abc'; it must be a whole number from 0 to 4294967295."),
    (["seed=-1"], "seed is -1; it must be a whole number from 0"),
    (["tags=abc"], "tags is 'abc'; it must be a list of tags"),
    (["compile=1"], "compile is 1; it must be true or false."),
    (["callbacks.figure_every_n_epochs=-1"], "callbacks.figure_every_n_epochs is -1; it must be a whole number of epochs"),
    (["logger=wandb", "logger.wandb.timeout=soon"], "logger.wandb.timeout is 'soon'; it must be a whole number of seconds"),
    (["+foo=1"], "Unknown key 'foo'. Allowed keys: augment, auxiliary_head, backbone"),
    (["ckpt_path=typo.ckpt"], "There is no checkpoint 'typo.ckpt'."),
    (["dataset=image_folder", "dataset.root=typo"], "There is no folder 'typo', where data set 'image_folder' should be."),
    (["dataset=image_folder", "dataset.root="], "dataset.root is ''; it must be the path of a folder, or null."),
]
TYPES = [  # checked against the signature of the part
    (["task=seg", "head=parsenet", "head.fusion=3"], "head.fusion is 3; it must be early, late, none or null."),
    (["head.bias=1"], "head.bias is 1; it must be true, false or null."),
    (
        ["backbone=vit", "backbone.dropout=high"],
        "backbone.dropout is 'high'; it must be a probability, 0 or more and below 1, or null for the value of the variant.",
    ),
    (["backbone=hrnet", "+backbone.head_conv_bias=abc"], "backbone.head_conv_bias is 'abc'; it must be true or false."),
    (["backbone=swin", "+backbone.small_maps=grow"], "backbone.small_maps is 'grow'; it must be one of shrink, pad, shift."),
    (["dataset.size=[64]"], "dataset.size is [64]; it must be a list of 2: a whole number, a whole number."),
    (["dataset=image_folder"], "Data set 'image_folder' is on disk: set its folder with dataset.root=<path>."),
    (["trainer.accelerator=gpu"], "trainer.accelerator is 'gpu', but torch"),
    (["trainer.accelerator=cpu", "trainer.devices=-1"], "trainer.devices is -1; on the CPU it is a number of processes"),
    (["trainer.accelerator=cpu", "trainer.precision=16-mixed"], "trainer.precision is '16-mixed', which needs a GPU."),
]
MISMATCHES = [
    (
        ["task=pose", "dataset=image_folder"],
        "Task 'pose' reads keypoints, which data set 'image_folder' does not provide (it gives image, label). "
        "Data sets that do: coco_keypoints, joined, mpii, shapes, shards.",
    ),
    (
        ["task=seg", "head=linear"],
        "Task 'seg' passes feature maps to its head; 'linear' reads the pooled embedding. "
        "Heads for seg: aspp, fcn, hamburger, lraspp, ocr, parsenet, upernet.",
    ),
    (
        ["task=seg", "head=simcc"],
        "Task 'seg' passes feature maps to its head; the output of 'simcc' is for pose. "
        "Heads for seg: aspp, fcn, hamburger, lraspp, ocr, parsenet, upernet.",
    ),
    (["task=pose", "task.codec=dart"], "task.codec is 'dart'; it must be one of fractional, msra, dark, udp."),
    (["task=pose", "task.hard_keypoints=0"], "task.hard_keypoints is 0; it must be a whole number of keypoints, 1 or more"),
    (
        ["backbone=vit", "image_size=[500,500]"],
        "ViT cuts images into 16x16 patches; 500x500 is not a multiple. Nearest sizes that fit: 496, 512.",
    ),
    (["+backbone.drop_pathrate=0.1"], "Unknown key 'backbone.drop_pathrate'. Did you mean 'drop_path_rate'?"),
    (["backbone.variant=tini"], "Unknown variant 'tini' of convnext. Did you mean 'tiny'?"),
    (["backbone.weights=nothing.pth"], "There is no weights file 'nothing.pth'. Give the path of a"),
    (["image_size=64"], "image_size is 64; it must be two numbers of pixels"),
    (["task=mae", "backbone=convnext", "image_size=[96,80]"], "Masked patches are 32 pixels wide for this backbone"),
    (
        ["task=seg", "head=hamburger", "head.channels=100"],
        "head.channels is 100; the hamburger's group norms need a multiple of 32.",
    ),
]


@pytest.mark.parametrize(("overrides", "message"), VALUES + TYPES)
def test_values_of_a_wrong_type_or_range_are_reported(overrides, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(InputError) as error:
        checks.prepare(composed(*overrides))
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(("overrides", "message"), MISMATCHES)
def test_parts_that_do_not_fit_together_are_reported(overrides, message):
    with pytest.raises(InputError) as error:
        checks.prepare(composed(*overrides))
    assert str(error.value).startswith(message)


def test_dense_tasks_pad_for_token_models():
    checks.prepare(composed("task=seg", "backbone=vit", "image_size=[100,90]"))
    network = NetworkConfig.from_config(composed("task=seg", "backbone=vit", "image_size=[100,90]"), 2)
    assert (network.image_size, network.padding_multiple) == ((112, 96), 16)


@pytest.mark.parametrize(("arguments", "message"), NAMES)
def test_misspelt_names_on_the_command_line(tmp_path, arguments, message):
    done = run_command("train.py", *arguments, folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().startswith(message), done.stderr
    assert "Traceback" not in done.stderr and not list(tmp_path.rglob(".hydra"))


@pytest.mark.parametrize(("arguments", "message"), MISMATCHES[:3])
def test_mismatches_on_the_command_line(tmp_path, arguments, message):
    done = run_command("train.py", *arguments, folder=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr and "Traceback" not in done.stderr


def test_mismatches_are_found_before_lightning_is_imported():
    """Its import takes at least five seconds; that of torch takes two."""
    code = (
        "import sys; from spine.config import checks; from test_configs import composed\n"
        "checks.prepare(composed('task=seg')); assert 'pytorch_lightning' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)


@pytest.mark.slow
def test_values_are_checked_before_torch_is_imported():
    """Its import takes at least two seconds."""
    code = (
        "import sys; sys.path.insert(0, 'tests'); from hydra import compose, initialize_config_dir; from spine.errors import InputError\n"
        "from spine.commands import train; from spine.config import checks, resolving\n"
        f"for overrides in {[overrides for overrides, _ in VALUES]}:\n"
        f"    with initialize_config_dir({str(ROOT / 'conf')!r}, version_base='1.3'):\n"
        "        config = resolving.to_plain(compose('train', overrides))\n"
        "    try: checks.prepare(config)\n"
        "    except InputError: assert 'torch' not in sys.modules, overrides\n"
        "    else: raise SystemExit(f'{overrides} passed')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(("arguments", "message"), [VALUES[0], (["+foo=1"], "Unknown key 'foo'")])
def test_values_on_the_command_line(tmp_path, arguments, message):
    done = run_command("train.py", *arguments, folder=tmp_path)
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr


def test_schemas_match_lightning():
    """The choices are those of Lightning, and every argument of its Trainer is either described or rejected."""
    import inspect
    from typing import get_args

    import pytorch_lightning as pl
    from lightning_fabric.connector import _PRECISION_INPUT
    from pytorch_lightning.strategies import StrategyRegistry

    arguments = set(inspect.signature(pl.Trainer.__init__).parameters) - {"self"}
    assert not set(schemas.TRAINER) & set(schemas.TRAINER_FIXED)
    assert set(schemas.TRAINER) | set(schemas.TRAINER_FIXED) == arguments
    assert not set(schemas.VALIDATION_STEPS) & arguments  # spine's own key
    precisions = {value for literal in get_args(_PRECISION_INPUT) for value in get_args(literal)}
    left_out = {"transformer-engine", "transformer-engine-float16"}  # they need a package that spine does not require
    assert set(schemas.PRECISIONS) == precisions - left_out | {"auto"}
    names = set(StrategyRegistry.available_strategies()) - {"fsdp_cpu_offload"}  # of the first FSDP; "fsdp" is the second here
    assert set(schemas.STRATEGIES) - {"auto"} == {name for name in names if "xla" not in name and "tpu" not in name}


def test_missing_devices_are_reported(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for devices in ("auto", -1, 1, 2, [0, 1], [1], "0,1", "2"):
        checks.check_devices({"accelerator": "gpu", "devices": devices, "precision": "16-mixed"})
    for devices in (3, [0, 2], "0,2", "3"):
        with pytest.raises(InputError, match="but this machine has 2, numbered from 0"):
            checks.check_devices({"accelerator": "auto", "devices": devices})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    checks.check_devices({"accelerator": "auto", "devices": 4})


def test_the_messages_in_the_documentation_are_up_to_date(tmp_path):
    text = (ROOT / "docs/runs.md").read_text()
    examples = re.findall(r"^\$ python train\.py (.*)\n((?:[^$`\n].*\n)+)", text, re.MULTILINE)
    assert len(examples) == 2
    for arguments, message in examples:
        done = run_command("train.py", *arguments.split(), folder=tmp_path)
        assert " ".join(message.split()) in " ".join(done.stderr.split())


def test_keys_of_wandb_need_no_plus():
    keys = ("project", "name", "entity", "group")
    config = composed("logger=wandb", *(f"logger.wandb.{key}=x" for key in keys), "logger.wandb.timeout=5")
    config = checks.prepare(config)
    assert [config["logger"]["wandb"][key] for key in keys] == ["x"] * 4


def test_values_are_quoted_for_hydra():
    typed = ["-m", "dataset.images=images/{split}", "a=b/{split},c/{split}", "dataset.root=~/x", "optimizer.lr=1,2", "+x={split}"]
    assert overrides.quote_for_hydra(typed) == [
        "-m", 'dataset.images="images/{split}"', 'a="b/{split}","c/{split}"', 'dataset.root="~/x"', "optimizer.lr=1,2", '+x="{split}"',
    ]  # fmt: skip
    for unchanged in ('a="{split}"', "a='~/{split}'", "a=[x/{split}]", "a={train: 3}", "--cfg", "~logger", "a=b~c"):
        assert overrides.quote_for_hydra([unchanged]) == [unchanged]


def test_patterns_and_home_folders_need_no_quotes(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    done = run_command(
        "train.py", "dataset=mask_folder", "task=seg", "dataset.root=~/photos", "dataset.images=images/{split}", folder=tmp_path
    )
    assert f"There is no folder '{tmp_path}/photos'" in done.stderr
    done = run_command(
        "train.py", "dataset=mask_folder", "task=seg", "dataset.images=pic/{split}", "--cfg", "job", folder=tmp_path
    )
    assert "images: pic/{split}\n" in done.stdout


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("eval.py", ["--help"], "python eval.py ckpt_path=<file> [split=val]"),
        ("export.py", ["--help"], "python export.py ckpt_path=<file> format=onnx out=<file>"),
        ("export.py", [], "Which model? Give ckpt_path="),
        ("eval.py", ["ckpt_path=run.ckpt", "dataset=image_folder"], "'dataset' cannot be chosen here: the checkpoint contains"),
        ("eval.py", ["ckpt_path=run.ckpt", "dataset.batch_size=abc"], "dataset.batch_size is 'abc'; it must be a whole number"),
        ("export.py", ["ckpt_path=run.ckpt"], "out is missing: give out=model.safetensors."),
    ],
)
def test_mistakes_in_commands_on_a_checkpoint_are_reported(tmp_path, script, arguments, message):
    torch.save({"config": composed("task=cls"), "state_dict": {}}, tmp_path / "run.ckpt")
    done = run_command(script, *arguments, folder=tmp_path)
    assert message in done.stdout + done.stderr and "Traceback" not in done.stderr
    assert done.returncode == (0 if "--help" in arguments else 1)


SMALL = (
    "dataset.length={train: 8, val: 4, test: 4}", "dataset.batch_size=4", "dataset.num_workers=0", "trainer.max_epochs=1",
    "trainer.accelerator=cpu", "trainer.precision=32-true",
)  # fmt: skip


def test_a_checkpoint_that_cannot_be_resumed_is_reported(tmp_path):
    trained(tmp_path, "task=cls", *SMALL)
    whole = tmp_path / "checkpoints" / "best.ckpt"
    (tmp_path / "cut.ckpt").write_bytes(whole.read_bytes()[:5000])
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    cases = [
        (["task=cls", f"ckpt_path={tmp_path}/cut.ckpt"], "/cut.ckpt' is not a checkpoint of spine, or it is cut short."),
        (
            ["task=cls", f"ckpt_path={tmp_path}/other.ckpt"],
            "/other.ckpt' is not a checkpoint of spine: it holds no configuration.",
        ),
        (
            ["task=cls", "backbone=mobilenet_v2", f"ckpt_path={whole}"],
            "was trained with backbone spine.backbones.convnext.convnext,",
        ),
        (
            ["task=seg", f"ckpt_path={whole}"],
            "was trained with task spine.tasks.cls.task.Classification, this run has spine.tasks.seg.task.Segmentation.",
        ),
        (["backbone.variant=tiny", f"ckpt_path={whole}"], "Its backbone is the variant micro, this run's tiny."),
    ]
    for arguments, message in cases:
        with pytest.raises(InputError) as error:
            checks.prepare(composed(*arguments, *SMALL))
        assert message in str(error.value)
    checks.prepare(composed("task=cls", *SMALL, f"ckpt_path={whole}", "optimizer.lr=1"))


def test_changed_options_of_a_resumed_run_are_listed():
    saved = composed("task=cls")
    assert resume.changed_on_resume(saved, composed("task=cls", "trainer.max_epochs=9", "seed=3")) == []
    new = composed("task=cls", "optimizer.lr=1e-5", "optimizer.betas=[0.8,0.9]", "schedule=poly")
    assert resume.changed_on_resume(saved, new) == [
        "optimizer.betas ([0.9, 0.999] in the checkpoint, [0.8, 0.9] now)",
        "optimizer.lr (0.002 in the checkpoint, 1e-05 now)",
        "schedule._target_ ('spine.training.schedules.cosine' in the checkpoint, 'spine.training.schedules.poly' now)",
        "schedule.power (not set in the checkpoint, 1.0 now)",
        "schedule.warmup (0.05 in the checkpoint, 0.01 now)",
    ]


@pytest.mark.slow
def test_masked_pretraining_accepts_any_optimizer(tmp_path):
    assert composed("task=mae")["optimizer"]["betas"] == [0.9, 0.95]
    config = composed("task=mae", "optimizer=sgd")
    assert "betas" not in config["optimizer"]
    trained(tmp_path, "task=mae", "backbone=mobilenet_v2", "optimizer=sgd", *SMALL)
    assert (tmp_path / "metrics.json").is_file()


def test_an_unknown_monitor_of_early_stopping_is_reported(tmp_path):
    stop = "+callbacks.more.stop={_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: val/acuracy}"
    with pytest.raises(RuntimeError) as error:
        trained(tmp_path, "task=cls", stop, *SMALL)
    message = messages.user_message(error.value)
    assert message.startswith("The monitor of EarlyStopping is 'val/acuracy', which is not measured. Choices: ")
    assert "val/top1" in message


def test_hydra_full_error_shows_the_traceback(tmp_path, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    done = run_command("train.py", "backbone=convnex", folder=tmp_path)
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_messages_of_workers_are_reported_without_their_traceback():
    traceback = "Original Traceback (most recent call last):\n  File x\nspine.errors.InputError: File 'a.jpg' is missing.\n"
    wrapped = f"Caught InputError in DataLoader worker process 0.\n{traceback}"
    assert messages.worker_message(wrapped) == "File 'a.jpg' is missing."
    assert messages.worker_message("File 'a.jpg' is missing.") == "File 'a.jpg' is missing."


def test_other_errors_have_no_user_message():
    assert messages.user_message(ValueError("inside torch")) is None
