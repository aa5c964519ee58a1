"""How far a metric may be off because of which records were held out: from sums over sites alone. No torch here.

The mean over sites: each site resamples its own holdout (bootstrap, Efron 1979) and adds the variance of its own metric
to the sums; the variance of the mean is their sum over the squared number of sites. All records together: replicates of
the sums would take thousands of numbers beside each masked upload, and for the metrics that are means over records the
bootstrap's variance is the plug-in one, which follows from two sums; so accuracy, log loss, MAE, RMSE and balanced
accuracy have it by the delta method, and AUROC by DeLong et al. 1988 from the histograms. R2 and the calibration error
over all records have none. Sites are taken as given: nothing is said of sites that took no part.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fedsci.config.study import METRICS
from fedsci.training.metrics import (
    SQUARED_LOSS_UNIT,
    Metrics,
    MetricSums,
    bare_sums,
    finish,
    histograms_of,
    rights_of,
)

RESAMPLES = 200
_MOST_DRAWS = 20_000_000  # of all resamples of a holdout together
_CERTAIN = 1.959964  # standard errors on each side of a 95 % interval
_HIGHEST = {"accuracy": 1.0, "auroc": 1.0, "balanced_accuracy": 1.0, "calibration_error": 1.0, "r2": 1.0}

Intervals = dict[str, list[float]]


def bootstrap_variances(
    kind: str, sums: Callable[[NDArray[np.float64]], NDArray[np.float64]], records: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return the variance of each of the task's metrics over resamples of the records; NaN where it is not known.

    Args:
        kind: the task's.
        sums: returns the sums over records, given how often each counts, float64 ``(records,)``.
        records: how many there are; from fewer than two nothing is known.
        rng: which are drawn.
    """
    names = METRICS[kind]
    if records < 2:
        return np.full(len(names), np.nan)
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(max(20, min(RESAMPLES, _MOST_DRAWS // records))):
        counts = np.bincount(rng.integers(0, records, records), minlength=records).astype(np.float64)
        for name, value in finish(bare_sums(kind, sums(counts))).items():
            if value is not None:
                found[name].append(value)
    unbiased = records / (records - 1)
    return np.array([np.var(found[name], ddof=1) * unbiased if len(found[name]) > 9 else np.nan for name in names])


def mean_site_intervals(sums: MetricSums, means: Metrics, *, unit: Callable[[str], float]) -> Intervals:
    """Return 95 % intervals around the metrics' means over the sites in the sums; absent where nothing is known."""
    names = METRICS[sums.kind]
    errors = {
        name: math.sqrt(variance) / count * unit(name)
        for name, variance, count in zip(names, sums.own("var"), sums.own("has"), strict=True)
        if count > 0.5 and variance > 0
    }
    return _around(means, errors)


def pooled_intervals(sums: MetricSums, metrics: Metrics, *, unit: Callable[[str], float]) -> Intervals:
    """Return 95 % intervals around the metrics over all records in the sums; absent where nothing is known."""
    variances = _regression(sums) if sums.kind == "regression" else _classification(sums)
    errors = {name: math.sqrt(variance) * unit(name) for name, variance in variances.items() if variance > 0}
    return _around(metrics, errors)


def _around(metrics: Metrics, errors: dict[str, float]) -> Intervals:
    found = {}
    for name, error in errors.items():
        value = metrics.get(name)
        if value is None or not math.isfinite(error):
            continue
        lowest = -math.inf if name == "r2" else 0.0
        ends = value - _CERTAIN * error, value + _CERTAIN * error
        found[name] = [max(lowest, ends[0]), min(_HIGHEST.get(name, math.inf), ends[1])]
    return found


def _regression(sums: MetricSums) -> dict[str, float]:
    records, (absolute, squared), quartic = sums.records, sums.values[1:3], sums.values[5]
    if not records > 1.5:
        return {}
    mean, square = absolute / records, squared / records
    of_square = (quartic / records - square * square) / (records - 1)
    return {
        "mae": (square - mean * mean) / (records - 1),
        "rmse": of_square / (4 * square) if square > 0 else 0.0,
    }


def _classification(sums: MetricSums) -> dict[str, float]:
    records, values = sums.records, sums.values
    if not records > 1.5:
        return {}
    accuracy, loss = values[2] / records, values[1] / records
    found = {
        "accuracy": accuracy * (1 - accuracy) / (records - 1),
        "log_loss": (values[3] * SQUARED_LOSS_UNIT / records - loss * loss) / (records - 1),
    }
    right, total = (each[rights_of(sums)[1] > 0.5] for each in rights_of(sums))
    if (total > 1.5).all() and len(total):
        share = right / total
        found["balanced_accuracy"] = float((share * (1 - share) / (total - 1)).sum()) / len(total) ** 2
    if sums.kind == "binary":
        found["auroc"] = _delong(*histograms_of(sums))
    return found


def _delong(negative: NDArray[np.float64], positive: NDArray[np.float64]) -> float:
    """Return the variance of the Mann-Whitney statistic of two histograms; 0 where a class has fewer than two."""
    if min(negative.sum(), positive.sum()) < 1.5:
        return 0.0
    below = (np.cumsum(negative) - negative / 2) / negative.sum()  # of a positive record in this bin
    above = (positive.sum() - np.cumsum(positive) + positive / 2) / positive.sum()
    return _variance(positive, below) / float(positive.sum()) + _variance(negative, above) / float(negative.sum())


def _variance(counts: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    mean = (counts * values).sum() / counts.sum()
    return float((counts * np.square(values - mean)).sum() / (counts.sum() - 1))
