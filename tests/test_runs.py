"""Complete runs: every backbone trains and evaluates with every task, and the commands work as the README says."""

import json
import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from command_line import run_command
from safetensors import safe_open
from test_configs import choices, composed
from tokenizer_file import for_task

import spine
from spine.commands import eval as evaluate
from spine.commands import train
from spine.components import head_class, modules, task_spec
from spine.config import building
from spine.config.completion import complete
from spine.data.sampler import Draw
from spine.errors import InputError
from spine.models.assembly import head_fits
from spine.training.run_folder import RunFolder

TASKS = {name: task_spec(name) for name in modules("task")}

ROOT = Path(__file__).parents[1]
FAST = ("trainer.fast_dev_run=true", "dataset.num_workers=0", "dataset.batch_size=4", "trainer.accelerator=cpu")
SMALL = (
    "dataset.length={train: 16, val: 6, test: 4}", "dataset.batch_size=4", "dataset.num_workers=0", "trainer.max_epochs=2",
    "trainer.accelerator=cpu", "trainer.precision=32-true",
)  # fmt: skip
COLUMNS = [  # of the grid: combinations of task and head that are useful
    (task, head)
    for task in choices("task")
    for head in list(modules("head"))
    if head_fits(head_class(head), TASKS[task]) and (head_class(head).tasks is not None) == (task == "pose")
]
SMALL_HEADS = ("upernet", "lraspp", "aspp", "ocr")  # of the grid, with 32 channels: theirs are for large networks
GRID = ROOT / "docs" / "grid.md"
TRAINED: dict[str, dict[tuple[str, str], str]] = {}  # of the cells that passed: the number of parameters in millions


@pytest.mark.parametrize(
    ("task", "head"),
    [(t, h) if h == TASKS[t].default_head else pytest.param(t, h, marks=pytest.mark.slow) for t, h in COLUMNS],
)
@pytest.mark.parametrize(
    "backbone",
    [n if n in ("hrnet", "vit") else pytest.param(n, marks=pytest.mark.slow) for n in spine.list_backbones()],
)
def test_every_combination_trains_a_step_and_evaluates(tmp_path, caplog, backbone, task, head):
    caplog.set_level("INFO")
    small = ("head.channels=32",) if head in SMALL_HEADS else ()
    config = composed(f"backbone={backbone}", *for_task(task), f"head={head}", *small, *FAST)
    train.train_run(config, RunFolder(tmp_path))
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert np.isfinite(content["metrics"]["train/loss"]) and content["monitor"] in content["metrics"]
    assert content["costs"]["multiply_adds"] > 0
    parameters = re.search(r"([\d.]+) M parameters", caplog.text)[1]
    TRAINED.setdefault(backbone, {})[task, head] = parameters
    if not os.environ.get("SPINE_WRITE_GRID"):
        row = next(line for line in GRID.read_text().splitlines() if line.startswith(f"| `{backbone}` |"))
        assert row.split(" | ")[1 + COLUMNS.index((task, head))].rstrip(" |") == parameters, "make grid writes docs/grid.md"


def test_the_grid_page_has_every_combination():
    """SPINE_WRITE_GRID=1 writes the table, if every combination was trained before in the same process."""
    heading = "| | " + " | ".join(f"{task} `{head}`" for task, head in COLUMNS) + " |"
    before, _, rest = GRID.read_text().partition("<!-- grid -->\n")
    table, _, after = rest.partition("<!-- /grid -->")
    if os.environ.get("SPINE_WRITE_GRID"):
        rows = (f"| `{backbone}` | " + " | ".join(TRAINED[backbone][column] for column in COLUMNS) + " |" for backbone in TRAINED)
        table = "\n".join([heading, "|---" * (len(COLUMNS) + 1) + "|", *rows, ""])
        GRID.write_text(f"{before}<!-- grid -->\n{table}<!-- /grid -->{after}")
    assert table.splitlines()[0] == heading
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == spine.list_backbones()


def call(script, *arguments, folder, ok=True, processes=1, figures=False):
    done = run_command(script, *arguments, folder=folder, processes=processes, figures=figures, COLUMNS="120")
    assert not ok or done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
