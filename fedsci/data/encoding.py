"""One column at a time, from what a file holds to model inputs. Only the public schema sets any scale."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsci.data.schema import (
    ArrayFeature,
    BinaryTarget,
    Category,
    CategoryFeature,
    MulticlassTarget,
    NumericFeature,
    RegressionTarget,
)
from fedsci.data.values import is_missing, matching_key, missing_mask, parse_number, show, show_all
from fedsci.errors import DataError

_UNSEEN = -1
_MISSING = -2


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a column was read, so that an error can name file, row and column."""

    source: str
    column: str
    row_label: Callable[[int], str]

    def error(self, row: int, found: str, *, hint: str) -> DataError:
        """Return the error for what was ``found`` in one row."""
        return DataError(f"{self.source}: {self.row_label(row)}: column {self.column!r}: {found}", hint=hint)

    def column_error(self, found: str, *, hint: str) -> DataError:
        """Return the error for what was ``found`` of the column as a whole."""
        return DataError(f"{self.source}: column {self.column!r} {found}", hint=hint)


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedColumn:
    """One column for all rows, before rows with gaps are dropped.

    Attributes:
        block: float32, shape ``(n, inputs)``; or the target, shape ``(n,)``.
        missing: which rows had a gap.
        clipped: how many of the row's values were outside the bounds.
        unseen: which rows held a value outside the categories.
    """

    block: NDArray[Any]
    missing: NDArray[np.bool_]
    clipped: NDArray[np.int64]
    unseen: NDArray[np.bool_]


def encode_feature(
    column: NDArray[Any], feature: NumericFeature | CategoryFeature | ArrayFeature, place: Place, *, impute: bool
) -> EncodedColumn:
    """Return a feature's model inputs; under ``impute`` with its missing flag as the last of them."""
    if isinstance(feature, ArrayFeature):
        return _encode_array(column, feature, place)
    if isinstance(feature, NumericFeature):
        values = _numbers(column, place)
        missing = np.isnan(values)
        scaled, clipped = _scale(values, feature.minimum, feature.maximum)
        if feature.mean is not None:
            scaled = _standardised(values, feature)
        block = scaled[:, None]
        unseen = np.zeros(len(column), dtype=np.bool_)
    else:
        codes = _codes(column, feature.categories, place)
        missing, unseen = codes == _MISSING, codes == _UNSEEN
        if feature.unseen == "refuse":
            _refuse_unseen(column, unseen, feature.categories, place)
        clipped = np.zeros(len(column), dtype=np.int64)
        block = np.zeros((len(column), len(feature.categories) + 1), dtype=np.float32)
        seen = np.flatnonzero(codes >= 0)
        block[seen, codes[seen]] = 1.0
        block[unseen, -1] = 1.0
        if feature.unseen == "refuse":
            block = block[:, :-1]
    if impute:
        block = np.concatenate([block, missing[:, None].astype(np.float32)], axis=1)
    return EncodedColumn(block=block, missing=missing, clipped=clipped, unseen=unseen)


def encode_target(
    column: NDArray[Any], target: BinaryTarget | MulticlassTarget | RegressionTarget, place: Place
) -> EncodedColumn:
    """Return the target of each row; a value outside the classes is always an error."""
    none = np.zeros(len(column), dtype=np.int64)
    if isinstance(target, RegressionTarget):
        values = _numbers(column, place)
        missing = np.isnan(values)
        scaled, clipped = _scale(values, target.minimum, target.maximum)
        return EncodedColumn(block=scaled, missing=missing, clipped=clipped, unseen=none.astype(np.bool_))
    if isinstance(target, MulticlassTarget):
        codes = _codes(column, target.classes, place)
        _refuse_unseen(column, codes == _UNSEEN, target.classes, place)
    else:
        codes = _binary_codes(column, target, place)
    missing = codes == _MISSING
    block = np.where(missing, 0, codes)
    return EncodedColumn(block=block, missing=missing, clipped=none, unseen=none.astype(np.bool_))


def _binary_codes(column: NDArray[Any], target: BinaryTarget, place: Place) -> NDArray[np.int64]:
    default = target.positive is None and target.negative is None
    positive: tuple[Category, ...] = (1,) if default else target.positive or ()
    negative: tuple[Category, ...] = (0,) if default else target.negative or ()
    codes = _codes(column, positive + negative, place)
    if default or (positive and negative):
        allowed = ("0, 1, false, true, no, yes",) if default else positive + negative
        _refuse_unseen(column, codes == _UNSEEN, allowed, place)
    is_positive = (codes >= 0) & (codes < len(positive))
    if not positive:
        is_positive = codes == _UNSEEN
    return np.where(codes == _MISSING, _MISSING, is_positive).astype(np.int64)


