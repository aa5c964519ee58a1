"""Pooled statistics of the columns themselves, in one exchange: what all labs' data look like, and no model.

Of each number of a numeric feature or an array, scaled to v in [-1, 1] by its public bounds: the sums of v and of
v^2 - 1/2, and how many records have a gap there (an array with a gap counts as missing whole). Of each categorical
feature: how many records are in each category, in none that is listed, or have a gap. Of the target: how many are in
each class, or in each of 16 equal bins between its public bounds. Sums with noise that the holders of the data make
together: Dwork, Kenthapadi, McSherry, Mironov, Naor 2006, Our Data, Ourselves (EUROCRYPT).

**Norm.** A number adds at most ``v^2 + (v^2 - 1/2)^2 = v^4 + 1/4 <= 5/4`` to a record's squared norm (v^2 itself
would add up to 2, and more noise), a gap 1 in place of it, a categorical feature 1, the target 1. Vectors are divided
by the root of the largest total, so that no record is ever clipped and sums are of all records.

The result is the mean vector, in the model's place; :func:`read_statistics` says what it means. Rows that encoding
drops (no target; under ``missing: drop`` any gap) are in no sum.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedsci.errors import InputError
from fedsci.strategies.base import StrategyState, Vector
from fedsci.strategies.one_exchange import LONGEST, ColumnShape, OneExchange, Records, StudyShape
from fedsci.strategies.server_optimiser import ServerOptimiser

BINS = 16  # of a regression target
_LARGEST_OF_NUMBER = 1.25


@dataclass(frozen=True, kw_only=True, eq=False)
class NumericStatistics:
    """Of a numeric feature, or of each number of an array.

    Attributes:
        mean: in the feature's units, float64 ``(width,)``; NaN where (nearly) all records have a gap.
        deviation: standard deviation (over records, not over records less one), likewise.
        missing: share of records with a gap; None where such rows are dropped before anything is counted.
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    missing: float | None


@dataclass(frozen=True, kw_only=True)
class CategoryStatistics:
    """Of a categorical feature.

    Attributes:
        shares: of all records, by category as text.
        other: share outside the categories; None where such values are refused.
        missing: as of numeric features.
    """

    shares: Mapping[str, float]
    other: float | None
    missing: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureStatistics:
    """What the records of all sites look like.

    Attributes:
        records: how many are described; whole, or an estimate where rows may have been dropped.
        numeric, categorical: by feature.
        target: counts by class (``0`` and ``1`` of a binary target), or by bin from the lowest; float64, >= 0.
        edges: of the bins, in the target's units, float64 ``(17,)``; None for classes.
    """

    records: float
    numeric: Mapping[str, NumericStatistics]
    categorical: Mapping[str, CategoryStatistics]
    target: NDArray[np.float64]
    edges: NDArray[np.float64] | None


@dataclass(frozen=True, kw_only=True)
class FeatureSums(OneExchange):
    """Sums over records of what each column holds."""

    name: str = field(default="feature_statistics", init=False)
    makes_model: bool = field(default=False, init=False)

    @property
    def numbers(self) -> int:
        """Two for each number, one for each category, class or bin, one for each feature's gaps if they are counted."""
        return sum(_width(column, self.shape) for column in self.shape.columns) + _target_width(self.shape)

    def statistics(self, records: Records) -> NDArray[np.float64]:
        """Return one vector a record, of norm below 1, float64 ``(n, k)``."""
        x, counted = records.features.astype(np.float64), self.shape.gaps == "impute"
        parts: list[NDArray[np.float64]] = []
        for at, column in enumerate(self.shape.columns):
            values, gap = x[:, column.start : column.start + column.width], records.missing[:, at, None]
            if column.kind == "category":
                parts.append(x[:, column.start : column.start + column.width + column.other])
            else:
                parts += [np.where(gap, 0.0, values), np.where(gap, 0.0, values * values - 0.5)]
            if counted:
                parts.append(gap.astype(np.float64))
        parts.append(self._target(records).astype(np.float64))
        return np.concatenate(parts, axis=1) / norm_bound(self.shape)

    def _target(self, records: Records) -> NDArray[np.bool_]:
        places = records.target
        if self.shape.task == "regression":
            scaled = (records.target.astype(np.float64) + 1) / 2 * BINS
            places = np.clip(np.floor(scaled), 0, BINS - 1)
        return np.asarray(places[:, None] == np.arange(_target_width(self.shape)))

    def finish(self, state: StrategyState, mean: Vector, *, noise: float) -> Vector:
        """Return the mean vector as it is."""
        return mean


