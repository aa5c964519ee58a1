"""``fedsci privacy audit`` and ``fedsci redteam``: what they print, write and exit with."""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fedsci.errors import DataError, FedsciError, RoundAborted

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


@pytest.mark.slow
def test_an_audit_prints_claim_bound_and_verdict_and_writes_a_page(fedsci, private):
    outcome = fedsci("privacy", "audit", "study.yaml", "--out", "audit.html")
    assert outcome.code == 0, outcome.err
    assert "claimed epsilon" in outcome.out
    assert "audited lower bound" in outcome.out
    assert "nothing speaks against the claim, but not everything was measured" in outcome.out  # so few canaries
    page = (private.folder / "audit.html").read_text()
    assert "Privacy audit" in page
    assert "How well canaries are told apart" in page
    assert "<script" not in page


@pytest.mark.slow
def test_an_audit_charges_nothing_to_the_labs_own_ledgers(fedsci, private):
    before = fedsci("privacy", "plan", "study.yaml", "--json").out
    assert fedsci("privacy", "audit", "study.yaml", "--json").code == 0
    assert fedsci("privacy", "plan", "study.yaml", "--json").out == before
    assert not (private.folder / ".fedsci" / "lab-1").exists()


@pytest.mark.slow
def test_a_claim_that_does_not_hold_ends_with_exit_code_6(fedsci, private, monkeypatch):
    faults.records_counted_twice(monkeypatch)
    outcome = fedsci("privacy", "audit", "study.yaml", "--json")
    found = json.loads(outcome.out)
    assert outcome.code == 6
    assert found["verdict"] == "broken"
    assert "audit-sampling" in outcome.error_line
    assert "docs/redteam.md" in outcome.hint_line


def test_a_study_without_privacy_has_nothing_to_audit(fedsci, private):
    outcome = fedsci("privacy", "audit", "study.yaml", "--set", "privacy={mechanism: none}")
    assert outcome.code == 2
    assert "promises no epsilon" in outcome.error_line
    assert "nothing to audit" in outcome.error_line
    assert "set privacy" not in outcome.hint_line


def test_a_run_folder_is_audited_by_the_red_team(fedsci, private):
    (private.folder / "run").mkdir()
    outcome = fedsci("privacy", "audit", "run")
    assert outcome.code == 2
    assert "fedsci redteam run --only audit" in outcome.hint_line


@pytest.mark.parametrize("command", [("redteam",), ("privacy", "audit"), ("verify",)], ids=" ".join)
def test_help_says_what_to_name(fedsci, command):
    words = " ".join(fedsci(*command, "--help").out.split())
    assert "a run folder" in words if command == ("verify",) else "demo for the built-in one" in words
    assert "RUN" in words


@pytest.mark.slow
def test_attacks_on_a_study_lie_in_a_folder_with_a_page(fedsci, private):
    outcome = fedsci("redteam", "study.yaml", "--only", "audit", "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    folder = private.folder / found["folder"]
    assert json.loads((folder / "redteam.json").read_text())["findings"] == found["findings"]
    assert "membership" in found["left_out"]
    page = (folder / "redteam.html").read_text()
    assert "What attacks came to" in page
    assert "<code>audit-noise</code>" in page
    assert "<strong>not measured</strong>: no claim was tested" in page
    assert "verdict: nothing is broken, but not everything was measured" in page
    assert "left out: membership" in page


@pytest.mark.slow
def test_attacks_on_a_run_are_in_its_report_and_verify_still_passes(fedsci, private):
    run = private.folder / fedsci("run", "study.yaml", "--quiet").folder
    outcome = fedsci("redteam", str(run), "--sites", ".", "--only", "audit")
    assert outcome.code == 0, outcome.err
    report = (run / "report.html").read_text()
    assert "What attacks came to" in report
    assert "Every sum carries the noise that its epsilon needs." in report
    assert fedsci("verify", str(run)).code == 0


@pytest.mark.slow
def test_attacks_on_another_plan_are_not_shown_as_a_runs_own(fedsci, private):
    run = private.folder / fedsci("run", "study.yaml", "--quiet").folder
    attacked = fedsci("redteam", "study.yaml", "--only", "audit", "--set", "seed=99", "--json")
    (run / "redteam.json").write_text(json.dumps(json.loads(attacked.out)))
    assert fedsci("report", str(run)).code == 0
    report = (run / "report.html").read_text()
    assert "were on another plan" in report
    assert "Every sum carries" not in report


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["", "[]", "{", '{"findings": 3}', '{"findings": [{"plot": {"curves": [1]}}]}'])
def test_a_damaged_file_of_attacks_spoils_no_report(fedsci, private, damage):
    run = private.folder / fedsci("run", "study.yaml", "--quiet").folder
    (run / "redteam.json").write_text(damage)
    assert fedsci("report", str(run)).code == 0


