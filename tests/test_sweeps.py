"""Sweeps: their folder, their summary, retries, and what runs when the same command is typed again."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import run_command
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from spine.command_lines import quote_path
from spine.config import messages, overrides, resolving, sweep_jobs
from spine.config.conf_folder import conf_folder
from spine.config.gpu_slots import own_gpus
from spine.errors import InputError
from spine.reporting import sweeps
from spine.training.run_folder import RunFolder

ROOT = Path(__file__).parents[1]
SMALL = (
    "dataset.length={train: 8, val: 4, test: 4}", "dataset.batch_size=4", "dataset.num_workers=0", "trainer.max_epochs=1",
    "trainer.accelerator=cpu", "backbone=mobilenet_v2",
)  # fmt: skip


def job(folder, name, overrides, **files):
    (folder / name / ".hydra").mkdir(parents=True)
    (folder / name / ".hydra" / "overrides.yaml").write_text("".join(f"- {override}\n" for override in overrides))
    for file, content in files.items():
        (folder / name / file.replace("_", ".")).write_text(content)


def results(value, mode="max", monitor="val/top1"):
    return json.dumps({"metrics": {monitor: value}, "monitor": monitor, "mode": mode, "seconds": 12.3})


@pytest.fixture
def finished(tmp_path):
    job(tmp_path, "a", ["backbone=vit", "optimizer.lr=0.1", "seed=0"], metrics_json=results(0.25))
    job(tmp_path, "b", ["backbone=swin", "optimizer.lr=0.1", "seed=0"], error_txt="CUDA out of memory\nmore\n")
    job(tmp_path, "c", ["backbone=vit", "optimizer.lr=0.01", "seed=0"], metrics_json=results(0.75))
    job(tmp_path, "d", ["backbone=swin", "optimizer.lr=0.01", "seed=0"], stopped_json='{"epoch": 3}')
    job(tmp_path, "e", ["backbone=hrnet", "optimizer.lr=0.01", "seed=0"])
    job(tmp_path, "f", ["backbone=mae", "optimizer.lr=0.01", "seed=0"], metrics_json=results(None))
    return tmp_path


def test_jobs_are_sorted_by_the_metric_and_have_a_column_for_each_swept_key(finished, capsys):
    sweeps.report_sweep(finished)
    with (finished / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:2] == ["backbone", "optimizer.lr"] and "seed" not in rows[0]
    assert [Path(row["folder"]).name for row in rows][:2] == ["c", "a"] and rows[0]["value"] == "0.75"
    shown = capsys.readouterr().out
    assert "optimizer.lr" in shown and "b failed: CUDA out of memory" in shown and str(finished / "b" / "train.log") in shown
    assert "6 runs: 3 finished, 1 failed, 1 stopped, 1 not started. The same command runs the others again." in shown


def test_a_smaller_loss_is_better(tmp_path):
    for name, value in (("a", 0.9), ("b", 0.2)):
        job(tmp_path, name, [f"seed={name}"], metrics_json=results(value, "min", "val/loss"))
    assert [one.folder.name for one in sweeps.read_jobs(tmp_path)] == ["b", "a"]


def test_an_empty_sweep_prints_nothing(tmp_path, capsys):
    sweeps.report_sweep(tmp_path)
    assert capsys.readouterr().out == "" and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "other", "same"),
    [
        (["-m", "backbone=vit,swin", "task=seg"], ["-m", "task=seg", "backbone=vit,swin"], True),
        (["-m", "backbone=vit,swin"], ["-m", "backbone=vit,swin", "dataset.num_workers=8", "sweep.retries=2"], True),
        (["-m", "backbone=vit,swin"], ["-m", "backbone=vit,swin", "hydra/launcher=joblib", "hydra.verbose=true"], True),
        (["-m", "backbone=vit,swin"], ["-m", "backbone=vit,swin", "seed=1"], False),
        (["-m", "backbone=vit,swin"], ["-m", "backbone=vit,hrnet"], False),
        (["-m", "tags=[a],[b]"], ["-m", "tags=[a],[c]"], False),
    ],
)
def test_the_folder_follows_from_what_is_swept(monkeypatch, arguments, other, same):
    names = []
    for each in (arguments, other):
        monkeypatch.setattr(sys, "argv", ["train.py", *each])
        names.append(resolving.sweep_id(_root_=OmegaConf.create({})))
    assert (names[0] == names[1]) == same


def test_swept_keys_name_the_folder(monkeypatch):
    values = ["backbone=vit,swin", "dataset.length={train: 4, val: 2}", "image_size=[64,64]", "optimizer.lr=choice(0.1,0.2)"]
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", *values])
    assert resolving.sweep_id(_root_=OmegaConf.create({})).rpartition("_")[0] == "backbone_lr"


def test_pruned_runs_come_after_finished_ones_and_another_value_can_be_compared(tmp_path):
    costs = {"costs": {"parameters": 5}}
    job(tmp_path, "a", ["seed=a"], metrics_json=json.dumps({**json.loads(results(0.2)), **costs}))
    report = {"epoch": 3, "metrics": {"val/top1": 0.9}, "monitor": "val/top1", "mode": "max"}
    job(tmp_path, "b", ["seed=b"], pruned_json=json.dumps(report))
    assert [(one.folder.name, one.status) for one in sweeps.read_jobs(tmp_path)] == [("a", "finished"), ("b", "pruned")]
    sweeps.report_sweep(tmp_path, {"parameters": "min", "val/top1": "max"})
    with (tmp_path / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["metric"] == "parameters" and rows[0]["value"] == "5" and rows[0]["val/top1"] == "0.2"
    assert rows[1]["status"] == "pruned" and rows[1]["reason"] == "after epoch 3"


@pytest.mark.parametrize(
    ("override", "swept"),
    [
        ("seed=1,2", True), ("seed=range(1,4)", True), ("lr=interval(0.1,0.2)", True), ("image_size=[64,64]", False),
        ("tags=[a],[b]", True), ("dataset.length={train: 4, val: 2}", False), ('x="a,b"', False),
        ("++sweep.space={a: {low: 1, high: 2}, b: [1,2]}", False),
    ],
)  # fmt: skip
def test_swept_overrides_have_several_values(override, swept):
    assert bool(overrides.swept_keys([override])) == swept


def test_paths_are_quoted_for_hydra_if_needed():
    assert quote_path(Path("/a/b-c_1.x")) == "/a/b-c_1.x"
    assert quote_path(Path('/a b/c="d"')) == '"/a b/c=\\"d\\""'


# Jobs in processes of their own


@pytest.fixture
def in_sweep(tmp_path, monkeypatch):
    """Makes this process that of a job with Hydra's overrides, whose process runs `code`."""

    monkeypatch.setattr(sweep_jobs, "show_messages", lambda: None)  # it would change the loggers of other tests

    def begin(code, *arguments):
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            config = compose("train", ["seed=1", "hydra.mode=MULTIRUN", *arguments], return_hydra_config=True)
        config.hydra.job.num = 3
        HydraConfig.instance().set_config(config)
        sweep_jobs.start_sweep(str(tmp_path), ["seed"])
        sweep = sweep_jobs.Sweep(str(tmp_path), [sys.executable, "-c", code], ["seed"])
        os.environ[sweep_jobs.VARIABLE] = json.dumps(sweep.__dict__)
        (tmp_path / "job").mkdir()
        return RunFolder(tmp_path / "job")

    yield begin
    if sweep_jobs.started_here is not None:
        sweep_jobs.started_here.close()
    HydraConfig.instance().cfg = None


