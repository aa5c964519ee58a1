"""Coordinate-wise median: each number of the model moves as the middle site says.

Yin, Chen, Ramchandran, Bartlett 2018, Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates
(ICML), definition 1. Stands fewer than half of the rows being bad. Where sites' data differ much, the median is not
the mean, bad sites or none. With ``groups`` the rows are group means (see ``groups.py``).
"""

from dataclasses import dataclass, field

import numpy as np

from fedsci.strategies.base import Vector
from fedsci.strategies.robust import RobustStrategy, groups_of
from fedsci.strategies.server_optimiser import ServerOptimiser


@dataclass(frozen=True, kw_only=True)
class CoordinateMedian(RobustStrategy):
    """The median of each coordinate."""

    name: str = field(default="coordinate_median", init=False)

    def combine(self, rows: Vector) -> Vector:
        """Return the median of each column; of an even number, the middle of the middle two."""
        median: Vector = np.median(rows, axis=0)
        return median


def build(*, optimiser: ServerOptimiser, groups: float = 0, group_seed: float = 0) -> CoordinateMedian:
    """Return the strategy with this server optimiser."""
    return CoordinateMedian(optimiser=optimiser, groups=groups_of(groups, group_seed))
