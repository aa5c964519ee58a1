"""Bounds that a correct mechanism passes and a wrong one does not."""

import math

import numpy as np
import pytest

from fedsci.redteam.lower_bounds import (
    Scores,
    effect_size,
    epsilon_of_gaussian,
    mu_of_gaussian,
    one_run,
    one_run_gaussian,
)

DELTA = 1e-5


def scores(mu: float, *, canaries: int = 650, seed: int = 1) -> Scores:
    """Canaries of a Gaussian mechanism whose two cases are ``mu`` deviations apart."""
    rng = np.random.default_rng(seed)
    present = rng.random(canaries) < 0.5
    return Scores(values=mu * present + rng.standard_normal(canaries), present=present)


def sharp(found: Scores, confidence: float = 0.99) -> float:
    return epsilon_of_gaussian(effect_size(found, confidence=confidence).lowest, delta=DELTA)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0, 8.0])
def test_epsilon_and_distance_of_a_gaussian_are_each_others_inverse(epsilon):
    assert epsilon_of_gaussian(mu_of_gaussian(epsilon, delta=DELTA), delta=DELTA) == pytest.approx(epsilon, rel=1e-6)


def test_no_distance_is_epsilon_zero_and_an_infinite_one_is_infinite():
    assert epsilon_of_gaussian(0.0, delta=DELTA) == 0.0
    assert epsilon_of_gaussian(-1.0, delta=DELTA) == 0.0
    assert epsilon_of_gaussian(1e-7, delta=DELTA) == 0.0
    assert epsilon_of_gaussian(math.inf, delta=DELTA) == math.inf


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [1.0, 3.0, 8.0])
def test_the_effect_size_passes_the_truth_as_often_as_it_says(epsilon):
    mu = mu_of_gaussian(epsilon, delta=DELTA)
    passed = sum(sharp(scores(mu, seed=seed), confidence=0.9) > epsilon for seed in range(200))
    assert 8 <= passed <= 35  # 20 of 200 at 90 % confidence, give or take three deviations


@pytest.mark.parametrize("epsilon", [1.0, 3.0, 8.0])
def test_the_effect_size_catches_halved_noise(epsilon):
    mu = 2 * mu_of_gaussian(epsilon, delta=DELTA)
    caught = sum(sharp(scores(mu, seed=seed)) > epsilon for seed in range(40))
    assert caught >= (30 if epsilon == 1.0 else 40)


@pytest.mark.parametrize("test", [one_run, one_run_gaussian])
def test_guesses_of_one_run_accuse_no_correct_mechanism(test):
    mu = mu_of_gaussian(1.0, delta=DELTA)
    found = [test(scores(mu, canaries=2000, seed=seed), delta=DELTA, confidence=0.99) for seed in range(10)]
    assert max(found) < 1.0


@pytest.mark.parametrize(("test", "at_least"), [(one_run, 3.0), (one_run_gaussian, 4.5)])
def test_guesses_of_one_run_see_that_noise_is_omitted(test, at_least):
    assert test(scores(1e6), delta=DELTA, confidence=0.99) > at_least


def test_knowing_the_curve_makes_the_guesses_worth_more():
    found = scores(mu_of_gaussian(8.0, delta=DELTA), canaries=2000)
    sharper = one_run_gaussian(found, delta=DELTA, confidence=0.99)
    assert one_run(found, delta=DELTA, confidence=0.99) < sharper < 8.0


def test_scores_without_any_noise_are_an_infinite_epsilon_and_equal_ones_are_none():
    present = np.arange(100) % 2 == 0
    assert sharp(Scores(values=present.astype(float), present=present)) == math.inf
    assert sharp(Scores(values=np.zeros(100), present=present)) == 0.0


def test_too_few_canaries_say_nothing():
    one = Scores(values=np.array([1.0]), present=np.array([True]))
    assert sharp(one) == 0.0
    assert one_run(one, delta=DELTA, confidence=0.99) == 0.0


@pytest.mark.slow
def test_what_would_show_shows_every_second_time_and_what_is_allowed_hardly_ever():
    claimed, level = mu_of_gaussian(3.0, delta=DELTA), 0.01

    def refuted(times: float) -> float:
        found = [effect_size(scores(times * claimed, canaries=200, seed=n), confidence=0.99) for n in range(300)]
        return sum(one.chance(claimed) < level for one in found) / len(found)

    visible = effect_size(scores(claimed, canaries=200), confidence=0.99).visible(claimed, level=level)
    assert 0.38 < refuted(visible) < 0.62
    assert refuted(1.0) < 0.04
    assert refuted(2 * visible - 1) > 0.9


def test_few_canaries_show_little_and_none_nothing():
    claimed = mu_of_gaussian(3.0, delta=DELTA)
    least = [
        effect_size(scores(claimed, canaries=n, seed=2), confidence=0.99).visible(claimed, level=1e-3)
        for n in (9, 100, 650)
    ]
    assert least[0] > 4 > least[1] > least[2] > 1
    assert effect_size(scores(claimed, canaries=2), confidence=0.99).visible(claimed, level=1e-3) == math.inf
