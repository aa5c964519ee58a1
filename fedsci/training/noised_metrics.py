"""Metrics of held-out records under differential privacy: bounded sums, the noise they need, and what they mean.

Each record contributes a vector whose numbers lie in [-1, 1], so that one record more or less moves the sum by at
most :func:`sensitivity` in L2 norm. Only what the study's metrics need is summed; those of
:data:`fedsci.config.study.EXACT_METRICS` are not measured with noise. How many records are held out is
public, so it is not noised, except where rows with gaps are dropped: how many are left is then private. Where groups
of records are protected, read "group" for "record": a group contributes the mean of its records. No torch here.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsci.config.plan import Plan
from fedsci.training.metrics import Metrics, auroc_of, half_range

BINS = 32  # of predicted probability, for AUROC
LARGEST_LOSS = 8.0  # nats a record
LARGEST_ERROR = 2.0  # of a prediction in scaled units: the width of the bounds

_SUMS = {
    "accuracy": ("correct", "site_correct"),
    "log_loss": ("loss",),
    "auroc": (*(f"negative_{i}" for i in range(BINS)), *(f"positive_{i}" for i in range(BINS))),
    "rmse": ("squared",),
    "mae": ("absolute", "site_absolute"),
    "r2": ("squared", "target", "target_squared"),
}
#: What one unit of a sum stands for, where it is not 1.
UNITS = {
    "loss": LARGEST_LOSS,
    "absolute": LARGEST_ERROR,
    "site_absolute": LARGEST_ERROR,
    "squared": LARGEST_ERROR**2,
}


def sums_of(plan: Plan) -> tuple[str, ...]:
    """Return the name of each number of a contribution.

    ``site_*`` are sums weighted by smallest holdout / own holdout, from which the mean over sites follows.
    """
    wanted = [name for metric in plan.metrics for name in _SUMS.get(metric, ())]
    if plan.study.missing == "drop":
        wanted = ["records", *(name for name in wanted if not name.startswith("site_"))]
    return tuple(dict.fromkeys(wanted))


def sensitivity(plan: Plan) -> float:
    """Return the L2 norm that one record's contribution cannot pass: the root of how many of its numbers can be 1.

    A record is in one bin of one histogram only.
    """
    names = sums_of(plan)
    bins = sum(name.startswith(("negative_", "positive_")) for name in names)
    return math.sqrt(len(names) - bins + (bins > 0))


@dataclass(frozen=True, kw_only=True)
class NoisedSums:
    """Noised sums over the holdouts of several sites.

    Attributes:
        plan: says what the numbers are.
        values: float64, one for each of ``sums_of(plan)``.
        holdouts: public record counts of the sites in the sums.
        smallest: of the holdouts of all sites of the study: what ``site_*`` sums are weighted by.
        deviation: standard deviation of the noise of each number, above 0.
    """

    plan: Plan
    values: NDArray[np.float64]
    holdouts: tuple[int, ...]
    smallest: int
    deviation: float

    def pooled(self) -> Metrics | None:
        """Return the metrics over all records, in their ranges; None where noise leaves them undefined."""
        found = {metric: self._metric(metric) for metric in self.plan.metrics}
        return found if any(value is not None for value in found.values()) else None

    def mean_site(self) -> Metrics:
        """Return the mean over sites of those metrics that are means over records; None for the others."""
        means: Metrics = dict.fromkeys(self.plan.metrics)
        sums = self._sums()
        divisor = len(self.holdouts) * self.smallest
        if "site_correct" in sums and "accuracy" in means:
            means["accuracy"] = _within(sums["site_correct"] / divisor, 1.0)
        if "site_absolute" in sums and "mae" in means:
            means["mae"] = _within(sums["site_absolute"] / divisor, LARGEST_ERROR) * self._unit("mae")
        return means

    def noise_deviation(self) -> dict[str, float]:
        """Return the standard deviation that the noise gives those pooled metrics that are means over records."""
        sums, found = self._sums(), {}
        for metric, name in (("accuracy", "correct"), ("log_loss", "loss"), ("mae", "absolute")):
            if metric in self.plan.metrics:
                largest, records = UNITS.get(name, 1.0), self._records(sums)
                share = _within(sums[name] / records / largest, 1.0) if "records" in sums else 0.0
                # where the count is noised as well, the ratio has the noise of both
                found[metric] = self.deviation / records * largest * math.hypot(1.0, share) * self._unit(metric)
        return found

    def mean_site_deviation(self) -> dict[str, float]:
        """Return the standard deviation that the noise gives the means over sites."""
        each = self.deviation / (len(self.holdouts) * self.smallest)
        found = {"accuracy": each, "mae": each * LARGEST_ERROR * self._unit("mae")}
        return {metric: value for metric, value in found.items() if self.mean_site().get(metric) is not None}

    def _records(self, sums: dict[str, float]) -> float:
        return max(1.0, sums.get("records", float(sum(self.holdouts))))

    def _unit(self, metric: str) -> float:
        return half_range(self.plan.study) if metric in ("mae", "rmse") else 1.0

    def _sums(self) -> dict[str, float]:
        names = sums_of(self.plan)
        return {name: float(v) * UNITS.get(name, 1.0) for name, v in zip(names, self.values, strict=True)}

    def _metric(self, metric: str) -> float | None:
        sums = self._sums()
        records, unit = self._records(sums), self._unit(metric)
        match metric:
            case "accuracy":
                return _within(sums["correct"] / records, 1.0)
            case "log_loss":
                return _within(sums["loss"] / records, LARGEST_LOSS)
            case "mae":
                return _within(sums["absolute"] / records, LARGEST_ERROR) * unit
            case "rmse":
                return math.sqrt(_within(sums["squared"] / records, LARGEST_ERROR**2)) * unit
            case "r2":
                variance = sums["target_squared"] - sums["target"] ** 2 / records
                return 1 - max(0.0, sums["squared"]) / variance if variance > 2 * self.deviation else None
            case "auroc":
                return self._auroc(sums)
            case _:  # told exactly or not at all
                return None

    def _auroc(self, sums: dict[str, float]) -> float | None:
        negative = np.array([sums[f"negative_{i}"] for i in range(BINS)])
        positive = np.array([sums[f"positive_{i}"] for i in range(BINS)])
        enough = 2 * self.deviation * math.sqrt(BINS)  # fewer of a class than this cannot be told from noise
        if min(negative.sum(), positive.sum()) <= enough:
            return None
        value = auroc_of(negative, positive)
        return None if value is None else _within(value, 1.0)


def _within(value: float, largest: float) -> float:
    return min(max(value, 0.0), largest)
