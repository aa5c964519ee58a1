"""The officer's commands: what is left, what used it, what changed, and whether the ledger can be trusted."""

import json
import sqlite3

import pytest

from fedsci.privacy.budget import epsilon_enforced
from fedsci.site.ledger import Ledger


@pytest.fixture(autouse=True)
def configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))


@pytest.fixture
def ran(fedsci, study):
    """Two studies were run."""
    study.private(epsilon=1.0)
    for _ in range(2):
        assert fedsci("run", "study.yaml", "--quiet").code == 0
    return study


def budgets(fedsci, *more) -> dict:
    outcome = fedsci("privacy", "budget", "lab-1.yaml", "--json", *more)
    assert outcome.code == 0, outcome.err
    [report] = json.loads(outcome.out)["budgets"]
    return report


def test_nothing_is_charged_and_no_ledger_is_made_by_looking(fedsci, study):
    report = budgets(fedsci)
    assert (report["epsilon_budget"], report["epsilon_spent"], report["epsilon_left"]) == (4.0, 0.0, 4.0)
    assert (report["uses"], report["still_fit_last"]) == ([], None)
    text = fedsci("privacy", "budget", "lab-1.yaml").out
    assert "nothing was charged there yet" in text
    assert "nothing was charged there" in fedsci("privacy", "ledger", "lab-1.yaml").out
    assert not (fedsci.folder / ".fedsci").exists()


def test_the_numbers_are_those_of_the_ledger_and_fit_together(fedsci, ran):
    report = budgets(fedsci)
    ledger = Ledger(fedsci.folder / ".fedsci" / "lab-1")
    policy = ledger.register("tumours", epsilon=4.0, delta=1e-5, unit="record")
    spending = ledger.spending("tumours", policy)
    assert report["epsilon_spent"] == epsilon_enforced(policy, spending.spent_rdp)
    assert report["epsilon_left"] == pytest.approx(4.0 - report["epsilon_spent"])
    assert 1.0 < report["epsilon_fixed_in_advance"] < report["epsilon_spent"] < 4.0
    assert [use["rounds"] for use in report["uses"]] == [3, 3]
    assert sum(use["share"] for use in report["uses"]) == pytest.approx(report["share_spent"])
    assert 0 < report["delta_share_spent"] < 1e-6
    assert report["in_site_file"] is True


@pytest.mark.slow
def test_as_many_studies_fit_as_are_said_to(fedsci, ran):
    fit = budgets(fedsci)["still_fit_last"]
    assert fit == budgets(fedsci)["still_fit_mean"] > 0
    codes = [fedsci("run", "study.yaml", "--quiet").code for _ in range(fit + 1)]
    assert codes == [0] * fit + [3]
    assert budgets(fedsci)["still_fit_last"] == 0
    assert "used up" in fedsci("privacy", "budget", "lab-1.yaml").out


def test_the_table_says_what_its_numbers_are(fedsci, ran):
    text = fedsci("privacy", "budget", "lab-1.yaml").out
    for words in ("as enforced", "in advance", "more fit", "tumours: what used it", "settled", "11 entries, verified"):
        assert words in text, text


@pytest.mark.slow
def test_state_is_found_as_for_run(fedsci, study, monkeypatch):
    study.private(epsilon=1.0)
    assert fedsci("run", "study.yaml", "--quiet", "--state", "other").code == 0
    assert budgets(fedsci)["uses"] == []
    assert len(budgets(fedsci, "--state", "other")["uses"]) == 1
    study.sites["lab-1"]["state"] = "other"
    study.write()
    assert len(budgets(fedsci)["uses"]) == 1
    monkeypatch.setenv("FEDSCI_STATE", "third")
    assert budgets(fedsci)["uses"] == []


def test_studies_without_privacy_and_open_charges_are_pointed_out(fedsci, study):
    assert fedsci("run", "study.yaml", "--quiet").code == 0
    report = budgets(fedsci)
    assert (report["no_privacy_runs"], report["epsilon_fixed_in_advance"]) == (1, None)
    assert "1 studies ran without any guarantee" in fedsci("privacy", "budget", "lab-1.yaml").out


def test_every_entry_is_listed_and_verified(fedsci, ran):
    outcome = fedsci("privacy", "ledger", "lab-1.yaml")
    lines = outcome.out.splitlines()
    kinds = [line.split()[3] for line in lines[:-1]]
    assert kinds == ["register", *["reserve", "step", "step", "step", "settle"] * 2]
    assert lines[-1].startswith("verified: 11 entries, the chain and its anchor ")
    document = json.loads(fedsci("privacy", "ledger", "lab-1.yaml", "--json").out)
    assert (document["verified"], document["problem"], len(document["entries"])) == (True, None, 11)
    assert fedsci("privacy", "ledger", "lab-1.yaml", "--dataset", "lungs").out.startswith("verified: 11 entries")


