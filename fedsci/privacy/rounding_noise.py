"""The mechanism for ``mechanism: distributed``: rounding to integers and adding noise, in one draw.

A site holds a clipped sum x and a grid step gamma. It outputs, for each coordinate, an integer drawn from the
discrete Gaussian of deviation s *with real centre* x / gamma,

    P(k)  ~  exp(-(k - x / gamma)^2 / (2 s^2)).

Nothing is rounded before noise is added, so there is no rounding error to pay for, even with few bits. Sites'
integers are added under masking; only the sum is seen. Neighbouring data sets differ by one record, added or
removed.

**How.** u = x / gamma is truncated toward zero to a grid of 2^-18. A multiple t of g = 2^-9 is drawn with centre
u and deviation a = 2 g, then the integer k with centre t and deviation s' = sqrt(s^2 - a^2). Each draw is one
look-up in 512 exact tables, one for each 9-bit fraction of its centre. That k has centre u and deviation s is
convolution (Peikert, CRYPTO 2010):

    sum_t exp(-(t - u)^2 / (2 a^2) - (k - t)^2 / (2 s'^2))
        = exp(-(k - u)^2 / (2 s^2)) * sum_t exp(-(t - m)^2 / (2 b^2)),    b = a s' / s,

with m depending on k. By Poisson summation the last sum varies with m by a relative 2 exp(-2 pi^2 (b / g)^2),
and the normaliser of k's distribution varies with t by 2 exp(-2 pi^2 s'^2): both below 1e-33 for s >= 2.5.

**The sum.** Over h sites with centres u_j, the integers' sum is the discrete Gaussian with centre sum(u_j) and
deviation S = s sqrt(h), up to a relative 2 (h - 1) exp(-pi^2 s^2) a coordinate, by the same argument (the
narrowest convolution is that of two sites: b = s / sqrt(2)).

**What to charge.** That discrete Gaussian is what a continuous Gaussian with centre sum(u_j) and deviation
sqrt(S^2 - r^2) becomes when each coordinate is then rounded at random, by a discrete Gaussian of deviation r
centred on it: convolution again, where only the normaliser varies, by 2 exp(-2 pi^2 r^2). Rounding afterwards
is post-processing, so every bound for the Gaussian holds, in PLD as in Renyi terms, at a noise multiplier
smaller by sqrt(1 - r^2 / S^2). With r = 1.75 the error is 1.2e-26 a coordinate; the factor is 0.976 at S = 8 and
0.9975 at S = 25. (The Renyi divergence of the discrete Gaussian itself is the Gaussian's up to about
exp(-2 pi^2 S^2): the factor buys a PLD bound.)

**Sensitivity.** Truncation moves two neighbouring sums at most one grid step further apart, and the float64
quotient, below 2^50 steps, at most 1/8 step: C / gamma + 1.125 sqrt(d) 2^-18 in L2 norm. The norm of what one
site contributes never grows.

Not constant time: how long a draw takes depends, weakly, on the values drawn.
"""

import math
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedsci.errors import InputError
from fedsci.privacy.clipping import check_clipping_norm
from fedsci.privacy.discrete_gaussian import poisson_summation_error, table_error
from fedsci.privacy.exact_table import TAIL_DEVIATIONS, ExactTables, gaussian_weights
from fedsci.privacy.randomness import KeyStream

GRID_BITS: Final = 18
SMALLEST_DEVIATION: Final = 2.5
LARGEST_DEVIATION: Final = 64.0
MAX_INFLATION: Final = 1.001
_FRACTION_BITS: Final = 9
_FINE_DEVIATION: Final = 2
_FINE_SLOT_BITS: Final = 11
_SLOT_BITS: Final = 12
_FRACTION: Final = (1 << _FRACTION_BITS) - 1
_FINE_SLOTS: Final = ((1 << _FINE_SLOT_BITS) - 1) << _FRACTION_BITS
_WHOLE_SLOTS: Final = ((1 << _SLOT_BITS) - 1) << _FRACTION_BITS
_ROUNDING_STEPS: Final = 1.125
_ROUNDING_DEVIATION: Final = 1.75
_SMALLEST_GAMMA: Final = 1e-250
LARGEST_CENTRE: Final = 1 << 32
"""Values below this many steps of gamma can be rounded; others are refused."""
_MAX_STEPS: Final = float(LARGEST_CENTRE << GRID_BITS)
_INT32_STEPS: Final = 2.0**30
_CHUNK: Final = 1 << 16


