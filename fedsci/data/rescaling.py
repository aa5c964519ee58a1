"""The same records under another scaling, without reading the file again; what a lab's own records would scale by."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedsci.data.schema import NumericFeature, RegressionTarget, Schema
from fedsci.data.table import Table

#: A column's mean and deviation, in its own units.
Moments = tuple[float, float]


def own_moments(table: Table, schema: Schema) -> dict[str, Moments]:
    """Return mean and deviation of each number in ``table``, as ``schema`` encoded it.

    Private: a function of the lab's records without any noise. Gaps do not count; a column of gaps is left out.
    """
    found = {}
    for feature, at in _numbers(schema):
        values = _values(table, schema, feature, at)
        if len(values):
            found[feature.name] = _moments(values, feature.minimum, feature.maximum)
    target = schema.target
    if isinstance(target, RegressionTarget) and table.rows:
        found[target.name] = _moments(target.to_units(table.target), target.minimum, target.maximum)
    return found


def rescaled(table: Table, schema: Schema, other: Schema) -> Table:
    """Return the records of ``table``, which ``schema`` encoded, as ``other`` would, up to the rounding of float32.

    The two differ in the scaling of numbers only.
    """
    features = table.features.copy()
    after = {feature.name: feature for feature, _ in _numbers(other)}
    for feature, at in _numbers(schema):
        wanted = after[feature.name].scale
        if wanted != feature.scale:
            rows = _present(table, schema, at)
            values = _values(table, schema, feature, at)
            features[rows, at] = ((values - wanted.centre) / wanted.unit).astype(np.float32)
    return replace(table, features=features)


def _numbers(schema: Schema) -> list[tuple[NumericFeature, int]]:
    """Return the numeric features and which model input each is."""
    at, found = 0, []
    for feature in schema.features:
        if isinstance(feature, NumericFeature):
            found.append((feature, at))
        at += schema.width_of(feature)
    return found


def _present(table: Table, schema: Schema, at: int) -> NDArray[np.bool_]:
    """Return the rows without a gap in the number that is input ``at``; its flag, if any, is the input after it."""
    if schema.missing != "impute":
        return np.ones(table.rows, dtype=np.bool_)
    return np.asarray(table.features[:, at + 1] == 0)


def _values(table: Table, schema: Schema, feature: NumericFeature, at: int) -> NDArray[np.float64]:
    """Return a number's values in its own units, clipped to its bounds, gaps left out."""
    scaled = table.features[_present(table, schema, at), at].astype(np.float64)
    return np.asarray(scaled * feature.scale.unit + feature.scale.centre)


def _moments(values: NDArray[np.float64], minimum: float, maximum: float) -> Moments:
    mean = min(max(float(values.mean()), minimum), maximum)
    return mean, min(float(values.std()), maximum - minimum)
