"""Shared parts of the tests."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny networks: threads of several processes only get into each other's way

from pathlib import Path

import pytest
import quick_compose  # noqa: F401
import torch
from interruptions import at_call

REPOSITORY = Path(__file__).parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"  # small real data sets, present on the developers' machines only


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def shared_data():
    if not SHARED_DATA.is_dir():
        pytest.skip("the real data sets are not on this machine")
    return SHARED_DATA


@pytest.fixture
def crash_in_second_epoch(monkeypatch):
    """The first run of a classification task raises an error in call 12 of evaluate_batch."""
    from spine.tasks.cls.task import Classification  # imports Lightning, which other tests do not need

    at_call(monkeypatch, Classification, 12)


@pytest.fixture
def blank_figures(monkeypatch):
    """Figures of runs are written blank: drawing takes a third of a short run."""
    from matplotlib.figure import Figure

    monkeypatch.setattr(Figure, "draw", lambda figure, renderer: None)
