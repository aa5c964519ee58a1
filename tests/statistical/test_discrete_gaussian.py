import numpy as np
import pytest
from scipy.stats import chisquare

from fedsci.privacy import discrete_gaussian

COUNT = 200_000


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_the_right_distribution_is_accepted_and_wrong_ones_rejected(level, keystream, p_value):
    deviation = discrete_gaussian.LEVELS[level]
    samples = discrete_gaussian.sample(level, COUNT, keystream)
    assert p_value(samples, deviation=deviation) > 1e-3
    assert p_value(samples, deviation=0.95 * deviation) < 1e-9
    assert p_value(samples, deviation=1.05 * deviation) < 1e-9
    assert p_value(samples, deviation=deviation, centre=0.05 * deviation) < 1e-9
    assert p_value(samples[np.abs(samples) < 3 * deviation], deviation=deviation) < 1e-9
    assert p_value(np.clip(samples, -3 * int(deviation), 3 * int(deviation)), deviation=deviation) < 1e-9


def test_the_base_table_is_right_outcome_by_outcome(keystream):
    samples = discrete_gaussian.sample(0, 2_000_000, keystream)
    outcomes = np.arange(-64, 65)
    weights = np.exp(-(outcomes**2) / (2 * 16.0**2))
    observed = np.array([np.count_nonzero(samples == k) for k in outcomes])
    # Outcomes beyond 4 deviations are counted together, so that every expected count is large.
    total = np.exp(-(np.arange(-208, 209) ** 2) / (2 * 16.0**2)).sum()
    expected = len(samples) * weights / total
    observed, expected = (
        np.append(observed, COUNT * 10 - observed.sum()),
        np.append(expected, COUNT * 10 - expected.sum()),
    )
    assert chisquare(observed, expected).pvalue > 1e-3
    assert chisquare(np.roll(observed, 1), expected).pvalue < 1e-9


def test_samples_do_not_depend_on_each_other(keystream):
    samples = discrete_gaussian.sample(3, COUNT, keystream) / discrete_gaussian.LEVELS[3]
    for lag in (1, 2, 1 << 15):
        assert abs(np.mean(samples[lag:] * samples[:-lag])) < 4 / np.sqrt(COUNT)


def test_low_bits_are_uniform(keystream):
    samples = discrete_gaussian.sample(3, COUNT, keystream)
    assert chisquare(np.bincount(samples & 255, minlength=256)).pvalue > 1e-3


def test_the_test_rejects_no_more_than_it_should(seeded, p_value):
    """Right samples must not fail often: over 40 streams, p-values below 0.05 stay rare."""
    low = sum(
        p_value(discrete_gaussian.sample(1, 20_000, seeded(f"s{i}")), deviation=discrete_gaussian.LEVELS[1]) < 0.05
        for i in range(40)
    )
    assert low <= 7
