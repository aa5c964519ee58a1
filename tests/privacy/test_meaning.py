"""What an epsilon means for one record: bounds against closed forms, and against the best attacker there is."""

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedsci.errors import InputError
from fedsci.privacy import meaning as module
from fedsci.privacy.accounting import delta, gaussian_delta
from fedsci.privacy.calibration import gaussian_plan
from fedsci.privacy.meaning import detection, meaning_of, plain_words, right_guess


def gaussian(mu):
    """The whole curve of releases whose means are ``mu`` deviations apart."""
    return lambda epsilon: gaussian_delta(1 / mu, epsilon)


@pytest.mark.parametrize(("epsilon", "right"), [(0, 0.5), (math.log(3), 0.75), (2, 0.8807970779778823), (800, 1.0)])
def test_with_pure_epsilon_a_guess_is_right_as_often_as_randomised_response_is(epsilon, right):
    assert right_guess(epsilon=epsilon) == pytest.approx(right, rel=1e-12)
    assert right_guess(epsilon=math.inf) == 1.0


@given(st.floats(0, 30), st.floats(0, 1))
def test_delta_is_what_the_best_guess_gains_where_epsilon_says_nothing(epsilon, slack):
    # in with probability delta everything is told, else randomised response with epsilon
    told = slack + (1 - slack) * math.exp(epsilon) / (1 + math.exp(epsilon))
    assert right_guess(epsilon=epsilon, delta=slack) == pytest.approx(told, rel=1e-9)


@pytest.mark.parametrize("mu", [0.1, 0.5, 1, 3, 6])
@pytest.mark.parametrize("alarms", [0.001, 0.01, 0.3])
def test_for_gaussian_noise_detection_is_that_of_the_best_test(mu, alarms):
    best = stats.norm.cdf(mu + stats.norm.ppf(alarms))  # Neyman and Pearson
    assert detection(gaussian(mu), false_alarms=alarms) == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("mu", [0.3, 1, 2])
def test_the_best_guess_on_gaussian_noise(mu):
    meaning = meaning_of(epsilon=3.0, delta=gaussian_delta(1 / mu, 3.0), profile=gaussian(mu))
    assert meaning.best_guess == pytest.approx(stats.norm.cdf(mu / 2), rel=1e-9)
    assert 0.5 < meaning.best_guess <= meaning.promised_guess


def attack(mu, trials, rng):
    """How often the best attacker guesses right, and how many records it finds at 1 % false alarms."""
    without, within = rng.normal(0, 1, trials), rng.normal(mu, 1, trials)
    right = ((within > mu / 2).mean() + (without <= mu / 2).mean()) / 2
    return right, (within > stats.norm.ppf(0.99)).mean()


def test_no_attacker_passes_the_bounds_and_weaker_noise_does():
    trials, mu = 200_000, 0.8
    meaning = meaning_of(epsilon=50.0, delta=1e-9, profile=gaussian(mu))
    margin = 4 * math.sqrt(0.25 / trials)
    right, found = attack(mu, trials, np.random.default_rng(1))
    assert abs(right - meaning.best_guess) < margin
    assert abs(found - meaning.detected) < margin
    right, found = attack(mu / 0.9, trials, np.random.default_rng(2))  # a tenth of the noise is missing
    assert right > meaning.best_guess + margin
    assert found > meaning.detected + margin


@pytest.mark.slow
def test_sampling_records_makes_them_harder_to_find():
    sampled = gaussian_plan(noise_multiplier=1.5, sample_rate=0.1, steps=50)
    whole = gaussian_plan(noise_multiplier=1.5, sample_rate=1.0, steps=50)
    found = [detection(lambda at, plan=plan: delta(plan, epsilon=at), false_alarms=0.01) for plan in (sampled, whole)]
    assert 0.01 < found[0] < 0.5 * found[1]


def test_the_point_alone_bounds_detection_where_the_curve_is_not_known():
    meaning = meaning_of(epsilon=1.0, delta=1e-5, profile=lambda at: 1.0)
    assert meaning.detected == pytest.approx(math.e * 0.01 + 1e-5, rel=1e-9)


def test_the_words_hold_the_numbers_rounded_up():
    meaning = meaning_of(epsilon=2.0, delta=1e-5, profile=gaussian(0.5))
    words = " ".join(plain_words(meaning, epsilon=2.0, delta=1e-5))
    for part in ("88.1 %", "59.9 %", "3.4 %", "epsilon 2 ", "one in 100,000"):
        assert part in words


@pytest.mark.parametrize(("epsilon", "slack"), [(-1, 0), (math.nan, 0), (1, -0.1), (1, 2)])
def test_what_is_no_guarantee_has_no_meaning(epsilon, slack):
    with pytest.raises(InputError):
        right_guess(epsilon=epsilon, delta=slack)
    with pytest.raises(InputError):
        detection(gaussian(1.0), false_alarms=-0.1)


def test_the_examples_in_docstrings_hold():
    assert doctest.testmod(module).failed == 0
