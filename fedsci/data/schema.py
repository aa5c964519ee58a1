"""A study's public schema: what each column is, and what scales it.

Bounds and categories come from the study, never from a lab's data: a statistic of private data that set
the scaling would be a release that no budget paid for. Means and deviations are public too: somebody knew them, or a
study that was paid for measured them.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from fedsci.data.values import matching_key, show
from fedsci.errors import InputError
from fedsci.names import Digest, digest

Category: TypeAlias = str | int | float | bool
MissingRule = Literal["refuse", "drop", "impute"]
UnseenRule = Literal["other", "refuse"]

#: No deviation counts as less than this share of its bounds' width, so that no value is scaled beyond 1 / this.
LEAST_DEVIATION = 0.02


def _check_name(name: str) -> None:
    if not name or name != name.strip():
        raise InputError(
            f"column name {name!r} is not usable", hint="column names are not empty and not padded with spaces"
        )


def _check_bounds(name: str, minimum: float, maximum: float) -> None:
    if not (math.isfinite(minimum) and math.isfinite(maximum) and math.isfinite(maximum - minimum)):
        raise InputError(f"{name!r}: the bounds {minimum} to {maximum} are not finite", hint="give finite min and max")
    if not minimum < maximum:
        raise InputError(f"{name!r}: min {minimum} is not below max {maximum}", hint="give min below max")


def _check_moments(name: str, minimum: float, maximum: float, mean: float | None, deviation: float | None) -> None:
    if (mean is None) != (deviation is None):
        raise InputError(f"{name!r} has a mean or a deviation without the other", hint="give both, or neither")
    if mean is None or deviation is None:
        return
    if not minimum <= mean <= maximum:
        raise InputError(
            f"{name!r}: the mean {mean:g} is not within {minimum:g} to {maximum:g}", hint="give a mean in the bounds"
        )
    if not 0 <= deviation <= maximum - minimum:
        raise InputError(
            f"{name!r}: the deviation {deviation:g} is not between 0 and {maximum - minimum:g}",
            hint="give a deviation that values within the bounds can have",
        )


def _check_categories(name: str, categories: Sequence[Category], *, at_least: int) -> None:
    if len(categories) < at_least:
        raise InputError(f"{name!r} lists {len(categories)} values", hint=f"list at least {at_least}")
    seen: dict[str, Category] = {}
    for category in categories:
        key = matching_key(category)
        if not key or (isinstance(category, float) and not math.isfinite(category)):
            raise InputError(
                f"{name!r} lists {category!r}, which no value can match", hint="remove it; gaps are `missing`"
            )
        if key in seen:
            raise InputError(
                f"{name!r} lists {show(seen[key])} and {show(category)}, which are the same value",
                hint="keep one: numbers match by value, and yes, true and 1 are one value, as are no, false and 0",
            )
        seen[key] = category


@dataclass(frozen=True, kw_only=True)
class Scale:
    """An affine scaling: ``centre`` becomes 0, ``unit`` becomes 1; both in the column's own units."""

    centre: float
    unit: float

    @classmethod
    def of(cls, minimum: float, maximum: float, mean: float | None, deviation: float | None) -> "Scale":
        """Return the scale of a column: by mean and deviation where there are any, else by the bounds.

        >>> Scale.of(0, 10, None, None), Scale.of(0, 10, 4, 0.01)
        (Scale(centre=5.0, unit=5.0), Scale(centre=4, unit=0.2))
        """
        width = maximum - minimum
        if mean is None or deviation is None:
            return cls(centre=minimum + width / 2.0, unit=width / 2.0)
        return cls(centre=mean, unit=max(deviation, LEAST_DEVIATION * width))


