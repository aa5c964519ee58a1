"""The mechanism for ``mechanism: local``: one site's clipped sum becomes private before it leaves.

The sum is rounded to a grid of step gamma = z C / s, a discrete Gaussian of deviation s (the sampler's
largest level) is added in integers, and the integers times gamma are released. Neighbouring data sets
differ by one record, added or removed.

**Sensitivity.** Neighbouring sums differ by at most C in L2 norm. Rounding moves two values at most one step
further apart, and the division by gamma, done in float64 on quotients below 2^50, at most 1/8 step. So the
integers differ by at most C / gamma + 1.125 sqrt(d) in L2 norm: the sensitivity is inflated by
1 + 1.125 sqrt(d) z / s, refused above 1.001, and the event to charge is a Gaussian with noise multiplier
z / inflation. That the float64 sum itself is rounded is paid for by the slack in :mod:`fedsci.privacy.clipping`.

**Why the Gaussian's curve applies.** A discrete Gaussian of deviation s is what a *continuous* Gaussian of
deviation sqrt(s^2 - 4) becomes when each coordinate is then rounded at random, by a discrete Gaussian of
deviation 2 centred on it: by Poisson summation, up to a relative error below 1e-33 a coordinate, which
:func:`release_distance` counts. Rounding is post-processing, so every bound for the Gaussian with noise
multiplier z sqrt(1 - 4 / s^2) holds, in PLD as in Renyi terms. At s = 3.4e7 the factor is 1 - 2e-15.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedsci.errors import InputError
from fedsci.privacy import discrete_gaussian
from fedsci.privacy.clipping import check_clipping_norm
from fedsci.privacy.randomness import KeyStream

LEVEL: Final = len(discrete_gaussian.LEVELS) - 1
MAX_INFLATION: Final = 1.001
_ROUNDING_STEPS: Final = 1.125
_MAX_QUOTIENT: Final = 2.0**50
_ROUNDING_DEVIATION: Final = 2.0


def sensitivity_inflation(dimension: int, noise_multiplier: float) -> float:
    """Return by what factor rounding to the grid raises the sensitivity of a sum of ``dimension`` values."""
    return 1 + _ROUNDING_STEPS * math.sqrt(dimension) * noise_multiplier / discrete_gaussian.LEVELS[LEVEL]


def charged_noise_multiplier(dimension: int, noise_multiplier: float) -> float:
    """Return the noise multiplier of the Gaussian event that :func:`noisy_sum` must be charged as.

    Neighbouring relation: add or remove one record.

    Raises:
        InputError: if the parameters are not positive, or rounding would cost more than 0.1 %.
    """
    _check(dimension, noise_multiplier)
    deviation = discrete_gaussian.LEVELS[LEVEL]
    continuous = math.sqrt(1 - (_ROUNDING_DEVIATION / deviation) ** 2)
    return noise_multiplier * continuous / sensitivity_inflation(dimension, noise_multiplier)


def release_distance(dimension: int) -> float:
    """Return how far one release is, in total variation, from a post-processed Gaussian mechanism.

    With ``steps`` releases at a total of epsilon, delta grows by ``steps * distance * (1 + exp(epsilon))``.
    """
    error = discrete_gaussian.poisson_summation_error(_ROUNDING_DEVIATION)
    return dimension * (discrete_gaussian.total_variation_bound(LEVEL) + 2 * error / (1 - error))


def noisy_sum(
    clipped_sum: NDArray[np.float64], *, clipping_norm: float, noise_multiplier: float, keystream: KeyStream
) -> NDArray[np.float64]:
    """Return the sum with Gaussian noise of deviation ``noise_multiplier * clipping_norm`` a coordinate.

    The result is private and may leave. It is an integer multiple of gamma (see the module) and its noise is
    drawn in integers, so no low-order bits tell of the sum.

    Args:
        clipped_sum: float64, shape ``(d,)``: a sum of records, each of L2 norm at most ``clipping_norm``
            (:mod:`fedsci.privacy.clipping`). Sensitive.
        clipping_norm: the L2 sensitivity C to adding or removing one record.
        noise_multiplier: z, standard deviation over sensitivity. Charge
            :func:`charged_noise_multiplier`, which is lower by up to 0.1 %.
        keystream: where the randomness comes from.

    Raises:
        InputError: if a parameter is not positive, the sum is not a finite float64 vector, or it is too
            large for the grid (2^50 steps: 3e7 records at z = 1).
    """
    check_clipping_norm(clipping_norm)
    _check(clipped_sum.size, noise_multiplier)
    if clipped_sum.ndim != 1 or clipped_sum.dtype != np.float64:
        raise InputError("the clipped sum must be a float64 vector")
    deviation = discrete_gaussian.LEVELS[LEVEL]
    gamma = noise_multiplier * clipping_norm / deviation
    if not np.isfinite(clipped_sum).all():
        raise InputError("the clipped sum holds NaN or infinity")
    limit = gamma * _MAX_QUOTIENT
    if np.abs(clipped_sum).max(initial=0.0) >= limit:
        raise InputError("the clipped sum is too large for the noise grid", hint="check that records are clipped")
    steps = np.rint(clipped_sum / gamma).astype(np.int64)
    steps += discrete_gaussian.sample(LEVEL, steps.size, keystream)
    return np.multiply(steps, gamma, dtype=np.float64)


def _check(dimension: int, noise_multiplier: float) -> None:
    if not (math.isfinite(noise_multiplier) and noise_multiplier > 0):
        raise InputError(f"noise multiplier {noise_multiplier!r} is not a positive number")
    if dimension < 0:
        raise InputError(f"dimension {dimension} is negative")
    inflation = sensitivity_inflation(dimension, noise_multiplier)
    if inflation > MAX_INFLATION:
        raise InputError(
            f"rounding {dimension} values at noise multiplier {noise_multiplier:.4g} would raise the "
            f"sensitivity by {inflation - 1:.2%}, above 0.1 %",
            hint="use a smaller model or less noise",
        )