@pytest.mark.parametrize("task", choices("task"))
def test_a_run_writes_all_files_and_eval_repeats_its_metrics(tmp_path, task):
    done = call("train.py", *for_task(task), "logger=all", *SMALL, folder=tmp_path, figures=True)
    (folder,) = (tmp_path / "logs/train/runs").iterdir()
    assert f"Run folder: {folder}" in done.stdout and "Results after" in done.stdout
    for name in (
        "metrics.csv",
        "metrics.json",
        "curves.png",
        "config.json",
        ".hydra/config.yaml",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
    ):
        assert (folder / name).is_file(), name
    assert list((folder / "tensorboard").glob("events*")) and list((folder / "wandb").glob("offline-run*"))
    figures = list((folder / "figures").glob("*.png"))
    assert figures and all(cv2.imread(str(path)).std() > 5 for path in figures)
    trained = json.loads((folder / "metrics.json").read_text())
    state = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)
    assert state["config"]["image_size"] == [64, 64]
    call("eval.py", f"ckpt_path={folder}/checkpoints/best.ckpt", folder=tmp_path)
    (evaluated,) = (tmp_path / "logs/eval").iterdir()
    again = json.loads((evaluated / "metrics.json").read_text())
    assert again["metrics"] == trained["metrics"]
    assert list((evaluated / "figures").glob("*.png"))


@pytest.mark.slow
def test_eval_accepts_overrides_and_rejects_typos(tmp_path):
    call("train.py", "task=cls", *SMALL, folder=tmp_path)
    (checkpoint,) = tmp_path.glob("logs/train/runs/*/checkpoints/best.ckpt")
    done = call("eval.py", f"ckpt_path={checkpoint}", "split=test", "dataset.length.test=8", folder=tmp_path)
    assert "test/top1" in done.stdout
    done = call("eval.py", f"ckpt_path={checkpoint}", "dataset.rot=x", folder=tmp_path, ok=False)
    assert done.returncode == 1 and "Unknown key 'dataset.rot'" in done.stderr and "Traceback" not in done.stderr
    (tmp_path / "broken.ckpt").write_bytes(checkpoint.read_bytes()[:1000])
    for path in ("nothing.ckpt", "broken.ckpt"):
        done = call("eval.py", f"ckpt_path={path}", folder=tmp_path, ok=False)
        assert done.returncode == 1 and path in done.stderr and "Traceback" not in done.stderr
    done = call("eval.py", folder=tmp_path, ok=False)
    assert "Which checkpoint?" in done.stderr


@pytest.mark.slow
def test_a_sweep_continues_after_a_failed_job_and_ends_with_one_table(tmp_path):
    arguments = (
        "-m",
        "backbone=convnext,mobilenet_v2",
        "task=cls",
        "dataset.batch_size=4,400",
        *(a for a in SMALL if "batch_size" not in a),
    )
    done = call("train.py", *arguments, "trainer.max_epochs=1", folder=tmp_path, ok=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    runs = [p for p in (tmp_path / "logs/train/multiruns").glob("*/*") if p.is_dir()]
    assert len(runs) == 4
    assert sum((run / "metrics.json").is_file() for run in runs) == 2
    assert "fewer than one batch of 400" in done.stderr
    table = done.stdout[done.stdout.index("Sweep ") :]
    assert table.count("val/top1") == 2 and table.count("│ failed") == 2 and "4 runs: 2 finished, 2 failed." in table


@pytest.mark.slow
@pytest.mark.usefixtures("blank_figures")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_weights_do_not_depend_on_the_number_of_workers(tmp_path, precision):
    states = []
    for workers in (0, 1, 2):
        config = composed(
            "backbone=vit", "backbone.drop_path_rate=0.1", "backbone.dropout=0.1", "task=seg", *SMALL,
            f"trainer.precision={precision}", f"dataset.num_workers={workers}",
        )  # fmt: skip
        folder = tmp_path / str(workers)
        folder.mkdir()
        train.train_run(config, RunFolder(folder))
        states.append(torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"])
    for other in states[1:]:
        assert all(torch.equal(value, other[key]) for key, value in states[0].items())


def test_a_checkpoint_with_other_classes_is_rejected(tmp_path):
    train.train_run(composed("task=cls", *SMALL, "trainer.max_epochs=1"), RunFolder(tmp_path))
    checkpoint = tmp_path / "checkpoints" / "best.ckpt"
    for split in ("train", "val"):
        for name in "ab":
            (tmp_path / "data" / split / name).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / "data" / split / name / "x.png"), np.zeros((70, 70, 3), np.uint8))
    config = evaluate.checkpoint_config(str(checkpoint))
    config["dataset"] = {key: config["dataset"][key] for key in ("batch_size", "num_workers", "mean", "std", "image_size")} | {
        "_target_": "spine.data.formats.image_folder.ImageFolder",
        "root": str(tmp_path / "data"),
    }
    with pytest.raises(InputError, match="head has 5 outputs, but the data set has 2"):
        building.build_run(complete(config), "val")


