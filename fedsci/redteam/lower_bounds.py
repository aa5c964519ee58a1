"""Lower bounds on epsilon from canaries' scores: three tests, each at a stated confidence.

A score is high where the auditor believes a canary to be in. All three reject claims: "the mechanism is
(epsilon, delta)-DP" is refuted where scores tell in from out better than any such mechanism lets them. Neighbouring
relation: add or remove one record.

- :func:`effect_size`: how many deviations the two means lie apart. Sharp where scores are Gaussian; blind to tails, as
  of a mechanism that fails rarely and badly.
- :func:`one_run` (Steinke, Nasr and Jagielski 2023, arXiv 2305.08846): how many of the surest guesses are right. Holds
  for any mechanism, and pays for it: it sees gross faults only.
- :func:`one_run_gaussian` (Mahloujifar, Melis and Chaudhuri 2024, arXiv 2410.22235): the same, where the hypothesis is
  the whole curve of a Gaussian mechanism. It sees a little more.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from fedsci.privacy.accounting import gaussian_delta

Bound = Callable[[int, int, float], float]
"""From right guesses, guesses made, and a level, to an epsilon."""
_LARGEST: Final = 60.0  # epsilon beyond which nothing is told apart
_NORMAL: Final = 30.0  # deviations from which a noncentral t is taken for normal
_FARTHEST: Final = 1e6  # times a claimed effect that is looked at
_GUESSES: Final = (0.02, 0.05, 0.1, 0.2, 0.4)  # shares of the canaries that are guessed, fixed beforehand


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """What the auditor believes of each canary, and the truth.

    Attributes:
        values: float64, higher for "in".
        present: the coins.
    """

    values: NDArray[np.float64]
    present: NDArray[np.bool_]


def epsilon_of_gaussian(mu: float, *, delta: float) -> float:
    """Return epsilon at ``delta`` of a release whose two cases are ``mu`` deviations apart (Dong, Roth, Su 2022).

    For adding or removing one record. Zero where ``mu`` is; infinite where it is.
    """
    if math.isinf(mu):
        return math.inf
    if mu <= 0 or gaussian_delta(1 / mu, 0.0) <= delta:
        return 0.0
    if gaussian_delta(1 / mu, _LARGEST) > delta:
        return math.inf
    return float(optimize.brentq(lambda e: gaussian_delta(1 / mu, e) - delta, 0.0, _LARGEST))


def mu_of_gaussian(epsilon: float, *, delta: float) -> float:
    """Return how many deviations apart a Gaussian release may have its two cases, for (epsilon, delta)."""
    return float(optimize.brentq(lambda mu: gaussian_delta(1 / mu, epsilon) - delta, 1e-6, 1e3))


@dataclass(frozen=True, kw_only=True)
class EffectSize:
    """How far apart the scores of canaries that are in and out lie.

    Attributes:
        mu: the difference of the means over the pooled standard deviation; infinite where nothing varies.
        lowest: its lower confidence limit.
        freedom: degrees of freedom of the deviation.
        precision: sqrt(n_in n_out / (n_in + n_out)).
    """

    mu: float
    lowest: float
    freedom: int
    precision: float

    def chance(self, mu: float) -> float:
        """Return how likely so large an effect is where the true one is ``mu``: the p-value against a claim."""
        if not math.isfinite(self.mu):
            return 0.0
        seen, true = self.mu * self.precision, mu * self.precision
        if max(seen, true) > _NORMAL:  # where scipy's series does not converge, both are normal
            return float(stats.norm.sf((seen - true) / math.sqrt(1 + true**2 / (2 * self.freedom))))
        return float(stats.nct.sf(seen, self.freedom, true))

    def visible(self, mu: float, *, level: float) -> float:
        """Return how many times ``mu`` the true effect must be for a test of ``mu`` at ``level`` to find it.

        Every second time; infinite where so few scores find nothing.
        """
        if self.freedom == 0 or self.precision == 0:
            return math.inf
        limit = _crossing(lambda seen: replace(self, mu=seen).chance(mu) - level, mu)
        return _crossing(lambda true: 0.5 - replace(self, mu=limit).chance(true), mu) / mu


def _crossing(falling: Callable[[float], float], low: float) -> float:
    """Return where a falling function that is positive at ``low`` becomes negative; infinite where it is not found."""
    high = 2 * low
    while falling(high) > 0:
        high *= 2
        if high > _FARTHEST * low:
            return math.inf
    return float(optimize.brentq(falling, low, high))


def effect_size(scores: Scores, *, confidence: float) -> EffectSize:
    """Return the effect size of Gaussian scores; exact, by the noncentral t distribution."""
    inside, outside = scores.values[scores.present], scores.values[~scores.present]
    if min(len(inside), len(outside)) < 2:
        return EffectSize(mu=0.0, lowest=0.0, freedom=0, precision=0.0)
    freedom = len(scores.values) - 2
    spread = math.sqrt((inside.var() * len(inside) + outside.var() * len(outside)) / freedom)
    apart = float(inside.mean() - outside.mean())
    precision = math.sqrt(len(inside) * len(outside) / len(scores.values))
    if apart > 0 and spread <= 1e-9 * apart:
        return EffectSize(mu=math.inf, lowest=math.inf, freedom=freedom, precision=precision)
    mu = apart / spread if spread > 0 else 0.0
    found = EffectSize(mu=mu, lowest=0.0, freedom=freedom, precision=precision)
    if mu <= 0 or found.chance(0.0) > 1 - confidence:
        return found
    lowest = optimize.brentq(lambda m: found.chance(m) - (1 - confidence), 0.0, mu)
    return EffectSize(mu=mu, lowest=float(lowest), freedom=freedom, precision=precision)


def one_run(scores: Scores, *, delta: float, confidence: float) -> float:
    """Return the largest epsilon that the guesses refute at ``delta``; 0 where they refute none.

    Theorem 5.2 of Steinke, Nasr and Jagielski. How many canaries to guess is tried over a few shares, and each pays.
    """
    count = len(scores.values)
    return _best(scores, 1 - confidence, lambda right, made, level: _one_run(right, made, count, delta, level))


def one_run_gaussian(scores: Scores, *, delta: float, confidence: float) -> float:
    """Return the same where the hypothesis is a Gaussian mechanism's whole curve, not its one point."""
    count = len(scores.values)
    return _best(scores, 1 - confidence, lambda right, made, level: _gaussian(right, made, count, delta, level))


