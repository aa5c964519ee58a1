"""The clipped sum of a site's per-record statistics, for strategies of one exchange."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsci.data.table import Table
from fedsci.errors import InputError
from fedsci.privacy.clipping import clip_rows, most_summed
from fedsci.strategies.one_exchange import OneExchange, Records

PER_PASS = 256  # records whose vectors are held at once, at most
_NUMBERS_PER_PASS = 2**22


@dataclass(frozen=True, kw_only=True, eq=False)
class ClippedStatistics:
    """A strategy's statistics beside one table of records.

    Attributes:
        strategy: says what a record's vector is.
        table: the records.
        clipping_norm: L2 bound C of one unit's vector: the sensitivity of the sum when one is added or removed.
        one_by_one: show the strategy one record at a time: then none of the others is there to be in its vector, unless
            the strategy remembers.
    """

    strategy: OneExchange
    table: Table
    clipping_norm: float
    one_by_one: bool = False

    @property
    def most_units(self) -> int:
        """Over how many records, or groups, a sum keeps the clipping norm in float64."""
        return most_summed(self.per_pass if self.table.groups is None else 1)

    @property
    def per_pass(self) -> int:
        """How many records' vectors are held at once; public, from their size."""
        return max(1, min(PER_PASS, _NUMBERS_PER_PASS // self.strategy.numbers))

    def sum_of(self, units: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the sum of the units' clipped vectors, float64 ``(k,)``.

        Args:
            units: rows, or numbers of groups where the table has them. A group's vector is the mean of its records',
                added up in their own order, and clipped as one.
        """
        total = np.zeros(self.strategy.numbers)
        if self.table.groups is None:
            for start in range(0, len(units), self.per_pass):
                rows = self._vectors(units[start : start + self.per_pass])
                total += clip_rows(rows, self.clipping_norm).sum(axis=0)
            return total
        order = np.argsort(self.table.groups, kind="stable")
        edges = np.searchsorted(self.table.groups[order], [units, units + 1])
        for first, last in edges.T.tolist():
            mean = self._sum_of_group(order[first:last]) / (last - first)
            total += clip_rows(mean[None], self.clipping_norm)[0]
        return total

    def _sum_of_group(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the sum over one group; where its passes end depends on the group alone."""
        total = np.zeros(self.strategy.numbers)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite counts as zeros
            for start in range(0, len(rows), self.per_pass):
                total += self._vectors(rows[start : start + self.per_pass]).sum(axis=0)
        return total

    def _vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the rows' vectors, float64 ``(n, k)``.

        Raises:
            InputError: the strategy returned something else.
        """
        parts = rows[:, None] if self.one_by_one else [rows]
        found = []
        for part in parts:
            # a copy: a strategy may write every record's vector into the same array
            vectors = np.array(self.strategy.statistics(self._records(part)))
            if vectors.dtype != np.float64 or vectors.shape != (len(part), self.strategy.numbers):
                raise InputError(
                    f"{self.strategy.name}: the statistics of {len(part)} records are {vectors.dtype} of shape "
                    f"{list(vectors.shape)}, not float64 of shape {[len(part), self.strategy.numbers]}"
                )
            found.append(vectors)
        return np.concatenate(found)

    def _records(self, rows: NDArray[np.int64]) -> Records:
        gaps = self.table.gaps
        missing = np.zeros((len(rows), len(self.strategy.shape.columns)), np.bool_) if gaps is None else gaps[rows]
        return Records(features=self.table.features[rows], target=self.table.target[rows], missing=missing)