def test_an_unknown_attack_is_refused_with_those_there_are(fedsci, private):
    outcome = fedsci("redteam", "study.yaml", "--only", "magic")
    assert outcome.code == 2
    assert "membership" in outcome.hint_line


@pytest.mark.slow
def test_a_run_whose_labs_have_no_site_file_asks_for_them(fedsci, private):
    run = private.folder / fedsci("run", "study.yaml", "--quiet").folder
    outcome = fedsci("redteam", str(run), "--only", "audit")
    assert outcome.code == 2
    assert "--sites" in outcome.hint_line


@pytest.mark.slow
def test_a_run_is_attacked_as_it_is(fedsci, private):
    run = private.folder / fedsci("run", "study.yaml", "--quiet").folder
    outcome = fedsci("redteam", str(run), "--set", "seed=9")
    assert outcome.code == 2
    assert "--set" in outcome.hint_line


@pytest.fixture
def attacked(monkeypatch):
    """Families that find what they are told to at once, and note that they were asked."""
    from fedsci.redteam import earlier, suite
    from fedsci.redteam.finding import Finding

    said = {"audit": [("audit-noise", "holds")], "membership": [("membership", "not measured")]}
    asked = []

    def family(name):
        def attack(study, *, seed, told):
            asked.append(name)
            if isinstance(said[name], FedsciError):
                raise said[name]
            return tuple(
                Finding(key=key, claim=f"The claim of {key}.", attack="Quick.", result="Well.", verdict=verdict)
                for key, verdict in said[name]
            )

        return attack

    for module in (suite, earlier):
        monkeypatch.setattr(module, "FAMILIES", {name: family(name) for name in said})
    return SimpleNamespace(said=said, asked=asked)


@pytest.mark.parametrize(
    "arguments",
    [
        ("redteam", "study.yaml", "--out", "afile"),
        ("redteam", "study.yaml", "--out", "afile/under"),
        ("privacy", "audit", "study.yaml", "--out", "afile/audit.html"),
        ("privacy", "audit", "study.yaml", "--out", "missing/audit.html"),
        ("privacy", "audit", "study.yaml", "--out", "."),
    ],
    ids=" ".join,
)
def test_where_results_go_is_checked_before_the_work(fedsci, private, attacked, monkeypatch, arguments):
    monkeypatch.setattr("fedsci.redteam.privacy_audit.audit_privacy", lambda *args, **named: attacked.asked.append("x"))
    (private.folder / "afile").write_text("")
    outcome = fedsci(*arguments)
    assert outcome.code == 2
    assert "cannot write" in outcome.error_line
    assert attacked.asked == []


