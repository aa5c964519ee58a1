"""How far labs lie apart is said of those that show their own metrics, where that gives no other away."""

import numpy as np
import pytest

from fedsci.coordinator.evaluation import Measured
from fedsci.coordinator.spread import spread_of
from fedsci.training.metrics import BINS, GAP_BINS, of_one_site


def site_sums(correct):
    """Ten records, so many of them right."""
    sums = np.zeros(5 + 2 * BINS + GAP_BINS)
    sums[0], sums[2] = 10, correct
    return of_one_site("binary", sums)


def measured(plan, shown, hidden):
    sums = {site: site_sums(number + 1) for number, site in enumerate(plan.sites[: shown + hidden])}
    total = sum(sums.values(), start=of_one_site("binary", np.zeros(5 + 2 * BINS + GAP_BINS)))
    return Measured(plan=plan, total=total, own={site: sums[site] for site in plan.sites[:shown]})


@pytest.mark.parametrize(
    ("shown", "hidden", "said"),
    [(3, 0, True), (4, 3, True), (2, 0, False), (2, 4, False), (4, 1, False), (4, 2, False)],
)
def test_the_spread_is_said_only_where_no_lab_is_given_away(make_plan, shown, hidden, said):
    plan = make_plan(sites=7, secure_aggregation={"min_survivors": 3}, evaluation={"metrics": ["accuracy"]})
    spread = spread_of(measured(plan, shown, hidden), plan)
    highest = shown / 10
    middle = (shown + 1) / 20
    wanted = {"labs": shown, "lowest": 0.1, "median": pytest.approx(middle), "highest": pytest.approx(highest)}
    assert spread == ({"accuracy": wanted} if said else {})


def test_a_study_that_needs_more_survivors_needs_as_many_labs_that_show_their_own(make_plan):
    plan = make_plan(sites=7, secure_aggregation={"min_survivors": 5}, evaluation={"metrics": ["accuracy"]})
    assert spread_of(measured(plan, 4, 0), plan) == {}
    assert spread_of(measured(plan, 5, 0), plan) != {}
    assert spread_of(None, plan) is None
