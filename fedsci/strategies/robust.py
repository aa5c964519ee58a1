"""What the robust rules share: they look at single contributions, or at the means of groups."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np

from fedsci.errors import InputError, RoundAborted
from fedsci.strategies.base import MeanStrategy, SiteRound, StrategyState, Vector, WeightedSum, finite
from fedsci.strategies.groups import Groups


@dataclass(frozen=True, kw_only=True)
class RobustStrategy(MeanStrategy, ABC):
    """A rule over rows in place of the mean; every row counts alike, whatever record count its site claims.

    Attributes:
        groups: None: a row is a site's update, so each is seen. Otherwise a row is a group's mean, and only the
            groups' sums are seen.
    """

    groups: Groups | None
    plain: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sees", "each" if self.groups is None else "sum")

    @abstractmethod
    def combine(self, rows: Vector) -> Vector:
        """Return the direction that the rows, shape ``(n, d)`` with n >= 1, agree on; shape ``(d,)``."""

    def rows(self, *, survivors: int) -> int:
        """Return how many rows there are, at worst."""
        return survivors if self.groups is None else self.groups.count

    def width(self, size: int) -> int:
        """Return the model's size, times the number of groups."""
        return size if self.groups is None else size * self.groups.count

    def smallest_sum(self, *, sites: int, survivors: int) -> int:
        """Return the size of the smallest group once all that may be missing are; without groups, the survivors."""
        return survivors if self.groups is None else self.groups.smallest(sites=sites, survivors=survivors)

    def contribute(self, work: SiteRound) -> Vector:
        """Return the local update, in its group's block where there are groups."""
        update = work.update(work.received)
        return update if self.groups is None else self.groups.blocks(update, work.position)

    def stretch(self, *, steps: int, momentum: float, learning_rate: float) -> float | None:
        """Return 1: blocks are as long as what is in them."""
        return 1.0

    def apply(self, state: StrategyState, total: WeightedSum) -> StrategyState:
        """Return the state after moving along what the rows agree on.

        Raises:
            RoundAborted: nobody is there, or a row holds NaN or infinity.
        """
        if self.groups is not None:
            rows = self.groups.means(total)
        elif total.each:
            rows = np.stack([total.each[position] for position in sorted(total.each)])
        else:
            raise RoundAborted("there is no contribution to look at")
        return self.move(state, self.combine(finite(rows)).astype(np.float32, copy=False))


def groups_of(groups: float, group_seed: float) -> Groups | None:
    """Return the groups that a recipe's options ask for; None for 0.

    Raises:
        InputError: the numbers are not whole, or there are too few groups.
    """
    count = whole("groups", groups)
    return Groups(count=count, seed=whole("group_seed", group_seed)) if count else None


def whole(option: str, value: float, *, least: int = 0) -> int:
    """Return an option's value as a whole number.

    Raises:
        InputError: it is not one, or below ``least``.
    """
    if not (value == value // 1 and least <= value < 2**31):
        raise InputError(f"{option} is {value:g}", hint=f"give a whole number, at least {least}")
    return int(value)
