"""Means of runs that differ in their seed alone."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from spine.reporting.leaderboard.columns import MISSING
from spine.reporting.leaderboard.ranking import Group, key_value
from spine.reporting.numbers import decimals

SEED = "seed"


@dataclass(frozen=True)
class SeedMean:
    """The metric of a group over the seeds of one setting."""

    setting: tuple[str, ...]  # values of the differing keys, without the seed
    seeds: int
    mean: float
    deviation: float  # standard deviation of the sample; NaN for one seed
    lowest: float
    highest: float

    def cells(self) -> tuple[str, ...]:
        """Returns the texts of one row of the tables."""
        deviation = MISSING if math.isnan(self.deviation) else decimals(self.deviation)
        return *self.setting, str(self.seeds), decimals(self.mean), deviation, decimals(self.lowest), decimals(self.highest)


def seed_titles(group: Group) -> list[str]:
    """Returns the titles of the columns of a table of means."""
    return [*_setting_keys(group), "seeds", f"{group.metric}, mean", "standard deviation", "lowest", "highest"]


def seed_means(group: Group) -> list[SeedMean]:
    """Returns the mean over the seeds of each setting, the best first.

    Returns an empty list if no setting was ranked with several seeds.
    """
    found: dict[tuple[str, ...], list[float]] = {}
    for entry in group.entries:
        if entry.rank is not None and SEED in group.keys:
            found.setdefault(tuple(key_value(entry.run, key) for key in _setting_keys(group)), []).append(entry.value)
    if all(len(values) < 2 for values in found.values()):
        return []
    means = [_mean(setting, values) for setting, values in found.items()]
    return sorted(means, key=lambda each: each.mean, reverse=group.maximize)


def _mean(setting: tuple[str, ...], values: list[float]) -> SeedMean:
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    return SeedMean(setting, len(values), statistics.fmean(values), deviation, min(values), max(values))


def _setting_keys(group: Group) -> list[str]:
    return [key for key in group.keys if key != SEED]
