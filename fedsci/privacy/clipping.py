"""Bounds on what one record may contribute to a sum.

| a record's norm | its factor |
|---|---|
| at most C (1 - 1e-5) | 1 |
| larger, finite | C (1 - 1e-5) / norm |
| zero | 1 |
| NaN or infinite | 0: the record contributes nothing |

The bound is the sensitivity of the sum when one record is added or removed. The slack of 1e-5 pays for
what floating point adds: a clipped record rounded to float32 (relative error 2^-24 a coordinate), a norm
that was itself computed in float32, and the rounding of the sum. Where N records are summed in float64, at
most B at a time and the parts one after the other, two neighbouring sums are at most 2 (B + N / B + 1) N 2^-53 C
further apart than exact ones: :func:`most_summed` says up to how many records the slack pays for that.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedsci.errors import InputError

SLACK: Final = 1e-5
_SLACK_OF_SUMS: Final = 0.9 * SLACK  # the rest is for norms and records in float32
_SMALLEST_NORM: Final = 1e-30
_LARGEST_NORM: Final = 1e30


def check_clipping_norm(clipping_norm: float) -> None:
    """Pass if ``clipping_norm`` can be held in float32 arithmetic.

    Raises:
        InputError: if it is not between 1e-30 and 1e30.
    """
    if not _SMALLEST_NORM <= clipping_norm <= _LARGEST_NORM:
        raise InputError(f"clipping norm {clipping_norm!r} is not usable", hint="use a positive number, such as 1.0")


def most_summed(per_pass: int, *, each: float = 0.0) -> int:
    """Return the most records whose float64 sum keeps the clipping norm, added up ``per_pass`` at a time.

    ``each`` is what a record adds to the distance of neighbouring sums besides, over C.

    >>> most_summed(1), most_summed(256)
    (201325, 3188497)
    """
    # 2 (B + N / B + 1) N 2^-53 + each N = slack, solved for N
    b = per_pass + 1.0 + each * 2.0**52
    return int(per_pass / 2 * (math.sqrt(b * b + 4 / per_pass * _SLACK_OF_SUMS * 2.0**52) - b))


def clip_factors(norms: NDArray[np.float64], clipping_norm: float) -> NDArray[np.float64]:
    """Return what to multiply each record by so that no record's norm exceeds ``clipping_norm``.

    A factor of zero means *leave the record out*: zero times NaN is NaN, so multiplying is not enough.

    Args:
        norms: float64, shape ``(n,)``, each record's L2 norm; ``n`` may be zero.
        clipping_norm: the bound C, same units.

    Returns:
        float64, shape ``(n,)``, each in [0, 1]. Sensitive: never logged or sent.

    Raises:
        InputError: if a norm is negative or ``clipping_norm`` is not usable.
    """
    check_clipping_norm(clipping_norm)
    norms = np.asarray(norms, dtype=np.float64)
    if np.any(norms < 0):
        raise InputError("a norm cannot be negative")
    bound = clipping_norm * (1 - SLACK)
    # Norms within the bound are replaced before dividing, so that nothing overflows.
    factors = bound / np.where(norms > bound, norms, bound)
    factors[~np.isfinite(norms)] = 0.0
    return factors


def clip_rows(rows: ArrayLike, clipping_norm: float) -> NDArray[np.float64]:
    """Return the records, each with L2 norm at most ``clipping_norm``; damaged ones become zero.

    Args:
        rows: shape ``(n, d)``, one record a row, any float type.
        clipping_norm: the bound C, same units.

    Returns:
        float64, shape ``(n, d)``. The bound survives rounding to float32. A row that holds NaN or an
        infinity is all zeros.

    Raises:
        InputError: if ``rows`` is not two-dimensional or ``clipping_norm`` is not usable.
    """
    check_clipping_norm(clipping_norm)
    values = np.array(rows, dtype=np.float64)
    if values.ndim != 2:
        raise InputError(f"expected one record a row, got shape {values.shape}")
    values[~np.isfinite(values).all(axis=1)] = 0.0
    # Dividing by the largest entry first keeps the squares of huge and tiny entries in range.
    largest = np.abs(values).max(axis=1, initial=0.0)
    largest[largest == 0] = 1.0
    units = values / largest[:, None]
    unit_norms = np.linalg.norm(units, axis=1)
    bound = clipping_norm * (1 - SLACK)
    with np.errstate(over="ignore"):
        too_long = unit_norms * largest > bound
    values[too_long] = units[too_long] * (bound / unit_norms[too_long])[:, None]
    return values
