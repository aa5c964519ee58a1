"""What alarms and what warns, given a sum."""

import json
import math

import numpy as np
import pytest

from fedsci.coordinator.norm_check import ABOVE, BELOW, UNLIKE, NormCheck, norm_from_json, norm_of, norm_to_json
from fedsci.names import SiteId
from fedsci.training.accountant import cost_of

D = 5000
SITES = tuple(SiteId(f"lab-{number}") for number in range(1, 4))


@pytest.fixture
def check(make_plan):
    privacy = {"mechanism": "distributed", "epsilon": 4.0, "delta": 1e-5, "colluding_sites": 0}
    plan = make_plan(sites=3, privacy=privacy)
    cost = cost_of(plan, dimension=D)
    return NormCheck(
        plan=plan,
        cost=cost,
        parameters=D,
        weights=dict.fromkeys(SITES, 100.0),
        records=dict.fromkeys(SITES, 100),
    )


def sum_of(check, *, data=0.0, noise=1.0, sites=3):
    share = check.cost.share
    drawn = np.random.default_rng(1).normal(0, share.gamma * share.deviation * math.sqrt(sites), D) * noise
    return (drawn + data / math.sqrt(D)).astype(np.float32)


@pytest.mark.parametrize(
    ("values", "alarm"),
    [
        ({}, None),
        ({"data": 250.0}, None),
        ({"data": 1e4}, ABOVE),
        ({"noise": 0.8}, BELOW),
        ({"noise": 0.8, "data": 299.0}, None),
        ({"noise": 4.0}, ABOVE),
    ],
)
def test_a_sum_that_honest_sites_do_not_make_alarms(check, values, alarm):
    norm = check.judge(sum_of(check, **values), SITES, [])
    assert norm.alarm == alarm
    assert norm.warning is None
    assert bool(norm.in_words()) == (alarm is not None)


def test_what_is_allowed_depends_on_who_is_in_it(check):
    total = sum_of(check, sites=2)
    assert check.judge(total, SITES[:2], []).alarm is None
    assert check.judge(total, SITES, []).alarm == BELOW


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_sum_that_is_not_finite_alarms_and_can_be_written_down(check, value):
    total = sum_of(check)
    total[7] = value
    norm = check.judge(total, SITES, [])
    assert norm.alarm == ABOVE
    assert json.loads(json.dumps(norm.to_json(), allow_nan=False))["sum"] is None


def test_a_sum_unlike_those_before_it_warns_once_there_are_enough(check):
    usual = [check.judge(sum_of(check, data=10.0), SITES, []).level] * 5
    loud = sum_of(check, data=280.0)
    assert check.judge(loud, SITES, usual[:4]).warning is None
    norm = check.judge(loud, SITES, usual)
    assert (norm.alarm, norm.warning) == (None, UNLIKE)
    assert "usual" in norm.in_words()
    assert check.judge(sum_of(check, data=20.0), SITES, usual).warning is None


def test_norms_are_those_of_the_whole_vector_in_double_precision():
    vector = np.full(200_000, 1e25, np.float32)
    assert norm_of(vector) == pytest.approx(1e25 * math.sqrt(200_000), rel=1e-6)
    assert norm_of(np.zeros(0, np.float32)) == 0


def test_what_is_kept_is_what_was(check):
    norm = check.judge(sum_of(check), SITES, [])
    assert norm_from_json(json.loads(json.dumps(norm_to_json(norm)))) == norm
    assert norm_from_json(None) is None
