"""What a pass released becomes means and deviations: post-processing, of public numbers alone."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedsci.config.plan import Plan
from fedsci.config.study_shape import shape_of
from fedsci.data.schema import LEAST_DEVIATION
from fedsci.strategies.feature_statistics import FeatureStatistics, norm_bound, read_statistics
from fedsci.strategies.one_exchange import StudyShape
from fedsci.training.accountant import Cost, noise_of_sum

# what a column's mean, and its variance, are like before anything is known, in units of half the bounds' width
_USUAL_MEAN, _MEANS_SPREAD = 0.0, 0.5
_USUAL_VARIANCE, _VARIANCES_SPREAD = 0.12, 0.12


def noise_of_pass(first: Plan, cost: Cost | None, records: Sequence[int]) -> float:
    """Return the standard deviation of the noise in each number that a pass released; 0 without privacy.

    Args:
        first: the pass.
        cost: its price.
        records: public counts of training records of the sites in the sum.
    """
    contributions = [(float(count), count) for count in records]  # the mean over records
    norm = first.study.privacy.clipping_norm
    return noise_of_sum(cost, clipping_norm=norm, contributions=contributions) / sum(records)


def statistics_of(first: Plan, vector: NDArray[np.float32], records: Sequence[int]) -> FeatureStatistics:
    """Return what a pass released says; arguments as for :func:`moments_of`."""
    return read_statistics(vector, records=sum(records), study=shape_of(first.study))


def moments_of(
    first: Plan, vector: NDArray[np.float32], *, records: Sequence[int], noise: float
) -> dict[str, tuple[float, float]]:
    """Return mean and deviation, in its own units, of each numeric feature and of a regression's target.

    Exact without noise; but a target's are those of its histogram. With noise each is drawn to what columns usually
    look like (the middle of the bounds, a third of half their width), the more the larger its noise is: the mean of
    what is likely, where mean and variance are normal around the usual ones. What is well known is hardly drawn.

    Args:
        first: the pass.
        vector: its result.
        records: public counts of training records of the sites in the sum.
        noise: standard deviation of the noise in each number of the vector.
    """
    shape, found = shape_of(first.study), statistics_of(first, vector, records)
    moments = {}
    for column in shape.columns:
        if column.kind == "numeric":
            known = found.numeric[column.name]
            present = max(1e-9, 1.0 - (known.missing or 0.0))
            each = noise * norm_bound(shape) * sum(records) / (max(1.0, found.records) * present)
            bounds = (column.minimum, column.maximum)
            moments[column.name] = _likely(float(known.mean[0]), float(known.deviation[0]), bounds, each)
    if shape.task == "regression":
        moments[shape.target] = _of_histogram(found, shape)
    return moments


def _likely(mean: float, deviation: float, bounds: tuple[float, float], noise: float) -> tuple[float, float]:
    """Return a likely mean and deviation; ``noise`` in units of half the bounds' width."""
    half = (bounds[1] - bounds[0]) / 2
    if not (math.isfinite(mean) and math.isfinite(deviation)):  # (nearly) all records have a gap
        mean, deviation, noise = bounds[0] + half, 0.0, math.inf
    centre, variance = (mean - bounds[0]) / half - 1.0, (deviation / half) ** 2
    centre = _between(centre, noise, usual=_USUAL_MEAN, spread=_MEANS_SPREAD)
    variance = _between(variance, noise * math.hypot(1.0, 2 * centre), usual=_USUAL_VARIANCE, spread=_VARIANCES_SPREAD)
    return min(max(bounds[0] + (centre + 1.0) * half, bounds[0]), bounds[1]), math.sqrt(variance) * half


def _between(value: float, noise: float, *, usual: float, spread: float) -> float:
    if noise == 0:
        return value
    weight = 0.0 if math.isinf(noise) else spread**2 / (spread**2 + noise**2)
    return usual + weight * (value - usual)


def _of_histogram(found: FeatureStatistics, shape: StudyShape) -> tuple[float, float]:
    """Return mean and deviation of a target from its bins: exact to a bin's width, Sheppard's correction applied."""
    edges, counts = found.edges, found.target
    width = shape.maximum - shape.minimum
    if edges is None or not counts.sum() > 0:
        return shape.minimum + width / 2, width / 2
    middles, shares = (edges[1:] + edges[:-1]) / 2, counts / counts.sum()
    mean = float(shares @ middles)
    variance = float(shares @ (middles - mean) ** 2) - (edges[1] - edges[0]) ** 2 / 12
    return mean, max(math.sqrt(max(variance, 0.0)), LEAST_DEVIATION * width)
