"""Krum and Multi-Krum: follow the updates that have the closest neighbours.

Blanchard, El Mhamdi, Guerraoui, Stainer 2017, Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent
(NeurIPS), section 4. A row's score is the sum of squared distances to its n - f - 2 nearest others; the mean of the
``multi`` rows with the lowest scores is taken (1 is Krum itself). Needs n > 2f + 2. With ``groups`` the rows
are group means (see ``groups.py``).
"""

from dataclasses import dataclass, field

import numpy as np

from fedsci.errors import InputError
from fedsci.strategies.base import Vector
from fedsci.strategies.robust import RobustStrategy, groups_of, whole
from fedsci.strategies.server_optimiser import ServerOptimiser


@dataclass(frozen=True, kw_only=True)
class Krum(RobustStrategy):
    """The mean of the rows that agree best.

    Attributes:
        byzantine: f, the bad rows it must stand.
        multi: how many rows are averaged.
    """

    byzantine: int
    multi: int
    name: str = field(default="krum", init=False)

    def smallest_sum(self, *, sites: int, survivors: int) -> int:
        """Return that of every robust rule.

        Raises:
            InputError: there may be too few rows for so many bad ones.
        """
        rows = self.rows(survivors=survivors)
        if rows <= 2 * self.byzantine + 2 or self.multi > rows - self.byzantine:
            raise InputError(
                f"krum cannot stand {self.byzantine} bad of {rows} rows and take the mean of {self.multi}",
                hint=f"byzantine: {max(0, (rows - 3) // 2)} or fewer, and multi at most {rows} less byzantine",
            )
        return RobustStrategy.smallest_sum(self, sites=sites, survivors=survivors)

    def combine(self, rows: Vector) -> Vector:
        """Return the mean of the ``multi`` rows of lowest score; ties go to the first.

        A lab alone is a single row and is followed.
        """
        exact = rows.astype(np.float64)
        near = max(1, len(rows) - self.byzantine - 2)
        scores = [np.sort(((exact - row) ** 2).sum(axis=1))[1 : near + 1].sum() for row in exact]
        best = np.argsort(scores, kind="stable")[: self.multi]
        mean: Vector = exact[best].mean(axis=0)
        return mean


def build(
    *, optimiser: ServerOptimiser, byzantine: float = 1, multi: float = 1, groups: float = 0, group_seed: float = 0
) -> Krum:
    """Return the strategy with this server optimiser."""
    return Krum(
        optimiser=optimiser,
        byzantine=whole("byzantine", byzantine),
        multi=whole("multi", multi, least=1),
        groups=groups_of(groups, group_seed),
    )
