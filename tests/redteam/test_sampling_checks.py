"""Poisson samples pass; every other way to choose does not."""

from collections.abc import Callable

import numpy as np
import pytest

from fedsci.redteam.notes import Step
from fedsci.redteam.sampling_checks import SamplingCheck, check_sampling

RATE, UNITS, STEPS, SITES = 0.2, 80, 10, 6
Choose = Callable[[int, np.random.Generator], np.ndarray]


def check(choose: Choose, *, rate: float = RATE, seed: int = 5) -> SamplingCheck:
    rng, none = np.random.default_rng(seed), np.zeros(0)
    sites = [
        [Step(drawn=choose(t, rng), units=UNITS, data=none, canaries=none, released=none) for t in range(STEPS)]
        for _ in range(SITES)
    ]
    return check_sampling(sites, sample_rate=rate)


def poisson(step: int, rng: np.random.Generator) -> np.ndarray:
    return np.flatnonzero(rng.random(UNITS) < RATE)


def test_poisson_samples_pass():
    found = [check(poisson, seed=seed) for seed in range(20)]
    assert min(one.chance for one in found) > 1e-3
    assert all(one.twice == 0 for one in found)
    assert found[0].rate == pytest.approx(RATE, abs=0.03)


@pytest.mark.parametrize(
    ("choose", "odd"),
    [
        (lambda t, rng: np.flatnonzero(rng.random(UNITS) < 1.5 * RATE), "how often a record is in"),
        (lambda t, rng: rng.permutation(UNITS)[: int(UNITS * RATE)], "how much the sizes of samples vary"),
        (
            lambda t, rng: np.flatnonzero((np.arange(UNITS) % 5 == t % 5) & (rng.random(UNITS) < 2)),
            "how often a record is in two steps that follow each other",
        ),
        (
            lambda t, rng: np.flatnonzero(np.random.default_rng(1).random(UNITS) < RATE),
            "whether two sites or steps draw the same sample",
        ),
    ],
    ids=["too often", "of one size", "in turns", "the same each time"],
)
def test_other_samples_do_not(choose, odd):
    found = check(choose)
    assert found.chance < 1e-6


def test_a_record_that_comes_twice_is_counted():
    found = check(lambda t, rng: np.append(poisson(t, rng), poisson(t, rng)))
    assert found.twice > 0


def test_a_whole_batch_is_every_record_in_every_step():
    assert check(lambda t, rng: np.arange(UNITS), rate=1.0).chance == 1.0
    assert check(lambda t, rng: np.arange(UNITS - 1), rate=1.0).chance == 0.0
