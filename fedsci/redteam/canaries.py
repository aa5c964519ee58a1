"""Canaries in gradient space: records that are nothing but a gradient, large and along one coordinate.

A canary is a unit like any other (a record, or a group of them): it may be sampled, its gradient is clipped, summed,
noised, masked and added up with everybody's. It is there or not by the toss of a coin. Whoever knows all other
records sees its coordinate of the sums either with the canary's C in it or without, under noise: the strongest
attack there is on a record, since no gradient of norm C can show more (Nasr et al., arXiv 2101.04535).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedsci.names import SiteId
from fedsci.privacy.clipping import clip_factors

LOUDNESS: Final = 10.0
"""How many times the clipping norm a canary's gradient is before it is clipped."""
MOST_COLUMNS: Final = 8192
"""How many coordinates of a sum are looked at, at most: what is kept of every site and step."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Canaries:
    """The canaries that one site might hold.

    Attributes:
        columns: the coordinate of each, int64 ``(k,)``, all different.
        signs: +1 or -1 of each.
        present: whether the coin put it among the site's records.
    """

    columns: NDArray[np.int64]
    signs: NDArray[np.float64]
    present: NDArray[np.bool_]

    @property
    def planted(self) -> int:
        """How many are among the site's records."""
        return int(self.present.sum())

    def sum_of(self, planted: NDArray[np.int64], *, size: int, clipping_norm: float) -> NDArray[np.float64]:
        """Return the clipped sum of some of those that are there, float64 ``(size,)``.

        ``planted`` numbers them from 0 in their order; a number that comes twice counts twice.
        """
        where = np.flatnonzero(self.present)[planted]
        norms = np.full(len(where), LOUDNESS * clipping_norm)
        clipped = self.signs[where] * norms * clip_factors(norms, clipping_norm)
        total = np.zeros(size)
        np.add.at(total, self.columns[where], clipped)
        return total


def columns_of(width: int, rng: np.random.Generator, *, most: int) -> NDArray[np.int64]:
    """Return the coordinates that are looked at: all of them, or of a wide sum ``most`` (and :data:`MOST_COLUMNS`)."""
    most = max(1, min(most, MOST_COLUMNS))
    return np.arange(width) if width <= most else np.sort(rng.choice(width, most, replace=False))


def plant(
    sites: tuple[SiteId, ...], columns: NDArray[np.int64], rng: np.random.Generator, *, each: bool
) -> Mapping[SiteId, Canaries]:
    """Return every site's canaries: one a coordinate, dealt out among the sites, or to ``each`` site one a coordinate.

    ``each`` is for sites whose own releases are looked at one by one; in a sum, two canaries on one coordinate would
    be told apart by nobody.
    """
    dealt = rng.integers(len(sites), size=len(columns))
    found = {}
    for number, site in enumerate(sites):
        own = columns if each else columns[dealt == number]
        signs = rng.choice([-1.0, 1.0], size=len(own))
        found[site] = Canaries(columns=own, signs=signs, present=rng.random(len(own)) < 0.5)
    return found
