"""Samples of the discrete Gaussian over the integers, centre 0, to within 2^-108 of exact.

P(k) is proportional to exp(-k^2 / (2 s^2)). Continuous Gaussians drawn in floating point leak through their
low bits (Mironov, CCS 2012); integers do not (Canonne, Kamath and Steinke, 2020, arXiv 2004.00010).

The smallest deviation comes from an exact table, cut at 13 deviations. Larger ones come by convolution: if
x and y are discrete Gaussian with deviation s, then x + k y is one with deviation s sqrt(1 + k^2), nearly
(Peikert, CRYPTO 2010; Micciancio and Walter, CRYPTO 2017). With k = floor(s / 2) four deviations can be
reached, :data:`LEVELS`: 16, 129, 8.26e3 and 3.41e7.

How near. For the base table, the mass beyond 13 s is at most 2 exp(-13^2 / 2), and rounding 417
probabilities to multiples of 2^-128 moves at most 417 * 2^-128. For a convolution,

    P(x + k y = n)  ~  exp(-n^2 / (2 s^2 (1 + k^2))) * sum_m exp(-(m - n k / (1 + k^2))^2 / (2 t^2)),

with t = s / sqrt(1 + k^2). By Poisson summation the sum over m is a constant times 1 + e with
|e| <= r = 2 sum_j exp(-2 pi^2 t^2 j^2), so every probability is right up to a factor within
(1 - r) / (1 + r) and (1 + r) / (1 - r), and the total variation distance is at most r / (1 - r). Here
t > 1.98, r < 4e-34. Errors of the inputs add: a sample of level i + 1 uses two of level i.

Not constant time: how long a draw takes depends, weakly, on the values drawn.
"""

import math
from decimal import Decimal
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedsci.errors import InputError
from fedsci.privacy.exact_table import TAIL_DEVIATIONS, ExactTables, gaussian_weights
from fedsci.privacy.randomness import KeyStream

BASE_DEVIATION: Final = 16
NARROW: Final = range(1, 129)
"""The deviations of :func:`sample_narrow`."""
_SLOT_BITS: Final = 16
_CHUNK: Final = 1 << 16


def _steps() -> tuple[tuple[int, ...], tuple[int, ...]]:
    variances, factors = [BASE_DEVIATION**2], []
    for _ in range(3):
        factors.append(math.isqrt(variances[-1] // 4))
        variances.append(variances[-1] * (1 + factors[-1] ** 2))
    return tuple(variances), tuple(factors)


VARIANCES: Final = _steps()[0]
"""The exact squared deviation of each level."""
_FACTORS: Final = _steps()[1]

LEVELS: Final[tuple[float, ...]] = tuple(math.sqrt(variance) for variance in VARIANCES)
"""The deviation of each level: 16, about 129, 8.26e3, 3.41e7."""


def poisson_summation_error(deviation: float) -> float:
    """Return r: how far, relatively, a Gaussian sum over the integers may move with its centre.

    The bound 2 sum_j exp(-2 pi^2 deviation^2 j^2), its tail summed as a geometric series. Infinite below
    a deviation of 0.3, where it says nothing.
    """
    if deviation < 0.3:
        return math.inf
    first = math.exp(-2 * math.pi**2 * deviation**2)
    return 2 * first / (1 - first)


def total_variation_bound(level: int) -> float:
    """Return an upper bound on the distance of one sample's distribution from the discrete Gaussian.

    Drawing n samples costs a mechanism with epsilon at most ``n * bound * (1 + exp(epsilon))`` in delta.
    The derivation is in the module's docstring; that AES output is uniform is assumed, not counted.
    """
    _check_level(level)
    bound = table_error(BASE_DEVIATION)
    for variance, factor in zip(VARIANCES[:level], _FACTORS[:level], strict=True):
        error = poisson_summation_error(math.sqrt(variance / (1 + factor**2)))
        bound = 2 * bound + error / (1 - error)
    return bound


def table_error(deviation: float) -> float:
    """Return how far a table cut at 13 deviations, rounded to multiples of 2^-128, is from exact."""
    outcomes = 2 * math.ceil(TAIL_DEVIATIONS * deviation) + 2
    return 2 * math.exp(-(TAIL_DEVIATIONS**2) / 2) + outcomes * 2.0**-128


def sample(level: int, size: int, keystream: KeyStream) -> NDArray[np.int64]:
    """Return ``size`` independent discrete Gaussians with deviation ``LEVELS[level]``.

    Each lies within :func:`total_variation_bound` of exact, and within 13 deviations of zero in each of the
    2^level draws that it is made of.

    Args:
        level: 0 to 3.
        size: how many; zero gives an empty array.
        keystream: where the randomness comes from.

    Raises:
        InputError: if ``level`` is no level or ``size`` is negative.
    """
    _check_level(level)
    if size < 0:
        raise InputError(f"cannot draw {size} samples")
    out = np.empty(size, dtype=np.int64)
    for start in range(0, size, _CHUNK):
        part = out[start : start + _CHUNK]
        part[:] = _convolve(level, len(part), keystream)
    return out


def _convolve(level: int, size: int, keystream: KeyStream) -> NDArray[np.int64]:
    if level == 0:
        return _look_up(_table(BASE_DEVIATION), size, keystream).astype(np.int64)
    coarse = _convolve(level - 1, size, keystream)
    coarse *= _FACTORS[level - 1]
    coarse += _convolve(level - 1, size, keystream)
    return coarse


def sample_narrow(deviation: int, size: int, keystream: KeyStream) -> NDArray[np.int16]:
    """Return ``size`` independent discrete Gaussians with a small whole deviation, within 2^-115 of exact.

    The distance of each sample from exact is at most ``table_error(deviation)``.

    Raises:
        InputError: if ``deviation`` is not in 1..128 or ``size`` is negative.
    """
    if deviation not in NARROW:
        raise InputError(f"no table for deviation {deviation!r}", hint=f"use {NARROW[0]} to {NARROW[-1]}")
    if size < 0:
        raise InputError(f"cannot draw {size} samples")
    out = np.empty(size, dtype=np.int16)
    for start in range(0, size, _CHUNK):
        part = out[start : start + _CHUNK]
        part[:] = _look_up(_table(deviation), len(part), keystream)
    return out


def _look_up(table: ExactTables, size: int, keystream: KeyStream) -> NDArray[Any]:
    index = keystream.uint16(size)
    drawn = table.slots.take(index)
    table.finish(drawn, index, keystream)
    return drawn


@cache
def _table(deviation: int) -> ExactTables:
    cut = TAIL_DEVIATIONS * deviation
    weights = gaussian_weights(Decimal(deviation**2), Decimal(0), -cut, cut)
    return ExactTables.from_weights([weights], first=-cut, slot_bits=_SLOT_BITS)


def _check_level(level: int) -> None:
    if level not in range(len(VARIANCES)):
        raise InputError(f"no discrete Gaussian level {level}", hint=f"use 0 to {len(VARIANCES) - 1}")