class _Tables(NamedTuple):
    fine: ExactTables
    whole: ExactTables


def round_and_noise(
    values: NDArray[np.float64],
    *,
    gamma: float,
    deviation: float,
    keystream: KeyStream,
    out: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Return integers, discrete Gaussian with centre ``values / gamma`` and the given deviation.

    Times ``gamma`` they are unbiased for ``values``. One site's output is noised by its share only: it must
    be masked before it leaves, and the event to charge is that of the sum.

    Args:
        values: float64, shape ``(d,)``: a sum of clipped records. Sensitive.
        gamma: the grid step, in units of ``values``.
        deviation: s, in grid steps, 2.5 to 64. The noise in ``values`` has deviation ``s * gamma``.
        keystream: where the randomness comes from.
        out: where to write; a new array by default.

    Raises:
        InputError: if a parameter is out of range, ``values`` is not a finite float64 vector, or it
            holds a value beyond 2^32 steps of gamma.
    """
    _check_deviation(deviation)
    _check_gamma(gamma)
    if values.ndim != 1 or values.dtype != np.float64:
        raise InputError("the values to round must be a float64 vector")
    if out is None:
        out = np.empty(len(values), dtype=np.int64)
    elif out.shape != values.shape or out.dtype != np.int64:
        raise InputError("the output must be an int64 vector as long as the values")
    scale = 2.0**GRID_BITS / gamma
    rounder = _Rounder(_tables(float(deviation)), scale, size=min(len(values), _CHUNK))
    for start in range(0, len(values), _CHUNK):
        rounder.round(values, out, start, keystream)
    rounder.resolve(out, keystream)
    return out


def grid_step(*, noise_multiplier: float, clipping_norm: float, dimension: int, deviation: float, sites: int) -> float:
    """Return the smallest gamma with which ``sites`` sites' noise is worth ``noise_multiplier`` in full.

    Everything is paid for: :func:`charged_noise_multiplier` of the result is ``noise_multiplier`` (up to
    float rounding, on the safe side).

    Args:
        noise_multiplier: what the accountant charges, add or remove one record.
        clipping_norm: the L2 sensitivity C of the sum.
        dimension: how many values a sum holds.
        deviation: each site's s, in grid steps.
        sites: how many sites' noise counts: the fewest that may finish, less those assumed to collude.

    Raises:
        InputError: if a parameter is out of range, or the grid would be too coarse for the dimension.
    """
    check_clipping_norm(clipping_norm)
    if not (math.isfinite(noise_multiplier) and noise_multiplier > 0):
        raise InputError(f"noise multiplier {noise_multiplier!r} is not a positive number")
    usable = _usable_deviation(deviation, sites) - noise_multiplier * _rounding_norm(dimension)
    if usable <= 0:
        raise _too_coarse(dimension)
    gamma = noise_multiplier * clipping_norm / usable * (1 + 2.0**-50)
    sensitivity_inflation(dimension=dimension, clipping_norm=clipping_norm, gamma=gamma)
    return gamma


def charged_noise_multiplier(
    *, gamma: float, clipping_norm: float, dimension: int, deviation: float, sites: int
) -> float:
    """Return the noise multiplier of the Gaussian event that the sum over ``sites`` must be charged as.

    Neighbouring relation: add or remove one record. Arguments as in :func:`grid_step`.

    Raises:
        InputError: if a parameter is out of range, or the grid is too coarse for the dimension.
    """
    inflation = sensitivity_inflation(dimension=dimension, clipping_norm=clipping_norm, gamma=gamma)
    return _usable_deviation(deviation, sites) * gamma / (clipping_norm * inflation)


def sensitivity_inflation(*, dimension: int, clipping_norm: float, gamma: float) -> float:
    """Return by what factor truncation to the grid raises the sensitivity of a sum.

    Raises:
        InputError: if a parameter is out of range, or the factor is above 1.001.
    """
    check_clipping_norm(clipping_norm)
    _check_gamma(gamma)
    inflation = 1 + _rounding_norm(dimension) * gamma / clipping_norm
    if inflation > MAX_INFLATION:
        raise _too_coarse(dimension)
    return inflation


def release_distance(*, dimension: int, deviation: float, sites: int) -> float:
    """Return how far one released sum is, in total variation, from a post-processed Gaussian mechanism.

    With ``steps`` releases at a total of epsilon, delta grows by ``steps * distance * (1 + exp(epsilon))``.
    """
    usable = _usable_deviation(deviation, sites)
    coarse = math.sqrt(deviation**2 - (_FINE_DEVIATION / 2**_FRACTION_BITS) ** 2)
    error = poisson_summation_error(_FINE_DEVIATION * coarse / deviation) + poisson_summation_error(coarse)
    site = table_error(_FINE_DEVIATION) + table_error(deviation) + 2 * error / (1 - error) ** 2
    pair = poisson_summation_error(deviation / math.sqrt(2))
    last = poisson_summation_error(_ROUNDING_DEVIATION)
    total = sites * site + (sites - 1) * 2 * pair / (1 - pair) + 2 * last / (1 - last)
    return dimension * total if usable > 0 else math.inf


class _Missed(NamedTuple):
    """Look-ups to resolve: where their outcome goes, the whole part of its centre, and the slot they hit."""

    position: NDArray[np.int64]
    centre: NDArray[np.int64]
    slot: NDArray[np.int64]


class _Rounder:
    """Rounds chunk by chunk in one working space; look-ups that miss their table are resolved at the end.

    Fresh arrays, and the leftovers' tables in the cache, would cost more than the arithmetic.
    """

    def __init__(self, tables: _Tables, scale: float, *, size: int) -> None:
        self._tables, self._scale = tables, scale
        self._scaled = np.empty(size)
        # 32-bit integers are twice as fast, and enough for centres below 2^12.
        self._narrow = np.empty((3, size), dtype=np.int32)
        self._wide: NDArray[np.int64] | None = None
        self._drawn = {table.slots.dtype: np.empty(size, dtype=table.slots.dtype) for table in tables}
        none = _Missed(*(np.empty(0, dtype=np.int64) for _ in range(3)))
        self._missed_fine, self._missed_whole = [none], [none]

    def round(self, values: NDArray[np.float64], out: NDArray[np.int64], start: int, keystream: KeyStream) -> None:
        """Round the chunk at ``start``; what is missed is wrong in ``out`` until :meth:`resolve`."""
        part = values[start : start + _CHUNK]
        size = len(part)
        with np.errstate(over="ignore"):
            scaled = np.multiply(part, self._scale, out=self._scaled[:size])
        largest = max(float(scaled.max()), -float(scaled.min()))
        if not largest < _MAX_STEPS:
            raise InputError("the values to round hold NaN, infinity or numbers too large for the grid")
        centre, index, slot = self._integers(largest)[:, :size]
        np.copyto(centre, scaled, casting="unsafe")  # truncates toward zero
        # A word's bits 9 to 19 pick the slot of the first look-up, bits 20 to 31 that of the second.
        words = keystream.uint32(size).view(np.int32)
        np.bitwise_and(words, _FINE_SLOTS, out=slot)
        drawn = self._look_up(self._tables.fine, centre, index, slot, start, self._missed_fine)
        np.add(centre, drawn, out=centre)
        np.right_shift(words, _FINE_SLOT_BITS, out=slot)
        np.bitwise_and(slot, _WHOLE_SLOTS, out=slot)
        drawn = self._look_up(self._tables.whole, centre, index, slot, start, self._missed_whole)
        np.add(centre, drawn, out=out[start : start + size])

    def _integers(self, largest: float) -> NDArray[np.int32] | NDArray[np.int64]:
        if largest < _INT32_STEPS:
            return self._narrow
        if self._wide is None:
            self._wide = np.empty(self._narrow.shape, dtype=np.int64)
        return self._wide

    def _look_up(
        self,
        table: ExactTables,
        centre: NDArray[Any],
        index: NDArray[Any],
        slot: NDArray[Any],
        start: int,
        missed: list[_Missed],
    ) -> NDArray[Any]:
        """Return integers centred on the fraction of ``centre``, which keeps its whole part only."""
        drawn = self._drawn[table.slots.dtype][: len(centre)]
        np.bitwise_and(centre, _FRACTION, out=index)
        np.bitwise_or(index, slot, out=index)
        np.right_shift(centre, _FRACTION_BITS, out=centre)
        table.slots.take(index, out=drawn, mode="wrap")  # "wrap" skips a bounds check; none is out of bounds
        where = np.flatnonzero(drawn == table.unresolved)
        missed.append(_Missed(where + start, centre[where], index[where]))
        return drawn

    def resolve(self, out: NDArray[np.int64], keystream: KeyStream) -> None:
        """Put right what :meth:`round` missed."""
        fine, whole = (
            _Missed(*(np.concatenate(column, dtype=np.int64) for column in zip(*missed, strict=True)))
            for missed in (self._missed_fine, self._missed_whole)
        )
        out[whole.position] = whole.centre + self._tables.whole.resolve(whole.slot, keystream)
        # Where the first look-up missed, the second had a wrong centre: it is made again, with fresh bits.
        centre = fine.centre + self._tables.fine.resolve(fine.slot, keystream)
        slot = (keystream.uint32(len(centre)).view(np.int32) >> _FINE_SLOT_BITS) & _WHOLE_SLOTS
        index = (centre & _FRACTION) | slot
        drawn = self._tables.whole.slots.take(index)
        self._tables.whole.finish(drawn, index, keystream)
        out[fine.position] = (centre >> _FRACTION_BITS) + drawn


@lru_cache(maxsize=4)
def _tables(deviation: float) -> _Tables:
    with localcontext() as context:
        context.prec = 120  # exact: a float's square has at most 107 digits
        variance = Decimal(deviation) ** 2 - (Decimal(_FINE_DEVIATION) / 2**_FRACTION_BITS) ** 2
    return _Tables(
        fine=_centred(Decimal(_FINE_DEVIATION**2), _FINE_DEVIATION, _FINE_SLOT_BITS),
        whole=_centred(variance, deviation, _SLOT_BITS),
    )


def _centred(variance: Decimal, deviation: float, slot_bits: int) -> ExactTables:
    """Return one table a fraction j / 512 of the centre."""
    cut, count = math.ceil(TAIL_DEVIATIONS * deviation), 1 << _FRACTION_BITS
    weights = [gaussian_weights(variance, Decimal(j) / count, -cut, cut + 1) for j in range(count)]
    return ExactTables.from_weights(weights, first=-cut, slot_bits=slot_bits)


def _usable_deviation(deviation: float, sites: int) -> float:
    """Return the deviation of the continuous Gaussian that the sites' summed noise is worth."""
    _check_deviation(deviation)
    if type(sites) is not int or sites < 1:
        raise InputError(f"noise must come from at least one site, not {sites!r}")
    return math.sqrt(sites * deviation**2 - _ROUNDING_DEVIATION**2)


def _rounding_norm(dimension: int) -> float:
    if type(dimension) is not int or dimension < 0:
        raise InputError(f"dimension {dimension!r} is not a whole number of at least 0")
    return _ROUNDING_STEPS * math.sqrt(dimension) / 2**GRID_BITS


def _too_coarse(dimension: int) -> InputError:
    return InputError(
        f"truncating {dimension} values to the noise grid would raise the sensitivity by more than 0.1 %",
        hint="use a smaller model, less noise, or a larger deviation in grid steps",
    )


def _check_gamma(gamma: float) -> None:
    if not _SMALLEST_GAMMA <= gamma < math.inf:
        raise InputError(f"grid step {gamma!r} is not a positive number")


def _check_deviation(deviation: float) -> None:
    if not SMALLEST_DEVIATION <= deviation <= LARGEST_DEVIATION:
        raise InputError(
            f"noise of deviation {deviation!r} grid steps is not supported",
            hint=f"use {SMALLEST_DEVIATION:g} to {LARGEST_DEVIATION:g}",
        )
