"""``fedsci privacy audit`` and ``fedsci redteam``: what they print, write and exit with."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location(
    "fedsci_test_faults", Path(__file__).parents[1] / "redteam" / "planted_faults.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
faults = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = faults
_SPEC.loader.exec_module(faults)


@pytest.fixture
def private(study):
    """A study with noise of its own at each of three labs."""
    study.values["privacy"] = {"mechanism": "local", "epsilon": 3.0, "delta": 1e-5}
    for site in study.sites.values():
        site["datasets"]["tumours"]["privacy"]["epsilon"] = 20.0
    study.write()
    return study


def test_an_audit_prints_claim_bound_and_verdict_and_writes_a_page(fedsci, private):
    outcome = fedsci("privacy", "audit", "study.yaml", "--out", "audit.html")
    assert outcome.code == 0, outcome.err
    assert "claimed epsilon" in outcome.out
    assert "audited lower bound" in outcome.out
    assert "the claim holds" in outcome.out
    page = (private.folder / "audit.html").read_text()
    assert "Privacy audit" in page
    assert "How well canaries are told apart" in page
    assert "<script" not in page


def test_an_audit_charges_nothing_to_the_labs_own_ledgers(fedsci, private):
    before = fedsci("privacy", "plan", "study.yaml", "--json").out
    assert fedsci("privacy", "audit", "study.yaml", "--json").code == 0
    assert fedsci("privacy", "plan", "study.yaml", "--json").out == before
    assert not (private.folder / ".fedsci" / "lab-1").exists()


def test_a_claim_that_does_not_hold_ends_with_exit_code_6(fedsci, private, monkeypatch):
    faults.records_counted_twice(monkeypatch)
    outcome = fedsci("privacy", "audit", "study.yaml", "--json")
    found = json.loads(outcome.out)
    assert outcome.code == 6
    assert found["verdict"] == "broken"
    assert "audit-sampling" in outcome.error_line
    assert "docs/redteam.md" in outcome.hint_line


def test_a_study_without_privacy_is_refused_with_a_hint(fedsci, private):
    outcome = fedsci("privacy", "audit", "study.yaml", "--set", "privacy={mechanism: none}")
    assert outcome.code == 2
    assert "promises no epsilon" in outcome.error_line


def test_attacks_on_a_study_lie_in_a_folder_with_a_page(fedsci, private):
    outcome = fedsci("redteam", "study.yaml", "--only", "audit", "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    folder = private.folder / found["folder"]
    assert json.loads((folder / "redteam.json").read_text())["findings"] == found["findings"]
    assert "membership" in found["left_out"]
    assert "What attacks came to" in (folder / "redteam.html").read_text()


def test_attacks_on_a_run_are_in_its_report_and_verify_still_passes(fedsci, private):
    run = private.folder / fedsci("run", "study.yaml", "--quiet").folder
    outcome = fedsci("redteam", str(run), "--sites", ".", "--only", "audit")
    assert outcome.code == 0, outcome.err
    report = (run / "report.html").read_text()
    assert "What attacks came to" in report
    assert "Every sum carries the noise that its epsilon needs." in report
    assert fedsci("verify", str(run)).code == 0


def test_attacks_on_another_plan_are_not_shown_as_a_runs_own(fedsci, private):
    run = private.folder / fedsci("run", "study.yaml", "--quiet").folder
    attacked = fedsci("redteam", "study.yaml", "--only", "audit", "--set", "seed=99", "--json")
    (run / "redteam.json").write_text(json.dumps(json.loads(attacked.out)))
    assert fedsci("report", str(run)).code == 0
    report = (run / "report.html").read_text()
    assert "were on another plan" in report
    assert "Every sum carries" not in report


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"findings": 3}', '{"findings": [{"plot": {"curves": [1]}}]}'])
def test_a_damaged_file_of_attacks_spoils_no_report(fedsci, private, damage):
    run = private.folder / fedsci("run", "study.yaml", "--quiet").folder
    (run / "redteam.json").write_text(damage)
    assert fedsci("report", str(run)).code == 0


def test_an_unknown_attack_is_refused_with_those_there_are(fedsci, private):
    outcome = fedsci("redteam", "study.yaml", "--only", "magic")
    assert outcome.code == 2
    assert "membership" in outcome.hint_line


def test_a_run_whose_labs_have_no_site_file_asks_for_them(fedsci, private):
    run = private.folder / fedsci("run", "study.yaml", "--quiet").folder
    outcome = fedsci("redteam", str(run), "--only", "audit")
    assert outcome.code == 2
    assert "--sites" in outcome.hint_line


def test_a_run_is_attacked_as_it_is(fedsci, private):
    run = private.folder / fedsci("run", "study.yaml", "--quiet").folder
    outcome = fedsci("redteam", str(run), "--set", "seed=9")
    assert outcome.code == 2
    assert "--set" in outcome.hint_line