@dataclass(frozen=True, kw_only=True)
class NumericFeature:
    """A number, clipped to its bounds and scaled so that ``minimum`` is -1 and ``maximum`` is 1.

    With ``mean`` and ``deviation``, in the column's own units, scaled to ``(value - mean) / deviation`` instead.
    """

    name: str
    minimum: float
    maximum: float
    mean: float | None = None
    deviation: float | None = None

    def __post_init__(self) -> None:
        _check_name(self.name)
        _check_bounds(self.name, self.minimum, self.maximum)
        _check_moments(self.name, self.minimum, self.maximum, self.mean, self.deviation)

    @property
    def scale(self) -> "Scale":
        """What becomes 0, and what is one unit of the scaled values."""
        return Scale.of(self.minimum, self.maximum, self.mean, self.deviation)


@dataclass(frozen=True, kw_only=True)
class CategoryFeature:
    """One of ``categories``, one-hot; ``unseen`` says what becomes of a value outside them."""

    name: str
    categories: tuple[Category, ...]
    unseen: UnseenRule = "other"

    def __post_init__(self) -> None:
        _check_name(self.name)
        _check_categories(self.name, self.categories, at_least=1)
        if self.unseen not in get_args(UnseenRule):
            raise InputError(f"{self.name!r}: unseen {self.unseen!r} is not known", hint="use other or refuse")


@dataclass(frozen=True, kw_only=True)
class ArrayFeature:
    """Numbers of one ``shape`` a row (an image, a spectrum), each scaled as a numeric feature is."""

    name: str
    shape: tuple[int, ...]
    minimum: float
    maximum: float

    def __post_init__(self) -> None:
        _check_name(self.name)
        _check_bounds(self.name, self.minimum, self.maximum)
        if not self.shape or min(self.shape) < 1:
            raise InputError(f"{self.name!r}: shape {list(self.shape)} is not usable", hint="sizes are 1 or more")


@dataclass(frozen=True, kw_only=True)
class BinaryTarget:
    """A yes or no.

    With neither list: 1, true, yes against 0, false, no, in any case. With one list: whatever is not in it
    is the other answer. With both: anything else is an error.
    """

    name: str
    positive: tuple[Category, ...] | None = None
    negative: tuple[Category, ...] | None = None

    def __post_init__(self) -> None:
        _check_name(self.name)
        listed = [values for values in (self.positive, self.negative) if values is not None]
        for values in listed:
            _check_categories(self.name, values, at_least=1)
        if len(listed) == 2:
            _check_categories(self.name, listed[0] + listed[1], at_least=2)


@dataclass(frozen=True, kw_only=True)
class MulticlassTarget:
    """One of ``classes``; its index is what models learn."""

    name: str
    classes: tuple[Category, ...]

    def __post_init__(self) -> None:
        _check_name(self.name)
        _check_categories(self.name, self.classes, at_least=2)


