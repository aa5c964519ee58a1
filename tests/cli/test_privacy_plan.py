"""``fedsci privacy plan`` says what a run would do, and does nothing."""

import json
import re

import pytest


def planned(fedsci, *more):
    outcome = fedsci("privacy", "plan", "study.yaml", "--json", *more)
    assert (outcome.code, outcome.err) == (0, ""), outcome.err
    return json.loads(outcome.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def no_budget(study):
    del study.sites["lab-2"]["datasets"]["tumours"]["privacy"]


def policy(**values):
    return lambda study: study.sites["lab-2"]["policy"].update(values)


def budget(**values):
    return lambda study: study.sites["lab-2"]["datasets"]["tumours"]["privacy"].update(values)


CASES = {
    "fits": lambda study: None,
    "small budget": budget(epsilon=1.0),
    "stricter delta": budget(delta=1e-9),
    "policy limit": policy(max_epsilon_per_study=1.0),
    "no limit": policy(max_epsilon_per_study=None),
    "manual": policy(approval="manual"),
    "strategy": policy(strategies=["fedavg"]),
    "model": policy(models=["mlp"]),
    "cohort": policy(min_cohort=5),
    "no budget": no_budget,
    "no policy": lambda study: study.sites["lab-2"].pop("policy"),
    "two labs, two reasons": lambda study: (
        study.sites["lab-3"]["policy"].update(approval="manual"),
        study.sites["lab-2"]["datasets"]["tumours"]["privacy"].update(epsilon=1.0),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_plan_and_run_agree_on_every_refusal(fedsci, study, case):
    study.private()
    CASES[case](study)
    study.write()
    facts = planned(fedsci)
    outcome = fedsci("run", "study.yaml", "--quiet")
    assert facts["exit_code"] == outcome.code
    assert facts["would_run"] == (outcome.code == 0) == (case == "fits")
    if outcome.code:
        refused = next(site for site, each in facts["by_site"].items() if not each["fits"])
        assert outcome.error_line == f"fedsci: {refused}: {facts['by_site'][refused]['refusal']}"
        assert outcome.hint_line == f"hint: {facts['by_site'][refused]['hint']}"


@pytest.mark.slow
def test_plan_and_run_agree_on_every_figure_study_after_study(fedsci, study):
    study.private(epsilon=1.8)
    for _ in range(10):
        facts = planned(fedsci)
        outcome = fedsci("run", "study.yaml", "--quiet")
        assert facts["exit_code"] == outcome.code
        if outcome.code:
            break
        for site, spent in fedsci.summary(outcome)["privacy"]["by_site"].items():
            each = facts["by_site"][site]
            assert facts["epsilon"] == pytest.approx(spent["epsilon_spent_study"], rel=1e-9)
            assert facts["noise_multiplier"] == spent["noise_multiplier"]
            assert each["epsilon_enforced_before"] == pytest.approx(spent["epsilon_enforced_before"], rel=1e-6)
            assert each["epsilon_enforced_after"] == pytest.approx(spent["epsilon_enforced_total"], rel=1e-9)
    assert outcome.code == 3


@pytest.mark.slow
@pytest.mark.parametrize("refused_by", ["budget", "policy"])
def test_what_is_said_to_fit_fits_and_a_little_more_does_not(fedsci, study, refused_by):
    study.private(epsilon=3.5)
    assert fedsci("run", "study.yaml", "--quiet", "--set", "privacy.epsilon=1.0").code == 0
    if refused_by == "policy":
        study.sites["lab-2"]["policy"]["max_epsilon_per_study"] = 2.0
        study.write()
    refused = [each for each in planned(fedsci)["by_site"].values() if not each["fits"]]
    assert {each["exit_code"] for each in refused} == ({3} if refused_by == "budget" else {3, 4})
    room = min((each["would_fit"] for each in refused), key=lambda room: room["epsilon"])
    assert planned(fedsci, "--set", f"privacy.epsilon={room['epsilon']}")["would_run"]
    assert not planned(fedsci, "--set", f"privacy.epsilon={room['epsilon'] + 0.03}")["would_run"]
    assert 0 < room["rounds"] < 3
    fewer = [f"training.rounds={room['rounds']}", f"privacy.epsilon={room['epsilon_of_rounds']}"]
    assert planned(fedsci, *(word for each in fewer for word in ("--set", each)))["would_run"]


@pytest.mark.slow
def test_a_lab_whose_operator_must_approve_answers_as_after_that_if_asked_so(fedsci, study):
    study.private()
    study.sites["lab-2"]["policy"]["approval"] = "manual"
    study.write()
    assert planned(fedsci)["exit_code"] == 4
    assert planned(fedsci, "--approved")["would_run"]
    said = " ".join(fedsci("privacy", "plan", "study.yaml", "--approved").out.split())
    assert "once every lab's people have approved it, this study would start." in said
    refused = planned(fedsci, "--approved", "--set", "privacy.epsilon=50")
    assert not refused["would_run"]
    said = " ".join(fedsci("privacy", "plan", "study.yaml", "--approved", "--set", "privacy.epsilon=50").out.split())
    assert "this study would be refused by lab-1 (exit code" in said


def test_nothing_is_charged_written_or_opened(fedsci, study):
    study.private()
    study.use_csv()
    for lab in study.labs:
        (fedsci.folder / f"{lab}.csv").unlink()
    before = sorted(fedsci.folder.rglob("*"))
    assert planned(fedsci)["would_run"]
    assert sorted(fedsci.folder.rglob("*")) == before


@pytest.mark.slow
def test_a_ledger_is_read_and_stays_as_it_is(fedsci, study):
    study.private(epsilon=1.0)
    assert fedsci("run", "study.yaml", "--quiet").code == 0
    file = fedsci.folder / ".fedsci" / "lab-1" / "ledger.sqlite"
    before = file.read_bytes()
    assert planned(fedsci)["by_site"]["lab-1"]["epsilon_enforced_before"] > 1.0
    assert planned(fedsci, "--state", "other")["by_site"]["lab-1"]["epsilon_enforced_before"] == 0
    assert file.read_bytes() == before


@pytest.mark.slow
def test_a_damaged_ledger_and_a_changed_budget_refuse_as_in_a_run(fedsci, study):
    study.private(epsilon=1.0)
    assert fedsci("run", "study.yaml", "--quiet").code == 0
    study.sites["lab-1"]["datasets"]["tumours"]["privacy"]["epsilon"] = 50.0
    study.write()
    (fedsci.folder / ".fedsci" / "lab-2" / "ledger.sqlite").write_text("not a database, and longer than a header" * 9)
    facts = planned(fedsci)
    outcome = fedsci("run", "study.yaml", "--quiet")
    assert facts["exit_code"] == outcome.code == 3
    assert outcome.error_line.endswith(facts["by_site"]["lab-1"]["refusal"])
    assert "cannot be used" in facts["by_site"]["lab-2"]["refusal"]


def test_records_say_how_long_the_noise_is_and_whether_delta_is_small_enough(fedsci, study):
    study.private()
    assert planned(fedsci)["noise_by_epsilon"][0]["noise_length_of_mean_gradient"] is None
    facts = planned(fedsci, "--records", "300")
    at_3 = next(each for each in facts["noise_by_epsilon"] if each["epsilon"] == 3.0)
    deviation = at_3["deviation_over_clipping_norm"]["this_study"]
    assert at_3["noise_length_of_mean_gradient"] == pytest.approx(deviation * facts["dimension"] ** 0.5 / 300)
    large = planned(fedsci, "--records", "lab-1=200000", "--records", "lab-2=10", "--records", "lab-3=20")
    assert large["records"] == 200030
    assert "larger than 1 / 200000 records" in large["by_site"]["lab-1"]["refusal"]
    assert large["by_site"]["lab-2"]["fits"]


def test_local_noise_is_root_n_of_pooled_noise(fedsci, study):
    study.private()
    row = planned(fedsci)["noise_by_epsilon"][0]["deviation_over_clipping_norm"]
    assert row["local"] == row["this_study"] == pytest.approx(row["pooled"] * 3**0.5)


@pytest.mark.slow
def test_earlier_runs_of_the_study_are_shown_with_what_they_measured(fedsci, study):
    study.private(epsilon=1.0)
    outcome = fedsci("run", "study.yaml", "--quiet", "--set", "evaluation.baselines=[pooled]")
    assert fedsci("run", "study.yaml", "--quiet", "--set", "model={name: mlp, hidden: [2]}").code == 0
    metrics = fedsci.summary(outcome)["metrics"]
    facts = planned(fedsci)
    [run] = facts["earlier_runs"]
    assert run["name"] == outcome.folder.name
    assert run["federated"] == metrics["federated"]["accuracy"]
    assert run["pooled"] == metrics["pooled"]["accuracy"]
    assert facts["records"] == sum(each["records"]["train"] for each in metrics["by_site"].values())


def test_a_study_without_privacy_is_said_to_be_one(fedsci, study):
    facts = planned(fedsci)
    assert (facts["epsilon"], facts["noise_multiplier"], facts["would_run"]) == ("inf", None, True)
    text = " ".join(fedsci("privacy", "plan", "study.yaml").out.split())
    assert "There is no guarantee" in text
    assert "for public data only" in text


def test_a_person_reads_the_promise_the_answers_and_what_was_not_asked(fedsci, study):
    study.private()
    study.sites["lab-2"]["datasets"]["tumours"]["privacy"]["epsilon"] = 1.0
    study.write()
    text = " ".join(fedsci("privacy", "plan", "study.yaml").out.split())
    for words in (
        "Epsilon 3.00 at delta 1e-05 for one record",
        "it holds against everybody",
        "right at most 95.3 %",
        "refused, exit 3",
        "would be refused by lab-2 (exit code 3)",
        "Would fit: ",
        "cannot be computed before a run",
        "no data was opened",
    ):
        assert words in text


@pytest.mark.slow
def test_the_demonstration_can_be_planned_without_files(fedsci):
    text = " ".join(fedsci("privacy", "plan", "demo").out.split())
    assert "digits: 17 labs, 30 rounds" in text
    assert "the coordinator with 2 labs (planned for)" in text
    assert "By the labs' rules and fresh ledgers, fedsci run would start this study." in text


def test_the_page_is_whole_loads_nothing_and_shows_text_as_text(fedsci, study):
    study.private()
    study.values["question"] = "<script>alert(1)</script>"
    study.write()
    assert fedsci("privacy", "plan", "study.yaml", "--out", "plan.html", "--records", "300").code == 0
    page = (fedsci.folder / "plan.html").read_text()
    assert page.startswith("<!doctype html>")
    assert page.count("<svg") == page.count("</svg>") == 3
    assert "&lt;script&gt;" in page
    for foreign in ("<script", "http:", "https:", "url(", "@import", "src=", "href="):
        assert foreign not in page
    assert re.findall(r'<section id="([a-z]+)"', page) == ["promise", "labs", "rounds", "noise", "accuracy", "limits"]
    assert not list(fedsci.folder.glob(".plan.html*"))
