import numpy as np
import pytest

from fedsci.privacy import discrete_gaussian
from fedsci.privacy.local_noise import noisy_sum

DIMENSION = 100_000
CLIPPING_NORM, NOISE = 0.7, 1.3


@pytest.fixture
def noise_in_steps(keystream):
    """Release minus sum, in grid steps, as an outsider who knows the sum would see it."""
    exact = np.linspace(-50, 50, DIMENSION)
    released = noisy_sum(exact, clipping_norm=CLIPPING_NORM, noise_multiplier=NOISE, keystream=keystream)
    gamma = NOISE * CLIPPING_NORM / discrete_gaussian.LEVELS[3]
    return np.rint((released - exact) / gamma).astype(np.int64)


def test_the_noise_has_the_promised_scale_and_no_other(noise_in_steps, p_value):
    deviation = discrete_gaussian.LEVELS[3]
    assert p_value(noise_in_steps, deviation=deviation) > 1e-3
    for wrong in (0.95, 1.05):
        assert p_value(noise_in_steps, deviation=wrong * deviation) < 1e-9
        assert p_value((noise_in_steps * wrong).astype(np.int64), deviation=deviation) < 1e-9


def test_a_shifted_centre_and_a_cut_tail_are_seen(noise_in_steps, p_value):
    deviation = discrete_gaussian.LEVELS[3]
    assert p_value(noise_in_steps + int(0.05 * deviation), deviation=deviation) < 1e-9
    assert p_value(noise_in_steps[np.abs(noise_in_steps) < 3 * deviation], deviation=deviation) < 1e-9


def test_two_sites_never_share_their_noise(seeded):
    one, two = (
        noisy_sum(np.zeros(DIMENSION), clipping_norm=1.0, noise_multiplier=1.0, keystream=seeded(site))
        for site in ("lab-01", "lab-02")
    )
    assert abs(np.corrcoef(one, two)[0, 1]) < 4 / np.sqrt(DIMENSION)
    # The difference of two independent draws has twice the variance; of shared draws, none.
    assert np.var(one - two) == pytest.approx(2.0, rel=0.03)
