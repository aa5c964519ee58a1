"""Norms that a run states are held to its log, and to what the plan and the record counts let honest labs' sums be."""

import pytest

from fedsci.coordinator.norm_check import ABOVE, BELOW, UNLIKE
from fedsci.coordinator.preparation import weights_of
from fedsci.errors import VerificationFailed
from fedsci.reporting.alarm_facts import alarm_words, alarms_of
from fedsci.reporting.verify_norms import check_norms, judge_norms
from fedsci.site.charging import cost_for, dimension_of
from fedsci.training.sum_bound import bound_of_sum

SITES = ["lab-1", "lab-2", "lab-3"]
RECORDS = dict.fromkeys(SITES, 100)
PRIVACY = {"mechanism": "distributed", "epsilon": 4.0, "delta": 1e-5, "colluding_sites": 0}


@pytest.fixture
def run(make_plan):
    """A plan, its lines, the log's rounds with a sum, and the summary: one applied, one given up for its sum."""
    plan = make_plan(sites=3, privacy=PRIVACY)
    cost = cost_for(plan)
    weights = weights_of(plan, RECORDS, cost)
    contributions = [(weights[site], RECORDS[site]) for site in SITES]
    bound = bound_of_sum(plan, cost, parameters=dimension_of(plan), contributions=contributions)

    def norm(value, alarm):
        return {"sum": value, "bound": bound.most, "least": bound.least, "alarm": alarm, "warning": None}

    good, bad = bound.most / 2, bound.most * 3
    return {
        "lines": [
            {"round": 1, "norm": norm(good, None)},
            {"round": 2, "norm": norm(bad, ABOVE)},
            {"round": 3, "norm": None, "abandoned": True},
        ],
        "plan": plan,
        "sums": {
            1: {"round": 1, "survivors": SITES, "norm": good},
            2: {"round": 2, "survivors": SITES, "norm": bad, "alarm": ABOVE, "abandoned": True},
        },
        "summary": {
            "metrics": {"by_site": {site: {"records": {"train": count}} for site, count in RECORDS.items()}},
        },
    }


def check(run):
    norms = judge_norms(run["plan"], run["sums"], summary=run["summary"])
    check_norms(run["lines"], norms, bounds=run["summary"] is not None)
    return norms


def wrong(run, field):
    with pytest.raises(VerificationFailed) as error:
        check(run)
    assert error.value.field == field, error.value
    return error.value


def test_an_honest_run_passes(run):
    assert [norm.alarm for norm in check(run).values()] == [None, ABOVE]


def test_of_a_run_that_was_cut_off_norms_are_what_the_log_says(run):
    run["summary"] = None
    assert [norm.alarm for norm in check(run).values()] == [None, ABOVE]
    run["lines"][0]["norm"]["sum"] *= 1.01
    wrong(run, "round 1: norm.sum")


@pytest.mark.parametrize(
    ("at", "name", "value"),
    [
        (0, "sum", 1.0),
        (0, "sum", None),
        (0, "bound", 1e9),
        (1, "bound", 1e9),
        (0, "least", 1.0),
        (1, "alarm", None),
        (0, "warning", UNLIKE),
    ],
)
def test_another_norm_than_the_log_and_the_plan_say_is_found(run, at, name, value):
    run["lines"][at]["norm"][name] = value
    assert wrong(run, f"round {at + 1}: norm.{name}").file == "metrics.jsonl"


def test_a_line_without_its_norm_is_found(run):
    del run["lines"][0]["norm"]
    wrong(run, "round 1: norm.sum")


def test_a_norm_of_a_round_that_has_no_sum_is_found(run):
    run["lines"][2]["norm"] = run["lines"][1]["norm"]
    assert wrong(run, "round 3: norm").file == "metrics.jsonl"


@pytest.mark.parametrize("norm", [1.01, None])
def test_a_round_that_was_applied_though_no_honest_labs_have_its_sum_is_found(run, norm):
    """A coordinator that writes log and metrics alike cannot talk its way out of the bound."""
    line = run["lines"][0]["norm"]
    line["sum"] = run["sums"][1]["norm"] = norm and norm * line["bound"]
    error = wrong(run, "norm")
    assert "applied whose sum is not as of honest labs" in error.message
    assert error.file.startswith("audit/statements/")


def test_a_round_that_was_given_up_for_nothing_is_found(run):
    line = run["lines"][1]["norm"]
    line["sum"] = run["sums"][2]["norm"] = line["bound"] * 0.99
    assert "given up whose sum is as of honest labs" in wrong(run, "norm").message


def test_an_alarm_of_another_kind_is_found(run):
    run["lines"][1]["norm"]["alarm"] = run["sums"][2]["alarm"] = BELOW
    wrong(run, "alarm")


def test_a_warning_is_made_of_the_rounds_before(run):
    """Six rounds alike, then one that is unlike them, and within the bound of honest labs all the same."""
    norms = [1.0] * 6 + [run["lines"][0]["norm"]["bound"] / 2]
    run["sums"] = {n: {"round": n, "survivors": SITES, "norm": norm} for n, norm in enumerate(norms, start=1)}
    run["lines"] = []
    assert [norm.warning for norm in check(run).values()] == [None] * 6 + [UNLIKE]


@pytest.mark.parametrize(
    ("records", "field"), [(None, ".lab-2.records.train"), (0, ".lab-2.records.train"), (1e308, "")]
)
def test_counts_that_no_study_has_give_no_bound(run, records, field):
    run["summary"]["metrics"]["by_site"]["lab-2"]["records"]["train"] = records
    assert wrong(run, f"metrics.by_site{field}").file == "summary.json"


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