def _best(scores: Scores, level: float, bound: Bound) -> float:
    count, order = len(scores.values), np.argsort(scores.values, kind="stable")
    found = 0.0
    for share in _GUESSES:
        half = int(count * share / 2)
        if half == 0:
            continue
        right = int(scores.present[order[-half:]].sum() + (~scores.present[order[:half]]).sum())
        found = max(found, bound(right, 2 * half, level / len(_GUESSES)))
    return found


def _one_run(right: int, made: int, canaries: int, delta: float, level: float) -> float:
    def chance(epsilon: float) -> float:
        """How likely so many right guesses are, at most, under (epsilon, delta)."""
        tail = stats.binom.sf(np.arange(right - 1, -2, -1), made, 1 / (1 + math.exp(-epsilon)))
        more = (tail[1:] - tail[0]) / np.arange(1, right + 1)
        return float(tail[0] + 2 * canaries * delta * max(0.0, more.max(initial=0.0)))

    return _largest_refuted(lambda epsilon: chance(epsilon) <= level)


def _gaussian(right: int, made: int, canaries: int, delta: float, level: float) -> float:
    def refuted(epsilon: float) -> bool:
        """Whether so many right guesses are rarer than ``level`` under the Gaussian's curve (their algorithm 3)."""
        mu = mu_of_gaussian(epsilon, delta=delta) if epsilon > 0 else 0.0
        correct, wrong = level * right / canaries, level * (made - right) / canaries
        for left in range(right - 1, -1, -1):
            raised = max(wrong, float(special.ndtr(special.ndtri(correct) - mu)))
            if raised == wrong:  # it stays so from here on
                break
            correct = min(1.0, correct + left / (made - left) * (raised - wrong))
            wrong = raised
        return correct + wrong > made / canaries

    return _largest_refuted(refuted)


def _largest_refuted(refuted: Callable[[float], bool]) -> float:
    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while refuted(high):
        low, high = high, 2 * high
        if high > _LARGEST:
            return math.inf
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low