def test_an_edited_entry_is_named_with_its_field_and_all_are_still_listed(fedsci, ran):
    with sqlite3.connect(fedsci.folder / ".fedsci" / "lab-1" / "ledger.sqlite") as connection:
        connection.execute("UPDATE entries SET body = replace(body, '3', '1') WHERE sequence = 6")
    connection.close()
    outcome = fedsci("privacy", "ledger", "lab-1.yaml")
    assert outcome.code == 6
    assert outcome.error_line == "fedsci: entry 6: hash: the entry was changed after it was written"
    assert "--adopt" in outcome.hint_line
    assert len(outcome.out.splitlines()) == 11
    document = json.loads(fedsci("privacy", "ledger", "lab-1.yaml", "--json").out)
    assert (document["verified"], document["problem"]) == (False, outcome.error_line.removeprefix("fedsci: "))
    assert fedsci("privacy", "budget", "lab-1.yaml").code == 6
    assert fedsci("run", "study.yaml", "--quiet").code == 3


def test_a_change_is_shown_with_who_why_and_what_to_do_next(fedsci, ran):
    changed = fedsci("privacy", "set", "lab-1.yaml", "tumours", "--epsilon", "6", "--reason", "board vote")
    assert changed.code == 0, changed.err
    first, pin, what, claim, following = changed.out.splitlines()
    assert first.startswith("made the officer's key")
    assert 'officer: "' in pin
    assert "epsilon 4 -> 6, delta 1e-05 -> 1e-05, signed by" in what
    assert "higher epsilon is now what can be claimed" in claim
    assert following.startswith("next: write the same in lab-1.yaml")
    assert "epsilon 4 -> 6" in fedsci("privacy", "ledger", "lab-1.yaml").out
    assert budgets(fedsci)["in_site_file"] is False
    lowered = fedsci("privacy", "set", "lab-1.yaml", "tumours", "--epsilon", "1", "--reason", "a complaint").out
    assert "nothing more is admitted" in lowered
    assert "the budget was 6 once" in fedsci("privacy", "budget", "lab-1.yaml").out


@pytest.mark.slow
def test_a_study_stops_at_the_last_round_that_every_budget_affords(fedsci, study):
    study.values["training"]["rounds"] = 12
    for lab, epsilon in (("lab-2", 3.0), ("lab-3", 3.5)):
        study.sites[lab]["datasets"]["tumours"]["privacy"] |= {"epsilon": epsilon, "when_exceeded": "stop"}
    study.private(epsilon=3.0)
    outcome = fedsci("run", "study.yaml")
    assert outcome.code == 0, outcome.err
    [line] = [line for line in outcome.out.splitlines() if "stopped early" in line]
    folder = next((fedsci.folder / "runs").iterdir())
    summary = json.loads((folder / "summary.json").read_text())
    rounds = summary["rounds_completed"]
    assert 1 <= rounds < 12
    assert summary["status"] == "stopped_by_budget"
    assert summary["reason"] == f"the privacy budget of lab-2 pays for {rounds} of 12 rounds"
    assert summary["reason"] in line
    assert summary["metrics"]["federated"]["accuracy"] > 0
    assert len(fedsci.rounds(folder)) == rounds
    assert (folder / "model.safetensors").exists()
    page = (folder / "report.html").read_text()
    assert "stopped by a privacy budget" in page
    assert summary["reason"] in page
    kinds = {lab: [e.kind for e in Ledger(fedsci.folder / ".fedsci" / lab).entries()] for lab in study.labs}
    for lab in study.labs:
        assert kinds[lab] == ["register", "reserve", *["step"] * rounds, "settle"]


def test_what_only_the_anchor_knows_is_shown_and_planned_as_a_run_would_charge_it(fedsci, ran):
    assert fedsci("privacy", "set", "lab-1.yaml", "tumours", "--epsilon", "10", "--reason", "vote").code == 0
    ran.sites["lab-1"]["datasets"]["tumours"]["privacy"]["epsilon"] = 10.0
    ran.write()
    before = budgets(fedsci)
    (fedsci.folder / ".fedsci" / "lab-1" / "ledger.sqlite").unlink()
    assert fedsci("privacy", "ledger", "lab-1.yaml", "--adopt", "--reason", "the disk died").code == 0
    after = budgets(fedsci)
    assert after["lost"]
    assert after["epsilon_spent"] == pytest.approx(before["epsilon_spent"])
    planned = json.loads(fedsci("privacy", "plan", "study.yaml", "--json").out)["by_site"]["lab-1"]
    assert planned["epsilon_enforced_before"] == pytest.approx(before["epsilon_spent"])
