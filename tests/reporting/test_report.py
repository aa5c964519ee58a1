"""The report page holds the run's numbers, stays readable for any run, and lets nothing hostile through."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fedsci_test_pages import PLAN, ROUNDS, SUMMARY, changed, page_of, parsed

from fedsci.errors import InputError
from fedsci.reporting import write_report


def test_the_page_holds_the_numbers_of_the_run(tmp_path: Path) -> None:
    seen = parsed(page_of(tmp_path)).text
    for number in ("0.847", "0.731", "0.802", "0.871", "0.858", "0.866", "0.743", "0.811", "0.701", "0.412"):
        assert number in seen
    for number in ("1.98", "3.21", "8", "227 / 76", "1,227 / 409", "1e-05", "12.5 s", "1.5 MB", "sha256:abab"):
        assert number in seen
    for words in (
        "Does this patient have heart disease?",
        "Yes, joining pays.",
        "round 2: no reason stated",
        "completed",
    ):
        assert words in seen
    assert "added or removed" in seen
    assert "never releases it" in seen


def test_sections_come_in_the_readers_order(tmp_path: Path) -> None:
    views = page_of(tmp_path).split('<article class="view" id="')[1:]
    sections = {view.split('"')[0]: re.findall(r'<section[^>]* id="([a-z0-9-]+)"', view) for view in views}
    assert sections == {
        "coordinator": ["join", "rounds", "participation", "labs", "metrics", "time", "how"],
        "officer": ["privacy", "burndown", "spending", "log", "masking"],
        "operator": [f"lab-lab-0{number}" for number in range(1, 7)],
    }


def test_without_privacy_there_is_one_way_to_be_alone(tmp_path: Path) -> None:
    seen = parsed(page_of(tmp_path, summary=changed(privacy={"mechanism": "none"}))).text
    assert "alone (mean) 0.802" in seen
    assert "same privacy 0." not in seen
    assert "0.743" not in seen


def test_an_aborted_run_never_says_that_joining_pays(tmp_path: Path) -> None:
    seen = parsed(page_of(tmp_path, summary=changed(status="aborted"))).text
    assert "The run did not finish: no answer." in seen
    assert "joining pays." not in seen


def test_a_lab_that_hides_its_numbers_is_named_so(tmp_path: Path) -> None:
    assert page_of(tmp_path).count("not shown by the lab") == 15  # joining pays?, records, three models; of three labs


def test_a_baseline_that_never_ran_is_not_blamed_on_the_lab(tmp_path: Path) -> None:
    summary = changed(metrics={"local_no_dp_mean_site": None})
    for lab in ("lab-01", "lab-02", "lab-03"):
        summary["metrics"]["by_site"][lab]["local_no_dp"] = None
    assert page_of(tmp_path, summary=summary).count("not shown by the lab") == 12


def test_each_lab_learns_whether_joining_paid(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    assert '<span class="worth yes">yes</span>' in page
    assert '<span class="worth no">no</span>' in page
    assert "joining pays for 1, alone does as well for 1, and alone does better for 1" in page


def test_the_first_section_sets_alone_against_joint_against_adapted_for_each_lab(tmp_path: Path) -> None:
    summary = changed(
        privacy={"mechanism": "none"},
        metrics={
            "personalised_mean_site": {"accuracy": 0.861},
            "local_no_dp_mean_site": None,
            "local_mean_site": {"accuracy": 0.85},
        },
    )
    for lab, personal in (("lab-01", 0.87), ("lab-02", 0.799), ("lab-03", 0.91)):
        summary["metrics"]["by_site"][lab] |= {"local_no_dp": None, "personalised": {"accuracy": personal}}
    summary["metrics"]["by_site"]["lab-01"]["intervals"] = {"federated": {"accuracy": [0.846, 0.886]}}
    summary["metrics"]["intervals"] = {"personalised_mean_site": {"accuracy": [0.841, 0.881]}}
    page = page_of(tmp_path, summary=summary)
    page = page.split('<section id="join"')[1].split("<section")[0]
    seen = " ".join(re.sub("<[^>]*>", " ", page).split())
    assert "Yes, if each lab adapts the joint model to its own records." in seen
    assert "Joint, adapted by each lab accuracy 0.861" in seen
    assert "lab-01 yes 0.743 0.866 ± 0.020 0.870" in seen
    assert "lab-02 yes, with the joint model adapted to its own records 0.754 0.701 0.799" in seen
    assert "lab-04" not in seen
    assert "95 % interval" in seen


def test_the_page_loads_and_runs_nothing(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    reader = parsed(page)
    assert "http:" not in page
    assert "https:" not in page
    assert "url(" not in page
    assert "@import" not in page
    assert reader.tags.isdisjoint({"script", "link", "img", "iframe", "object", "embed", "form", "base"})
    assert {name for _, name, _ in reader.attributes}.isdisjoint({"src", "srcset", "xlink:href", "style"})
    links = {value for _, name, value in reader.attributes if name == "href"}
    places = {value for _, name, value in reader.attributes if name == "id"}
    assert links
    assert links <= {f"#{place}" for place in places}
    assert "default-src 'none'" in page


HOSTILE = "</title></style><script>alert(1)</script>\"'><img src=https://evil.example/x onerror=alert(1)>\u202e&"


def poisoned(value: Any) -> Any:
    """The same files, with every text (also keys outside the contract) replaced or extended."""
    if isinstance(value, dict):
        return {key: poisoned(item) for key, item in value.items()}
    if isinstance(value, list):
        return [poisoned(item) for item in value]
    return HOSTILE if isinstance(value, str) else value


@pytest.mark.parametrize("mechanism", [None, "distributed", "local", "none"])
def test_hostile_text_stays_text(tmp_path: Path, mechanism: str | None) -> None:
    summary = poisoned(SUMMARY)
    measures = {"accuracy": 0.8, HOSTILE: 0.7}
    summary["metrics"] |= {"federated_mean_site": measures, "local_mean_site": measures, "pooled": measures}
    summary["metrics"]["by_site"] = {HOSTILE: {"federated": measures, "local": measures}, HOSTILE + "2": None}
    summary["privacy"]["by_site"] = {HOSTILE: {"epsilon_spent_study": 1, "epsilon_spent_total": 1, "epsilon_budget": 2}}
    summary["privacy"]["mechanism"] = mechanism or HOSTILE
    summary["secure_aggregation"]["dropped"] = [[HOSTILE, HOSTILE]]
    summary |= {"reason": HOSTILE, "versions": {HOSTILE: HOSTILE}, "seconds": {HOSTILE: 1.0}}
    rounds = [{"round": 1, "metrics": measures, "dropped": [HOSTILE]}]
    page = page_of(tmp_path, plan=HOSTILE, summary=summary, rounds=rounds)
    honest = parsed(page_of(tmp_path / "honest"))
    reader = parsed(page)
    assert reader.tags <= honest.tags | {"strong", "ul", "li"}
    assert "\u202e" not in page
    assert {name for _, name, _ in reader.attributes} <= {name for _, name, _ in honest.attributes}
    assert "alert(1)" in reader.text


def test_a_run_without_privacy_is_marked_in_red(tmp_path: Path) -> None:
    spent = {"epsilon_spent_study": "inf", "epsilon_spent_total": "inf", "epsilon_budget": None}
    privacy = {"mechanism": "none", "by_site": dict.fromkeys(SUMMARY["sites"], spent)}
    page = page_of(tmp_path, summary=changed(privacy=privacy))
    assert re.search(r'class="box danger"[^>]*><strong>No privacy guarantee\.', page)
    assert "∞" in page


def test_an_unknown_mechanism_is_not_taken_for_a_guarantee(tmp_path: Path) -> None:
    page = page_of(tmp_path, summary=changed(privacy={"mechanism": "homeopathic"}))
    assert "No privacy guarantee can be stated." in page


def test_shared_noise_without_masking_is_marked_in_red(tmp_path: Path) -> None:
    page = page_of(tmp_path, summary=changed(secure_aggregation={"enabled": False}))
    assert re.search(r'class="box danger"[^>]*><strong>Shared noise without masking\.', page)
    assert "Not enabled." in page


def test_an_infinite_epsilon_at_one_lab_is_marked_in_red(tmp_path: Path) -> None:
    summary = changed()
    summary["privacy"]["by_site"]["lab-02"]["epsilon_spent_study"] = "inf"
    assert "No privacy guarantee at some labs." in page_of(tmp_path, summary=summary)


def test_an_aborted_run_is_marked_with_its_reason(tmp_path: Path) -> None:
    summary = {
        "study": "heart-disease",
        "status": "aborted",
        "reason": "2 of 3 labs finished round 2",
        "metrics": {"federated_mean_site": None, "by_site": None},
        "privacy": None,
    }
    seen = parsed(page_of(tmp_path, summary=summary, rounds=ROUNDS[:1])).text
    assert "aborted" in seen
    assert "Reason: 2 of 3 labs finished round 2" in seen
    assert "The numbers cannot say." in seen


@pytest.mark.parametrize("missing", ["plan", "summary", "rounds"])
def test_a_missing_file_is_noted(tmp_path: Path, missing: str) -> None:
    name = {"plan": "plan.yaml", "summary": "summary.json", "rounds": "metrics.jsonl"}[missing]
    assert f"{name} is missing." in parsed(page_of(tmp_path, **{missing: None})).text


def test_a_run_cut_off_while_writing_is_readable(tmp_path: Path) -> None:
    rounds = json.dumps(ROUNDS[0]) + '\nnonsense\n{"round": 2, "metr'
    seen = parsed(page_of(tmp_path, plan="a: [", summary='{"status": "compl', rounds=rounds)).text
    assert "plan.yaml is damaged" in seen
    assert "summary.json is damaged" in seen
    assert "Line 2 of metrics.jsonl is damaged" in seen
    assert "The last line of metrics.jsonl is cut off" in seen
    assert "1 round" in seen
    assert "no readable summary" in seen


@pytest.mark.slow
@pytest.mark.parametrize("odd", [None, [], "x", 3, True, {}, [[]], {"a": None}, float("nan"), 10**400, -1])
def test_values_of_the_wrong_kind_never_break_the_page(tmp_path: Path, odd: Any) -> None:
    for key in SUMMARY:
        parsed(page_of(tmp_path, summary={**SUMMARY, key: odd}))
        for inner in SUMMARY[key] if isinstance(SUMMARY[key], dict) else ():
            parsed(page_of(tmp_path, summary=changed(**{key: {inner: odd}})))
    for key in ROUNDS[0]:
        parsed(page_of(tmp_path, rounds=[{**ROUNDS[0], key: odd}, {}]))
    parsed(page_of(tmp_path, plan={**PLAN, "study": odd, "sites": odd, "privacy": odd}, summary=None))


def test_an_error_over_a_wide_range_gets_a_log_scale(tmp_path: Path) -> None:
    rounds = [{"round": n, "metrics": {"rmse": 1000.0 / 10**n}} for n in range(4)]
    metrics = {"primary": "rmse", "higher_is_better": False, "federated_mean_site": {"rmse": 1.0}}
    assert "RMSE (log scale)" in page_of(tmp_path, summary=changed(metrics=metrics), rounds=rounds)


def test_the_same_files_give_the_same_page_and_leave_nothing_else(tmp_path: Path) -> None:
    first = page_of(tmp_path)
    assert page_of(tmp_path) == first
    assert {path.name for path in tmp_path.iterdir()} == {
        "plan.yaml",
        "summary.json",
        "metrics.jsonl",
        "report.html",
    }


def test_what_is_no_run_folder_is_refused_with_a_hint(tmp_path: Path) -> None:
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(InputError) as caught:
            write_report(folder)
        assert caught.value.hint
        assert str(folder) in caught.value.message
    assert list(tmp_path.iterdir()) == []
