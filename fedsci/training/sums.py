"""A contribution and metric sums as one integer vector, so that nothing but their sum over sites is ever seen."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsci.config.masking import grid_for
from fedsci.config.plan import Plan
from fedsci.errors import InputError
from fedsci.secagg import Quantisation, RingVector, quantise
from fedsci.training.accountant import Cost
from fedsci.training.metrics import MetricSums, caps, names_of


@dataclass(frozen=True, kw_only=True)
class SumEncoding:
    """The public grid of one kind of upload; the same at every site and at the coordinator.

    Attributes:
        grid: for the contribution; also bounds every integer of a site.
        kind: the task's kind, which says what the metrics are.
        dimension: numbers of the contribution; 0 where there is none.
        tables: how many metric vectors follow it.
        holdout: the largest holdout of any site, public; it bounds metric sums.
        step: what one integer of the contribution stands for: that of the noise, or None: the grid's own.
    """

    grid: Quantisation
    kind: str
    dimension: int
    tables: int
    holdout: int
    step: float | None = None

    @property
    def length(self) -> int:
        """Integers in an upload."""
        return self.dimension + self.tables * len(names_of(self.kind))

    @property
    def scales(self) -> NDArray[np.float64]:
        """Power-of-two steps a unit for each metric, as fine as the grid's bound allows."""
        largest = caps(self.kind, records=self.holdout)
        exponents = np.floor(np.log2(self.grid.levels / largest))
        if (exponents < 0).any():
            raise InputError(
                f"metric sums over {self.holdout} records do not fit a ring of {self.grid.ring.bits} bits",
                hint="use secure_aggregation.ring_bits: 64",
            )
        return np.exp2(np.minimum(exponents, 40))

    def encode(
        self,
        contribution: NDArray[np.float32] | NDArray[np.int64] | None,
        metrics: list[MetricSums | None],
        *,
        weight: float,
    ) -> tuple[RingVector, int]:
        """Return the ring vector of one site, and how many coordinates were clipped (sensitive).

        Args:
            contribution: shape ``(dimension,)``, or None if ``dimension`` is 0; integers are steps already, and are
                not weighted: their noise is part of them.
            metrics: ``tables`` metric sums; None contributes zeros: the site shows nothing.
            weight: public share of this site in the weighted mean, in (0, 1].
        """
        vector = self.grid.ring.zeros(self.length)
        signed = vector.view(self.grid.ring.signed_dtype)
        clipped = 0
        if contribution is not None and contribution.dtype.kind == "i":
            if np.abs(contribution).max(initial=0) > self.grid.site_bound:
                raise InputError("a noised sum passes the ring's bound")
            signed[: self.dimension] = contribution
        elif contribution is not None:
            coded = quantise(contribution.astype(np.float32, copy=False), self.grid, weight=weight)
            vector[: self.dimension], clipped = coded.vector, coded.clipped
        largest, start = caps(self.kind, records=self.holdout), self.dimension
        for sums in metrics:
            if sums is not None:
                values = np.clip(np.nan_to_num(sums.values), -largest, largest)
                signed[start : start + len(values)] = np.rint(values * self.scales).astype(signed.dtype)
            start += len(largest)
        return vector, clipped

    def decode(self, total: NDArray[np.signedinteger]) -> tuple[NDArray[np.float32], list[MetricSums]]:
        """Return the weighted sum of contributions and the metric sums over all survivors."""
        step = self.grid.step if self.step is None else self.step
        contribution = np.multiply(total[: self.dimension], step, dtype=np.float64).astype(np.float32)
        width = len(names_of(self.kind))
        starts = range(self.dimension, self.length, width)
        tables = [MetricSums(kind=self.kind, values=total[i : i + width] / self.scales) for i in starts]
        return contribution, tables


def step_of(plan: Plan, cost: Cost | None) -> float:
    """Return what one integer of a plan's contributions stands for."""
    if cost is not None and cost.share is not None:
        return cost.share.gamma
    return grid_for(plan).step
