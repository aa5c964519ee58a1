"""What a study with distributed noise must bring along."""

import pytest

from fedsci.config.masking import terms_for
from fedsci.config.plan_checks import check_plan
from fedsci.errors import ConfigError

DISTRIBUTED = {"mechanism": "distributed", "colluding_sites": 1}


def test_it_runs_masked_on_gradients(make_plan):
    check_plan(make_plan(sites=4, privacy=DISTRIBUTED))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"secure_aggregation": {"enabled": False}}, "needs secure aggregation"),
        ({"strategy": "fedavg"}, "fedavg trains locally"),
        ({"privacy": DISTRIBUTED | {"colluding_sites": 2}}, "fewer than 2 sites' noise counts"),
    ],
)
def test_without_what_makes_the_noise_add_up_it_is_refused(make_plan, changes, why):
    with pytest.raises(ConfigError, match=why) as refused:
        check_plan(make_plan(sites=4, **({"privacy": DISTRIBUTED} | changes)))
    assert refused.value.hint


def test_more_private_steps_than_anybody_can_account_for_are_refused(make_plan):
    with pytest.raises(ConfigError, match="private steps"):
        check_plan(make_plan(strategy="fedavg", training={"rounds": 1000, "sample_rate": 0.001, "local_epochs": 1}))


@pytest.mark.parametrize(("sites", "survivors", "colluding", "hidden"), [(17, 14, 6, 6), (17, 14, 7, 6), (4, 4, 2, 1)])
def test_noise_holds_against_no_more_sites_than_the_masks_do(make_plan, sites, survivors, colluding, hidden):
    """With more, half of the honest sites can be told that one is missing and the others that it is there."""
    privacy = {"mechanism": "distributed", "colluding_sites": colluding}
    plan = make_plan(sites=sites, privacy=privacy, secure_aggregation={"min_survivors": survivors})
    check_plan(plan)
    if colluding <= hidden:
        assert terms_for(plan).corrupt == hidden
        return
    with pytest.raises(ConfigError, match=f"from at most {hidden} colluding sites") as refused:
        terms_for(plan)
    assert f"colluding_sites: {hidden}" in refused.value.hint