def test_results_are_printed_even_if_they_cannot_be_written(fedsci, private, attacked, monkeypatch):
    def full(target, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fedsci.reporting.whole_file.write_whole", full)
    outcome = fedsci("redteam", "study.yaml")
    assert outcome.code == 2
    assert "audit-noise" in outcome.out
    attacked.said["audit"] = [("audit-noise", "broken")]
    assert fedsci("redteam", "study.yaml").code == 6  # what is broken counts for more


def test_a_family_that_does_not_complete_costs_no_other_its_rows(fedsci, private, attacked):
    attacked.said["membership"] = RoundAborted("too few labs finished")
    found = json.loads(fedsci("redteam", "study.yaml", "--json").out)
    assert [(row["key"], row["verdict"]) for row in found["findings"]] == [
        ("audit-noise", "holds"),
        ("membership", "not measured"),
    ]
    assert "too few labs finished" in found["findings"][1]["result"]
    assert found["verdict"] == "incomplete"
    attacked.said["membership"] = DataError("row 3: age 112 is out of bounds")  # a value stays with the lab
    assert "age 112" not in fedsci("redteam", "study.yaml", "--json").out


def test_where_no_family_completes_its_error_is_the_answer(fedsci, private, attacked):
    attacked.said["audit"] = RoundAborted("too few labs finished")
    outcome = fedsci("redteam", "study.yaml", "--only", "audit")
    assert outcome.code == 5
    assert "too few labs finished" in outcome.error_line


def test_a_verdict_is_no_pass_where_something_was_left_out_or_not_measured(fedsci, private, attacked):
    def verdict(*arguments):
        return json.loads(fedsci("redteam", "study.yaml", "--json", *arguments).out)["verdict"]

    assert verdict() == "incomplete"
    attacked.said["membership"] = [("membership", "holds"), ("membership-control", "control")]
    assert verdict() == "holds"
    assert verdict("--only", "audit") == "incomplete"
    attacked.said["audit"] = [("audit-noise", "broken")]
    assert verdict() == "broken"
    printed = fedsci("redteam", "study.yaml", "--only", "audit").out
    assert "verdict: BROKEN" in printed
    assert "BROKEN: audit-noise" in printed
    assert "left out: membership" in printed


@pytest.fixture
def run_folder(fedsci, private):
    """A run of the private study."""
    return private.folder / fedsci("run", "study.yaml", "--quiet").folder


@pytest.mark.slow
def test_families_that_are_not_attacked_again_keep_their_rows(fedsci, attacked, run_folder):
    def rows(*only):
        fedsci("redteam", str(run_folder), "--sites", ".", *only)
        found = json.loads((run_folder / "redteam.json").read_text())
        return found["verdict"], {row["key"]: row["verdict"] for row in found["findings"]}, found["left_out"]

    attacked.said["audit"] = [("audit-noise", "broken"), ("audit-masks", "holds")]
    audited = {"audit-noise": "broken", "audit-masks": "holds"}
    assert rows("--only", "audit") == ("broken", audited, ["membership"])
    assert rows("--only", "membership") == ("broken", audited | {"membership": "not measured"}, [])
    outcome = fedsci("redteam", str(run_folder), "--sites", ".", "--only", "membership")
    assert outcome.code == 6
    assert "kept from earlier attacks on this plan, not shown above: audit-noise, audit-masks" in outcome.out
    assert "BROKEN" in (run_folder / "report.html").read_text()
    attacked.said["membership"] = RoundAborted("too few labs finished")
    attacked.said["audit"] = RoundAborted("too few labs finished")
    assert rows("--only", "audit")[0] == "broken"
    attacked.said["audit"] = [("audit-noise", "holds")]
    assert rows() == ("incomplete", {"audit-noise": "holds", "membership": "not measured"}, [])


@pytest.mark.slow
def test_rows_of_another_plan_or_that_are_no_json_are_not_kept(fedsci, attacked, run_folder):
    def rewritten(change):
        fedsci("redteam", str(run_folder), "--sites", ".", "--only", "audit")
        found = json.loads((run_folder / "redteam.json").read_text())
        change(found)
        (run_folder / "redteam.json").write_text(json.dumps(found))
        assert fedsci("redteam", str(run_folder), "--sites", ".", "--only", "membership").code == 0
        return [row["key"] for row in json.loads((run_folder / "redteam.json").read_text())["findings"]]

    assert rewritten(lambda found: None) == ["audit-noise", "membership"]
    assert rewritten(lambda found: found.update(plan_digest="0" * 64)) == ["membership"]
    (run_folder / "redteam.json").unlink()
    assert rewritten(lambda found: found["findings"][0].update(measured=float("nan"))) == ["membership"]


def test_a_runs_folder_stays_as_it_is_where_out_names_another(fedsci, attacked, run_folder):
    outcome = fedsci("redteam", str(run_folder), "--sites", ".", "--out", "elsewhere", "--json")
    folder = run_folder.parent.parent / json.loads(outcome.out)["folder"]
    assert (folder / "redteam.html").exists()
    assert folder.parent.name == "elsewhere"
    assert not (run_folder / "redteam.json").exists()


@pytest.mark.parametrize("width", [80, 120, 140])
def test_a_row_shows_its_name_and_whole_verdict_at_any_width(capsys, monkeypatch, width):
    from fedsci.cli import findings_text
    from fedsci.redteam.finding import Finding

    words = {"claim": "Nobody knows. " * 9, "attack": "Guess. " * 20, "result": "Too few to tell. " * 9}
    monkeypatch.setattr(findings_text, "_WIDTH", width)
    findings_text.print_findings(
        [
            Finding(key="poisoning-robust-control", verdict="control", **words),
            Finding(key="property-known-others", verdict="not measured", **words),
        ]
    )
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    assert any(line.strip().startswith("poisoning-robust-control ") for line in lines)
    named = next(line.rstrip() for line in lines if line.strip().startswith("property-known-others "))
    assert named.endswith("not measured")
    assert any(line.rstrip().endswith("protection") for line in lines)