@pytest.mark.slow
def test_a_broken_image_in_a_worker_is_reported_with_a_message(tmp_path):
    for split in ("train", "val"):
        for name in "ab":
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for i in range(4):
                cv2.imwrite(str(folder / f"{i}.png"), np.full((64, 64, 3), 60 * i, np.uint8))
    (tmp_path / "data/train/a/2.png").write_bytes(b"not an image")
    done = call(
        "train.py", "task=cls", "dataset=image_folder", f"dataset.root={tmp_path}/data", "image_size=[64,64]", "dataset.batch_size=4",
        "dataset.num_workers=1", "trainer.accelerator=cpu", folder=tmp_path, ok=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "2.png' cannot be decoded as an image" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_two_processes_train_and_evaluate_the_whole_split(tmp_path):
    """22 validation images on two processes. Evaluated on one process, best.ckpt has the same metrics."""
    sizes = ("dataset.length={train: 32, val: 22, test: 4}", *SMALL[1:])
    done = call("train.py", "task=seg", *sizes, "trainer.devices=2", "trainer.strategy=ddp", folder=tmp_path, processes=2)
    assert "sync_dist" not in done.stderr
    (folder,) = (tmp_path / "logs/train/runs").iterdir()
    two = json.loads((folder / "metrics.json").read_text())["metrics"]
    call("eval.py", f"ckpt_path={folder}/checkpoints/best.ckpt", "trainer.devices=1", "trainer.strategy=auto", folder=tmp_path)
    (path,) = tmp_path.glob("logs/eval/*/metrics.json")
    one = json.loads(path.read_text())["metrics"]
    assert {key: value for key, value in two.items() if key != "val/loss"} == {k: v for k, v in one.items() if k != "val/loss"}


@pytest.mark.slow
def test_training_continues_from_a_checkpoint(tmp_path):
    call("train.py", "task=cls", *SMALL, folder=tmp_path)
    (checkpoint,) = tmp_path.glob("logs/train/runs/*/checkpoints/last.ckpt")
    done = call("train.py", "task=cls", *SMALL, "trainer.max_epochs=3", f"ckpt_path={checkpoint}", folder=tmp_path)
    assert "epoch 3/3" in done.stdout and "epoch 2/3" not in done.stdout


@pytest.mark.slow
def test_a_trained_model_is_exported_in_the_layouts_of_publishers(tmp_path):
    call("train.py", "task=cls", "backbone=swin", *SMALL, "trainer.max_epochs=1", folder=tmp_path)
    (checkpoint,) = (tmp_path / "logs/train/runs").glob("*/checkpoints/best.ckpt")
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    image = torch.randn(2, 3, 64, 64)
    outputs = []
    for publisher in ("safetensors", "official", "timm", "hf", "openmmlab"):
        done = call(
            "export.py", f"ckpt_path={checkpoint}", f"format={publisher}", f"out={publisher}.safetensors", folder=tmp_path
        )
        assert f"swin micro + linear under the names of {publisher}" in done.stdout
        classes = state["model.head.linear.bias"].numel()
        net = spine.create_model("swin", weights=tmp_path / f"{publisher}.safetensors", num_outputs=classes)
        assert torch.equal(net.head.linear.weight, state["model.head.linear.weight"])
        outputs.append(net.eval()(image))
        with safe_open(tmp_path / f"{publisher}.safetensors", "pt") as file:
            assert file.metadata() == file.metadata() | {"backbone": "swin", "variant": "micro", "image_size": "[64, 64]"}
    # atol: the network of hf has another epsilon in its norms, which the command reports
    assert all(torch.allclose(output, outputs[0], atol=1e-5) for output in outputs)
    done = call("export.py", f"ckpt_path={checkpoint}", "format=tim", "out=a.pth", folder=tmp_path, ok=False)
    assert "This backbone cannot be written as 'tim'. Did you mean 'timm'?" in done.stderr
    done = call("export.py", f"ckpt_path={checkpoint}", "format=torchvision", "out=a.pth", folder=tmp_path, ok=False)
    assert "The publisher's network has small_maps=pad; this network does not." in done.stderr


@pytest.mark.slow
def test_weights_of_a_run_are_used_for_another_task(tmp_path):
    call("train.py", "task=mae", "backbone=vit", *SMALL, "trainer.max_epochs=1", folder=tmp_path)
    (checkpoint,) = tmp_path.glob("logs/train/runs/*/checkpoints/best.ckpt")
    done = call(
        "train.py",
        "task=cls",
        "backbone=vit",
        f"backbone.weights={checkpoint}",
        *SMALL,
        "trainer.max_epochs=1",
        folder=tmp_path,
    )
    assert "matched (" in done.stdout


@pytest.mark.parametrize(
    ("task", "epochs"),
    [
        *(pytest.param(task, 120 if task == "dvae" else 150, marks=pytest.mark.slow) for task in choices("task")),
        pytest.param("dvae", 400, marks=pytest.mark.extensive),  # codes take longer to learn than the other outputs
    ],
)
def test_every_task_overfits_eight_images(tmp_path, task, epochs):
    """With the same eight images for training and validation and without augmentation, the score is close to its maximum."""
    config = composed(
        *for_task(task), *([] if task == "dvae" else ["backbone=hrnet"]),
        "dataset.length={train: 8, val: 8, test: 8}", "dataset.batch_size=8", "dataset.num_workers=0",
        f"trainer.max_epochs={epochs}", f"trainer.check_val_every_n_epoch={epochs}", "trainer.accelerator=cpu", "trainer.precision=32-true",
        *(["augment=none"] if task in ("cls", "seg") else []), *(["task.norm_pix_loss=false"] if task == "mae" else []),
        *(["task.smoothing=0"] if task == "cls" else []),
        *([f"optimizer.lr={'3e-3' if epochs == 400 else '1e-2'}"] if task == "dvae" else []),
    )  # fmt: skip
    if task in ("pose", "mae", "beit", "dvae"):
        config["augment"]["train"] = config["augment"]["eval"]
    run = building.build_run(complete(config))
    config, module, data = run.config, run.task, run.data
    data.split("val").key = data.split("train").key  # the same images
    trainer = building.build_trainer(config, tmp_path, module)
    trainer.fit(module, data)
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
    if task == "mae":
        assert metrics["train/loss"] < 0.25  # the variance of the target is one
    elif task == "dvae":
        pixels = torch.stack([data.transformed("val")[Draw(0, i)]["image"] for i in range(8)])
        assert metrics["val/mse"] < (0.5 if epochs == 400 else 0.7) * pixels.var(dim=(0, 2, 3)).mean()
    else:
        assert metrics[module.monitor] > {"cls": 0.99, "seg": 0.8, "pose": 0.6, "beit": 0.8}[task], metrics


@pytest.mark.slow
@pytest.mark.timeout(1800)  # two minutes on two idle cores, but another test may run at the same time, with coverage
def test_the_command_of_the_readme_reaches_its_miou(tmp_path):
    """README: a ConvNeXt with a segmentation head on the embedded data set, val/mIoU >= 0.80."""
    call("train.py", "backbone=convnext", "task=seg", "trainer.accelerator=cpu", folder=tmp_path)
    (path,) = tmp_path.glob("logs/train/runs/*/metrics.json")
    assert json.loads(path.read_text())["metrics"]["val/mIoU"] >= 0.80


@pytest.mark.slow
def test_compiling_does_not_change_the_state_dict_keys(tmp_path):
    config = composed("task=cls", "compile=true", *FAST)
    module = building.build_run(complete(config)).task
    plain = building.build_run(complete(composed("task=cls", *FAST))).task
    assert module.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.slow
def test_a_finished_run_prints_its_results_and_restart_trains_again(tmp_path):
    command = ("task=cls", *SMALL, "trainer.max_epochs=1")
    call("train.py", *command, folder=tmp_path)
    (folder,) = (tmp_path / "logs/train/runs").iterdir()
    best = (folder / "checkpoints/best.ckpt").stat()
    done = call("train.py", *command, folder=tmp_path)
    assert "This run is finished; nothing was done." in done.stdout and "Results after" in done.stdout
    assert (folder / "checkpoints/best.ckpt").stat() == best
    done = call("train.py", *command, "restart=true", folder=tmp_path)
    backup = folder.with_name(f"{folder.name}_before_1")
    assert f"Starting over; the earlier run was moved to {backup}" in done.stdout
    assert (backup / "checkpoints/best.ckpt").stat().st_mtime_ns == best.st_mtime_ns
    assert (folder / "metrics.json").is_file() and "epoch 1/1" in (folder / "train.log").read_text()
