"""Metrics as sums: what a site contributes, and what the sums over sites mean. No torch here.

A site's contribution is a short vector: sums over its records, and its own metrics with a mark that they are
defined, so that both the metrics over all records and their mean over sites follow from the total over
sites alone. Regression is in the scaled units of the study's bounds, [-1, 1].
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from fedsci.config.study import METRICS, RegressionTask, Study
from fedsci.errors import InputError

BINS = 256  # of predicted probability, for AUROC; ties inside a bin count one half
GAP_BINS = 16  # of predicted probability, for the calibration error
LARGEST_LOSS = 50.0  # nats a record; a confident mistake costs no more than this
LARGEST_QUARTIC = 2.0**4  # of an error, in scaled units: of the width of the bounds; larger caps cost precision
LARGEST_ERROR = 4.0  # of a prediction in scaled units: twice the width of the bounds

_SUMS: dict[str, tuple[str, ...]] = {
    "binary": (
        *("records", "loss", "correct", "loss_squared", "true_positive"),
        *(f"negative_{i}" for i in range(BINS)),
        *(f"positive_{i}" for i in range(BINS)),
        *(f"gap_{i}" for i in range(GAP_BINS)),
    ),
    "multiclass": ("records", "loss", "correct", "loss_squared", *(f"gap_{i}" for i in range(GAP_BINS))),
    "regression": ("records", "absolute", "squared", "target", "target_squared", "quartic"),
}
#: ``loss_squared`` is in units of this, nats squared.
SQUARED_LOSS_UNIT = LARGEST_LOSS**2
_CAPS = {"loss": LARGEST_LOSS, "absolute": LARGEST_ERROR, "squared": LARGEST_ERROR**2, "quartic": LARGEST_QUARTIC}
_SITE_CAPS = {"log_loss": LARGEST_LOSS, "rmse": LARGEST_ERROR, "mae": LARGEST_ERROR, "r2": 1e4}
_VARIANCE_CAPS = {"log_loss": 25.0, "r2": 25.0}  # 0.25, that of a coin in [0, 1], for the others

Metrics = dict[str, float | None]


@cache
def names_of(kind: str, classes: int = 0) -> tuple[str, ...]:
    """Return what each number of a contribution is.

    Sums over records, then for each metric ``site_<metric>``, the site's own; ``var_<metric>``, how much it varies with
    the choice of test records, 0 where that was not asked for; and ``has_<metric>``, 1 where it is defined.

    Args:
        kind: the task's.
        classes: of a multiclass task.
    """
    metrics = METRICS[kind]
    each = (*(f"right_{i}" for i in range(classes)), *(f"of_{i}" for i in range(classes)))
    own = (f"{what}_{metric}" for what in ("site", "var", "has") for metric in metrics)
    return (*_SUMS[kind], *each, *own)


def classes_of(study: Study) -> int:
    """Return the number of classes of a multiclass task, 0 of others."""
    return len(study.task.classes) if study.task.kind == "multiclass" else 0


def caps(kind: str, *, records: int, classes: int = 0) -> NDArray[np.float64]:
    """Return the largest magnitude of each number of a site's contribution with at most ``records`` records."""
    sums = [_CAPS.get(name, 1.0) * max(1, records) for name in _SUMS[kind]] + [1.0 * max(1, records)] * (2 * classes)
    own = [_SITE_CAPS.get(metric, 1.0) for metric in METRICS[kind]]
    variances = [_VARIANCE_CAPS.get(metric, 0.25) for metric in METRICS[kind]]
    return np.array([*sums, *own, *variances, *([1.0] * len(own))])


@dataclass(frozen=True, kw_only=True)
class MetricSums:
    """Sums over the records of one site, or of several.

    Attributes:
        kind: the task's kind.
        values: float64, one number for each of ``names_of(kind, classes)``.
    """

    kind: str
    values: NDArray[np.float64]

    def __post_init__(self) -> None:
        more = self.values.size - len(names_of(self.kind)) if self.kind in _SUMS else -1
        fits = more == 0 or (self.kind == "multiclass" and more > 0 and more % 2 == 0)
        if not fits or self.values.ndim != 1:
            raise InputError(f"metric sums of shape {self.values.shape} do not fit a {self.kind} task")

    def __add__(self, other: "MetricSums") -> "MetricSums":
        return MetricSums(kind=self.kind, values=self.values + other.values)

    @property
    def records(self) -> float:
        """Records behind the sums."""
        return float(self.values[0])

    def own(self, what: str) -> NDArray[np.float64]:
        """Return the numbers of ``site``, ``var`` or ``has``, one for each of the task's metrics."""
        count = len(METRICS[self.kind])
        start = self.values.size - count * {"site": 3, "var": 2, "has": 1}[what]
        return self.values[start : start + count]


