"""How well scores tell two kinds apart, and how sure that is. Higher scores speak for the first kind."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
_CERTAIN = 1.959964  # standard errors on each side of a 95 % interval


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A share and its 95 % interval, all in [0, 1]."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"

    def percent(self) -> str:
        """Return it in per cent."""
        return f"{100 * self.value:.3g} % ({100 * self.low:.3g} to {100 * self.high:.3g})"

    def to_json(self) -> dict[str, float]:
        """Return it for ``Finding.measured``."""
        return {"value": self.value, "low": self.low, "high": self.high}


def auc(of: Scores, other: Scores) -> float:
    """Return the area under the ROC: how often a score of the first kind is the larger one; ties count half.

    >>> auc(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.875
    """
    every, inverse = np.unique(np.concatenate([of, other]), return_inverse=True)
    counts = np.bincount(inverse[len(of) :], minlength=len(every))
    below = np.cumsum(counts) - counts / 2
    return float(below[inverse[: len(of)]].mean() / len(other))


def auc_interval(of: Scores, other: Scores) -> Measured:
    """Return the area under the ROC of independent scores; also where it is 1 the interval has a width.

    Newcombe 2006, Statistics in Medicine 25, 559 (method 5): all areas from which the measured one is no further than
    1.96 of the standard errors of Hanley and McNeil 1982.
    """
    found, (m, n) = auc(of, other), (len(of), len(other))
    area = np.linspace(0, 1, 10_001)
    extra = (m + n) / 2 - 1
    spread = area * (1 - area) * (1 + extra * (1 - area) / (2 - area) + extra * area / (1 + area)) / (m * n)
    near = area[np.abs(found - area) <= _CERTAIN * np.sqrt(spread) + 1e-4]
    return Measured(value=found, low=float(near.min()), high=float(near.max()))


def share_interval(hits: int, of: int) -> Measured:
    """Return a share of independent trials with its Wilson interval (Wilson 1927)."""
    square, share = _CERTAIN**2, hits / of
    centre = (share + square / (2 * of)) / (1 + square / of)
    width = _CERTAIN * math.sqrt(share * (1 - share) / of + square / (4 * of**2)) / (1 + square / of)
    return Measured(value=share, low=max(0.0, centre - width), high=min(1.0, centre + width))


def mean_interval(values: Sequence[float]) -> Measured:
    """Return the mean of independent shares with its normal interval; of one value nothing is known."""
    found = np.asarray(values, np.float64)
    if len(found) < 2:
        return Measured(value=float(found.mean()), low=0.0, high=1.0)
    width = _CERTAIN * float(found.std(ddof=1)) / math.sqrt(len(found))
    mean = float(found.mean())
    return Measured(value=mean, low=max(0.0, mean - width), high=min(1.0, mean + width))


def threshold_for(other: Scores, *, false_alarms: float) -> float:
    """Return the score that this share of the other kind is above."""
    rank = int(false_alarms * len(other))
    return float(np.partition(other, len(other) - 1 - rank)[len(other) - 1 - rank])


def roc(of: Scores, other: Scores, *, points: int = 40) -> tuple[tuple[float, float], ...]:
    """Return (log10 of false alarms, log10 of detections), evenly spaced in the first, from one false alarm on."""
    down = np.sort(other)[::-1]
    alarms = np.unique(np.geomspace(1, len(other), points).astype(int))
    found = np.sort(of)
    line = []
    for number in alarms:
        caught = len(found) - int(np.searchsorted(found, down[number - 1], side="left"))
        if caught:
            line.append((math.log10(number / len(other)), math.log10(caught / len(found))))
    return tuple(line)
