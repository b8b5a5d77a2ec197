"""The profile command: cost of backbones."""

import cv2
import pytest
import torch
from torch import nn

from spine import profiling
from spine.commands import profile
from spine.errors import InputError


def test_profile_prints_a_table_and_draws_a_figure(tmp_path, capsys):
    out = tmp_path / "figures" / "two.png"
    profile.profile(["backbone=mobilenet_v2,shufflenet_v2", "image_size=224", "batch_size=1", "rounds=1", f"out={out}"])
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if "mobilenet_v2" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:4] == ["mobilenet_v2", "w100", "3.50", "0.30"] and all(float(cell) > 0 for cell in cells[4:])
    assert cv2.imread(str(out)).std() > 5


def test_traffic_counts_reads_and_writes_but_not_views():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 5, bias=False), nn.ReLU(inplace=True))
    x = torch.zeros(2, 3, 4)
    with torch.no_grad(), profiling.Traffic() as traffic:
        net(x)
    assert traffic.bytes == 4 * (
        (24 + 60 + 10) + (10 + 10)
    )  # the matrix product reads two tensors and writes one; the ReLU reads one and writes one


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["batchsize=3"], "Unknown key 'batchsize'. Did you mean 'batch_size'"),
        (["rounds=none"], "rounds is 'none'; it must be a whole number above zero"),
        (["variant=tiny"], "variant=tiny needs one backbone by name"),
        (["backbone=convnex"], "Unknown backbone 'convnex'. Did you mean 'convnext'"),
        (["backbone=convnext", "variant=tini"], "Unknown variant 'tini' of convnext. Did you mean 'tiny'"),
    ],
)
def test_mistakes_are_reported(arguments, message):
    with pytest.raises(InputError, match=message):
        profile.profile(arguments)
