"""A contribution and metric sums as one integer vector, so that nothing but their sum over sites is ever seen."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsci.config.masking import grid_for
from fedsci.config.plan import Plan
from fedsci.errors import InputError
from fedsci.privacy.rounding_noise import LARGEST_CENTRE
from fedsci.secagg import Quantisation, RingVector, quantise
from fedsci.training.accountant import Cost, MetricNoise
from fedsci.training.metrics import caps, classes_of
from fedsci.training.noised_metrics import sums_of

LARGEST_NOISE = 32  # deviations; tables are cut at 13 each, so no draw comes near it


def room_for_noise(grid: Quantisation, *, deviation: float) -> int:
    """Return how large an integer may be, in grid steps, for no noise drawn on top of it to pass a site's bound.

    What lies within can be rounded, whatever the records: a refusal that depended on them would tell of them.

    Raises:
        InputError: the noise alone passes it.
    """
    room = min(grid.site_bound, LARGEST_CENTRE) - math.ceil(LARGEST_NOISE * deviation)
    if room <= 0:
        raise InputError("the ring has no room for the noise", hint="use secure_aggregation.ring_bits: 64")
    return room


@dataclass(frozen=True, kw_only=True)
class MetricTable:
    """The public grid of one vector of metric sums.

    Attributes:
        steps: what one integer stands for, for each number; float64.
        largest: the largest magnitude of each number of one site that is not noised; float64.
    """

    steps: NDArray[np.float64]
    largest: NDArray[np.float64]

    @property
    def width(self) -> int:
        """How many numbers there are."""
        return len(self.steps)


def exact_table(kind: str, grid: Quantisation, *, holdout: int, classes: int = 0) -> MetricTable:
    """Return the grid of exact metric sums: power-of-two steps, as fine as the grid's bound allows.

    Args:
        kind: the task's kind, which says what the metrics are.
        grid: bounds every integer of a site.
        holdout: the largest holdout of any site, public; it bounds the sums.
        classes: of a multiclass task.

    Raises:
        InputError: sums over so many records do not fit the ring.
    """
    largest = caps(kind, records=holdout, classes=classes)
    exponents = np.floor(np.log2(grid.levels / largest))
    if (exponents < 0).any():
        raise _too_many(holdout, grid)
    return MetricTable(steps=np.exp2(-np.minimum(exponents, 40)), largest=largest)


def noised_table(plan: Plan, noise: MetricNoise, *, holdout: int) -> MetricTable:
    """Return the grid of noised metric sums: that of the noise.

    Raises:
        InputError: sums over so many records do not fit the ring beside their noise.
    """
    width, grid = len(sums_of(plan)), grid_for(plan)
    if holdout > room_for_noise(grid, deviation=noise.share.deviation) * noise.share.gamma:
        raise _too_many(holdout, grid)
    return MetricTable(steps=np.full(width, noise.share.gamma), largest=np.full(width, np.inf))


def metric_table(plan: Plan, cost: Cost | None, *, noised: bool, holdout: int) -> MetricTable:
    """Return the grid of a study's metric sums, as every site and the coordinator derive it.

    Raises:
        InputError: the study has no noise for metrics, or sums over so many records do not fit the ring.
    """
    if not noised:
        return exact_table(plan.study.task.kind, grid_for(plan), holdout=holdout, classes=classes_of(plan.study))
    if cost is None or cost.metric_noise is None:
        raise InputError("a study without privacy has no noised metrics")
    return noised_table(plan, cost.metric_noise, holdout=holdout)


def _too_many(holdout: int, grid: Quantisation) -> InputError:
    return InputError(
        f"metric sums over {holdout} records do not fit a ring of {grid.ring.bits} bits",
        hint="use secure_aggregation.ring_bits: 64",
    )


@dataclass(frozen=True, kw_only=True)
class SumEncoding:
    """The public grid of one kind of upload; the same at every site and at the coordinator.

    Attributes:
        grid: for the contribution; also bounds every integer of a site.
        dimension: numbers of the contribution; 0 where there is none.
        tables: the metric vectors that follow it.
        step: what one integer of the contribution stands for: that of the noise, or None: the grid's own.
    """

    grid: Quantisation
    dimension: int
    tables: Sequence[MetricTable]
    step: float | None = None

    @property
    def length(self) -> int:
        """Integers in an upload."""
        return self.dimension + sum(table.width for table in self.tables)

    def encode(
        self,
        contribution: NDArray[np.float32] | NDArray[np.int64] | None,
        metrics: Sequence[NDArray[np.float64] | NDArray[np.int64] | None],
        *,
        weight: float,
    ) -> tuple[RingVector, int]:
        """Return the ring vector of one site, and how many coordinates were clipped (sensitive).

        Args:
            contribution: shape ``(dimension,)``, or None if ``dimension`` is 0; integers are steps already, and are
                not weighted: their noise is part of them.
            metrics: one vector for each table, integers being steps already; None contributes zeros: the site shows
                nothing.
            weight: public share of this site in the weighted mean, in (0, 1].
        """
        vector = self.grid.ring.zeros(self.length)
        signed = vector.view(self.grid.ring.signed_dtype)
        clipped = 0
        if contribution is not None and contribution.dtype.kind == "i":
            signed[: self.dimension] = self._checked(contribution)
        elif contribution is not None:
            coded = quantise(contribution.astype(np.float32, copy=False), self.grid, weight=weight)
            vector[: self.dimension], clipped = coded.vector, coded.clipped
        start = self.dimension
        for table, sums in zip(self.tables, metrics, strict=True):
            part = signed[start : start + table.width]
            if sums is not None and sums.dtype.kind == "i":
                part[:] = self._checked(sums)
            elif sums is not None:
                values = np.clip(np.nan_to_num(sums), -table.largest, table.largest)
                part[:] = np.rint(values / table.steps).astype(signed.dtype)
            start += table.width
        return vector, clipped

    def decode(self, total: NDArray[np.signedinteger]) -> tuple[NDArray[np.float32], list[NDArray[np.float64]]]:
        """Return the weighted sum of contributions and the metric sums over all survivors."""
        step = self.grid.step if self.step is None else self.step
        contribution = np.multiply(total[: self.dimension], step, dtype=np.float64).astype(np.float32)
        sums, start = [], self.dimension
        for table in self.tables:
            sums.append(total[start : start + table.width] * table.steps)
            start += table.width
        return contribution, sums

    def _checked(self, steps: NDArray[Any]) -> NDArray[Any]:
        if np.abs(steps).max(initial=0) > self.grid.site_bound:
            raise InputError("a noised sum passes the ring's bound")
        return steps


def step_of(plan: Plan, cost: Cost | None) -> float:
    """Return what one integer of a plan's contributions stands for."""
    if cost is not None and cost.share is not None:
        return cost.share.gamma
    return grid_for(plan).step
