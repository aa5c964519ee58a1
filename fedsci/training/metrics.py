"""Metrics as sums: what a site contributes, and what the sums over sites mean. No torch here.

A site's contribution is a short vector: sums over its records, and its own metrics with a mark that they are
defined, so that both the metrics over all records and their mean over sites follow from the total over
sites alone. Regression is in the scaled units of the study's bounds, [-1, 1].
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedsci.config.study import METRICS, RegressionTask, Study
from fedsci.errors import InputError

BINS = 256  # of predicted probability, for AUROC; ties inside a bin count one half
LARGEST_LOSS = 50.0  # nats a record; a confident mistake costs no more than this
LARGEST_ERROR = 4.0  # of a prediction in scaled units: twice the width of the bounds

_SUMS: dict[str, tuple[str, ...]] = {
    "binary": (
        *("records", "loss", "correct"),
        *(f"negative_{i}" for i in range(BINS)),
        *(f"positive_{i}" for i in range(BINS)),
    ),
    "multiclass": ("records", "loss", "correct"),
    "regression": ("records", "absolute", "squared", "target", "target_squared"),
}
_CAPS = {"loss": LARGEST_LOSS, "absolute": LARGEST_ERROR, "squared": LARGEST_ERROR**2}
_SITE_CAPS = {"log_loss": LARGEST_LOSS, "rmse": LARGEST_ERROR, "mae": LARGEST_ERROR, "r2": 1e4}

Metrics = dict[str, float | None]


def names_of(kind: str) -> tuple[str, ...]:
    """Return what each number of a contribution is: sums, then ``site_<metric>``, then ``has_<metric>``."""
    metrics = METRICS[kind]
    return (*_SUMS[kind], *(f"site_{m}" for m in metrics), *(f"has_{m}" for m in metrics))


def caps(kind: str, *, records: int) -> NDArray[np.float64]:
    """Return the largest magnitude of each number of a site's contribution with at most ``records`` records."""
    sums = [_CAPS.get(name, 1.0) * max(1, records) for name in _SUMS[kind]]
    own = [_SITE_CAPS.get(metric, 1.0) for metric in METRICS[kind]]
    return np.array([*sums, *own, *([1.0] * len(own))])


@dataclass(frozen=True, kw_only=True)
class MetricSums:
    """Sums over the records of one site, or of several.

    Attributes:
        kind: the task's kind.
        values: float64, one number for each of ``names_of(kind)``.
    """

    kind: str
    values: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.kind not in _SUMS or self.values.shape != (len(names_of(self.kind)),):
            raise InputError(f"metric sums of shape {self.values.shape} do not fit a {self.kind} task")

    def __add__(self, other: "MetricSums") -> "MetricSums":
        return MetricSums(kind=self.kind, values=self.values + other.values)

    @property
    def records(self) -> float:
        """Records behind the sums."""
        return float(self.values[0])


def of_one_site(kind: str, sums: NDArray[np.float64]) -> MetricSums:
    """Return a site's contribution from the sums over its records."""
    metrics = METRICS[kind]
    bare = MetricSums(kind=kind, values=np.concatenate([sums, np.zeros(2 * len(metrics))]))
    own = finish(bare)
    defined = [own.get(metric) is not None for metric in metrics]
    limits = [_SITE_CAPS.get(metric, 1.0) for metric in metrics]
    values = [np.clip(own.get(metric) or 0.0, -limit, limit) for metric, limit in zip(metrics, limits, strict=True)]
    return replace(bare, values=np.concatenate([sums, values, np.array(defined, np.float64)]))


def finish(sums: MetricSums, *, half_range: float = 1.0) -> Metrics:
    """Return the metrics over all records that the sums stand for; None where they are not defined.

    Units: accuracy and auroc are fractions, log_loss is in nats, rmse and mae in the target's own units if
    ``half_range`` is half the width of its bounds. AUROC is the Mann-Whitney statistic over binned scores; it
    needs both classes.
    """
    values, records = sums.values, sums.records
    if not records > 0.5:
        return {}
    if sums.kind == "regression":
        absolute, squared, total, total_squared = values[1:5]
        variance = total_squared - total * total / records
        r2 = 1 - squared / variance if variance > 1e-9 * max(1.0, abs(total_squared)) else None
        return {
            "rmse": float(np.sqrt(max(0.0, squared) / records)) * half_range,
            "mae": float(absolute / records) * half_range,
            "r2": None if r2 is None else float(r2),
        }
    metrics: Metrics = {"accuracy": float(values[2] / records), "log_loss": float(values[1] / records)}
    if sums.kind == "binary":
        metrics["auroc"] = auroc_of(values[3 : 3 + BINS], values[3 + BINS : 3 + 2 * BINS])
    return metrics


def auroc_of(negative: NDArray[np.float64], positive: NDArray[np.float64]) -> float | None:
    """Return the Mann-Whitney statistic of two histograms of scores; None if a class is empty."""
    below = np.concatenate([[0.0], np.cumsum(negative)[:-1]])
    pairs = negative.sum() * positive.sum()
    return float((positive * (below + negative / 2)).sum() / pairs) if pairs > 0 else None


def mean_site(sums: MetricSums, *, half_range: float = 1.0) -> Metrics:
    """Return each metric's plain mean over the sites in the sums for which it is defined."""
    names = METRICS[sums.kind]
    own, marks = sums.values[-2 * len(names) : -len(names)], sums.values[-len(names) :]
    means: Metrics = {}
    for name, value, count in zip(names, own, marks, strict=True):
        unit = half_range if name in ("rmse", "mae") else 1.0
        means[name] = float(value / count) * unit if count > 0.5 else None
    return means


def half_range(study: Study) -> float:
    """Return half the width of a regression target's bounds: what one scaled unit is; 1 for other tasks."""
    task = study.task
    return (task.max - task.min) / 2 if isinstance(task, RegressionTask) else 1.0


def higher_is_better(metric: str) -> bool:
    """Return whether more of this metric is good."""
    return metric in ("accuracy", "auroc", "r2")
