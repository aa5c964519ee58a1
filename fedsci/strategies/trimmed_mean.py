"""Coordinate-wise trimmed mean: for each number of the model, the highest and lowest sites are left out.

Yin, Chen, Ramchandran, Bartlett 2018, Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates
(ICML), definition 2. Stands as many bad rows as are trimmed at each end. With ``groups`` the rows are group means (see
``groups.py``).
"""

from dataclasses import dataclass, field

import numpy as np

from fedsci.errors import InputError
from fedsci.strategies.base import Vector
from fedsci.strategies.robust import RobustStrategy, groups_of
from fedsci.strategies.server_optimiser import ServerOptimiser


@dataclass(frozen=True, kw_only=True)
class TrimmedMean(RobustStrategy):
    """The mean of each coordinate without its extremes.

    Attributes:
        trim: the share of rows left out at each end, rounded down; in [0, 0.5).
    """

    trim: float
    name: str = field(default="trimmed_mean", init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.trim < 0.5:
            raise InputError(f"trimmed_mean: trim {self.trim} is not in [0, 0.5)", hint="0.2 leaves 3 of 17 out twice")
        RobustStrategy.__post_init__(self)

    def combine(self, rows: Vector) -> Vector:
        """Return the mean of each column without its ``floor(trim * n)`` highest and lowest."""
        cut = int(self.trim * len(rows) + 1e-9)
        mean: Vector = np.sort(rows, axis=0)[cut : len(rows) - cut].mean(axis=0, dtype=np.float64)
        return mean


def build(*, optimiser: ServerOptimiser, trim: float = 0.2, groups: float = 0, group_seed: float = 0) -> TrimmedMean:
    """Return the strategy with this server optimiser."""
    return TrimmedMean(optimiser=optimiser, trim=trim, groups=groups_of(groups, group_seed))