@dataclass(frozen=True, kw_only=True)
class RegressionTarget:
    """A number, scaled and clipped to [-1, 1] by public bounds.

    Models learn it in units of ``deviation`` from ``mean`` where there are any; it is measured by the bounds always.
    """

    name: str
    minimum: float
    maximum: float
    mean: float | None = None
    deviation: float | None = None

    def __post_init__(self) -> None:
        _check_name(self.name)
        _check_bounds(self.name, self.minimum, self.maximum)
        _check_moments(self.name, self.minimum, self.maximum, self.mean, self.deviation)

    @property
    def learned(self) -> Scale:
        """What models learn as 0 and as 1, in the scaled units of the bounds."""
        bounds = Scale.of(self.minimum, self.maximum, None, None)
        own = Scale.of(self.minimum, self.maximum, self.mean, self.deviation)
        return Scale(centre=(own.centre - bounds.centre) / bounds.unit, unit=own.unit / bounds.unit)

    def to_units(self, scaled: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return scaled values (-1 is ``minimum``, 1 is ``maximum``) in the target's own units."""
        return self.minimum + (np.asarray(scaled, dtype=np.float64) + 1.0) / 2.0 * (self.maximum - self.minimum)


Feature: TypeAlias = NumericFeature | CategoryFeature | ArrayFeature
Target: TypeAlias = BinaryTarget | MulticlassTarget | RegressionTarget


@dataclass(frozen=True, kw_only=True)
class Schema:
    """Features in model-input order, the target, and what becomes of gaps.

    Attributes:
        features: at least one; names differ from each other and from the target's.
        target: a row without one is dropped, or refused under ``refuse``.
        missing: ``refuse`` any gap, ``drop`` rows with one, or ``impute`` what is scaled to 0 (the middle of the
            bounds, or the mean) and flag it in a column of its own (present at every site, so that widths agree).
    """

    features: tuple[Feature, ...]
    target: Target
    missing: MissingRule = "refuse"

    def __post_init__(self) -> None:
        if not self.features:
            raise InputError("the schema has no features", hint="list at least one column")
        if self.missing not in get_args(MissingRule):
            raise InputError(f"missing {self.missing!r} is not known", hint="use refuse, drop or impute")
        names = [feature.name for feature in self.features]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"feature {name!r} is listed twice", hint="list each column once")
        if self.target.name in names:
            raise InputError(f"the target {self.target.name!r} is also a feature", hint="take it out of the features")

    @property
    def width(self) -> int:
        """The number of model inputs after encoding."""
        return sum(self.width_of(feature) for feature in self.features)

    @property
    def encoded_names(self) -> tuple[str, ...]:
        """One name a model input: ``age``, ``cp=4``, ``cp?other``, ``age?missing``, ``image[0,7]``."""
        return tuple(name for feature in self.features for name in self._names_of(feature))

    @property
    def array_shape(self) -> tuple[int, ...] | None:
        """The shape of the one array feature if there is nothing else, else None."""
        only = self.features[0]
        return only.shape if len(self.features) == 1 and isinstance(only, ArrayFeature) else None

    def width_of(self, feature: Feature) -> int:
        """Return how many model inputs ``feature`` becomes."""
        if isinstance(feature, ArrayFeature):
            return math.prod(feature.shape)
        flags = int(self.missing == "impute")
        if isinstance(feature, NumericFeature):
            return 1 + flags
        return len(feature.categories) + int(feature.unseen == "other") + flags

    def digest(self) -> Digest:
        """Return the digest of the schema's meaning: ``1`` and ``1.0`` as a category give the same."""
        content = {
            "features": [_meaning(feature) for feature in self.features],
            "target": _meaning(self.target),
            "missing": self.missing,
        }
        return digest(json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())

    def _names_of(self, feature: Feature) -> Iterator[str]:
        if isinstance(feature, ArrayFeature):
            for index in product(*map(range, feature.shape)):
                yield f"{feature.name}[{','.join(map(str, index))}]"
            return
        if isinstance(feature, NumericFeature):
            yield feature.name
        else:
            yield from (f"{feature.name}={str(category).strip()}" for category in feature.categories)
            if feature.unseen == "other":
                yield f"{feature.name}?other"
        if self.missing == "impute":
            yield f"{feature.name}?missing"


def _meaning(part: Feature | Target) -> dict[str, object]:
    content: dict[str, object] = {"kind": type(part).__name__, "name": part.name}
    if isinstance(part, NumericFeature | ArrayFeature | RegressionTarget):
        content |= {"minimum": float(part.minimum), "maximum": float(part.maximum)}
    if isinstance(part, NumericFeature | RegressionTarget) and part.mean is not None and part.deviation is not None:
        content |= {"mean": float(part.mean), "deviation": float(part.deviation)}
    if isinstance(part, ArrayFeature):
        content["shape"] = list(part.shape)
    if isinstance(part, CategoryFeature):
        content |= {"categories": [matching_key(value) for value in part.categories], "unseen": part.unseen}
    if isinstance(part, MulticlassTarget):
        content["classes"] = [matching_key(value) for value in part.classes]
    if isinstance(part, BinaryTarget):
        content |= {"positive": _keys(part.positive), "negative": _keys(part.negative)}
    return content


def _keys(values: tuple[Category, ...] | None) -> list[str] | None:
    return None if values is None else sorted(matching_key(value) for value in values)
