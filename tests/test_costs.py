"""What metrics.json says about the costs of a run."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from test_configs import composed

from spine.commands import train
from spine.components import task_spec
from spine.models.assembly import NetworkConfig
from spine.profiling import count_multiply_adds
from spine.tasks.mae.masking import RandomPatchMask
from spine.training.costs import multiply_adds
from spine.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("blank_figures")

SMALL = (
    "backbone=mobilenet_v2", "backbone.variant=w100", "dataset.length={train: 12, val: 4, test: 4}", "dataset.batch_size=4",
    "dataset.num_workers=0", "trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.log_every_n_steps=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    train.train_run(composed(*SMALL, "task=cls"), RunFolder(path))
    return path


def test_a_run_knows_what_it_cost(folder):
    costs = json.loads((folder / "metrics.json").read_text())["costs"]
    assert costs["parameters"] > 2e6 and costs["device"].startswith("CPU")
    assert costs["images_per_s"] > 0 and 0 <= costs["data_wait"] <= 1 and costs["peak_memory_mb"] > 1
    assert costs["multiply_adds"] == pytest.approx(0.3e9 * (64 / 224) ** 2, rel=0.1)


def test_metrics_json_is_the_last_file_that_a_run_writes(folder):
    """Only the report, which shows its numbers, follows."""
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != "report.html"}
    assert max(written, key=lambda path: written[path]).name == "metrics.json" and len(written) > 5


@pytest.mark.parametrize(
    "backbone", ["mae", pytest.param("beit", marks=pytest.mark.slow), "mobilenet_v2"]
)  # one for each kind of masking
def test_the_multiply_adds_of_a_masked_network_are_counted(backbone):
    options = {"variant": "micro"} if backbone == "mae" else {}
    network = NetworkConfig(backbone, "mae_decoder", task_spec("mae"), image_size=(64, 64), backbone_options=options)
    grid = network.build().grid
    few, many = (
        count_multiply_adds(network, [RandomPatchMask(grid[0] * grid[1], ratio)(np.random.default_rng(0))[None]])
        for ratio in (0.75, 0.25)
    )
    assert 0 < few < many if backbone == "mae" else few == many > 0  # only MAE leaves out the masked patches


def test_a_network_of_ones_own_is_not_counted():
    assert multiply_adds(SimpleNamespace(model=object())) is None