def test_the_process_of_a_job_gets_its_own_overrides_and_folder(in_sweep):
    in_sweep("pass", "task=seg", "hydra.verbose=true", "hydra.sweep.dir=x")
    arguments = sweep_jobs.job_arguments(Path("/a b"))
    assert arguments[:2] == ["seed=1", "task=seg"] and "hydra.verbose=true" in arguments
    assert 'hydra.run.dir="/a b"' in arguments and "hydra.mode=RUN" in arguments and "hydra.mode=MULTIRUN" not in arguments
    assert not any("hydra.sweep" in argument for argument in arguments)


COUNT = "open('{}', 'a').write('x'); "


def test_a_crashed_job_is_tried_again_and_its_reason_is_written(in_sweep, tmp_path):
    attempts = tmp_path / "attempts"
    folder = in_sweep(COUNT.format(attempts) + "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(InputError, match="SIGKILL"):
        sweep_jobs.run_job(folder, retries=2, gpus=None)
    assert attempts.read_text() == "xxx" and "ended by SIGKILL" in folder.error.read_text()


def test_a_mistake_of_the_user_is_not_tried_again(in_sweep, tmp_path):
    attempts = tmp_path / "attempts"
    folder = in_sweep(COUNT.format(attempts) + f"import sys; sys.exit({sweep_jobs.MISTAKE})")
    with pytest.raises(InputError):
        sweep_jobs.run_job(folder, retries=2, gpus=None)
    assert attempts.read_text() == "x"


def test_the_lines_of_parallel_jobs_begin_with_the_number_of_the_job(in_sweep, capfd):
    folder = in_sweep("print('one'); import sys; print('two', file=sys.stderr)", "hydra/launcher=joblib")
    sweep_jobs.run_job(folder, retries=0, gpus=None)
    assert sorted(capfd.readouterr().out.splitlines()) == ["#3 one", "#3 two"]


def test_a_signal_reaches_the_process_of_a_job_and_no_further_job_starts(in_sweep, tmp_path):
    mark = tmp_path / "began"
    folder = in_sweep(
        f"import signal, time, sys; signal.signal(15, lambda *_: sys.exit(143)); open({str(mark)!r}, 'a').write('x'); time.sleep(60)",
        "hydra/launcher=joblib",
    )
    import threading

    def stop():
        while not mark.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    sweep_jobs.run_job(folder, retries=3, gpus=None)
    sweep_jobs.run_job(folder, retries=3, gpus=None)  # returns at once
    assert mark.read_text() == "x" and not folder.error.exists()
    assert "The same command continues it" in sweep_jobs.started_here.stopped().message


def test_each_job_has_gpus_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,GPU-b,2")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with own_gpus(1) as first, own_gpus(2) as second:
        assert (first["CUDA_VISIBLE_DEVICES"], second["CUDA_VISIBLE_DEVICES"]) == ("0", "GPU-b,2")
        with own_gpus(1, give_up=lambda: True) as third:
            assert third["CUDA_VISIBLE_DEVICES"] == ""
    with own_gpus(None) as all_of_them:
        assert all_of_them == {}
    with pytest.raises(InputError, match="this machine has 3"), own_gpus(4):
        pass


def test_a_missing_launcher_names_the_command_that_installs_it(monkeypatch):
    from hydra.errors import MissingConfigException

    error = MissingConfigException("", missing_cfg_file="hydra/launcher/joblib", options=["basic"])
    assert (
        messages.user_message(error) == "hydra/launcher=joblib needs the package hydra-joblib-launcher: pip install -e .[sweep]"
    )


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "submitit_slurm"])
def test_launchers_compose(launcher):
    more = ["hydra.launcher.partition=gpu", "hydra.launcher.tasks_per_node=2"] if launcher == "submitit_slurm" else []
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = compose("train", [f"hydra/launcher={launcher}", *more], return_hydra_config=True)
    assert "Launcher" in config.hydra.launcher._target_


