import pytest

from fedsci.errors import InputError
from fedsci.privacy.calibration import epsilon_of
from fedsci.training.accountant import cost_of


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"strategy": "fedavg", "training": {"sample_rate": 0.25, "local_epochs": 2}}])
def test_the_noise_is_just_enough_for_the_studys_epsilon(make_plan, changes):
    plan = make_plan(**changes)
    cost = cost_of(plan, dimension=3)
    assert cost.epsilon(plan.training.rounds) <= 4.0
    steps = plan.steps_per_round * plan.training.rounds
    rate = plan.training.sample_rate
    less = epsilon_of(
        noise_multiplier=0.99 * cost.noise_multiplier, delta=1e-5, sample_rate=rate, steps=steps, dimension=3
    )
    assert less > 4.0


def test_rounds_cost_more_and_more_and_none_costs_nothing(make_plan):
    cost = cost_of(make_plan(), dimension=3)
    assert cost.epsilon(0) == 0
    assert cost.events(0).events == ()
    assert 0 < cost.epsilon(1) < cost.epsilon(2)


def test_a_plan_without_privacy_has_no_price(make_plan):
    with pytest.raises(InputError, match="no cost"):
        cost_of(make_plan(privacy={"mechanism": "none", "epsilon": None}), dimension=3)