def bare_sums(kind: str, sums: NDArray[np.float64]) -> MetricSums:
    """Return sums over records without any site's own metrics."""
    return MetricSums(kind=kind, values=np.concatenate([sums, np.zeros(3 * len(METRICS[kind]))]))


def of_one_site(kind: str, sums: NDArray[np.float64], *, variances: NDArray[np.float64] | None = None) -> MetricSums:
    """Return a site's contribution from the sums over its records.

    ``variances`` of its metrics, in scaled units, NaN where they are not known; zeros if left out.
    """
    metrics = METRICS[kind]
    bare = bare_sums(kind, sums)
    own = finish(bare)
    defined = [own.get(metric) is not None for metric in metrics]
    limits = [_SITE_CAPS.get(metric, 1.0) for metric in metrics]
    values = [np.clip(own.get(metric) or 0.0, -limit, limit) for metric, limit in zip(metrics, limits, strict=True)]
    varies = np.zeros(len(metrics))
    if variances is not None:  # what is not known counts as the most that it can be
        most = [_VARIANCE_CAPS.get(metric, 0.25) for metric in metrics]
        varies = np.where(defined, np.clip(np.nan_to_num(variances, nan=np.inf), 0.0, most), 0.0)
    return replace(bare, values=np.concatenate([sums, values, varies, np.array(defined, np.float64)]))


def finish(sums: MetricSums, *, half_range: float = 1.0) -> Metrics:
    """Return the metrics over all records that the sums stand for; None where they are not defined.

    Units: accuracy, auroc, balanced_accuracy and calibration_error are fractions, log_loss is in nats, rmse and mae in
    the target's own units if ``half_range`` is half the width of its bounds. AUROC is the Mann-Whitney statistic over
    binned scores; it needs both classes. Balanced accuracy is the mean of the accuracies of the classes that there are;
    it needs two. The calibration error is that of Naeini et al. 2015 over 16 equal bins: of the predicted probability
    of the positive class, or, with several classes, of the predicted one's (Guo et al. 2017).
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
        metrics["auroc"] = auroc_of(*histograms_of(sums))
    right, total = rights_of(sums)
    there = total > 0.5
    metrics["balanced_accuracy"] = float((right[there] / total[there]).mean()) if there.sum() > 1 else None
    start = 5 + 2 * BINS if sums.kind == "binary" else 4
    metrics["calibration_error"] = float(np.abs(values[start : start + GAP_BINS]).sum() / records)
    return metrics


def histograms_of(sums: MetricSums) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the binned scores of the negative and of the positive records of a binary task, ``(BINS,)`` each."""
    return sums.values[5 : 5 + BINS], sums.values[5 + BINS : 5 + 2 * BINS]


def rights_of(sums: MetricSums) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return, for each class, how many of its records were told right, and how many there are."""
    if sums.kind == "binary":
        negative, positive = (histogram.sum() for histogram in histograms_of(sums))
        found = sums.values[4]
        return np.array([sums.values[2] - found, found]), np.array([negative, positive])
    each = sums.values[4 + GAP_BINS : -3 * len(METRICS[sums.kind])]
    return each[: len(each) // 2], each[len(each) // 2 :]


def auroc_of(negative: NDArray[np.float64], positive: NDArray[np.float64]) -> float | None:
    """Return the Mann-Whitney statistic of two histograms of scores; None if a class is empty."""
    below = np.concatenate([[0.0], np.cumsum(negative)[:-1]])
    pairs = negative.sum() * positive.sum()
    return float((positive * (below + negative / 2)).sum() / pairs) if pairs > 0 else None


def mean_site(sums: MetricSums, *, half_range: float = 1.0) -> Metrics:
    """Return each metric's plain mean over the sites in the sums for which it is defined."""
    names = METRICS[sums.kind]
    own, marks = sums.own("site"), sums.own("has")
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
    return metric in ("accuracy", "auroc", "r2", "balanced_accuracy")
