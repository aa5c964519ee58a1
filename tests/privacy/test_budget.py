import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsci.errors import InputError
from fedsci.privacy.accounting import epsilon
from fedsci.privacy.budget import (
    SAMPLER_SHARE,
    BudgetPolicy,
    admits,
    budget_policy,
    budget_policy_at,
    charge_cost,
    distance_capacity,
    epsilon_enforced,
    remaining,
    too_much,
)
from fedsci.privacy.calibration import calibrate_noise_multiplier, charged_plan
from fedsci.privacy.events import Composition, GaussianEvent, Neighbouring, Plan

budgets = st.builds(budget_policy, epsilon=st.floats(0.1, 20), delta=st.floats(1e-9, 1e-3))


def gaussian(noise, count=1):
    return Plan(events=(Composition(event=GaussianEvent(noise_multiplier=noise), count=count),))


@pytest.mark.parametrize(("target", "order"), [(1, 18), (3, 8), (8, 4)])
def test_the_order_fits_the_budget(target, order):
    policy = budget_policy(epsilon=target, delta=1e-5)
    assert policy.order == order
    assert policy.neighbouring is Neighbouring.ADD_OR_REMOVE_ONE_RECORD


@given(budgets)
def test_a_spent_budget_is_exactly_epsilon(policy):
    assert epsilon_enforced(policy, policy.rdp_capacity) == pytest.approx(policy.epsilon, rel=1e-9)
    assert remaining(policy, policy.rdp_capacity) == 0
    assert admits(policy, policy.rdp_capacity, 0.0)
    assert not admits(policy, policy.rdp_capacity, policy.rdp_capacity * 1e-9)


@settings(deadline=None)
@given(budgets, st.lists(st.floats(0.3, 100), min_size=1, max_size=30))
def test_the_enforced_epsilon_is_never_passed_whatever_is_asked(policy, requests):
    spent = 0.0
    for noise in requests:
        cost = charge_cost(gaussian(noise), policy)
        if admits(policy, spent, cost):
            spent += cost
    assert epsilon_enforced(policy, spent) <= policy.epsilon * (1 + 1e-9)


@pytest.mark.slow
@settings(deadline=None, max_examples=20)
@given(st.floats(0.3, 10), st.floats(1, 50), st.integers(1, 40))
def test_the_enforced_epsilon_covers_the_pld_epsilon(budget, noise, count):
    policy = budget_policy(epsilon=budget, delta=1e-5)
    plan = gaussian(noise, count)
    enforced = epsilon_enforced(policy, charge_cost(plan, policy))
    assert enforced >= epsilon(plan, delta=1e-5) * (1 - 1e-3) - 1e-3


