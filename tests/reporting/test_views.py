"""Each person finds their own in the report, and nothing is told that may not be."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from fedsci_test_logged import add_log
from fedsci_test_pages import PLAN, ROUNDS, SUMMARY, changed, page_of, parsed, written

from fedsci.errors import VerificationFailed
from fedsci.reporting import write_report

LEDGER = {
    "epsilon_enforced_total": 3.0,
    "epsilon_enforced_before": 0.0,
    "rdp_study": 1.0,
    "rdp_total": 1.0,
    "rounds_charged": 3,
    "settled": True,
}


def view(page: str, anchor: str) -> str:
    """What a reader sees of one view."""
    part = page.split(f'<article class="view" id="{anchor}"')[1].split("</article>")[0]
    return " ".join(re.sub("<[^>]*>", " ", part).split())


def with_ledgers(**other: Any) -> dict[str, Any]:
    summary = changed()
    for spent in summary["privacy"]["by_site"].values():
        spent.update(LEDGER | other)
    return summary


def test_each_person_has_a_view_and_a_tab_that_leads_to_it(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    for anchor in ("coordinator", "officer", "operator"):
        assert f'<a href="#{anchor}">' in page
        assert len(view(page, anchor)) > 300
    assert "Who took part" in view(page, "coordinator")
    assert "Budgets: what is left" in view(page, "officer")
    assert "What left this lab" in view(page, "operator")


def test_the_coordinator_sees_who_dropped_out_why_and_what_helps(tmp_path: Path) -> None:
    masking = {"dropped": [["lab-02", 2], ["lab-02", 3]], "dropped_because": ["late: no answer within 9 s"] * 2}
    seen = view(page_of(tmp_path, summary=changed(secure_aggregation=masking)), "coordinator")
    assert "lab-02 2–3 late: no answer within 9 s a slower machine or line" in seen
    assert "lab-02 1 of 3" in seen


def test_the_spread_of_the_labs_is_drawn_where_enough_show_theirs(tmp_path: Path) -> None:
    def spread(labs: int) -> str:
        ends = {"labs": labs, "lowest": 0.51, "median": 0.6, "highest": 0.77}
        rounds = [{**each, "spread": {"accuracy": ends}} for each in ROUNDS]
        return page_of(tmp_path, rounds=rounds)

    assert '<polygon class="band"' in spread(3)
    assert "lowest to the highest of the 3 labs" in spread(3)
    assert '<polygon class="band"' not in spread(2)
    assert "How far the labs lie apart is not shown" in spread(2)


def test_budgets_burn_down_from_their_ceiling_and_say_how_many_more_studies_fit(tmp_path: Path) -> None:
    seen = view(page_of(tmp_path, summary=with_ledgers()), "officer")
    assert "lab-01 8.00 8.00 5.00 5" in seen
    assert "lab-02 4.50 4.50 1.50 1" in seen
    assert "lab-01: 5.00 of 8.00 left" in seen


def test_a_budget_that_no_further_study_fits_is_named_to_officer_and_operator(tmp_path: Path) -> None:
    summary = with_ledgers()
    summary["privacy"]["by_site"]["lab-02"] |= {"epsilon_enforced_total": 4.4, "epsilon_enforced_before": 3.4}
    page = page_of(tmp_path, summary=summary)
    assert "Not one more study like this fits the budget of one lab." in view(page, "officer")
    assert "Its budget does not pay for another study like this" in view(page, "operator")


def test_a_charge_that_was_not_settled_is_projected_to_the_end_of_the_plan(tmp_path: Path) -> None:
    summary = with_ledgers(settled=False, rounds_charged=6) | {"status": "aborted"}
    page = page_of(tmp_path, summary=summary)
    assert "Dashed: charged for the whole plan" in view(page, "officer")
    assert 'ahead"' in page
    assert "Dashed" not in page_of(tmp_path, summary=with_ledgers())


def test_a_running_study_says_where_its_epsilon_will_end(tmp_path: Path) -> None:
    plan = copy.deepcopy(PLAN) | {"training": {"rounds": 9}}
    plan["privacy"]["epsilon"] = 4.0
    seen = view(page_of(tmp_path, plan=plan, summary=None), "officer")
    assert "1.50 after round 3. Projected end: 4.00 after round 9 of 9" in seen


def test_the_operator_sees_what_the_lab_did_what_left_it_and_what_to_do(tmp_path: Path) -> None:
    seen = view(page_of(tmp_path, summary=with_ledgers()), "operator")
    lab = seen.split(" lab-02 In the sum of ")[1].split(" lab-03 In the sum of ")[0]
    assert "2 of 3 rounds" in lab
    assert "Dropped out round 2: no reason stated" in lab
    assert "1,227 for training, 409 for tests" in lab
    assert "joint model 0.701; alone with the same privacy 0.754; alone without privacy 0.822 alone is better" in lab
    assert "1.50 of 4.50 left for this data set, enough for 1 more like it" in lab
    assert "Its update with its share of the noise, masked, in 2 rounds" in lab
    assert "No record, and no value of one." in lab
    assert "Keep using its own model" in lab
    hidden = seen.split(" lab-04 In the sum of ")[1].split(" lab-05 In the sum of ")[0]
    assert "not shown, in the averages only" in hidden
    assert "show_own_metrics" not in hidden


def test_without_masking_the_operator_reads_that_the_update_could_be_read(tmp_path: Path) -> None:
    seen = view(page_of(tmp_path, summary=changed(secure_aggregation={"enabled": False})), "operator")
    assert "not masked, in 3 rounds : the coordinator could read it" in seen


@pytest.mark.parametrize(
    ("shown", "hidden", "least", "told"),
    [
        (2, 0, 3, False),
        (2, 5, 3, False),
        (3, 0, 3, True),
        (4, 0, 5, False),
        (5, 1, 3, False),
        (5, 2, 3, False),
        (5, 3, 3, True),
        (3, 9, 12, False),
    ],
)
def test_no_single_lab_is_shown_below_the_minimum_cohort_or_where_the_rest_would_give_one_away(
    tmp_path: Path, shown: int, hidden: int, least: int, told: bool
) -> None:
    sites = [f"lab-{number}" for number in range(shown + hidden)]
    own = {site: {"federated": {"accuracy": 0.7001 + 0.01 * n}} for n, site in enumerate(sites[:shown])}
    metrics = {
        "by_site": own | dict.fromkeys(sites[shown:]),
        "federated_worst_site": {"accuracy": {"site": "lab-0", "value": 0.7001}} if not hidden else None,
    }
    masking, privacy = {"min_survivors": least, "dropped": []}, {"by_site": {}}
    summary = changed(metrics=metrics, secure_aggregation=masking, privacy=privacy, sites=sites)
    seen = parsed(page_of(tmp_path, summary=summary)).text
    assert ("0.700" in seen) == told
    assert ("0.710" in seen) == told
    assert ("What single labs reach" in seen) == (not told)


def test_noise_on_the_average_keeps_it_from_giving_one_lab_away(tmp_path: Path) -> None:
    summary = changed(metrics={"noise_deviation": {"accuracy": 0.01}})
    summary["metrics"]["by_site"]["lab-05"] = summary["metrics"]["by_site"]["lab-06"] = {
        "federated": {"accuracy": 0.777}
    }
    assert "0.777" in page_of(tmp_path, summary=summary)
    summary["metrics"]["noise_deviation"] = None
    assert "0.777" not in page_of(tmp_path, summary=summary)


def test_a_study_that_makes_no_model_does_not_ask_whether_to_join(tmp_path: Path) -> None:
    plan = PLAN | {"strategy": {"name": "feature_statistics"}}
    nothing = {key: None for key in SUMMARY["metrics"] if key not in ("primary", "higher_is_better")}
    page = page_of(tmp_path, plan=plan, summary=changed(metrics=nothing))
    seen = parsed(page).text
    assert "Should a lab join?" not in seen
    assert "Joining pays?" not in seen
    assert "numbers cannot say" not in seen
    assert "Round by round" not in seen
    assert "This study made no model" in seen
    assert "Should a lab join?" in parsed(page_of(tmp_path)).text


def test_a_run_without_a_log_says_so_and_one_with_a_log_tells_what_it_holds(tmp_path: Path) -> None:
    run = written(tmp_path)
    assert "This run has no audit log." in view(write_report(run).read_text(), "officer")
    seen = view(write_report(add_log(run), verified=Path.exists).read_text(), "officer")
    assert "no audit log" not in seen
    assert "lab-02 train 2 policy not at night" in seen
    assert "lab-01 3 2.5 1e-05 2027-03-01T08:00:00Z" in seen
    assert "before release privacy officer Ada approve fits 2027-01-15 08:00 UTC" in seen
    assert "Last verified checkpoint 6 entries" in seen
    assert "2 of 2 labs, 2 needed At 2027-01-15 08:00 UTC" in seen
    assert "lab-01 3 1.98 3.50 8.00" in seen


def test_what_decides_whether_a_log_is_whole_can_be_given(tmp_path: Path) -> None:
    def never(_: Path) -> None:
        raise VerificationFailed("audit/checkpoint: signature: <b>nobody's</b>")

    run = written(tmp_path)
    assert "banner" not in parsed(write_report(run, verified=never).read_text()).classes  # there is no log to ask about
    page = write_report(add_log(run), verified=never).read_text()
    assert "signature: &lt;b&gt;nobody" in page
    assert not any(number in page for number in ("0.847", "0.731", "0.866", "1.98", "3.21", "227 / 76"))
    assert "<svg" not in page
    assert "<table" not in page


def test_a_long_study_draws_who_took_part_in_few_pieces(tmp_path: Path) -> None:
    rounds = [
        {**ROUNDS[0], "round": number, "dropped": ["lab-02"] if number == 250 else []} for number in range(1, 501)
    ]
    page = page_of(tmp_path, rounds=rounds, summary=changed(secure_aggregation={"dropped": [["lab-02", 250]]}))
    plot = page.split('aria-label="Which lab was in which round’s sum"')[1].split("</svg>")[0]
    assert plot.count('<rect class="took"') == 1 + 6 + 1  # the legend, six labs, and the second half of one
    assert plot.count('<rect class="away"') == 1 + 1