def build(*, optimiser: ServerOptimiser) -> FeatureSums:
    """Return the strategy."""
    return FeatureSums(optimiser=optimiser)


def norm_bound(study: StudyShape) -> float:
    """Return what vectors are divided by: more than any record's norm, from the public schema alone."""
    square = 1.0
    for column in study.columns:
        square += 1.0 if column.kind == "category" else _LARGEST_OF_NUMBER * column.width
    return math.sqrt(square) / LONGEST


def read_statistics(vector: NDArray[np.floating], *, records: float, study: StudyShape) -> FeatureStatistics:
    """Return what a released vector says, without noise or sampling what the pooled records say.

    Counts and shares that noise made negative are 0, means and deviations are within the bounds; nothing else is
    changed. The vector is float32, so that a deviation of 1/1000 of the bounds' range is right to 1 %, and one of
    1/10,000 is not: for narrow columns, narrow bounds.

    Args:
        vector: the study's result, shape ``(k,)``.
        records: public count of training records of the sites in the sum (groups, where those are protected; then
            every group counts as one, as the mean of its records; likewise the number of sites, where whole sites
            are).
        study: shape of the study that made it.

    Raises:
        InputError: the vector is not of this study's size, or ``records`` is not positive.
    """
    width = FeatureSums(optimiser=ServerOptimiser(), study=study).numbers
    if vector.shape != (width,):
        raise InputError(f"a vector of shape {list(vector.shape)} holds no statistics of {width} numbers")
    if not 0 < records < math.inf:
        raise InputError(f"statistics of {records:g} records", hint="give the public count of training records")
    sums = vector.astype(np.float64) * norm_bound(study) * records
    target = sums[-_target_width(study) :]
    # dropped rows are in no sum, and the target tells how many are left
    used = float(records) if study.gaps == "refuse" else min(float(records), max(1.0, float(target.sum())))
    numeric: dict[str, NumericStatistics] = {}
    categorical: dict[str, CategoryStatistics] = {}
    start = 0
    for column in study.columns:
        part = sums[start : start + _width(column, study)]
        start += len(part)
        gaps = {"refuse": 0.0, "drop": None, "impute": float(part[-1]) / used}[study.gaps]
        missing = None if gaps is None else min(1.0, max(0.0, gaps))
        if column.kind == "category":
            shares = np.clip(part / used, 0.0, 1.0).tolist()
            categorical[column.name] = CategoryStatistics(
                shares=dict(zip(column.labels, shares, strict=False)),
                other=shares[column.width] if column.other else None,
                missing=missing,
            )
        else:
            present = used * (1.0 - (missing or 0.0))
            numeric[column.name] = _numeric(part[: 2 * column.width], column, present, missing)
    edges = None
    if study.task == "regression":
        edges = study.minimum + np.arange(BINS + 1) / BINS * (study.maximum - study.minimum)
    return FeatureStatistics(
        records=used, numeric=numeric, categorical=categorical, target=np.maximum(target, 0.0), edges=edges
    )


def _numeric(
    sums: NDArray[np.float64], column: ColumnShape, present: float, missing: float | None
) -> NumericStatistics:
    if present < 1:
        unknown = np.full(column.width, np.nan)
        return NumericStatistics(mean=unknown, deviation=unknown, missing=missing)
    mean = np.clip(sums[: column.width] / present, -1.0, 1.0)
    square = np.clip(sums[column.width :] / present + 0.5, 0.0, 1.0)
    half = (column.maximum - column.minimum) / 2
    return NumericStatistics(
        mean=column.minimum + (mean + 1.0) * half,
        deviation=np.sqrt(np.maximum(square - mean * mean, 0.0)) * half,
        missing=missing,
    )


def _width(column: ColumnShape, study: StudyShape) -> int:
    own = column.width + column.other if column.kind == "category" else 2 * column.width
    return own + (study.gaps == "impute")


def _target_width(study: StudyShape) -> int:
    return {"binary": 2, "multiclass": len(study.classes), "regression": BINS}[study.task]
