"""Between which norms a sum of honest sites lies; and that a wrong factor is noticed."""

import math
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedsci.errors import InputError
from fedsci.privacy.clipping import clip_rows
from fedsci.privacy.randomness import KeyStream
from fedsci.privacy.rounding_noise import round_and_noise
from fedsci.privacy.sum_norm import (
    TAIL,
    bound_sum,
    longest_noise,
    most_sampled,
    shortest_noise,
    signal_of,
)

PART = TAIL / 4


@given(st.integers(1, 3000), st.floats(0.001, 0.999))
def test_samples_pass_their_bound_less_often_than_is_said(trials, rate):
    """Held against the exact binomial tail; the bound is never above everybody, nor below the mean."""
    most = most_sampled(trials, trials * rate)
    assert trials * rate <= most <= trials
    assert stats.binom.sf(math.floor(most), trials, rate) <= PART


def test_a_bound_on_samples_is_not_much_too_large():
    """A count that is drawn is seldom 60 % of the way from the mean to the bound: it could not be much tighter."""
    trials, rate = 2000, 0.1
    mean, most = 200, most_sampled(2000, 200)
    assert most < 320
    assert stats.binom.sf(mean + 0.6 * (most - mean), trials, rate) > 1e-8


@pytest.mark.parametrize(("trials", "mean", "most"), [(0, 0, 0), (7, 7, 7), (7, 0, 0), (5, 0.1, 5)])
def test_few_samples_have_the_plain_bound(trials, mean, most):
    assert most_sampled(trials, mean) == most


@pytest.mark.parametrize(("trials", "mean"), [(3, 4), (3, -1), (3, math.nan)])
def test_a_mean_that_cannot_be_is_refused(trials, mean):
    with pytest.raises(InputError):
        most_sampled(trials, mean)


@pytest.mark.parametrize("dimension", [1, 10, 117, 1000, 10**5])
def test_gaussian_noise_lies_between_its_norms_but_for_the_tail(dimension):
    """The exact chi-square tails of a continuous Gaussian; a deviation that is a fifth off is noticed."""
    most, least = longest_noise(dimension, 1.0) ** 2, shortest_noise(dimension, 1.0) ** 2
    assert stats.chi2.sf(most, dimension) <= PART
    assert stats.chi2.cdf(least, dimension) <= PART
    if dimension == 10**5:
        assert stats.chi2.sf(most, dimension, scale=1.2**2) > 0.999
        assert stats.chi2.cdf(least, dimension, scale=0.8**2) > 0.999
    assert (least > 0) == (dimension >= 117)


@given(st.integers(1, 50), st.floats(0.01, 100), st.floats(0.01, 100))
def test_noise_that_comes_after_the_data_costs_less_than_the_triangle(dimension, data, noise):
    shared = {"data": data, "noise": noise, "dimension": dimension, "full": False, "slack": 0.0}
    fresh, adaptive = bound_sum(fresh=True, **shared), bound_sum(fresh=False, **shared)
    assert max(data, longest_noise(dimension, noise)) <= fresh.most <= adaptive.most * (1 + 1e-12)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 400),
    st.integers(1, 5),
    st.lists(st.integers(1, 40), min_size=1, max_size=5),
    st.sampled_from([0.05, 1.0, 7.0]),
    st.integers(0, 2**32 - 1),
)
def test_no_honest_sum_leaves_its_bounds(dimension, larger, records, gamma, seed):
    """Sites that clip each record to C, all records alike at worst, and round with their share of noise."""
    rng, clipping_norm, deviation = np.random.default_rng(seed), 1.5, 8.0
    one = rng.normal(size=dimension) * 10.0**larger
    total = np.zeros(dimension)
    for count in records:
        own = clip_rows(np.tile(one, (count, 1)), clipping_norm).sum(axis=0)
        total += gamma * round_and_noise(own, gamma=gamma, deviation=deviation, keystream=KeyStream(os.urandom))
    bound = bound_sum(
        data=clipping_norm * sum(records),
        noise=gamma * deviation * math.sqrt(len(records)),
        dimension=dimension,
        fresh=True,
        full=True,
        slack=1e-5,
    )
    assert bound.least <= np.linalg.norm(total) <= bound.most


@pytest.mark.parametrize(("scale", "inside"), [(1.0, True), (1.6, False), (0.6, False)])
def test_a_wrong_amount_of_noise_is_noticed_where_it_is_most_of_a_sum(scale, inside):
    total = 2.0 * round_and_noise(np.zeros(3000), gamma=2.0, deviation=8.0 * scale, keystream=KeyStream(os.urandom))
    bound = bound_sum(data=1.0, noise=16.0, dimension=3000, fresh=True, full=True, slack=1e-5)
    assert bool(bound.least <= np.linalg.norm(total) <= bound.most) is inside


def test_what_is_left_without_the_noise_is_about_the_data():
    bound = bound_sum(data=500.0, noise=3.0, dimension=4000, fresh=True, full=True, slack=0.0)
    rng = np.random.default_rng(1)
    signals = [signal_of(float(np.linalg.norm(rng.normal(0, 3, 4000) + 5.0)), bound)[0] for _ in range(50)]
    assert np.median(signals) == pytest.approx(5.0 * math.sqrt(4000), rel=0.02)
    quiet = [signal_of(float(np.linalg.norm(rng.normal(0, 3, 4000))), bound) for _ in range(200)]
    assert all(signal <= chance for signal, chance in quiet)


@pytest.mark.parametrize("wrong", [{"data": -1.0}, {"noise": math.inf}, {"data": math.nan}])
def test_numbers_that_are_no_norms_are_refused(wrong):
    values = {"data": 1.0, "noise": 1.0, "dimension": 3, "fresh": True, "full": True, "slack": 0.0} | wrong
    with pytest.raises(InputError):
        bound_sum(**values)
