"""What measuring held-out records costs: never more than training costs the others, and never nothing."""

import math
from itertools import product

import numpy as np
import pytest

from fedsci.errors import InputError
from fedsci.privacy.accounting import epsilon, rdp_curve
from fedsci.privacy.budget import budget_policy, charge_cost
from fedsci.privacy.events import Plan, gaussian_precision, one_after_another
from fedsci.training.accountant import cost_of
from fedsci.training.noised_metrics import sensitivity, sums_of

STUDIES = {
    "full batch": {},
    "full batch, distributed": {"privacy": {"mechanism": "distributed", "colluding_sites": 1}, "sites": 5},
    "every round": {"training": {"rounds": 7}, "evaluation": {"every": 1}},
    "every third, local steps": {
        "strategy": "fedavg", "training": {"rounds": 7, "local_epochs": 2}, "evaluation": {"every": 3},
    },
    "sampled": {"training": {"rounds": 20, "sample_rate": 0.2}},
    "sampled, every round": {"training": {"rounds": 20, "sample_rate": 0.2}, "evaluation": {"every": 1}},
    "sampled, distributed": {
        "privacy": {"mechanism": "distributed", "colluding_sites": 1},
        "training": {"rounds": 20, "sample_rate": 0.3}, "sites": 5,
    },
}  # fmt: skip
FULL = [name for name in STUDIES if "sampled" not in name]
SAMPLED = [name for name in STUDIES if "sampled" in name]


@pytest.fixture(params=[1.0, 4.0], ids=lambda value: f"epsilon {value:g}")
def study(request, make_plan):
    def make(name):
        changes = {"privacy": {}} | STUDIES[name]
        plan = make_plan(**changes | {"privacy": changes["privacy"] | {"epsilon": request.param}})
        return plan, cost_of(plan, dimension=3)

    return make


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_a_held_out_record_never_pays_more_than_the_studys_epsilon(study, name):
    plan, cost = study(name)
    wanted, rounds = plan.study.privacy.epsilon, plan.training.rounds
    assert cost.measurements == len(plan.measured_rounds)
    held_out = cost.epsilon(0, cost.measurements)
    assert 0.9 * wanted < held_out <= wanted
    assert cost.epsilon(rounds, cost.measurements) == max(cost.epsilon(rounds), held_out) <= wanted
    # with 3 % less noise it would pay more
    event = cost.events(0, cost.measurements).held_out[0]
    assert epsilon(Plan(events=(_with_noise(event, 0.97),)), delta=1e-5) > wanted


def _with_noise(part, factor):
    from dataclasses import replace

    return replace(part, event=replace(part.event, noise_multiplier=factor * part.event.noise_multiplier))


@pytest.mark.parametrize("name", FULL)
def test_with_full_batches_training_is_dearer_at_any_time_so_that_metrics_cost_nothing_on_top(study, name):
    plan, cost = study(name)
    rounds = plan.training.rounds
    for number in range(1, rounds + 1):
        made = sum(after <= number for after in plan.measured_rounds)
        events = cost.events(number, made)
        assert gaussian_precision(events.held_out) <= gaussian_precision(events.events)
        assert cost.epsilon(number, made) == cost.epsilon(number)
        assert one_after_another([events, events]) == Plan(events=events.events * 2)
    whole = cost.events(rounds, cost.measurements)
    # only just: 1 % less noise on the metrics, and they would be dearer
    assert gaussian_precision(whole.held_out) > 0.999 * gaussian_precision(whole.events)
    policy = budget_policy(epsilon=8.0, delta=1e-5)
    assert charge_cost(whole, policy) == charge_cost(cost.events(rounds), policy)


@pytest.mark.parametrize("name", SAMPLED)
def test_with_sampling_every_way_to_be_held_out_in_three_studies_costs_no_more_than_is_counted(study, name):
    plan, cost = study(name)
    whole = cost.events(plan.training.rounds, cost.measurements)
    counted = one_after_another([whole] * 3)
    assert not counted.held_out
    total, orders = epsilon(counted, delta=1e-5), (2.0, 4.0, 8.0, 20.0)
    for sides in product((whole.events, whole.held_out), repeat=3):
        one = Plan(events=sum(sides, ()))
        assert epsilon(one, delta=1e-5) <= total
        assert (rdp_curve(one, orders) <= 3 * rdp_curve(whole, orders) * (1 + 1e-12)).all()


def test_noise_is_what_is_charged_over_the_sensitivity(study):
    for name in STUDIES:
        plan, cost = study(name)
        noise = cost.metric_noise
        counted = noise.share.deviation * noise.share.gamma * math.sqrt(noise.share.sites) / sensitivity(plan)
        assert 0.97 * counted < noise.charged < counted
        honest = plan.min_survivors - plan.study.privacy.colluding_sites
        assert noise.share.sites == (honest if plan.study.privacy.mechanism == "distributed" else 1)


def test_more_measurements_and_more_metrics_mean_more_noise(make_plan):
    def deviation(**evaluation):
        plan = make_plan(training={"rounds": 16}, evaluation=evaluation)
        share = cost_of(plan, dimension=3).metric_noise.share
        return share.deviation * share.gamma

    once = deviation(metrics=["accuracy"])
    assert deviation(metrics=["accuracy"], every=16) == pytest.approx(once)
    assert deviation(metrics=["accuracy"], every=1) == pytest.approx(4 * once, rel=0.01)
    assert deviation(metrics=["accuracy", "log_loss"]) == pytest.approx(np.sqrt(3 / 2) * once, rel=0.01)


@pytest.mark.parametrize(
    ("rounds", "every", "measured"),
    [(5, None, (5,)), (5, 1, (1, 2, 3, 4, 5)), (5, 2, (2, 4, 5)), (5, 5, (5,)), (5, 9, (5,)), (6, 3, (3, 6))],
)
def test_the_plan_says_which_models_are_measured(make_plan, rounds, every, measured):
    plan = make_plan(training={"rounds": rounds}, evaluation={"every": every})
    assert plan.measured_rounds == measured


def test_alone_and_without_privacy_nothing_is_measured_with_noise(make_plan):
    cost = cost_of(make_plan(), dimension=3, alone=True)
    assert cost.measurements == 0
    with pytest.raises(InputError, match="measures none"):
        cost.events(1, 1)


def test_a_grid_too_coarse_for_the_metrics_is_refused_and_says_so(make_plan):
    plan = make_plan(privacy={"epsilon": 0.01}, training={"rounds": 100}, evaluation={"every": 1})
    with pytest.raises(InputError) as refused:
        cost_of(plan, dimension=3)
    assert "evaluation.every" in refused.value.hint


def test_sums_follow_the_metrics(make_plan):
    assert sums_of(make_plan(evaluation={"metrics": ["accuracy"]})) == ("correct", "site_correct")
    assert sensitivity(make_plan(evaluation={"metrics": ["auroc"]})) == 1
