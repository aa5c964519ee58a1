"""Noise of the right size passes; five per cent less, and noise that comes twice, does not."""

import math

import numpy as np
import pytest

from fedsci.privacy.accounting import epsilon
from fedsci.privacy.calibration import gaussian_plan
from fedsci.redteam.noise_checks import check_noise, check_repeats, noise_needed

RNG = np.random.default_rng(3)


def normal(deviation: float, *, rows: int = 8, numbers: int = 650) -> np.ndarray:
    return deviation * RNG.standard_normal((rows, numbers))


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "steps"), [(1.0, 30), (0.2, 8)])
def test_the_noise_that_is_needed_is_what_the_accountant_would_charge(rate, steps):
    noise = noise_needed(epsilon=3.0, delta=1e-5, sample_rate=rate, steps=steps)
    charged = epsilon(gaussian_plan(noise_multiplier=noise, sample_rate=rate, steps=steps), delta=1e-5)
    assert charged == pytest.approx(3.0, rel=5e-3)


def test_enough_noise_passes():
    check = check_noise(normal(2.0), needed=2.0, stated=2.0, confidence=0.99)
    assert min(check.too_little, check.unexplained) > 0.01
    assert check.ratio == pytest.approx(1.0, abs=0.05)
    assert check.highest > 0.99


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.95])
def test_too_little_noise_is_found(factor):
    assert check_noise(normal(2.0 * factor), needed=2.0, stated=2.0, confidence=0.99).too_little < 1e-3


def test_one_coordinate_without_noise_is_found_among_many():
    noise = normal(2.0)
    noise[:, 17] = 0.0
    assert check_noise(noise, needed=2.0, stated=2.0, confidence=0.99).too_little < 1e-9


def test_one_round_without_noise_is_found_among_many():
    noise = normal(2.0, rows=40)
    noise[5] = 0.0
    assert check_noise(noise, needed=2.0, stated=2.0, confidence=0.99).too_little < 1e-9


def test_more_than_is_stated_is_unexplained_and_more_than_is_needed_is_not():
    assert check_noise(normal(2.2), needed=2.0, stated=2.0, confidence=0.99).unexplained < 1e-6
    assert check_noise(normal(2.2), needed=2.0, stated=2.2, confidence=0.99).unexplained > 0.01


def test_no_noise_at_all_is_too_little():
    assert check_noise(np.zeros((0, 650)), needed=2.0, stated=2.0, confidence=0.99).too_little == 0.0


def test_fresh_noise_does_not_repeat():
    assert check_repeats(normal(1.0, rows=60), [str(n) for n in range(60)]).chance > 1e-3


@pytest.mark.parametrize("scale", [1.0, -0.5])
def test_noise_that_comes_twice_is_found_and_named_also_when_it_is_scaled(scale):
    noise = normal(1.0, rows=60)
    noise[41] = scale * noise[7]
    check = check_repeats(noise, [f"release {n}" for n in range(60)])
    assert check.chance < 1e-9
    assert set(check.where) == {"release 7", "release 41"}


def test_noise_that_is_used_again_in_part_is_found():
    noise = normal(1.0, rows=60)
    noise[41] = math.sqrt(0.8) * noise[41] + math.sqrt(0.2) * noise[7]
    assert check_repeats(noise, [str(n) for n in range(60)]).chance < 1e-9


def test_noise_of_zero_counts_as_repeated():
    assert check_repeats(np.zeros((3, 650)), ["a", "b", "c"]).chance < 1e-9
