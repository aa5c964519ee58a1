"""The norm of an honest round's sum is within its bound, whatever the plan; and a wrong factor is outside."""

import math
import os

import numpy as np
import pytest

from fedsci.privacy.local_noise import noisy_sum
from fedsci.privacy.poisson import poisson_sample
from fedsci.privacy.randomness import KeyStream
from fedsci.privacy.rounding_noise import round_and_noise
from fedsci.privacy.sum_norm import longest_noise
from fedsci.strategies.dp_fedsgd import DpFedSgd
from fedsci.training.accountant import cost_of
from fedsci.training.sum_bound import bound_of_sum

KEYS = KeyStream(os.urandom)
DISTRIBUTED = {"mechanism": "distributed", "epsilon": 2.0, "delta": 1e-5, "colluding_sites": 0}
LOCAL = {"mechanism": "local", "epsilon": 2.0, "delta": 1e-5}
NONE = {"mechanism": "none", "epsilon": None}
RECORDS = [50, 400, 1200]
D = 200


@pytest.fixture
def planned(make_plan):
    """A plan, its price, and the survivors' public weights and counts."""

    def make(privacy, **changes):
        masked = privacy["mechanism"] == "distributed"
        plan = make_plan(sites=3, privacy=privacy, secure_aggregation={"enabled": masked}, **changes)
        cost = cost_of(plan, dimension=D) if plan.private else None
        total, shared = sum(RECORDS), cost is not None and cost.share is not None
        weights = [1.0 if shared else count / total for count in RECORDS]
        return plan, cost, list(zip(weights, RECORDS, strict=True))

    return make


def alike(count, rate, clipping_norm):
    """The sum over a Poisson sample of records that all have one gradient, as long as clipping lets it be."""
    sampled = int(poisson_sample(count, rate, KEYS).sum())
    return np.full(D, sampled * clipping_norm * (1 - 1e-5) / math.sqrt(D))


@pytest.mark.parametrize("rate", [1.0, 0.2])
@pytest.mark.parametrize(("factor", "inside"), [(1.0, True), (1.8, False)])
def test_shared_noise(planned, rate, factor, inside):
    plan, cost, parts = planned(DISTRIBUTED, training={"sample_rate": rate, "rounds": 40})
    share = cost.share
    total = sum(
        share.gamma
        * round_and_noise(
            factor * alike(count, rate, 1.0), gamma=share.gamma, deviation=share.deviation, keystream=KEYS
        )
        for _, count in parts
    )
    bound = bound_of_sum(plan, cost, parameters=D, contributions=parts)
    assert bool(bound.least <= np.linalg.norm(total) <= bound.most) is inside


def test_whole_sites_count_as_one_each(planned):
    plan, cost, parts = planned(DISTRIBUTED | {"unit": "site", "epsilon": 8.0}, strategy="fedavg")
    bound = bound_of_sum(plan, cost, parameters=D, contributions=parts)
    noise = longest_noise(D, cost.share.gamma * cost.share.deviation * math.sqrt(3))
    assert noise < bound.most <= 1.00002 * (3 + noise)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [1.0, 0.2])
@pytest.mark.parametrize(("factor", "inside"), [(1.0, True), (1.5, False)])
def test_noise_of_every_site_by_itself(planned, rate, factor, inside):
    plan, cost, parts = planned(LOCAL | {"epsilon": 4.9}, training={"sample_rate": rate, "rounds": 1})
    total = np.zeros(D)
    for weight, count in parts:
        noisy = noisy_sum(
            alike(count, rate, 1.0), clipping_norm=1.0, noise_multiplier=cost.noise_multiplier, keystream=KEYS
        )
        total += factor * weight * noisy / (rate * count)
    bound = bound_of_sum(plan, cost, parameters=D, contributions=parts)
    assert bool(np.linalg.norm(total) <= bound.most) is inside


@pytest.mark.slow
@pytest.mark.parametrize("momentum", [0.0, 0.7])
@pytest.mark.parametrize(("factor", "inside"), [(1.0, True), (1.6, False)])
def test_local_training_of_several_steps(planned, momentum, factor, inside):
    """Every step's gradient points the same way: no update is longer."""
    training = {"sample_rate": 0.25, "rounds": 1, "local_epochs": 2, "momentum": momentum, "learning_rate": 0.3}
    plan, cost, parts = planned(LOCAL | {"epsilon": 4.9}, strategy="fedavg", training=training)
    total = np.zeros(D)
    for weight, count in parts:
        update, speed = np.zeros(D), np.zeros(D)
        for _ in range(plan.steps_per_round):
            noisy = noisy_sum(
                alike(count, 0.25, 1.0), clipping_norm=1.0, noise_multiplier=cost.noise_multiplier, keystream=KEYS
            )
            speed = momentum * speed + noisy / (0.25 * count)
            update -= 0.3 * speed
        total += factor * weight * update
    bound = bound_of_sum(plan, cost, parameters=D, contributions=parts)
    assert plan.steps_per_round == 8
    assert bool(np.linalg.norm(total) <= bound.most) is inside


def test_without_privacy_an_update_has_no_bound_and_masks_give_it_the_grids(planned, make_plan):
    plan, _, parts = planned(NONE, strategy="fedavg")
    assert bound_of_sum(plan, None, parameters=D, contributions=parts) is None
    masked = make_plan(sites=3, privacy=NONE, strategy="fedavg")
    bound = bound_of_sum(masked, None, parameters=D, contributions=parts)
    assert bound.most == pytest.approx(3 * masked.study.secure_aggregation.bound * math.sqrt(D), rel=1e-4)


def test_statistics_are_clipped_whatever_the_mechanism(planned):
    plan, _, parts = planned(NONE, strategy="feature_statistics", training={"rounds": 1})
    assert bound_of_sum(plan, None, parameters=D, contributions=parts).most == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize(
    ("strategy", "momentum", "known"),
    [
        ("fedavg", 0.5, True),
        ("fedprox", 0.0, True),
        ("fedprox", 0.5, False),
        ("scaffold", 0.0, False),
        ("fednova", 0.5, True),
        ("fedadam", 0.0, True),
    ],
)
def test_a_strategy_that_adds_something_of_its_own_has_no_bound(planned, strategy, momentum, known):
    plan, cost, parts = planned(LOCAL, strategy=strategy, training={"momentum": momentum})
    assert (bound_of_sum(plan, cost, parameters=D, contributions=parts) is not None) is known


def test_a_strategy_of_ones_own_that_contributes_something_else_has_no_stretch():
    class Louder(DpFedSgd):
        def contribute(self, work):
            return 10 * super().contribute(work)

    values = {"steps": 1, "momentum": 0.0, "learning_rate": 1.0}
    plain = DpFedSgd(optimiser=None)
    assert plain.stretch(**values) == 1
    assert Louder(optimiser=None).stretch(**values) is None
