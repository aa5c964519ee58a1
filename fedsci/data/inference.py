"""A starting schema guessed from a file, for whoever may look at all of it.

The bounds are statistics of the data. That is harmless for a simulated study, whose data is in one hand;
a real study writes bounds that are known without looking.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

from numpy.typing import NDArray

from fedsci.data.encoding import Place
from fedsci.data.schema import (
    BinaryTarget,
    Category,
    CategoryFeature,
    Feature,
    MulticlassTarget,
    NumericFeature,
    RegressionTarget,
    Schema,
    Target,
)
from fedsci.data.table import RawTable
from fedsci.data.values import is_missing, matching_key, missing_mask, parse_number
from fedsci.errors import DataError

_MOST_INTEGER_CATEGORIES = 10
_MOST_INTEGER_CLASSES = 20
_MOST_TEXT_CATEGORIES = 100
_FEWEST_TEXT_CATEGORIES = 10


@dataclass(frozen=True, kw_only=True)
class InferredSchema:
    """A schema that fits the file, and the columns it leaves out, each with the reason."""

    schema: Schema
    left_out: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class _Column:
    """A column's distinct values; sorted, by value if all are numbers, else ``numbers`` is None."""

    rows: int
    texts: list[str]
    numbers: list[float] | None

    @property
    def integers(self) -> bool:
        return self.numbers is not None and all(number.is_integer() for number in self.numbers)

    @property
    def too_varied(self) -> bool:
        most = max(_FEWEST_TEXT_CATEGORIES, min(_MOST_TEXT_CATEGORIES, self.rows // 4))
        return self.numbers is None and len(self.texts) > most

    def categories(self) -> tuple[Category, ...]:
        if self.numbers is None:
            return tuple(self.texts)
        return tuple(_as_number(text, number) for text, number in zip(self.texts, self.numbers, strict=True))


def infer_schema(raw: RawTable, *, target: str, source: str) -> InferredSchema:
    """Return a schema that every row of ``raw`` fits; ``missing`` is ``drop`` if there are gaps.

    Raises:
        DataError: if the target is no usable target, a number is infinite, or no column is a usable feature.
    """
    features: list[Feature] = []
    left_out: dict[str, str] = {}
    for name, values in raw.columns.items():
        if name == target:
            continue
        column = _column(values, Place(source=source, column=name, row_label=raw.row_label))
        if not column.texts:
            left_out[name] = "every value is missing"
        elif column.too_varied:
            left_out[name] = f"{len(column.texts)} different texts: an identifier or free text"
        else:
            features.append(_feature(name, column))
    place = Place(source=source, column=target, row_label=raw.row_label)
    chosen = _target(target, _column(raw.columns[target], place), place)
    if not features:
        raise DataError(f"{source}: no column besides the target is usable", hint="a model needs at least one")
    used = [raw.columns[feature.name] for feature in features] + [raw.columns[target]]
    gaps = any(missing_mask(column).any() for column in used)
    return InferredSchema(
        schema=Schema(features=tuple(features), target=chosen, missing="drop" if gaps else "refuse"),
        left_out=left_out,
    )


def round_outward(minimum: float, maximum: float) -> tuple[float, float]:
    """Return bounds of two significant digits around both, apart even if they were equal.

    >>> round_outward(126.0, 564.0)
    (120.0, 570.0)
    """
    low, high = _two_digits(minimum, ROUND_FLOOR), _two_digits(maximum, ROUND_CEILING)
    if low == high:
        high = _two_digits(high + (abs(high) * 0.1 or 1.0), ROUND_CEILING)
    return low, high


def _two_digits(value: float, rounding: str) -> float:
    exact = Decimal(repr(float(value)))
    if not exact:
        return 0.0
    rounded = float(exact.quantize(Decimal((0, (1,), exact.adjusted() - 1)), rounding=rounding))
    return rounded if math.isfinite(rounded) else value


def _column(values: NDArray[Any], place: Place) -> _Column:
    first_rows: dict[str, int] = {}
    for row, value in enumerate(values):
        if not is_missing(value):
            first_rows.setdefault(str(value).strip(), row)
    by_key = {matching_key(text): text for text in reversed(first_rows)}
    # One spelling that is no number makes the column text, though it may match a number, as "no" does 0.
    if any(_number(text, row, place) is None for text, row in first_rows.items()):
        return _Column(rows=len(values), texts=sorted(by_key.values()), numbers=None)
    numbers = sorted((parse_number(text), text) for text in by_key.values())
    return _Column(
        rows=len(values),
        texts=[text for _, text in numbers],
        numbers=[number for number, _ in numbers],
    )


def _number(text: str, row: int, place: Place) -> float | None:
    """Return the number, or None for other text; infinity fits neither and is refused."""
    try:
        return parse_number(text)
    except ValueError as problem:
        if "infinite" in str(problem):
            raise place.error(row, f"{text!r} {problem}", hint="write a finite number") from None
        return None


def _as_number(text: str, number: float) -> Category:
    """Return the number, or its text where a float cannot hold it exactly."""
    if matching_key(number) != matching_key(text):
        return text
    return int(number) if number.is_integer() and abs(number) < 1e15 else number


def _bounds(numbers: Iterable[float]) -> tuple[float, float]:
    ordered = list(numbers)
    return round_outward(ordered[0], ordered[-1])


def _feature(name: str, column: _Column) -> Feature:
    few = column.integers and len(column.texts) <= _MOST_INTEGER_CATEGORIES
    if column.numbers is None or few:
        return CategoryFeature(name=name, categories=column.categories())
    minimum, maximum = _bounds(column.numbers)
    return NumericFeature(name=name, minimum=minimum, maximum=maximum)


def _target(name: str, column: _Column, place: Place) -> Target:
    distinct = len(column.texts)
    if distinct < 2:
        raise place.column_error(
            f"has {distinct} different value{'s' if distinct != 1 else ''}, too few for a target",
            hint="choose another target",
        )
    if distinct == 2:
        first, last = column.categories()
        return BinaryTarget(name=name, positive=(first if matching_key(first) == "1" else last,))
    if column.too_varied:
        raise place.column_error(
            f"holds {distinct} different texts, which looks like an identifier", hint="choose another target"
        )
    if column.numbers is None or (column.integers and distinct <= _MOST_INTEGER_CLASSES):
        return MulticlassTarget(name=name, classes=column.categories())
    minimum, maximum = _bounds(column.numbers)
    return RegressionTarget(name=name, minimum=minimum, maximum=maximum)