def _numbers(column: NDArray[Any], place: Place) -> NDArray[np.float64]:
    """Return finite numbers, and NaN where missing."""
    column = _one_a_row(column, place)
    if column.dtype.kind in "biuf":
        values = column.astype(np.float64)
    else:
        values = np.fromiter(
            (_number(value, row, place) for row, value in enumerate(column)), np.float64, count=len(column)
        )
    infinite = np.flatnonzero(np.isinf(values))
    if len(infinite):
        row = int(infinite[0])
        raise place.error(row, f"{show(column[row])} is infinite", hint="write a finite number, or leave it empty")
    return values


def _number(value: object, row: int, place: Place) -> float:
    if not isinstance(value, str):
        if is_missing(value):
            return math.nan
        if isinstance(value, bool | int | float | np.number | np.bool_):
            return float(value)
    text = str(value)
    try:
        return parse_number(text)
    except ValueError as problem:
        hint = (
            "write numbers with a decimal point"
            if "," in text
            else f"write a number, list {text.strip()!r} as missing, or give the column categories"
        )
        raise place.error(row, f"{show(text)} {problem}", hint=hint) from None


def _scale(
    values: NDArray[np.float64], minimum: float, maximum: float
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return values scaled to [-1, 1] and whether each was clipped; NaN becomes 0, the middle of the bounds."""
    middle = minimum + (maximum - minimum) / 2.0
    numbers = np.where(np.isnan(values), middle, values)
    inside = np.clip(numbers, minimum, maximum)
    scaled = np.clip((inside - minimum) / (maximum - minimum) * 2.0 - 1.0, -1.0, 1.0)
    scaled[np.isnan(values)] = 0.0  # exactly, whatever the rounding
    return scaled.astype(np.float32), (inside != numbers).astype(np.int64)


def _standardised(values: NDArray[np.float64], feature: NumericFeature) -> NDArray[np.float32]:
    """Return values, clipped to the bounds, in deviations from the mean; NaN becomes 0, the mean."""
    scale = feature.scale
    inside = np.clip(np.where(np.isnan(values), scale.centre, values), feature.minimum, feature.maximum)
    return np.asarray((inside - scale.centre) / scale.unit, dtype=np.float32)


def _codes(column: NDArray[Any], categories: Sequence[Category], place: Place) -> NDArray[np.int64]:
    """Return each row's index into ``categories``, or the marks for missing and unseen."""
    column = _one_a_row(column, place)
    index = {matching_key(category): code for code, category in enumerate(categories)}
    codes = np.full(len(column), _MISSING, dtype=np.int64)
    present = np.flatnonzero(~missing_mask(column))
    if column.dtype.kind == "O":
        known: dict[Any, int] = {}
        for row in present:
            value = column[row]
            code = known.get(value)
            if code is None:
                code = known[value] = index.get(matching_key(value), _UNSEEN)
            codes[row] = code
        return codes
    distinct, inverse = np.unique(column[present], return_inverse=True)
    table = np.array([index.get(matching_key(value), _UNSEEN) for value in distinct], dtype=np.int64)
    codes[present] = table[inverse]
    return codes


def _refuse_unseen(column: NDArray[Any], unseen: NDArray[np.bool_], allowed: Sequence[Category], place: Place) -> None:
    rows = np.flatnonzero(unseen)
    if len(rows):
        row = int(rows[0])
        value = column.reshape(len(column))[row]
        raise place.error(
            row,
            f"{show(value)} is not one of {show_all(allowed)}",
            hint="correct the value, or list it in the study",
        )


def _one_a_row(column: NDArray[Any], place: Place) -> NDArray[Any]:
    if column.size != len(column):
        raise place.column_error(
            f"holds an array of shape {list(column.shape[1:])} a row, where one value was wanted",
            hint="declare the column with `shape`, or use another column",
        )
    return column.reshape(len(column))


def _encode_array(column: NDArray[Any], feature: ArrayFeature, place: Place) -> EncodedColumn:
    """Return the flattened, scaled array; a NaN entry becomes 0, the middle of the bounds, and a gap."""
    rows, size = len(column), math.prod(feature.shape)
    if column.dtype.kind not in "biuf":
        raise place.column_error(
            f"holds text, where an array of shape {list(feature.shape)} was wanted",
            hint="store arrays as numbers, in NPZ or Parquet",
        )
    flat = column.ndim == 2 or (column.ndim == 1 and size == 1)
    if column.shape[1:] != feature.shape and not (flat and column.size == rows * size):
        raise place.column_error(
            f"has shape {list(column.shape[1:])} a row, where the study says {list(feature.shape)}",
            hint="correct `shape` in the study, or the file",
        )
    values = column.reshape(rows, size).astype(np.float64)
    infinite = np.argwhere(np.isinf(values))
    if len(infinite):
        raise place.error(int(infinite[0][0]), "an entry is infinite", hint="write finite numbers, or NaN for a gap")
    gaps = np.isnan(values)
    scaled, clipped = _scale(values, feature.minimum, feature.maximum)
    return EncodedColumn(
        block=scaled,
        missing=np.asarray(gaps.any(axis=1), dtype=np.bool_),
        clipped=clipped.sum(axis=1),
        unseen=np.zeros(rows, dtype=np.bool_),
    )
