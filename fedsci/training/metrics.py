"""Metrics as sums: what a site contributes, and what the sums over sites mean. No torch here.

Every contribution is a short vector of sums, so that the coordinator needs nothing but the total over sites.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsci.errors import InputError

BINS = 256  # of predicted probability, for AUROC; ties inside a bin count one half

NAMES: dict[str, tuple[str, ...]] = {
    "binary": (
        "records",
        "loss",
        "correct",
        *(f"negative_{i}" for i in range(BINS)),
        *(f"positive_{i}" for i in range(BINS)),
    ),
    "multiclass": ("records", "loss", "correct"),
    "regression": ("records", "absolute", "squared", "target", "target_squared"),
}


@dataclass(frozen=True, kw_only=True)
class MetricSums:
    """Sums over the records of one site, or of several.

    Attributes:
        kind: the task's kind.
        values: float64, one number for each of ``NAMES[kind]``.
    """

    kind: str
    values: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.kind not in NAMES or self.values.shape != (len(NAMES[self.kind]),):
            raise InputError(f"metric sums of shape {self.values.shape} do not fit a {self.kind} task")

    def __add__(self, other: "MetricSums") -> "MetricSums":
        return MetricSums(kind=self.kind, values=self.values + other.values)


def finish(sums: MetricSums) -> dict[str, float | None]:
    """Return the metrics that the sums stand for; None where they are not defined.

    Units: accuracy and auroc are fractions, log_loss is in nats, rmse and mae in the target's own units.
    AUROC is the Mann-Whitney statistic over binned scores; it needs both classes.
    """
    values = sums.values
    records = values[0]
    if not records > 0:
        return {}
    if sums.kind == "regression":
        absolute, squared, total, total_squared = values[1:5]
        variance = total_squared - total * total / records
        r2 = 1 - squared / variance if variance > 1e-12 * max(1.0, abs(total_squared)) else None
        return {"rmse": float(np.sqrt(squared / records)), "mae": float(absolute / records), "r2": _float(r2)}
    metrics: dict[str, float | None] = {
        "accuracy": float(values[2] / records),
        "log_loss": float(values[1] / records),
    }
    if sums.kind == "binary":
        negative, positive = values[3 : 3 + BINS], values[3 + BINS :]
        below = np.concatenate([[0.0], np.cumsum(negative)[:-1]])
        pairs = negative.sum() * positive.sum()
        metrics["auroc"] = float((positive * (below + negative / 2)).sum() / pairs) if pairs > 0 else None
    return metrics


def mean_metrics(per_site: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Return each metric's plain mean over the sites that have it."""
    keys = dict.fromkeys(key for metrics in per_site for key in metrics)
    means: dict[str, float | None] = {}
    for key in keys:
        present = [m[key] for m in per_site if m.get(key) is not None]
        means[key] = float(np.mean([v for v in present if v is not None])) if present else None
    return means


def higher_is_better(metric: str) -> bool:
    """Return whether more of this metric is good."""
    return metric in ("accuracy", "auroc", "r2")


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)