def test_adaptive_enforcement_admits_fewer_studies_than_a_plan_fixed_in_advance():
    policy = budget_policy(epsilon=3, delta=1e-5)
    noise = 26.0
    cost = charge_cost(gaussian(noise, 8), policy)
    fits = int(policy.rdp_capacity // cost)
    assert not admits(policy, fits * cost, cost)
    # The refused study would still have been within epsilon had all been fixed in advance: that is expected.
    assert epsilon(gaussian(noise, 8 * (fits + 1)), delta=1e-5) < 2.9
    assert fits > 30


def test_a_study_at_the_whole_epsilon_may_be_refused():
    noise = calibrate_noise_multiplier(epsilon=3, delta=1e-5, sample_rate=1, steps=60, dimension=650)
    plan = charged_plan(noise_multiplier=noise, sample_rate=1, steps=60, dimension=650)
    policy = budget_policy(epsilon=3, delta=1e-5)
    cost = charge_cost(plan, policy)
    assert not admits(policy, 0.0, cost)
    refusal = too_much(policy, 0.0, cost, site="lab-1", dataset="points")
    assert re.match(r"lab-1: epsilon 3\.\d\d would pass the budget of 3\.00 for points \(spent 0", refusal.message)
    assert re.search(r"spent 0\.00, left 3\.00, this study alone 3\.\d\d, at delta 1e-05", refusal.message)
    assert "fedsci privacy set SITE points" in refusal.hint
    assert "3." not in refusal.public()["message"]


def test_no_noise_is_never_admitted():
    policy = budget_policy(epsilon=1000, delta=1e-2)
    cost = charge_cost(gaussian(0.0), policy)
    assert cost == math.inf
    assert not admits(policy, 0.0, cost)
    assert "epsilon inf would" in too_much(policy, 0.0, cost, site="lab-1", dataset="points").message


def test_nothing_spent_nothing_enforced():
    policy = budget_policy(epsilon=1, delta=1e-5)
    assert epsilon_enforced(policy, 0.0) == 0
    assert charge_cost(Plan(events=()), policy) == 0
    assert remaining(policy, 0.0) == policy.rdp_capacity
    assert admits(policy, 0.0, 0.0)


@given(budgets, st.floats(0, 10), st.floats(0, 10))
def test_spending_more_never_lowers_the_epsilon(policy, spent, more):
    assert epsilon_enforced(policy, spent + more) >= epsilon_enforced(policy, spent)


@pytest.mark.parametrize("spent", [-1e-9, math.nan])
def test_a_ledger_that_makes_no_sense_is_refused(spent):
    policy = budget_policy(epsilon=1, delta=1e-5)
    for question in (
        lambda: admits(policy, spent, 0.1),
        lambda: admits(policy, 0.1, spent),
        lambda: remaining(policy, spent),
        lambda: epsilon_enforced(policy, spent),
    ):
        with pytest.raises(InputError):
            question()


@pytest.mark.parametrize(
    ("target", "delta"), [(0, 1e-5), (-1, 1e-5), (math.inf, 1e-5), (math.nan, 1e-5), (1, 0), (1, 1), (1e-4, 1e-9)]
)
def test_a_budget_without_meaning_is_refused(target, delta):
    with pytest.raises(InputError):
        budget_policy(epsilon=target, delta=delta)


@given(budgets, st.floats(0.01, 20))
def test_another_epsilon_at_the_frozen_order_keeps_that_epsilon(policy, epsilon):
    changed = budget_policy_at(policy.order, epsilon=epsilon, delta=policy.delta)
    assert changed.order == policy.order
    if changed.rdp_capacity:
        assert epsilon_enforced(changed, changed.rdp_capacity) == pytest.approx(epsilon)
    else:  # the order cannot show so small an epsilon
        assert not admits(changed, 0.0, 1e-300)


def test_at_its_own_epsilon_it_is_the_policy_itself():
    policy = budget_policy(epsilon=3, delta=1e-5)
    assert budget_policy_at(policy.order, epsilon=3, delta=1e-5) == policy


@pytest.mark.parametrize("change", [{"order": 1}, {"order": 257}, {"epsilon": 0}, {"epsilon": math.nan}, {"delta": 1}])
def test_a_changed_budget_without_meaning_is_refused(change):
    values = {"order": 8, "epsilon": 3.0, "delta": 1e-5} | change
    with pytest.raises(InputError):
        budget_policy_at(values.pop("order"), **values)


def test_inexact_noise_takes_no_more_of_delta_than_is_kept_for_it():
    policy = budget_policy(epsilon=8, delta=1e-5)
    assert distance_capacity(policy) * (1 + math.exp(8)) == pytest.approx(SAMPLER_SHARE * 1e-5)
    assert 0 < distance_capacity(budget_policy(epsilon=5000, delta=1e-5)) < 1e-300


@pytest.mark.parametrize("change", [{"rdp_capacity": 0.6}, {"rdp_capacity": 0.0}, {"order": 1}, {"order": 300}])
def test_a_policy_that_does_not_keep_its_epsilon_is_refused(change):
    good = {"epsilon": 1.0, "delta": 1e-5, "order": 18, "rdp_capacity": 0.5}
    assert BudgetPolicy(**good)
    with pytest.raises(InputError):
        BudgetPolicy(**good | change)


def test_an_order_that_was_frozen_keeps_another_epsilon():
    held = budget_policy(epsilon=3, delta=1e-5)
    assert budget_policy_at(held.order, epsilon=3, delta=1e-5) == held
    raised = budget_policy_at(held.order, epsilon=8, delta=1e-5)
    assert (raised.order, raised.rdp_capacity) == (held.order, pytest.approx(held.rdp_capacity + 5))
    nothing = budget_policy_at(held.order, epsilon=0.01, delta=1e-5)
    assert nothing.rdp_capacity == 0
    assert not admits(nothing, 0.0, charge_cost(gaussian(1e6), nothing))
    with pytest.raises(InputError):
        budget_policy_at(1, epsilon=3, delta=1e-5)