def sweep(folder, *arguments, script=ROOT / "train.py"):
    """Runs a sweep in an interpreter of its own, from which launchers and Lightning start further ones."""
    return subprocess.run([sys.executable, script, "-m", *SMALL, *arguments], cwd=folder, capture_output=True, text=True)


def serial_sweep(folder, *arguments, script="train.py"):
    """Runs a sweep whose jobs run one after another in its own process."""
    return run_command(script, "-m", *SMALL, *arguments, folder=folder)


@pytest.mark.slow
def test_the_same_command_runs_only_what_is_missing(tmp_path):
    first = serial_sweep(tmp_path, "seed=0,1")
    (folder,) = (tmp_path / "logs/train/multiruns").iterdir()
    assert first.returncode == 0 and folder.name.startswith("seed_"), first.stderr
    runs = sorted(path for path in folder.iterdir() if path.is_dir())
    (runs[0] / "metrics.json").unlink()
    before = (runs[1] / "checkpoints/last.ckpt").stat().st_mtime_ns
    again = serial_sweep(tmp_path, "seed=0,1")
    assert again.returncode == 0 and again.stdout.count("This run is finished; nothing was done.") == 1
    assert "2 runs: 2 finished." in again.stdout
    assert (runs[1] / "checkpoints/last.ckpt").stat().st_mtime_ns == before
    assert list((tmp_path / "logs/train/multiruns").iterdir()) == [folder]


