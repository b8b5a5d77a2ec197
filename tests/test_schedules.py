"""Learning rate schedules. tests/test_optim_parity.py compares them with those of timm and of authors' code."""

import math

import pytest
import torch

from spine.errors import InputError
from spine.training import schedules


def rates(schedule, steps=100, steps_per_epoch=None, lr=1.0, **options):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = schedule(optimizer, steps, steps_per_epoch, **options)
    out = []
    for _ in range(steps):
        out.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return out


def test_schedules_with_their_default_warm_up():
    cosine = rates(schedules.cosine, warmup=0.1, min_lr_ratio=0.01)
    assert cosine[0] == pytest.approx(1 / 11) and cosine[10] == 1 and cosine[55] == pytest.approx(0.505) and cosine[-1] < 0.012
    poly = rates(schedules.poly, warmup=0.0, power=1.0)
    assert poly[0] == 1 and poly[50] == pytest.approx(0.5) and poly[-1] == pytest.approx(0.01)
    assert rates(schedules.constant) == [1.0] * 100


def test_step_decays_change_at_the_start_of_epochs():
    step = rates(schedules.step, 40, 10, every_epochs=2, rate=0.5)
    assert step == [1.0] * 20 + [0.5] * 20
    multi = rates(schedules.multi_step, 40, 10, milestones=[1, 3], rate=0.1)
    assert multi == pytest.approx([1.0] * 10 + [0.1] * 20 + [0.01] * 10)


def test_exponential_decays_in_every_step_or_epoch():
    smooth = rates(schedules.exponential, 40, 10, every_epochs=2, rate=0.25)
    assert smooth == pytest.approx([0.25 ** (step / 20) for step in range(40)])
    stairs = rates(schedules.exponential, 40, 10, every_epochs=1, rate=0.5, per_epoch=True)
    assert stairs == [0.5 ** (step // 10) for step in range(40)]


def test_warm_up_multiplies_the_decay_as_in_openmmlab():
    """The schedule of SegNeXt: polynomial decay from the first step, and a warm-up that multiplies it."""
    found = rates(schedules.poly, 100, warmup_steps=20, warmup_start_ratio=1e-6, warmup_mode="multiply")
    expected = [(1 - step / 100) * (1 - (1 - step / 20) * (1 - 1e-6) if step < 20 else 1.0) for step in range(100)]
    assert found == pytest.approx(expected, rel=1e-12)


def test_warm_up_in_epochs_replaces_that_in_fractions():
    found = rates(schedules.cosine, 100, 10, warmup=0.5, warmup_epochs=2, warmup_start=0.0, min_lr=0.1)
    assert found[0] == 0.0 and found[10] == pytest.approx(0.5) and found[20] == 1.0
    assert found[60] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 0.5)))


def test_a_schedule_can_be_early_or_late():
    assert rates(schedules.poly, 10, warmup=0.0, delay=-1) == pytest.approx(
        [1 - (step + 1) / 10 for step in range(10)]
    )  # ShuffleNet
    assert rates(schedules.poly, 10, warmup=0.0, delay=1)[:3] == pytest.approx([1.0, 1.0, 0.9])


def test_rates_of_groups_keep_their_ratio():
    """Also during the warm-up and at the lowest rate, as in the code of BEiT and MAE."""
    parameters = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in (0.4, 0.1)]
    optimizer = torch.optim.SGD(parameters, lr=0.4)
    scheduler = schedules.cosine(optimizer, 10, warmup_steps=2, warmup_start=0.2, min_lr=0.04)
    for _ in range(11):
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert first == pytest.approx(4 * second)
        optimizer.step()
        scheduler.step()
    assert first == pytest.approx(0.04)


def test_the_state_of_a_schedule_holds_plain_values_only():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    assert schedules.cosine(optimizer, 10).state_dict()["lr_lambdas"] == [None]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warmup": 5}, "schedule.warmup is 5"),
        ({"warmup_epochs": 1, "warmup_steps": 10}, "schedule.warmup_epochs is 1 and schedule.warmup_steps is 10. Give one"),
        ({"warmup_steps": 100}, "schedule.warmup_steps=100 is a warm-up of 100 steps, but the training has 100"),
        ({"warmup_epochs": 50}, "schedule.warmup_epochs=50 is a warm-up of 500 steps, but the training has 100"),
        ({"warmup_start": 0.1, "warmup_start_ratio": 0.1}, "schedule.warmup_start is 0.1 and schedule.warmup_start_ratio is 0.1"),
        ({"min_lr": 0.1, "min_lr_ratio": 0.1}, "schedule.min_lr is 0.1 and schedule.min_lr_ratio is 0.1. Give one"),
        ({"min_lr": 2.0}, "schedule.min_lr is 2.0, higher than the learning rate of the optimizer, 1"),
    ],
)
def test_options_that_do_not_fit_are_rejected(options, message):
    with pytest.raises(InputError, match=message.replace(".", r"\.")):
        rates(schedules.cosine, 100, 10, **options)


def test_epochs_need_their_number_of_steps():
    with pytest.raises(InputError, match="it needs steps_per_epoch"):
        rates(schedules.step)
