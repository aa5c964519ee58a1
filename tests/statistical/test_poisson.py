import numpy as np
import pytest
from scipy.stats import binomtest

from fedsci.privacy.poisson import poisson_sample

RECORDS = 200_000


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_the_rate_is_right_and_wrong_ones_are_rejected(rate, keystream):
    taken = int(poisson_sample(RECORDS, rate, keystream).sum())
    assert binomtest(taken, RECORDS, rate).pvalue > 1e-3
    assert binomtest(taken, RECORDS, rate * 0.8).pvalue < 1e-4
    assert binomtest(taken, RECORDS, min(1.0, rate * 1.2)).pvalue < 1e-4


def test_records_take_part_independently(keystream):
    steps = np.array([poisson_sample(200, 0.3, keystream) for _ in range(3000)], dtype=float)
    # The number taken varies as a binomial does; a fixed batch size would not vary at all.
    assert steps.sum(axis=1).var() == pytest.approx(200 * 0.3 * 0.7, rel=0.12)
    correlations = np.corrcoef(steps.T) - np.eye(200)
    assert np.abs(correlations).max() < 6 / np.sqrt(3000)


def test_steps_differ(keystream):
    assert not np.array_equal(poisson_sample(1000, 0.5, keystream), poisson_sample(1000, 0.5, keystream))
