"""How long a noise sample takes, in nanoseconds of one CPU, randomness included.

Checked: plain noise at deviation 10; and rounding with noise (real centre, grid 2^-18) at deviation 8.
"""

import secrets
import time
from collections.abc import Callable
from statistics import median

import numpy as np
from harness import Results, check, main

from fedsci.privacy import discrete_gaussian
from fedsci.privacy.randomness import KeyStream
from fedsci.privacy.rounding_noise import round_and_noise

SIZE = 1 << 20


def median_ns(work: Callable[[], object], repeats: int) -> float:
    """Return the median time of a sample; the tables are built before, on first use."""
    work()
    taken = []
    for _ in range(repeats):
        start = time.process_time_ns()
        work()
        taken.append((time.process_time_ns() - start) / SIZE)
    return median(taken)


def measure(quick: bool) -> Results:
    """Measure every sampler in turn."""
    repeats = 7 if quick else 31
    stream = KeyStream(secrets.token_bytes)
    values = np.random.default_rng(0).normal(scale=20, size=SIZE)
    out = np.zeros(SIZE, dtype=np.int64)

    def rounded() -> object:
        return round_and_noise(values, gamma=1.0, deviation=8.0, keystream=stream, out=out)

    plain = median_ns(lambda: discrete_gaussian.sample_narrow(10, SIZE, stream), repeats)
    both = median_ns(rounded, repeats)
    results = Results(bench="noise")
    results.checks = [
        check("noise_ns_s10", plain, at_most=6.0),
        check("round_and_noise_ns_s8", both, at_most=10.0),
    ]
    for level, deviation in enumerate(discrete_gaussian.LEVELS):
        taken = median_ns(lambda level=level: discrete_gaussian.sample(level, SIZE, stream), repeats)
        results.details[f"noise_ns_s{deviation:.3g}"] = taken
        print(f"deviation {deviation:>12.6g}  {taken:6.2f} ns", flush=True)
    return results


if __name__ == "__main__":
    main("noise", __doc__ or "", measure)
