"""How long a sum can be that honest sites made: bounds on its L2 norm from public facts alone.

A sum is S = D + Z: data D, whose norm clipping bounds by B, and the sites' summed noise Z, whose deviation sigma in
each of d coordinates is public. A norm outside of [least, most] comes from honest sites at most once in 2^40 sums
(:data:`TAIL`), whatever their records are. The parts of that probability are equal: ``t = ln(4 / TAIL)`` each.

**Noise.** A discrete Gaussian about a real centre is sub-Gaussian with its own deviation, up to a factor
``(1 + r) / (1 - r)`` a draw with ``r = 2 exp(-2 pi^2 s^2)``: by Poisson summation its moment generating function is
the Gaussian's, up to that. For s >= 2.5 and 10^12 draws the factor is 1 + 1e-41. So is a sum of such draws, with the
variances added. For a sub-Gaussian vector (Hsu, Kakade, Zhang 2012, A tail inequality for quadratic forms of
subgaussian random vectors, theorem 2.1, arXiv 1110.2842; for Gaussians Laurent and Massart 2000, Adaptive estimation
of a quadratic functional by model selection, lemma 1),

    P(|Z|^2 > sigma^2 (d + 2 sqrt(d t) + 2 t)) <= exp(-t).

It holds as well where coordinates have unequal deviations of at most sigma whose squares add up to d sigma^2 at most.

**Data.** B = C k, where k units are in the sum: all of them, or as many as Poisson sampling drew.
:func:`most_sampled` bounds k (Hoeffding 1963, Probability inequalities for sums of bounded random variables,
theorem 1).

**Both.** Where noise is drawn after the data is fixed, ``|S|^2 = |D|^2 + 2 <D, Z> + |Z|^2`` and ``<D, Z>`` is
sub-Gaussian with deviation ``sigma |D|``: less than ``sigma B sqrt(2 t)``, so that a norm is about the root of the
sum of squares. Where later data depends on earlier noise (several local steps) only the triangle inequality is left.

**Too short.** Noise has a norm from below, too. For a Gaussian Z, ``|D + Z|`` is stochastically smallest at D = 0
(Anderson 1955, The integral of a symmetric unimodal function), and ``P(|Z|^2 < sigma^2 (d - 2 sqrt(d t))) <= exp(-t)``
(Laurent and Massart, likewise). Both come from ``E exp(-x |S|^2)``, for ``0 <= x <= 1 / (2 sigma^2)`` at the bound's
own x, ``sqrt(t / d) / sigma^2`` or less; there a discrete Gaussian agrees with the continuous one up to
``exp(-2 pi^2 s^2 / (1 + 2 x s^2))`` in each draw, below 1e-26 for s >= 2.5. So a sum that is quieter than its sites'
noise must be says that some noise is missing: of privacy, not of learning.
"""

import math
from dataclasses import dataclass
from typing import Final

from fedsci.errors import InputError

#: How probable it is, at most, that honest sites' sum has a norm outside its bounds.
TAIL: Final = 2.0**-40
_T: Final = math.log(4 / TAIL)
_HALVINGS: Final = 200


@dataclass(frozen=True, kw_only=True)
class NormBound:
    """Between which norms a sum of honest sites lies.

    Attributes:
        least: 0 where nothing is known from below.
        most: L2 norm, in the sum's units.
        noise: deviation of the noise in each number of the sum; 0 without.
        dimension: how many numbers carry it.
    """

    least: float
    most: float
    noise: float
    dimension: int


def most_sampled(trials: int, mean: float) -> float:
    """Return what the sum of so many independent numbers in [0, 1] exceeds with probability TAIL / 4 at most.

    Args:
        trials: N >= 0; for Poisson sampling every unit in every step.
        mean: of the sum, at most N: q N.

    Returns:
        The x >= mean with ``N KL(x / N, mean / N) = t``, at most N: N itself where everybody is sampled.

    Raises:
        InputError: the mean is not between 0 and N.
    """
    if not 0 <= mean <= trials:
        raise InputError(f"{trials} numbers of at most 1 do not have the mean sum {mean!r}")
    if mean == 0 or mean == trials:
        return float(mean)
    low, high = mean / trials, 1.0
    if trials * math.log(1 / low) <= _T:
        return float(trials)
    p = low
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if trials * _divergence(middle, p) < _T else (low, middle)
    return min(float(trials), high * trials)


def _divergence(x: float, p: float) -> float:
    """Return the Kullback-Leibler divergence of Bernoulli distributions, 0 < p <= x <= 1."""
    rest = (1 - x) * math.log((1 - x) / (1 - p)) if x < 1 else 0.0
    return x * math.log(x / p) + rest


def longest_noise(dimension: int, deviation: float) -> float:
    """Return what the norm of so much noise exceeds with probability TAIL / 4 at most.

    Args:
        dimension: d >= 0.
        deviation: sigma >= 0, in each of its numbers.
    """
    return deviation * math.sqrt(dimension + 2 * math.sqrt(dimension * _T) + 2 * _T)


def shortest_noise(dimension: int, deviation: float) -> float:
    """Return below what the norm of so much noise, or of it and any data, is with probability TAIL / 4 at most.

    It is 0 for fewer than 117 numbers.
    """
    return deviation * math.sqrt(max(0.0, dimension - 2 * math.sqrt(dimension * _T)))


def bound_sum(
    *, data: float, noise: float, dimension: int, fresh: bool, full: bool, slack: float, rounding: float = 0.0
) -> NormBound:
    """Return between which norms the sum of honest sites lies.

    Args:
        data: B, the most that the data's norm can be.
        noise: sigma, the deviation of the noise in each of ``dimension`` numbers.
        dimension: d.
        fresh: noise was drawn after the data was fixed.
        full: all the noise is in the sum, undiminished by any clipping after it, so that a norm can be too small.
        slack: relative error of floating point.
        rounding: the most by which rounding to a grid moves the sum besides, as a norm.

    Raises:
        InputError: a number is negative, or not finite.
    """
    for value in (data, noise, dimension, rounding):
        if not 0 <= value < math.inf:
            raise InputError(f"a norm is made of finite numbers of at least 0, not {value!r}")
    loud = longest_noise(dimension, noise)
    apart = math.sqrt(data**2 + 2 * data * noise * math.sqrt(2 * _T) + loud**2)
    most = apart if fresh else data + loud
    least = shortest_noise(dimension, noise) if full else 0.0
    return NormBound(
        least=max(0.0, least * (1 - slack) - rounding),
        most=most * (1 + slack) + rounding,
        noise=noise,
        dimension=dimension,
    )


def signal_of(norm: float, bound: NormBound) -> tuple[float, float]:
    """Return what is left of a norm without its noise's share, and how far noise alone moves that.

    ``|S|^2 - d sigma^2`` is ``|D|^2`` on average; by chance it is larger by ``sigma^2 (2 sqrt(d t) + 2 t)``, once in a
    thousand sums at most (t = ln 1000).
    """
    t = math.log(1000)
    chance = bound.noise**2 * (2 * math.sqrt(bound.dimension * t) + 2 * t)
    return math.sqrt(max(0.0, norm**2 - bound.dimension * bound.noise**2)), math.sqrt(chance)
