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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import torch
from torch import Tensor

CANCELLATION: Final = 100.0
ROUNDING: Final = 512 * 2.0**-53 * CANCELLATION
"""What the rounding of weighted products adds to the distance of neighbouring sums, a record, over C."""
_BLOCK_TERMS: Final = 512
_BLOCK_VALUES: Final = 1 << 17  # float32 values that stay in a core's cache
_UNIT: Final = 2.0**-52
_RUN: Final = 64
_RUN_ERROR: Final = (_RUN + 2) * 2.0**-24
_LONG: Final = 4096
_SMALLEST_SQUARE: Final = 1e-18


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

    def stored(self) -> tuple[Tensor, ...]:
        """Return all that is kept of the records, each tensor with one entry a record."""

    def add_to(self, total: Tensor, factors: Tensor, left_out: Tensor | None) -> None:
        """Add the records times ``factors`` to the flat float64 ``total``; those ``left_out`` count as zeros."""


@dataclass(frozen=True, eq=False)
class Rows:
    """The gradients themselves, measured as soon as they are made.

    Attributes:
        values: ``(n, d)``, float32 or float64.
        squares: float64 ``(n,)``, see :func:`squared_norms`.
    """

    values: Tensor
    squares: Tensor

    @classmethod
    def of(cls, values: Tensor) -> "Rows":
        """Return gradients ``(n, d)``."""
        return cls(values, squared_norms(values))

    @classmethod
    def of_products(cls, left: Tensor, right: Tensor) -> "Rows":
        """Return gradients sum_t g_t aᵀ_t from ``(n, t, rows)`` and ``(n, t, columns)``."""
        n, width = len(left), left.shape[2] * right.shape[2]
        values, squares = left.new_empty(n, width), left.new_empty(n, dtype=torch.float64)
        step = _largest_divisor(n, at_most=_BLOCK_VALUES // width)  # equal shapes, so that no place is special
        for start in range(0, n, step):  # measured while a core's cache holds them
            rows = slice(start, start + step)
            made = values[rows]
            torch.bmm(left[rows].mT, right[rows], out=made.view(len(made), left.shape[2], right.shape[2]))
            squares[rows] = squared_norms(made)
        return cls(values, squares)

    @property
    def values_per_record(self) -> int:
        """See :class:`Piece`."""
        return self.values.shape[1]

    def lengths(self) -> Lengths:
        """See :class:`Piece`; the spread is the norm, since one vector a record is added."""
        return Lengths(self.squares, self.squares)

    def stored(self) -> tuple[Tensor, ...]:
        """See :class:`Piece`."""
        return self.values, self.squares

    def add_to(self, total: Tensor, factors: Tensor, left_out: Tensor | None) -> None:
        """See :class:`Piece`."""
        n, width = self.values.shape
        step = max(1, _BLOCK_VALUES // (2 * n))  # half, as they become float64
        for start in range(0, width, step):
            columns = slice(start, start + step)
            total[columns].addmv_(_without(self.values[:, columns].double(), left_out).T, factors)


def squared_norms(values: Tensor) -> Tensor:
    """Return float64 ``(n,)``, each at least the squared norm of its row and at most 1.000005 times that.

    Long float32 rows are measured in runs of 64 values, whose squares are summed in float32 and are all positive:
    no order of summation errs by more than 66 * 2^-24 of the sum, which is added. Rows so small or large that a
    square may leave float32's range are measured in float64.
    """
    width = values.shape[1]
    if values.dtype != torch.float32 or width < _LONG:
        return _exact_squares(values)
    whole = width - width % _RUN
    runs: Tensor = torch.linalg.vector_norm(values[:, :whole].reshape(len(values), -1, _RUN), dim=2)
    squares: Tensor = runs.double().square().sum(1) * (1 + _RUN_ERROR) + _exact_squares(values[:, whole:])
    unsure = ~((squares > _SMALLEST_SQUARE) & squares.isfinite())
    if unsure.any():
        squares[unsure] = _exact_squares(values[unsure])
    return squares


def _exact_squares(values: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(values.double(), dim=1)
    return norms.square()


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
        squares = torch.linalg.vector_norm(self.values, dim=(1, 2)).square()
        return Lengths(squares, squares)

    def stored(self) -> tuple[Tensor, ...]:
        """See :class:`Piece`."""
        return self.numbers, self.values

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
        left_norms: of each g, float64 ``(n, t)``.
        right_norms: of each a.
    """

    left: Tensor
    right: Tensor
    left_norms: Tensor
    right_norms: Tensor

    @classmethod
    def of(cls, left: Tensor, right: Tensor) -> "Products":
        """Return gradients from g and a of any float type."""
        left, right = left.double(), right.double()
        return cls(left, right, torch.linalg.vector_norm(left, dim=2), torch.linalg.vector_norm(right, dim=2))

    @property
    def values_per_record(self) -> int:
        """See :class:`Piece`; twice, as they are float64."""
        return 2 * self.left.shape[1] * (self.left.shape[2] + self.right.shape[2])

    def lengths(self) -> Lengths:
        """See :class:`Piece`."""
        spreads = (self.left_norms * self.right_norms).sum(1).square()
        positions = self.left.shape[1]
        if positions == 1:
            return Lengths(spreads, spreads)
        products = torch.bmm(self.left, self.left.mT) * torch.bmm(self.right, self.right.mT)
        terms = self.left.shape[2] + self.right.shape[2] + positions**2
        return Lengths(products.sum((1, 2)).clamp(min=0) + terms * _UNIT * spreads, spreads)

    def stored(self) -> tuple[Tensor, ...]:
        """See :class:`Piece`."""
        return self.left, self.right, self.left_norms, self.right_norms

    def add_to(self, total: Tensor, factors: Tensor, left_out: Tensor | None) -> None:
        """See :class:`Piece`."""
        left, right = _without(self.left, left_out), _without(self.right, left_out)
        matrix = total.view(left.shape[2], right.shape[2])
        if left.shape[2] < right.shape[2]:
            left = left * factors[:, None, None]
        else:
            right = right * factors[:, None, None]
        step = max(1, _BLOCK_TERMS // left.shape[1]) if left.shape[1] > 1 else len(left)
        for start in range(0, len(left), step):
            rows = slice(start, start + step)
            matrix.addmm_(left[rows].flatten(0, 1).T, right[rows].flatten(0, 1))


def norms_of(pieces: Sequence[Piece]) -> Tensor:
    """Return float64 ``(n,)``: what to clip each record by; at least the norm of its gradient.

    Larger than the norm only where a record's terms are ``CANCELLATION`` times as long as their sum.
    """
    lengths = [piece.lengths() for piece in pieces]
    norms: Tensor = torch.stack([item.squared_norms for item in lengths]).sum(0).sqrt()
    if all(item.squared_spreads is item.squared_norms for item in lengths):
        return norms
    spreads: Tensor = torch.stack([item.squared_spreads for item in lengths]).sum(0).sqrt()
    return torch.maximum(norms, spreads / CANCELLATION)  # NaN if either is


def _largest_divisor(n: int, *, at_most: int) -> int:
    return next((step for step in range(min(n, at_most), 1, -1) if n % step == 0), 1)


def _without(values: Tensor, left_out: Tensor | None) -> Tensor:
    if left_out is None:
        return values
    return values.masked_fill(left_out.view(-1, *[1] * (values.ndim - 1)), 0.0)
