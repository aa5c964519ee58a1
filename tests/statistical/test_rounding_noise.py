import numpy as np
import pytest
from scipy.stats import chisquare

from fedsci.privacy import rounding_noise
from fedsci.privacy.rounding_noise import round_and_noise

COUNT = 200_000


@pytest.mark.slow
@pytest.mark.parametrize("centre", [0.0, 0.37, -2.999, 4095.8, 123_456.5])
@pytest.mark.parametrize("deviation", [8.0, 17.3])
def test_the_right_distribution_is_accepted_and_wrong_ones_rejected(centre, deviation, keystream, p_value):
    values = np.full(COUNT, centre * 0.25)
    drawn = round_and_noise(values, gamma=0.25, deviation=deviation, keystream=keystream)
    assert p_value(drawn, deviation=deviation, centre=centre) > 1e-3
    assert p_value(drawn, deviation=0.95 * deviation, centre=centre) < 1e-9
    assert p_value(drawn, deviation=1.05 * deviation, centre=centre) < 1e-9
    assert p_value(drawn, deviation=deviation, centre=centre + 0.05 * deviation) < 1e-9
    assert p_value(drawn[np.abs(drawn - centre) < 3 * deviation], deviation=deviation, centre=centre) < 1e-9


@pytest.fixture(params=["usual", "tiny"])
def tables(request, monkeypatch):
    """Tables as they are; and so small that nearly every draw is resolved by its leftovers."""
    if request.param == "tiny":
        monkeypatch.setattr(rounding_noise, "_FINE_SLOT_BITS", 3)
        monkeypatch.setattr(rounding_noise, "_FINE_SLOTS", 7 << 9)
        monkeypatch.setattr(rounding_noise, "_SLOT_BITS", 4)
        monkeypatch.setattr(rounding_noise, "_WHOLE_SLOTS", 15 << 9)
    rounding_noise._tables.cache_clear()
    yield
    rounding_noise._tables.cache_clear()


@pytest.mark.slow
@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("centre", [0.3, -0.7])
def test_narrow_noise_is_right_outcome_by_outcome(centre, keystream):
    count, outcomes = 1_000_000, np.arange(-9, 10)

    def p(assumed):
        everything = np.arange(-40, 41)
        weights = np.exp(-((everything - assumed) ** 2) / (2 * 2.5**2))
        expected = count * (weights / weights.sum())[np.isin(everything, outcomes)]
        observed = np.array([np.count_nonzero(drawn == k) for k in outcomes])
        return chisquare(
            np.append(observed, count - observed.sum()), np.append(expected, count - expected.sum())
        ).pvalue

    drawn = round_and_noise(np.full(count, centre), gamma=1.0, deviation=2.5, keystream=keystream)
    assert p(centre) > 1e-3
    assert p(round(centre)) < 1e-9  # what rounding before the noise would give
    assert p(centre + 0.05) < 1e-9


def test_the_sum_over_sites_is_one_gaussian(seeded, p_value):
    sites, deviation = 10, 8.0
    values = [np.full(COUNT, 0.1 * site - 0.2) for site in range(sites)]
    total = sum(
        round_and_noise(value, gamma=1.0, deviation=deviation, keystream=seeded(f"lab-{site}"))
        for site, value in enumerate(values)
    )
    centre, wide = sum(float(value[0]) for value in values), deviation * np.sqrt(sites)
    assert p_value(total, deviation=wide, centre=centre) > 1e-3
    for wrong in (0.95, 1.05):
        assert p_value(total, deviation=wrong * wide, centre=centre) < 1e-9
    # Shares sized for one more site than took part are seen.
    assert p_value(total, deviation=deviation * np.sqrt(sites + 1), centre=centre) < 1e-9


def test_the_noise_is_unbiased_and_does_not_depend_on_the_value(keystream):
    values = np.random.default_rng(1).normal(scale=100, size=COUNT)
    noise = round_and_noise(values, gamma=1.0, deviation=8.0, keystream=keystream) - values
    assert abs(noise.mean()) < 4 * 8 / np.sqrt(COUNT)
    assert abs(np.corrcoef(noise, values)[0, 1]) < 4 / np.sqrt(COUNT)
    assert abs(np.corrcoef(noise, values % 1)[0, 1]) < 4 / np.sqrt(COUNT)
    assert abs(np.corrcoef(noise[1:], noise[:-1])[0, 1]) < 4 / np.sqrt(COUNT)
