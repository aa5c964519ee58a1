import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from fedsci.errors import InputError
from fedsci.privacy import discrete_gaussian, local_noise
from fedsci.privacy.local_noise import charged_noise_multiplier, noisy_sum, sensitivity_inflation

S = discrete_gaussian.LEVELS[3]


def test_the_release_lies_on_the_grid(keystream):
    gamma = 2.0 * 0.5 / S
    released = noisy_sum(np.array([0.1, -7.0, 0.0]), clipping_norm=0.5, noise_multiplier=2.0, keystream=keystream)
    assert released.dtype == np.float64
    assert np.array_equal(np.rint(released / gamma) * gamma, released)


def test_noise_differs_between_coordinates_calls_and_streams(seeded):
    zero = np.zeros(50)
    stream = seeded("one")
    draws = [noisy_sum(zero, clipping_norm=1, noise_multiplier=1, keystream=s) for s in (stream, stream, seeded("two"))]
    assert len(np.unique(np.concatenate(draws))) == 150


def test_the_input_is_left_alone(keystream):
    value = np.ones(4)
    noisy_sum(value, clipping_norm=1, noise_multiplier=1, keystream=keystream)
    assert value.tolist() == [1, 1, 1, 1]


@settings(deadline=None)
@example([(3e5, -0.5)], 0.01)
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1, 1)), min_size=1, max_size=40), st.floats(1e-2, 1e2))
def test_rounded_neighbours_stay_within_the_charged_sensitivity(pairs, noise_multiplier):
    """The argument of the module: C / gamma + 1.125 sqrt(d) bounds the integers' distance."""
    one = np.array([a for a, _ in pairs])
    two = one + np.array([b for _, b in pairs]) / np.sqrt(len(pairs))
    gamma = noise_multiplier / S
    assume(np.abs(np.concatenate([one, two])).max() < gamma * 2.0**50)  # larger sums are refused
    moved = np.linalg.norm(np.rint(one / gamma) - np.rint(two / gamma))
    allowed = np.linalg.norm(one - two) / gamma + 1.125 * np.sqrt(len(pairs))
    assert moved <= allowed * (1 + 1e-12)


def test_rounding_is_charged():
    assert sensitivity_inflation(10_000, 1.0) == pytest.approx(1 + 112.5 / S)
    assert charged_noise_multiplier(10_000, 1.0) == pytest.approx(1 / (1 + 112.5 / S), rel=1e-14)
    assert 0.999 < charged_noise_multiplier(10**8, 3.0) < 3.0


def test_a_release_is_close_to_its_mechanism():
    assert 0 < local_noise.release_distance(10**8) < 1e-24


@pytest.mark.parametrize("noise_multiplier", [0.0, -1.0, np.nan, np.inf])
def test_no_noise_is_no_mechanism(noise_multiplier, keystream):
    with pytest.raises(InputError, match="noise multiplier"):
        noisy_sum(np.zeros(2), clipping_norm=1, noise_multiplier=noise_multiplier, keystream=keystream)


@pytest.mark.parametrize("clipping_norm", [0.0, -1.0, np.nan, np.inf])
def test_no_bound_is_no_mechanism(clipping_norm, keystream):
    with pytest.raises(InputError, match="clipping norm"):
        noisy_sum(np.zeros(2), clipping_norm=clipping_norm, noise_multiplier=1, keystream=keystream)


@pytest.mark.parametrize("damage", [np.nan, np.inf, 1.5e300])
def test_a_damaged_sum_is_refused_without_showing_it(damage, keystream):
    with pytest.raises(InputError) as caught:
        noisy_sum(np.array([0.0, damage]), clipping_norm=1, noise_multiplier=1, keystream=keystream)
    assert "1.5e" not in caught.value.message


@pytest.mark.parametrize("value", [np.zeros((2, 2)), np.zeros(2, dtype=np.float32), np.zeros(2, dtype=np.int64)])
def test_only_float64_vectors_are_taken(value, keystream):
    with pytest.raises(InputError, match="float64 vector"):
        noisy_sum(value, clipping_norm=1, noise_multiplier=1, keystream=keystream)


def test_a_grid_too_coarse_for_the_dimension_is_refused():
    with pytest.raises(InputError, match="sensitivity"):
        charged_noise_multiplier(10**8, 10.0)


def test_an_empty_sum_gives_an_empty_release(keystream):
    assert noisy_sum(np.zeros(0), clipping_norm=1, noise_multiplier=1, keystream=keystream).shape == (0,)
