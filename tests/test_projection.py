"""The projection of benchmarks/weak_scaling.py."""

import importlib.util
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[1] / "benchmarks" / "weak_scaling.py"


@pytest.fixture(scope="module")
def scaling():
    spec = importlib.util.spec_from_file_location("weak_scaling", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["weak_scaling"] = module  # NamedTuple looks its module up
    spec.loader.exec_module(module)
    return module


def test_the_time_of_a_ring_follows_the_slowest_link(scaling):
    machine = scaling.Machine(gpus=8, nvlink=100.0, network=10.0, adapters=4, latency=0.0)
    assert scaling.all_reduce_seconds(800.0, 8, machine) == pytest.approx(2 * 7 / 8 * 800 / 100)
    assert scaling.all_reduce_seconds(800.0, 16, machine) == pytest.approx(2 * 15 / 16 * 800 / 40)
    wide = machine._replace(adapters=100)
    assert scaling.all_reduce_seconds(800.0, 16, wide) == pytest.approx(2 * 15 / 16 * 800 / 100)
    assert scaling.all_reduce_seconds(0.0, 16, machine._replace(latency=1.0)) == 30.0
    assert scaling.all_reduce_seconds(800.0, 1, machine) == 0.0


def test_overlap_hides_communication_up_to_the_backward_pass(scaling):
    step = scaling.Projection(compute=3.0, communication=2.0)
    assert step.with_overlap == 1.0 and step.without_overlap == pytest.approx(0.6)
    assert scaling.Projection(compute=3.0, communication=5.0).with_overlap == pytest.approx(0.5)


def test_gradients_are_counted_from_the_network(scaling):
    gradient_bytes, multiply_adds = scaling.measure_gradients("mobilenet_v2", "w100")
    assert gradient_bytes == 3_504_872 * 4  # parameters of MobileNetV2
    assert multiply_adds == pytest.approx(300e6, rel=0.02)
