"""The commands of README.md and of docs/ run, in their order, on a few tiny images and with the smallest networks."""

import re
import shlex

import pytest
from command_line import run_command
from docs_commands import PAGES, ROOT, Code, commands, python_blocks
from docs_files import write_docs_folder

pytestmark = pytest.mark.slow
TINY = (
    "trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.limit_val_batches=1", "trainer.accelerator=cpu",
    "trainer.precision=32-true", "dataset.batch_size=2", "dataset.global_batch_size=null", "dataset.num_workers=0", "image_size=[64,64]",
)  # fmt: skip
RUNS = re.compile(r"(?:.* && )?(?:python (?:(train|eval|predict|export)\.py|-m spine\.(\w+))|spine (\w+)) (.*)")
# Commands that are composed and checked by tests/test_docs.py, and not run here. The reason stands beside each.
LEFT_OUT = {
    "submitit": "a cluster",
    "on_preemption": "a cluster",
    "trainer.devices=4": "GPUs",
    "trainer.devices=8": "GPUs",
    "gpus_per_job": "GPUs",
    "accelerator=gpu": "GPUs",
    "devices=3": "tests/test_distributed.py",
    "devices=2": "tests/test_distributed.py, tests/test_sweeps.py and tests/test_predict_command.py",
    "root=imagenet": "ImageNet",
    "imagenet1k dataset.root": "ImageNet",
    "imagenet1k trainer.max": "ImageNet",
    "trainer.max_epochs=90": "ImageNet",
    "COCO_val2017": "COCO",
    "root=/data": "large data sets; the same command with dataset.root left out runs",
    "root=coco_person": "people of COCO",
    "detections.json": "a detector; tests/test_keypoint_evaluation.py",
    "$DATA": "recorded results",
    "$WEIGHTS": "recorded results",
    "mobilenet_v2,shufflenet_v2,vit": "a recorded sweep",
    "launcher=joblib": "tests/test_sweeps.py",
    "sweep=optuna": "tests/test_optuna.py",
    "experiment=lr_search": "tests/test_docs.py writes its file and composes it",
    "--config-dir": "a file that the page shows",
    "wandb": "tests/test_wandb.py",
    "logger=all": "tests/test_wandb.py",
    "-sc": "tests/test_docs.py",
    "open=true": "a browser",
    "leaderboard <folder>": "a synopsis",
    "<name>": "a synopsis",
    "rerun=": "tests/test_rerun.py",
    "<checkpoint>": "tests/test_tokenizer_files.py and tests/test_keypoint_evaluation.py",
    "multiruns/": "a sweep; tests/test_leaderboard.py and tests/test_report.py",
    "variant=dalle": "the largest tokenizer",
    "channels=bgr": "weights of another publisher",
    "backbone=convnex ": "a mistake",
    "max_epochs=abc": "a mistake",
}
# Pages whose commands run elsewhere: models, every pair in tests/test_runs.py; results, when they were recorded.
OTHER_PAGES = (
    "docs/models/",
    "docs/results.md",
    "docs/decisions.md",
    "docs/distributed.md",
    "docs/preemption.md",
    "docs/reference/",
)
BEFORE = {  # runs that a page begins with
    "docs/guides/evaluation.md": [
        "python train.py task=seg",
        "python train.py task=pose",
        "python train.py task=cls dataset=image_folder dataset.root=photos",
    ],
    "docs/predict.md": ["python train.py task=cls dataset=image_folder dataset.root=photos", "python train.py task=pose"],
    "docs/export.md": ["python train.py task=seg"],
    "docs/serving.md": ["python train.py task=cls"],
    "docs/report.md": ["python train.py task=cls"],
    "docs/leaderboard.md": ["python train.py task=cls", "python eval.py ckpt_path=best.ckpt"],
    "docs/protocols.md": ["python train.py task=cls"],
    "docs/keypoints.md": ["python train.py task=pose"],
    "docs/segmentation.md": ["python train.py task=seg"],
}


def runnable(page) -> list[Code]:
    """Returns the commands of a page that run here, each once."""
    found = {each.text: each for each in commands(page) if RUNS.match(each.text)}.values()
    return [each for each in found if not any(word in f"{each.text} " for word in LEFT_OUT)]


PAGES_WITH_RUNS = [page for page in PAGES if not page.relative_to(ROOT).as_posix().startswith(OTHER_PAGES) and runnable(page)]


