"""Sites in public groups, so that a rule which must tell contributions apart can work on sums.

A contribution is one block for each group, the site's own in its group's block and zeros elsewhere: the sum over all
sites is the groups' sums side by side, and masks hide everything below. The price is that many times the bytes, and
resolution: one bad site spoils its whole group's mean, so g groups stand fewer bad sites than g sites would.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from fedsci.errors import InputError
from fedsci.strategies.base import Vector, WeightedSum


@dataclass(frozen=True, kw_only=True)
class Groups:
    """A public assignment of sites to ``count`` groups, whose sizes differ by one at most.

    Attributes:
        count: of groups, >= 3: of two, nobody could say which is the bad one.
        seed: part of the plan; every ``count`` sites in the order of their names are dealt to the groups in an
            order of its choice, so that neighbours by name are not together.
    """

    count: int
    seed: int

    def __post_init__(self) -> None:
        if self.count < 3:
            raise InputError(
                f"{self.count} groups are too few: a majority needs 3", hint="groups: 3 or more, 0 for none"
            )

    def of(self, position: int) -> int:
        """Return the group of the site at this position: 0, 1, ... ``count - 1``."""
        deal, place = divmod(position, self.count)

        def rank(group: int) -> bytes:
            return hashlib.sha256(f"fedsci groups|{self.seed}|{deal}|{group}".encode()).digest()

        return sorted(range(self.count), key=rank)[place]

    def smallest(self, *, sites: int, survivors: int) -> int:
        """Return how many sites are left in a group, at worst: all that are missing may be of the smallest one."""
        return sites // self.count - (sites - survivors)

    def blocks(self, contribution: Vector, position: int) -> Vector:
        """Return the contribution in its group's block, zeros in the others; shape ``(count * d,)``."""
        blocks = np.zeros((self.count, contribution.size), np.float32)
        blocks[self.of(position)] = contribution
        return blocks.reshape(-1)

    def means(self, total: WeightedSum) -> Vector:
        """Return the weighted mean of every group that has survivors, shape ``(at most count, d)``."""
        weights = np.zeros(self.count, np.float32)
        for one in total.survivors:
            weights[self.of(one.position)] += np.float32(one.weight)
        there = weights > 0
        means: Vector = total.vector.reshape(self.count, -1)[there] / weights[there, None]
        return means
