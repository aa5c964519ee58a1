"""A private learner under audit: canaries among its units, and every sum and release of it written down."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fedsci.redteam.canaries import Canaries
from fedsci.redteam.notes import Step
from fedsci.secagg import Quantisation
from fedsci.training.accountant import Share
from fedsci.training.models import load_vector
from fedsci.training.private import PrivateLearner

_UNITS: Final = 6  # whose clipped vectors are measured one by one
_FAR: Final = 1e3  # how far out of bounds an adversarial record's features lie


class _Source(Protocol):
    """Where clipped sums come from; the numbers of the units are the last argument."""

    def sum_of(self, *args: Any) -> NDArray[np.float64]: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Release:
    """One release: what is known of it, and all of it as the site used it."""

    step: Step
    whole: NDArray[Any]


@dataclass(kw_only=True, eq=False)
class Book:
    """What a learner did since its releases were last taken.

    Attributes:
        summed: the sums that were made and not released yet: numbers of the units, own part, the canaries' part.
        releases: in their order.
    """

    summed: list[tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]] = field(default_factory=list)
    releases: list[Release] = field(default_factory=list)

    def take(self) -> list[Release]:
        """Return the releases, and forget them and every sum that came to none."""
        taken, self.releases = self.releases, []
        self.summed.clear()
        return taken


@dataclass(frozen=True, eq=False)
class _WithCanaries:
    source: _Source
    own: int
    canaries: Canaries
    clipping_norm: float
    summed: Callable[[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]], None]

    def sum_of(self, *args: Any) -> NDArray[np.float64]:
        """Return the clipped sum over units, the canaries among them included."""
        drawn: NDArray[np.int64] = args[-1]
        data = self.source.sum_of(*args[:-1], drawn[drawn < self.own])
        planted = drawn[drawn >= self.own] - self.own
        canaries = self.canaries.sum_of(planted, size=data.size, clipping_norm=self.clipping_norm)
        self.summed(drawn, data, canaries)
        return data + canaries


@dataclass(frozen=True, kw_only=True, eq=False)
class AuditedLearner(PrivateLearner):
    """A private learner that writes down what it sums and releases; what it does is :class:`PrivateLearner`'s.

    Attributes:
        bare: the same learner without canaries and notes.
        canaries: among its units.
        columns: the coordinates that are written down.
        book: where.
    """

    bare: PrivateLearner
    canaries: Canaries
    columns: NDArray[np.int64]
    book: Book = field(default_factory=Book)

    @property
    def units(self) -> int:
        """The learner's own, and the canaries that are there."""
        return self.bare.units + self.canaries.planted

    @cached_property
    def _clipped(self) -> Any:
        return self._with_canaries(self.bare._clipped)

    @cached_property
    def _grouped(self) -> Any:
        return self._with_canaries(self.bare._grouped)

    @property
    def _statistics(self) -> Any:
        return self._with_canaries(self.bare._statistics)

    def _with_canaries(self, source: _Source) -> _WithCanaries:
        return _WithCanaries(source, self.bare.units, self.canaries, self.clipping_norm, self._summed)

    def _summed(self, drawn: NDArray[np.int64], data: NDArray[np.float64], canaries: NDArray[np.float64]) -> None:
        self.book.summed.append((drawn.copy(), data[self.columns], canaries[self.columns]))

    def noised_share(self, vector: NDArray[np.float32], share: Share, grid: Quantisation) -> NDArray[np.int64]:
        """Return what the learner does, and write it down with the sign of the sum."""
        released = super().noised_share(vector, share, grid)
        self._release(released, -share.gamma * released[self.columns].astype(np.float64))
        return released

    def noised_statistics_share(self, share: Share, grid: Quantisation) -> NDArray[np.int64]:
        """Return what the learner does, and write it down."""
        released = super().noised_statistics_share(share, grid)
        self._release(released, share.gamma * released[self.columns].astype(np.float64))
        return released

    def _noisy_mean_of(self, total: NDArray[np.float64]) -> NDArray[np.float32]:
        mean = super()._noisy_mean_of(total)
        expected = self.sample_rate * self.learner.divisor
        self._release(mean, mean[self.columns].astype(np.float64) * expected)
        return mean

    def _release(self, whole: NDArray[Any], released: NDArray[np.float64]) -> None:
        nothing = (np.empty(0, np.int64), np.zeros(len(self.columns)), np.zeros(len(self.columns)))
        drawn, data, canaries = self.book.summed.pop() if self.book.summed else nothing
        step = Step(drawn=drawn, units=self.units, data=data, canaries=canaries, released=released)
        self.book.releases.append(Release(step=step, whole=whole.copy()))  # the trainer works on it

    def clipping(self, vector: NDArray[np.float32]) -> tuple[float, float]:
        """Return what clipping comes to for some units, as they are and far out of bounds, over C.

        The norm of the longest clipped vector of one of them; and how far their clipped sum is from the sum of each
        one's: clipping that looks at the batch instead of the unit shows there.
        """
        load_vector(self.learner.module, vector)
        units = np.unique(np.linspace(0, max(self.bare.units - 1, 0), _UNITS).astype(np.int64))[: self.bare.units]
        longest = apart = 0.0
        for scale in (1.0, _FAR) if len(units) else ():
            each = [self._sum_of(units[at : at + 1], scale) for at in range(len(units))]
            longest = max(longest, *(float(np.linalg.norm(one)) for one in each))
            apart = max(apart, float(np.linalg.norm(self._sum_of(units, scale) - np.sum(each, axis=0))))
        return longest / self.clipping_norm, apart / self.clipping_norm

    def _sum_of(self, units: NDArray[np.int64], scale: float) -> NDArray[np.float64]:
        learner = self.learner
        if learner.plan.strategy.site_work == "statistics":
            return self.bare._statistics.sum_of(units)
        if learner.table.groups is not None:
            return self.bare._grouped.sum_of(learner.features * scale, learner.targets, learner.table.groups, units)
        return self.bare._clipped.sum_of(learner.features * scale, learner.targets, units)


@dataclass(frozen=True, kw_only=True, eq=False)
class Retold(PrivateLearner):
    """A private learner without any record: it gives out, one by one, what another one released.

    What a site's half of a strategy makes of it can hold nothing else.
    """

    releases: list[NDArray[Any]]

    def noised_share(self, vector: NDArray[np.float32], share: Share, grid: Quantisation) -> NDArray[np.int64]:
        """Return the next release."""
        return self.releases.pop(0)

    def noised_statistics_share(self, share: Share, grid: Quantisation) -> NDArray[np.int64]:
        """Return the next release."""
        return self.releases.pop(0)

    def noisy_mean_gradient(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the next release."""
        load_vector(self.learner.module, vector)
        return self._noisy_mean()

    def noisy_mean_statistics(self) -> NDArray[np.float32]:
        """Return the next release."""
        return self._noisy_mean()

    def _noisy_mean(self) -> NDArray[np.float32]:
        return self.releases.pop(0)