@pytest.mark.parametrize("page", PAGES_WITH_RUNS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_commands_of_a_page_run(page, tmp_path, monkeypatch):
    folder = write_docs_folder(tmp_path)
    monkeypatch.chdir(folder)
    name = page.relative_to(ROOT).as_posix()
    if name.startswith("docs/guides/"):
        for block in python_blocks(page):
            exec(compile(block.text, str(block), "exec"), {})
    for command in [*(Code(name, 0, text) for text in BEFORE.get(name, ())), *runnable(page)]:
        run(command, folder)


def run(command: Code, folder) -> None:
    """Runs a command with tiny images and networks, and checks that it ends without an error."""
    match = RUNS.match(command.text)
    assert match is not None
    name, text = match[1] or match[2] or match[3], match[4]
    text = re.sub(r"ckpt_path=((?:<[^>]*>|\S)+)", lambda found: f"ckpt_path={checkpoint(folder, command.text, found[1])}", text)
    text = re.sub(r"runs/<(?:(\w+) )?run>", lambda found: f"runs/{newest_run(folder, found[1] or '').name}", text)
    for written, here in REPLACED.items():
        text = text.replace(written, here)
    arguments = [*shlex.split(text, comments=True), *smaller(name, text)]
    if command.page == "README.md":  # as a user types it, with the default number of epochs
        arguments = [argument for argument in arguments if argument != "trainer.max_epochs=1"]
    done = run_command(f"spine.{name}" if name not in SCRIPTS else f"{name}.py", *arguments, folder=folder)
    assert done.returncode == 0 and "Traceback" not in done.stderr, f"{command}\n{arguments}\n{done.stdout}\n{done.stderr}"


SCRIPTS = ("train", "eval", "predict", "export")
REPLACED = {  # what a page leaves open, or what is large
    "dataset.root=<folder>": "dataset.root=photos",
    "dataset=fashion_mnist": "dataset=fashion_mnist dataset.root=fashion_mnist",
    "experiment=fashion_mnist": "dataset.root=fashion_mnist experiment=fashion_mnist",
    "plugins=examples": f"plugins={ROOT}/examples",
    "file.npz": "vit.pth",
    "dataset.splits.val=validation": "dataset.splits.val=validation dataset.root=renamed",
    "dataset.root=elsewhere": "dataset.root=photos",
    "dataset.root=scans dataset.classes=[vessel,lesion]": "dataset.root=vessels dataset.classes=[vessel,lesion]",
    "dataset.root=scans dataset.mask_suffix=_mask": "dataset.root=suffixed dataset.mask_suffix=_mask",
    "seed=0,1,2 ": "seed=0 ",
    "dataset.limit=500": "dataset.limit=4",
    "image_size=[288,288]": "image_size=[96,96]",
}
TASKS_OF_KEYS = {r"task\.(inference|resolution|scales)": "seg", "boxes=|bbox_file": "pose"}  # of commands on checkpoints


def checkpoint(folder, command: str, written: str) -> str:
    """Returns the checkpoint for `ckpt_path=` of a command: of the run that the page names, else of the newest one that fits."""
    if named := re.search(r"<(\w+) run>", written):
        task = named[1]
    else:
        task = next((task for keys, task in TASKS_OF_KEYS.items() if re.search(keys, command)), "")
    return str(newest_run(folder, task) / "checkpoints/best.ckpt")


def newest_run(folder, task: str):
    """Returns the folder of the run that was trained last and has a checkpoint, of a task if one is given."""
    runs = [run for run in (folder / "logs/train/runs").iterdir() if (run / "checkpoints/best.ckpt").is_file()]  # not of knn
    runs.sort(key=lambda run: (run / "starts.json").stat().st_mtime)
    if task == "seg":  # rendered images stay small in evaluations; those of ade20k get 512 pixels
        runs.sort(key=lambda run: "_shapes_" in run.name)
    if task == "dvae":  # its network is no backbone, and the name of the run begins with the task
        runs = [run for run in runs if run.name.startswith("dvae-")]
    elif task:
        runs = [run for run in runs if f"_{task}_" in run.name]
    return runs[-1].relative_to(folder)


def smaller(command: str, text: str) -> list[str]:
    """Returns the overrides that make a command small. Published weights are not downloaded."""
    if "--" in text:
        return []
    if command == "profile":
        return ["image_size=64", "batch_size=1"]
    if command in ("leaderboard", "report", "plan", "pack"):
        return []
    if "ckpt_path=" in text:
        small = [] if command == "export" else ["trainer.accelerator=cpu"]
        return small + (["dataset.num_workers=0"] if command in ("eval", "embed") else [])
    small = list(TINY) if command == "train" else ["image_size=[64,64]"]
    if command in ("predict", "embed"):
        small += ["trainer.accelerator=cpu", "dataset.num_workers=0"]
    if "backbone.variant=" in text:
        small.append("backbone.variant=micro")
    if "backbone.weights=imagenet1k" in text:
        small.append("backbone.weights=null")
    if "protocol=knn" in text:
        small.append("protocol.k=2")
    if command == "train" and "dataset=" not in text and "experiment=" not in text:
        small.append("dataset.length={train: 4, val: 2, test: 2}")
    if "max_steps=" in text:
        small += ["trainer.max_steps=1", "trainer.val_every_n_steps=1", "trainer.max_epochs=null", "schedule.warmup_steps=0"]
        small.remove("trainer.max_epochs=1")
    return small