FLAKY = """
from pathlib import Path
from spine.tasks.cls.task import Classification

original = Classification.training_step

def flaky(self, batch, batch_idx):
    mark = Path("failed_once")
    if not mark.exists():
        mark.touch()
        raise RuntimeError("CUDA error: the device is lost")
    return original(self, batch, batch_idx)

Classification.training_step = flaky

from spine.commands.train import main

main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("retries", [0, 1])
def test_failed_runs_are_tried_again_if_asked(tmp_path, retries):
    (tmp_path / "flaky.py").write_text(FLAKY)
    done = serial_sweep(tmp_path, "seed=0,1", f"sweep.retries={retries}", script=tmp_path / "flaky.py")
    if retries:
        assert done.returncode == 0 and "Trying again, 1 of 1" in done.stderr and "2 runs: 2 finished." in done.stdout
    else:
        assert done.returncode == 1 and "2 runs: 1 finished, 1 failed." in done.stdout
        assert "failed: RuntimeError: CUDA error: the device is lost" in done.stdout


@pytest.mark.slow
def test_jobs_with_two_devices_run_with_their_own_configuration(tmp_path):
    done = sweep(tmp_path, "seed=1,2", "trainer.devices=2", "trainer.strategy=ddp")
    assert done.returncode == 0 and "2 runs: 2 finished." in done.stdout, done.stderr
    assert done.stdout.count("Launching 2 jobs") == 1  # no second process began the sweep again
    configs = [json.loads(path.read_text()) for path in tmp_path.glob("logs/train/multiruns/*/*/config.json")]
    assert sorted(config["seed"] for config in configs) == [1, 2]
    assert not list(tmp_path.glob("logs/train/runs/*"))


KILLED = """
import os, sys
from spine.tasks.cls.task import Classification

original = Classification.training_step

def killed(self, batch, batch_idx):
    if "seed=1" in sys.argv and not os.path.exists("repaired"):
        os.kill(os.getpid(), 9)
    return original(self, batch, batch_idx)

Classification.training_step = killed

from spine.commands.train import main

main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_killed_job_of_a_parallel_sweep_fails_alone_and_the_same_command_repeats_it(tmp_path, launcher):
    (tmp_path / "killed.py").write_text(KILLED)
    command = ("seed=1,2", f"hydra/launcher={launcher}", *(("hydra.launcher.n_jobs=2",) if launcher == "joblib" else ()))
    done = sweep(tmp_path, *command, script=tmp_path / "killed.py")
    assert done.returncode == 1 and "2 runs: 1 finished, 1 failed." in done.stdout, done.stderr
    assert "ended by SIGKILL" in done.stdout and "Traceback" not in done.stderr
    (tmp_path / "repaired").touch()
    again = sweep(tmp_path, *command, script=tmp_path / "killed.py")
    assert again.returncode == 0 and "2 runs: 2 finished." in again.stdout, again.stderr
    starts = [json.loads(path.read_text())["starts"] for path in tmp_path.glob("logs/train/multiruns/*/*/starts.json")]
    assert sorted(map(len, starts)) == [1, 2]


@pytest.mark.slow
def test_a_signal_stops_parallel_jobs_which_save_their_states(tmp_path):
    arguments = ("seed=1,2,3", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "trainer.max_epochs=500")
    command = [sys.executable, ROOT / "train.py", "-m", *SMALL, *arguments]
    run = subprocess.Popen(command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    end = time.monotonic() + 120
    while len(list(tmp_path.glob("logs/**/last.ckpt"))) < 2 and time.monotonic() < end:
        time.sleep(0.1)
    run.send_signal(signal.SIGTERM)
    out, errors = run.communicate(timeout=120)
    assert run.returncode == 143 and "The same command continues it" in errors, errors
    assert "3 runs: 2 stopped, 1 not started." in out and "failed" not in out[out.index("Sweep ") :]
