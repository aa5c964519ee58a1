"""Direct checks of noise: is there as much of it as a claim needs, is it what the plan says, is it ever used twice.

They see what no canary shows: the noise itself, as the difference between what was released and the exact sum. Five
per cent too little is found with a few thousand numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import dp_accounting
import numpy as np
from dp_accounting.pld import PLDAccountant
from numpy.typing import NDArray
from scipy import optimize, stats

from fedsci.redteam.lower_bounds import mu_of_gaussian

_LARGEST_NOISE: Final = 1e5
_FEWEST: Final = 8  # numbers that a coordinate or a release is judged by: of fewer, an exact zero is no rarity
_MOST: Final = 200_000  # numbers whose shape is looked at
_MOST_ROWS: Final = 2000  # that are compared each with each


@lru_cache(maxsize=64)
def noise_needed(*, epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    """Return the least noise multiplier with which ``steps`` releases are (epsilon, delta)-DP.

    Adding or removing one record. Not by fedsci's own calibration: in closed form for full batches (Balle and Wang
    2018), by dp_accounting's accountant for Poisson samples.
    """
    if sample_rate == 1:
        return math.sqrt(steps) / mu_of_gaussian(epsilon, delta=delta)

    def too_much(noise: float) -> float:
        event = dp_accounting.PoissonSampledDpEvent(sample_rate, dp_accounting.GaussianDpEvent(noise))
        accountant = PLDAccountant(value_discretization_interval=1e-3)
        return float(accountant.compose(event, steps).get_epsilon(delta)) - epsilon

    low = 0.3
    while too_much(low) < 0 and low > 1e-2:
        low /= 2
    return float(optimize.brentq(too_much, low, _LARGEST_NOISE, rtol=1e-4))


@dataclass(frozen=True, kw_only=True)
class NoiseCheck:
    """What the noise of some releases says.

    Attributes:
        numbers: how many were looked at.
        ratio: the deviation that was found over the one that is needed.
        highest: its upper confidence limit.
        too_little: chance of so little noise where there is as much as is needed: overall, or in some coordinate or
            some release (each times how many there are).
        unexplained: chance of so much where there is no more than the plan says, likewise.
    """

    numbers: int
    ratio: float
    highest: float
    too_little: float
    unexplained: float


def check_noise(noise: NDArray[np.float64], *, needed: float, stated: float, confidence: float) -> NoiseCheck:
    """Return what chi-square tests say of noise, float64 ``(releases, numbers)``; none at all is too little.

    Args:
        noise: released minus exact.
        needed: the least standard deviation that the claim allows.
        stated: the standard deviation that the plan states, at least ``needed``.
        confidence: of ``highest``.
    """
    if noise.size == 0:
        return NoiseCheck(numbers=0, ratio=0.0, highest=0.0, too_little=0.0, unexplained=1.0)
    squares = np.square(noise / needed)
    count, total = squares.size, float(squares.sum())
    excess = float(np.square(noise / stated).sum())
    views = [(np.array([total]), np.array([excess]), count)]
    for axis in (0, 1):
        if squares.shape[1 - axis] > 1 and squares.shape[axis] >= _FEWEST:
            along = squares.sum(axis=axis)
            views.append((along, along * (needed / stated) ** 2, squares.shape[axis]))
    low = min(float(stats.chi2.cdf(part, freedom).min()) * len(part) for part, _, freedom in views)
    high = min(float(stats.chi2.sf(part, freedom).min()) * len(part) for _, part, freedom in views)
    return NoiseCheck(
        numbers=count,
        ratio=math.sqrt(total / count),
        highest=math.sqrt(total / stats.chi2.ppf(1 - confidence, count)),
        too_little=min(1.0, len(views) * low),
        unexplained=min(1.0, len(views) * high),
    )


def visible_lack(numbers: int, *, level: float) -> float:
    """Return the least part of the noise whose lack a test over so many numbers finds every second time.

    >>> round(visible_lack(19_500, level=1e-3), 3), round(visible_lack(3, level=1e-3), 2)
    (0.016, 0.9)
    """
    if numbers == 0:
        return 0.0
    return 1 - math.sqrt(float(stats.chi2.ppf(level, numbers)) / float(stats.chi2.median(numbers)))


def shape_chance(noise: NDArray[np.float64]) -> float:
    """Return how likely noise of such tails is where it is Gaussian: the test of kurtosis of Anscombe and Glynn 1983.

    Uniform or Laplace noise of the right deviation protects less, or nothing at all. 1 for too few numbers.
    """
    values = noise.ravel()[:_MOST]
    if values.size < 100 or float(values.std()) == 0:
        return 1.0
    return float(stats.kurtosistest(values).pvalue)


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """Whether any two releases share noise.

    Attributes:
        pairs: how many were compared.
        largest: the largest correlation between two.
        chance: of one as large, among so many independent pairs.
        where: which two.
    """

    pairs: int
    largest: float
    chance: float
    where: tuple[str, str]


def check_repeats(noise: NDArray[np.float64], names: Sequence[str]) -> Repeats:
    """Return what correlations say of noise that should be drawn afresh for every row; float64 ``(rows, numbers)``.

    Noise without any spread counts as repeated wherever it comes twice.
    """
    noise = noise[:_MOST_ROWS]
    rows, numbers = noise.shape
    pairs = rows * (rows - 1) // 2
    if pairs == 0 or numbers < 4:
        return Repeats(pairs=0, largest=0.0, chance=1.0, where=("", ""))
    centred = noise - noise.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    units = np.divide(centred, norms, out=np.ones_like(centred) / math.sqrt(numbers), where=norms > 0)
    alike = np.abs(units @ units.T)
    np.fill_diagonal(alike, 0.0)
    first, second = np.unravel_index(int(alike.argmax()), alike.shape)
    largest = min(float(alike[first, second]), 1.0)
    # of two independent directions in n - 1 dimensions: r^2 is Beta(1/2, (n - 2) / 2)
    chance = float(stats.beta.sf(largest**2, 0.5, (numbers - 2) / 2))
    return Repeats(
        pairs=pairs, largest=largest, chance=min(1.0, pairs * chance), where=(names[int(first)], names[int(second)])
    )
