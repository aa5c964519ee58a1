"""What the auditor writes down at each site: sums before noise, what became of them, and what left."""

import threading
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedsci.names import SiteId


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One noised release inside a site. Everything but ``units`` is of the coordinates that are looked at.

    Attributes:
        drawn: the numbers of the units that were summed, canaries after the site's own; in the order they came.
        units: how many there are.
        data: clipped sum of the site's own records, in units of gradients.
        canaries: clipped sum of its canaries.
        released: the same sum with noise, as it was released, in units of gradients and with the same sign.
    """

    drawn: NDArray[np.int64]
    units: int
    data: NDArray[np.float64]
    canaries: NDArray[np.float64]
    released: NDArray[np.float64]

    @property
    def noise(self) -> NDArray[np.float64]:
        """What was added to the clipped sum."""
        return self.released - self.data - self.canaries


@dataclass(kw_only=True, eq=False)
class SiteRound:
    """What one site did in one round.

    Attributes:
        steps: its releases.
        sent: what it handed over to be masked, of the coordinates that are looked at; in the contribution's units.
        follows: whether that is a function of the releases and nothing else.
        longest: the longest clipped vector of one unit that the auditor could make, over the clipping norm.
        apart: how far the clipped sum of some units is from the sum of each one's, over the clipping norm.
        extra: what the reply held besides, in words; empty where nothing did.
        masked: the highest byte of each number of the masked upload; None where nothing is masked.
    """

    steps: list[Step] = field(default_factory=list)
    sent: NDArray[np.float64] | None = None
    follows: bool = False
    longest: float = 0.0
    apart: float = 0.0
    extra: str = ""
    masked: NDArray[np.uint8] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """A noised measurement on held-out records.

    Attributes:
        exact, released: sums, in their own units.
        longest: the norm of one held-out record's part.
    """

    exact: NDArray[np.float64]
    released: NDArray[np.float64]
    longest: float


class Notes:
    """The auditor's notes on one run; sites write from their own threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rounds: dict[SiteId, dict[int, SiteRound]] = defaultdict(dict)
        self._measured: dict[SiteId, list[Measured]] = defaultdict(list)
        self._exact: list[str] = []

    def round(self, site: SiteId, number: int, done: SiteRound) -> None:
        """Write down a round of a site; one that it trains twice is no round of its plan."""
        with self._lock:
            if number in self._rounds[site]:
                done.follows = False
            self._rounds[site][number] = done

    def replied(self, site: SiteId, number: int, *, extra: str, masked: NDArray[np.uint8] | None) -> None:
        """Write down what a site's reply to a round held."""
        with self._lock:
            done = self._rounds[site].setdefault(number, SiteRound())
            done.extra, done.masked = extra, masked

    def left_exactly(self, where: str) -> None:
        """Write down that exact metrics left where only noised ones may."""
        with self._lock:
            self._exact.append(where)

    @property
    def exact(self) -> list[str]:
        """Where exact metrics left although only noised ones may."""
        return list(self._exact)

    def measured(self, site: SiteId, found: Measured) -> None:
        """Write down a measurement of a site."""
        with self._lock:
            self._measured[site].append(found)

    def of(self, site: SiteId, number: int) -> SiteRound:
        """Return what is known of a site's round; an empty note where it did nothing."""
        return self._rounds.get(site, {}).get(number, SiteRound())

    def measurements(self, site: SiteId) -> list[Measured]:
        """Return a site's noised measurements, in their order."""
        return self._measured.get(site, [])
