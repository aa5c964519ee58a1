"""Norms that a run states are held to its log, and to what the plan and the record counts let honest labs' sums be."""

import copy

import pytest

from fedsci.coordinator.preparation import weights_of
from fedsci.errors import VerificationFailed
from fedsci.reporting.alarm_facts import alarm_words, alarms_of
from fedsci.reporting.verify_norms import check_norms
from fedsci.site.charging import cost_for, dimension_of
from fedsci.training.sum_bound import bound_of_sum

SITES = ["lab-1", "lab-2", "lab-3"]
RECORDS = dict.fromkeys(SITES, 100)
PRIVACY = {"mechanism": "distributed", "epsilon": 4.0, "delta": 1e-5, "colluding_sites": 0}


@pytest.fixture
def run(make_plan):
    """A plan, its lines, the log's applied and alarmed rounds, and the summary: one of each round."""
    plan = make_plan(sites=3, privacy=PRIVACY)
    cost = cost_for(plan)
    weights = weights_of(plan, RECORDS, cost)
    contributions = [(weights[site], RECORDS[site]) for site in SITES]
    bound = bound_of_sum(plan, cost, parameters=dimension_of(plan), contributions=contributions)

    def norm(value, alarm):
        return {"sum": value, "bound": bound.most, "least": bound.least, "alarm": alarm, "warning": None}

    good, bad = bound.most / 2, bound.most * 3
    return {
        "lines": [{"round": 1, "norm": norm(good, None)}, {"round": 2, "norm": norm(bad, "above-bound")}],
        "plan": plan,
        "rounds": {1: {"survivors": SITES, "norm": good}},
        "alarmed": {2: {"survivors": SITES, "norm": bad, "alarm": "above-bound"}},
        "summary": {
            "alarms": [{"round": 2, "kind": "above-bound", "level": "alarm"}],
            "metrics": {"by_site": {site: {"records": {"train": count}} for site, count in RECORDS.items()}},
        },
    }


def check(run):
    check_norms(run["lines"], run["plan"], **{key: run[key] for key in ("rounds", "alarmed", "summary")})


def test_an_honest_run_passes(run):
    check(run)
    check(run | {"summary": {}})


def test_a_run_of_a_version_that_logged_no_norms_passes(run):
    check(run | {"rounds": {1: {"survivors": SITES}}, "alarmed": {}, "summary": {}, "lines": [{"round": 1}]})


@pytest.mark.parametrize(
    ("at", "name", "value", "field"),
    [
        (0, "sum", 1.0, "round 1: norm"),
        (0, "sum", None, "round 1: norm"),
        (0, "bound", 1e9, "round 1: norm.bound"),
        (1, "bound", 1e9, "round 2: norm.bound"),
        (0, "least", 1.0, "round 1: norm.least"),
        (1, "alarm", None, "round 2: norm.alarm"),
    ],
)
def test_another_norm_than_the_log_and_the_plan_say_is_found(run, at, name, value, field):
    run["lines"][at]["norm"][name] = value
    with pytest.raises(VerificationFailed) as error:
        check(run)
    assert (error.value.file, error.value.field) == ("metrics.jsonl", field)


def test_a_round_that_was_applied_though_no_honest_labs_have_its_sum_is_found(run):
    """A coordinator that writes log and metrics alike cannot talk its way out of the bound."""
    lines, bodies = copy.deepcopy(run["lines"]), copy.deepcopy(run["rounds"])
    lines[0]["norm"]["sum"] = bodies[1]["norm"] = lines[0]["norm"]["bound"] * 1.01
    with pytest.raises(VerificationFailed, match="applied whose sum is not as of honest labs"):
        check(run | {"lines": lines, "rounds": bodies})


def test_a_round_that_was_given_up_for_nothing_is_found(run):
    lines, bodies = copy.deepcopy(run["lines"]), copy.deepcopy(run["alarmed"])
    lines[1]["norm"]["sum"] = bodies[2]["norm"] = lines[1]["norm"]["bound"] * 0.99
    with pytest.raises(VerificationFailed, match="given up whose sum is as of honest labs"):
        check(run | {"lines": lines, "alarmed": bodies})


def test_an_alarm_that_the_log_does_not_have_is_found(run):
    run["summary"]["alarms"].append({"round": 7, "kind": "above-bound", "level": "alarm"})
    with pytest.raises(VerificationFailed, match="no alarm in round 7") as error:
        check(run)
    assert error.value.file == "summary.json"


def test_sums_that_are_only_unusual_are_shown_as_that():
    one = {"round": 3, "kind": "unlike-earlier", "level": "warning", "norm": 12.0, "sites": SITES}
    words = alarm_words(alarms_of({"alarms": [one], "blame": None}))
    assert "Unusual sums" in words
    assert "cannot" not in words
    assert alarm_words(alarms_of({})) == ""


def test_what_the_page_says_names_labs_only_as_the_run_does():
    one = {"round": 3, "kind": "below-noise", "level": "alarm", "norm": 1.0, "least": 2.0, "bound": 9.0, "sites": SITES}
    blame = {"named": ["lab-2"], "suspects": ["<b>"], "rounds": []}
    words = alarm_words(alarms_of({"alarms": [one], "blame": blame}))
    assert "below 2, the least of the labs’ noise" in words
    assert "<bdi>lab-2</bdi>" in words
    assert "&lt;b&gt;" in words
