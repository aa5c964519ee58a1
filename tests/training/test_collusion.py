"""What colluding labs, dropped labs and broken masks do to a study's epsilon."""

import math

import pytest

from fedsci.privacy.calibration import gaussian_delta
from fedsci.training.accountant import cost_of, epsilon_against

DIMENSION = 650


@pytest.fixture
def plan_of(make_plan):
    def make(epsilon, *, sites=17, least=17, colluding=0, **changes):
        privacy = {"mechanism": "distributed", "epsilon": epsilon, "colluding_sites": colluding}
        return make_plan(sites=sites, privacy=privacy, secure_aggregation={"min_survivors": least}, **changes)

    return make


def against(plan, survivors, colluding, rounds=None):
    cost = cost_of(plan, dimension=DIMENSION)
    by_survivors = survivors if isinstance(survivors, dict) else {survivors: rounds or plan.training.rounds}
    return epsilon_against(plan, cost, dimension=DIMENSION, survivors=by_survivors, colluding=colluding)


@pytest.mark.parametrize(
    ("claimed", "another_lab", "with_5", "unmasked"),
    [(1, 1.03, 1.21, 4.9), (3, 3.1, 3.7, 16), (8, 8.3, 9.9, 52)],
)
def test_noise_sized_for_all_17_labs(plan_of, claimed, another_lab, with_5, unmasked):
    plan = plan_of(claimed)
    assert against(plan, 17, 0) == pytest.approx(claimed, rel=0.01)
    assert against(plan, 17, 1) == pytest.approx(another_lab, rel=0.01)
    assert against(plan, 17, 5) == pytest.approx(with_5, rel=0.015)
    broken = against(plan, 1, 0)  # one share on a coarse grid costs up to 6 % more than a continuous Gaussian
    assert 0.99 * unmasked < broken < 1.07 * unmasked or (claimed == 8 and broken == math.inf)


@pytest.mark.parametrize("honest", [16, 10, 4])
def test_what_is_left_of_the_noise_is_a_gaussian_of_that_size(plan_of, honest):
    """By hand: T releases of deviation s sqrt(h) gamma are one of mu = sqrt(T) C / that; Balle and Wang's delta."""
    plan, rounds = plan_of(2.0), 4
    share = cost_of(plan, dimension=DIMENSION).share
    found = against(plan, 17, 17 - honest, rounds)
    noise = share.deviation * share.gamma * math.sqrt(honest / rounds)
    # the grid costs sqrt(1 - 1.75^2 / S^2) and a truncation of 1.125 sqrt(d) 2^-18 steps
    charged = noise * math.sqrt(1 - 1.75**2 / (64 * honest)) / (1 + 1.125 * math.sqrt(DIMENSION) * 2**-18 * share.gamma)
    assert gaussian_delta(charged, found) <= 1e-5
    assert gaussian_delta(charged, found * 0.99) > 1e-5
    assert gaussian_delta(noise * 0.95, found) > 1e-5


def test_what_was_planned_for_is_the_studys_epsilon(plan_of):
    plan = plan_of(3.0, least=12, colluding=2)
    cost = cost_of(plan, dimension=DIMENSION)
    assert against(plan, 12, 2) == pytest.approx(cost.epsilon(plan.training.rounds), rel=1e-6)


def test_more_labs_help_and_more_colluders_hurt(plan_of):
    plan = plan_of(3.0, least=12, colluding=2)
    assert against(plan, 17, 2) < against(plan, 13, 2) < 3.0 < against(plan, 12, 3)
    mixed = against(plan, {17: 1, 12: 1}, 2)
    assert against(plan, 17, 2, 2) < mixed < against(plan, 12, 2, 2)


def test_where_all_collude_nothing_is_left_and_nothing_released_costs_nothing(plan_of):
    plan = plan_of(3.0, least=12, colluding=2)
    assert against(plan, 3, 3) == math.inf
    assert against(plan, {17: 0}, 0) == 0.0


def test_who_adds_all_noise_itself_need_not_ask_who_colludes(make_plan):
    plan = make_plan(sites=4)
    cost = cost_of(plan, dimension=DIMENSION)
    assert against(plan, 4, 3) == cost.epsilon(plan.training.rounds)


def test_several_rows_of_one_person_cost_as_a_gaussian_of_that_sensitivity(plan_of):
    plan = plan_of(1.0)
    cost, rounds = cost_of(plan, dimension=DIMENSION), plan.training.rounds
    three = cost.epsilon_of_rows(rounds, 3)
    assert gaussian_delta(cost.charged / 3 / math.sqrt(rounds), three) <= 1e-5
    assert gaussian_delta(cost.charged / 3 / math.sqrt(rounds), three * 0.99) > 1e-5
    assert cost.epsilon_of_rows(rounds, 1) == cost.epsilon(rounds)
    sampled = plan_of(1.0, training={"sample_rate": 0.5})
    assert cost_of(sampled, dimension=DIMENSION).epsilon_of_rows(rounds, 3) is None
