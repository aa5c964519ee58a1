import math

import mpmath
import numpy as np
import pytest

from fedsci.errors import InputError
from fedsci.privacy import discrete_gaussian


def test_the_levels_are_the_documented_deviations():
    assert discrete_gaussian.VARIANCES == (256, 256 * 65, 256 * 65 * 4097, 256 * 65 * 4097 * (1 + 4128**2))
    assert [float(f"{level:.6g}") for level in discrete_gaussian.LEVELS] == [16.0, 128.996, 8256.76, 3.40839e7]


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_a_sample_is_within_2_to_minus_108_of_exact(level):
    assert 0 < discrete_gaussian.total_variation_bound(level) < 2.0**-108


def test_the_bound_on_a_convolution_holds_in_high_precision():
    # x + k y for s = 2.5, k = 1: every probability within the factor that the docstring promises.
    deviation, factor = mpmath.mpf("2.5"), 1
    with mpmath.workdps(50):
        base = {k: mpmath.exp(-(mpmath.mpf(k) ** 2) / (2 * deviation**2)) for k in range(-60, 61)}
        total = mpmath.fsum(base.values())
        wide = deviation**2 * (1 + factor**2)
        normaliser = mpmath.nsum(lambda k: mpmath.exp(-(k**2) / (2 * wide)), [-mpmath.inf, mpmath.inf])
        error = mpmath.mpf(discrete_gaussian.poisson_summation_error(2.5 / math.sqrt(1 + factor**2)))
        for n in range(-12, 13):
            got = mpmath.fsum(base[n - factor * m] * base[m] for m in range(-45, 46)) / total**2
            want = mpmath.exp(-(mpmath.mpf(n) ** 2) / (2 * wide)) / normaliser
            assert (1 - error) / (1 + error) <= got / want <= (1 + error) / (1 - error)


def test_samples_are_whole_and_reproducible_only_with_the_key(seeded):
    one, same, other = (discrete_gaussian.sample(3, 100, seeded(label)) for label in "aab")
    assert one.dtype == np.int64
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_no_samples_and_wrong_arguments(keystream):
    assert discrete_gaussian.sample(2, 0, keystream).shape == (0,)
    with pytest.raises(InputError):
        discrete_gaussian.sample(0, -1, keystream)
    for level in (-1, 4):
        with pytest.raises(InputError, match="level"):
            discrete_gaussian.sample(level, 1, keystream)
        with pytest.raises(InputError, match="level"):
            discrete_gaussian.total_variation_bound(level)


def test_a_narrow_gaussian_promises_nothing():
    assert math.isinf(discrete_gaussian.poisson_summation_error(0.2))


@pytest.mark.parametrize("deviation", [1, 10, 128])
def test_narrow_samples_are_cut_at_13_deviations(deviation, keystream):
    samples = discrete_gaussian.sample_narrow(deviation, 70_000, keystream)
    assert samples.dtype == np.int16
    assert np.abs(samples).max() <= 13 * deviation
    assert discrete_gaussian.table_error(deviation) < 2.0**-115
    assert discrete_gaussian.sample_narrow(deviation, 0, keystream).shape == (0,)


def test_narrow_samples_have_their_limits(keystream):
    for deviation in (0, 129, 2.5):
        with pytest.raises(InputError, match="table"):
            discrete_gaussian.sample_narrow(deviation, 1, keystream)
    with pytest.raises(InputError):
        discrete_gaussian.sample_narrow(3, -1, keystream)
