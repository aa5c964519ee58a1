"""One parameter's gradient for every record of a pass: how long it is, and its weighted sum over records.

Three forms, which differ in what is stored for a record:

| form | stored | the norm is | what rounding within a record adds to the sum |
|---|---|---|---|
| ``Rows`` | the gradient | that of the stored vector | nothing |
| ``TableRows`` | its rows that are not zero | that of the stored vector | nothing |
| ``Products`` | factors g, a of each position | from inner products, rounded up | see below |

``Products``: with A = sum over positions of |g||a|, any order of summation of K terms in float64 errs by at most
K 2^-53 A a record. Blocks hold K <= 512 terms and a record's share of A is limited to ``CANCELLATION`` times C
(:func:`norms_of`), so 200,000 records make 200,000 * 512 * 2^-53 * 100 C = 1.2e-6 C. With one position nothing
cancels, A is the norm, and the sum errs no more than one of float64 vectors.

Sums over records are float64 in every form; their rounding is counted in :mod:`fedsci.privacy.clipping`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import torch
from torch import Tensor

CANCELLATION: Final = 100.0
_BLOCK_TERMS: Final = 512
_BLOCK_VALUES: Final = 1 << 17  # a float64 block of this many values stays in a core's cache
_UNIT: Final = 2.0**-52


class Lengths(NamedTuple):
    """Of each record's gradient, float64 ``(n,)``; NaN or infinite where the record is damaged.

    Attributes:
        squared_norms: never below the squared norm of what is added.
        squared_spreads: squared sums of the norms of the terms that what is added is summed from.
    """

    squared_norms: Tensor
    squared_spreads: Tensor


class Piece(Protocol):
    """A parameter's gradient for each of ``n`` records."""

    @property
    def values_per_record(self) -> int:
        """How many numbers are stored for a record."""

    def lengths(self) -> Lengths:
        """Return how long each record's gradient is."""

    def add_to(self, total: Tensor, factors: Tensor, left_out: Tensor | None) -> None:
        """Add the records times ``factors`` to the flat float64 ``total``; those ``left_out`` count as zeros."""


@dataclass(frozen=True, eq=False)
class Rows:
    """The gradients themselves: ``values`` is ``(n, d)``, float32 or float64."""

    values: Tensor

    @property
    def values_per_record(self) -> int:
        """See :class:`Piece`."""
        return self.values.shape[1]

    def lengths(self) -> Lengths:
        """See :class:`Piece`; the spread is the norm, since one vector a record is added."""
        squares = [block.square().sum(1) for _, block in self._blocks()]
        total = squares[0] if len(squares) == 1 else torch.stack(squares).sum(0)
        return Lengths(total, total)

    def add_to(self, total: Tensor, factors: Tensor, left_out: Tensor | None) -> None:
        """See :class:`Piece`."""
        for start, block in self._blocks():
            total[start : start + block.shape[1]] += factors @ _without(block, left_out)

    def _blocks(self) -> Iterator[tuple[int, Tensor]]:
        """The values in float64, some columns at a time, each with its first column's number."""
        n, width = self.values.shape
        step = max(1, _BLOCK_VALUES // n)
        for start in range(0, width, step):
            yield start, self.values[:, start : start + step].double()


@dataclass(frozen=True, eq=False)
class TableRows:
    """The rows of an embedding table that a record read, each once.

    Attributes:
        numbers: int64 ``(n, t)``: which row of the table.
        values: float64 ``(n, t, width)``: the whole gradient of that row, zeros at a row's second mention.
    """

    numbers: Tensor
    values: Tensor

    @property
    def values_per_record(self) -> int:
        """See :class:`Piece`; twice, as they are float64."""
        return 2 * self.values.shape[1] * self.values.shape[2]

    def lengths(self) -> Lengths:
        """See :class:`Piece`."""
        squares = self.values.square().sum((1, 2))
        return Lengths(squares, squares)

    def add_to(self, total: Tensor, factors: Tensor, left_out: Tensor | None) -> None:
        """See :class:`Piece`."""
        width = self.values.shape[2]
        weighted = _without(self.values, left_out) * factors[:, None, None]
        total.view(-1, width).index_add_(0, self.numbers.reshape(-1), weighted.reshape(-1, width))


@dataclass(frozen=True, eq=False)
class Products:
    """Gradients sum_t g_t aᵀ_t of a matrix, not multiplied out.

    Attributes:
        left: g, float64 ``(n, t, rows)``.
        right: a, float64 ``(n, t, columns)``.
    """

    left: Tensor
    right: Tensor

    @property
    def values_per_record(self) -> int:
        """See :class:`Piece`; twice, as they are float64."""
        return 2 * self.left.shape[1] * (self.left.shape[2] + self.right.shape[2])

    def lengths(self) -> Lengths:
        """See :class:`Piece`."""
        left, right = self.left.square().sum(2), self.right.square().sum(2)
        positions = left.shape[1]
        if positions == 1:
            squares = (left * right)[:, 0]
            return Lengths(squares, squares)
        spread = (left * right).sqrt().sum(1).square()
        products = torch.bmm(self.left, self.left.mT) * torch.bmm(self.right, self.right.mT)
        terms = self.left.shape[2] + self.right.shape[2] + positions**2
        return Lengths(products.sum((1, 2)).clamp(min=0) + terms * _UNIT * spread, spread)

    def add_to(self, total: Tensor, factors: Tensor, left_out: Tensor | None) -> None:
        """See :class:`Piece`."""
        left = _without(self.left, left_out) * factors[:, None, None]
        right = _without(self.right, left_out)
        matrix = total.view(left.shape[2], right.shape[2])
        step = max(1, _BLOCK_TERMS // left.shape[1])
        for start in range(0, len(left), step):
            rows = slice(start, start + step)
            matrix.addmm_(left[rows].flatten(0, 1).T, right[rows].flatten(0, 1))


def norms_of(pieces: Sequence[Piece]) -> Tensor:
    """Return float64 ``(n,)``: what to clip each record by; at least the norm of its gradient.

    Larger than the norm only where a record's terms are ``CANCELLATION`` times as long as their sum.
    """
    lengths = [piece.lengths() for piece in pieces]
    norms = torch.stack([item.squared_norms for item in lengths]).sum(0).sqrt()
    spreads = torch.stack([item.squared_spreads for item in lengths]).sum(0).sqrt()
    return torch.maximum(norms, spreads / CANCELLATION)  # NaN if either is


def _without(values: Tensor, left_out: Tensor | None) -> Tensor:
    if left_out is None:
        return values
    return values.masked_fill(left_out.view(-1, *[1] * (values.ndim - 1)), 0.0)
