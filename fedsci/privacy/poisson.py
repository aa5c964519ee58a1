"""Poisson sampling: each record takes part in a step independently, with the same probability.

Amplification by sampling holds for exactly this, with the sample kept secret; not for shuffled batches,
whose order may be known (PoissonGaussianEvent charged for shuffling understates 37.6 as 8.3: see the tests).
"""

import numpy as np
from numpy.typing import NDArray

from fedsci.errors import InputError
from fedsci.privacy.randomness import KeyStream


def check_sample_rate(sample_rate: float) -> None:
    """Pass if ``sample_rate`` is in (0, 1].

    Raises:
        InputError: if it is not, or is NaN.
    """
    if not 0 < sample_rate <= 1:
        raise InputError(f"sample rate {sample_rate!r} is not in (0, 1]")


def poisson_sample(record_count: int, sample_rate: float, keystream: KeyStream) -> NDArray[np.bool_]:
    """Return which records take part: each one independently, with probability ``sample_rate``.

    The probability is exactly floor(2^64 rate) / 2^64, never above the rate that is charged. At rate 1
    every record takes part. The sample may be empty: callers add noise to an empty sum all the same.

    Returns:
        bool, shape ``(record_count,)``. Secret: who was sampled is what amplification hides.

    Raises:
        InputError: if ``sample_rate`` is not in (0, 1] or ``record_count`` is negative.
    """
    check_sample_rate(sample_rate)
    if record_count < 0:
        raise InputError(f"cannot sample from {record_count} records")
    if sample_rate == 1:
        return np.ones(record_count, dtype=np.bool_)
    # A float times a power of two is exact, and below 2^64 because sample_rate < 1.
    threshold = np.uint64(int(sample_rate * 2.0**64))
    return keystream.uint64(record_count) < threshold
