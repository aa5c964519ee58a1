"""Budgets outlive runs: every run draws on what the one before left."""

import pytest

from fedsci.site.ledger import Ledger


def spent(fedsci, outcome):
    return fedsci.summary(outcome)["privacy"]["by_site"]["lab-1"]["epsilon_spent_total"]


@pytest.mark.slow
def test_running_twice_draws_twice_until_it_is_refused(fedsci, study):
    study.private(epsilon=1.5)
    totals = []
    for _ in range(20):
        outcome = fedsci("run", "study.yaml", "--quiet")
        if outcome.code:
            break
        totals.append(spent(fedsci, outcome))
    assert outcome.code == 3
    assert "lab-1: epsilon" in outcome.error_line
    assert "would pass the budget of 4.00 for tumours (spent " in outcome.error_line
    assert len(totals) >= 2
    assert totals == sorted(set(totals))
    assert totals[0] == pytest.approx(1.5, abs=0.01)
    assert max(totals) <= 4.0


@pytest.mark.slow
def test_a_refused_run_charges_no_lab_and_trains_nothing(fedsci, study):
    study.private()
    assert fedsci("run", "study.yaml", "--quiet").code == 0
    before = {lab: Ledger(fedsci.folder / ".fedsci" / lab).entries() for lab in study.labs}
    outcome = fedsci("run", "study.yaml", "--quiet")
    assert outcome.code == 3
    summary = fedsci.summary(outcome)
    assert (summary["status"], summary["rounds_completed"]) == ("aborted", 0)
    assert summary["reason"] in outcome.error_line
    for lab in study.labs:
        after = Ledger(fedsci.folder / ".fedsci" / lab).entries()
        assert after == before[lab]


def test_a_lab_that_let_a_refused_study_in_gets_its_charge_back(fedsci, study):
    study.private()
    study.sites["lab-3"]["datasets"]["tumours"]["privacy"]["epsilon"] = 1.0
    study.write()
    assert fedsci("run", "study.yaml", "--quiet").code == 3
    entries = Ledger(fedsci.folder / ".fedsci" / "lab-1").entries()
    assert [entry.kind for entry in entries] == ["register", "reserve", "settle"]
    assert entries[-1].body["rounds"] == 0


@pytest.mark.slow
def test_state_says_whose_budgets(fedsci, study, monkeypatch):
    study.private()
    assert fedsci("run", "study.yaml", "--quiet").code == 0
    assert fedsci("run", "study.yaml", "--quiet", "--state", "other").code == 0
    monkeypatch.setenv("FEDSCI_STATE", "third")
    assert fedsci("run", "study.yaml", "--quiet").code == 0
    assert fedsci("run", "study.yaml", "--quiet").code == 3
    assert (fedsci.folder / "other" / "lab-1" / "ledger.sqlite").is_file()
    assert (fedsci.folder / "third" / "lab-1" / "ledger.sqlite").is_file()


@pytest.mark.slow
def test_a_study_without_privacy_is_remembered_as_infinite(fedsci, study):
    assert fedsci("run", "study.yaml", "--quiet").code == 0
    study.private()
    outcome = fedsci("run", "study.yaml", "--quiet")
    values = fedsci.summary(outcome)["privacy"]["by_site"]["lab-1"]
    assert values["epsilon_spent_study"] == pytest.approx(3.0, abs=0.01)
    assert values["epsilon_spent_total"] == "inf"


@pytest.mark.slow
def test_the_demo_has_fresh_budgets_each_time(fedsci):
    for _ in range(2):
        outcome = fedsci("demo", "--quiet", "--set", "training.rounds=1", "--set", "evaluation.baselines=[]")
        assert outcome.code == 0, outcome.err
        values = fedsci.summary(outcome)["privacy"]["by_site"].values()
        assert len(values) == 17
        for value in values:
            assert value["epsilon_spent_total"] == pytest.approx(value["epsilon_spent_study"], abs=1e-3)
    assert not (fedsci.folder / ".fedsci").exists()
