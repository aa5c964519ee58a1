"""What an operator reads before giving a word: the coordinator's words cannot pass for the program's."""

import json
import re

import pytest

from fedsci.audit.statement import open_statement
from fedsci.config.study_file import load_deployed_study
from fedsci.site.approvals import Approvals


@pytest.fixture
def waiting(fedsci, study):
    """A study as a coordinator asks for it, waiting for the operator of lab-1."""

    def ask(**changes):
        study.sites["lab-1"]["policy"]["approval"] = "manual"
        study.values |= {"privacy": {"mechanism": "local", "epsilon": 3.0}} | changes
        del study.values["sites"]
        study.write()
        assert fedsci("site", "init", "lab-1.yaml", "--state", "state").code == 0
        plan = load_deployed_study(study.path, active=study.labs, chosen=study.labs, overrides=None, seed=None)
        assert Approvals(fedsci.folder / "state").ask(plan) == "pending"
        outcome = fedsci("site", "pending", "lab-1.yaml", "--state", "state")
        assert (outcome.code, outcome.err) == (0, "")
        return outcome.out

    return ask


def lines(shown, name):
    return [line for line in shown.splitlines() if line.startswith(name.ljust(10))]


def test_what_waits_is_shown_with_its_cost(waiting):
    shown = waiting()
    assert lines(shown, "question") == ["question  Is this tumour benign?"]
    assert len(lines(shown, "costs")) == 1
    assert "of 4.00" in lines(shown, "costs")[0]


@pytest.mark.parametrize(
    "trick",
    [
        "a study\ncosts     epsilon 0.01: spent 0.00, then 0.01 of 4.00",
        "a study" + " " * 400 + "costs     epsilon 0.01: spent 0.00, then 0.01 of 4.00",
        "a study\r\x1b[8mcosts     epsilon 0.01\x1b[0m",
        "a study\u202e10.0 nolispe stsoc\u2028costs     epsilon 0.01",
    ],
    ids=["line end", "blanks", "terminal", "direction"],
)
def test_a_question_cannot_forge_another_line(waiting, trick):
    shown = waiting(question=trick)
    assert len(lines(shown, "costs")) == 1
    assert all(char.isprintable() or char == "\n" for char in shown)
    assert "  costs" not in shown
    assert lines(shown, "question")[0].startswith("question  a study")


def test_nor_can_the_name_of_a_column(waiting):
    forged = "benign\ncosts     epsilon 0.01"
    shown = waiting(task={"kind": "binary", "target": forged})
    assert len(lines(shown, "costs")) == 1


def test_a_plan_that_no_longer_opens_hides_no_other(waiting, fedsci):
    """The site was updated, or its policy changed, while both waited."""
    waiting()
    [kept] = (fedsci.folder / "state" / "approvals").glob("*.json")
    older = json.loads(kept.read_text())
    plan = json.loads(older["plan"]) | {"plan_version": 0}
    older |= {"plan": json.dumps(plan), "study": "older\ncosts     epsilon 0.01", "digest": "sha256:" + 64 * "0"}
    kept.with_name(64 * "0" + ".json").write_text(json.dumps(older))
    outcome = fedsci("site", "pending", "lab-1.yaml", "--state", "state")
    assert (outcome.code, outcome.err) == (0, "")
    assert len(lines(outcome.out, "costs")) == 1
    assert lines(outcome.out, "but") == ["but       it cannot be read here any more: plan version 0 is not known"]
    assert "next: fedsci site refuse lab-1.yaml 000000000000" in outcome.out
    listed = json.loads(fedsci("site", "pending", "lab-1.yaml", "--state", "state", "--json").out)
    assert sorted(one.get("problem", "") for one in listed) == ["", "plan version 0 is not known"]
    refused = fedsci("site", "refuse", "lab-1.yaml", "000000000000", "--state", "state")
    assert refused.code == 0, refused.err


def test_what_would_be_signed_is_shown_field_by_field(waiting, fedsci):
    shown = waiting()
    [said] = json.loads(fedsci("site", "pending", "lab-1.yaml", "--state", "state", "--json").out)
    permit = said["permit"]
    assert (permit["plan"], permit["rounds"], permit["epsilon"]) == (said["digest"], said["rounds"], 3.0)
    assert (permit["nonce"], permit["not_before"], permit["signers"]) == (None, None, ["lab-1"])
    for name, value in permit.items():
        assert f"\n  {name:<17}" in shown
        assert value is None or isinstance(value, list) or f"  {name:<17}{value}\n" in shown
    assert said["left"] == 4.0
    assert f"left      epsilon 4.00 now, {said['left_after']:.2f} after it" in shown
    assert not (fedsci.folder / "state" / "permits").exists()


def test_an_approval_signs_a_permit_that_others_can_check(waiting, fedsci):
    waiting()
    said = json.loads(fedsci("site", "approve", "lab-1.yaml", "tumours", "--state", "state", "--json").out)
    key = json.loads(fedsci("site", "identity", "lab-1.yaml", "--state", "state", "--json").out)["verification_key"]
    statement = open_statement("permit", (fedsci.folder / said["file"]).read_bytes(), [bytes.fromhex(key)])
    assert (statement.digest, dict(statement.body)) == (said["permit"], said["body"])
    assert (said["complete"], said["waits_for"]) == (True, None)
    again = fedsci("site", "approve", "lab-1.yaml", said["digest"], "--state", "state", "--hours", "1", "--days", "2")
    first, second = again.out.splitlines()
    assert "may run here once, until" in first
    assert second.startswith("permit sha256:")
    assert said["permit"] not in second
    refused = fedsci("site", "refuse", "lab-1.yaml", "tumours", "--state", "state", "--reason", "no", "--json")
    assert json.loads(refused.out) == {"study": "tumours", "digest": said["digest"], "reason": "no"}


def test_a_permit_cannot_be_signed_for_data_that_is_not_there(waiting, study, fedsci):
    waiting()
    study.sites["lab-1"]["datasets"]["tumours"] |= {"path": "gone.csv", "builtin": None}
    study.write()
    shown = fedsci("site", "pending", "lab-1.yaml", "--state", "state")
    assert shown.code == 0
    assert "permit    none can be signed: " in shown.out
    assert fedsci("site", "approve", "lab-1.yaml", "tumours", "--state", "state").code == 2


def test_the_way_to_two_signatures(waiting, study, fedsci):
    made = fedsci("site", "signer", "lab-1.yaml", "ada", "--key", "ada.key")
    assert made.code == 0, made.err
    public = re.search(r'policy: \{second_signers: \{ada: "([0-9a-f]+)"\}\}', made.out)[1]
    study.sites["lab-1"]["policy"]["second_signers"] = {"ada": public}
    shown = waiting(safety_critical=True)
    assert "critical  SAFETY-CRITICAL" in shown
    assert "  signers          lab-1, ada\n" in shown
    assert "names ada with this key" in fedsci("site", "signer", "lab-1.yaml", "ada", "--key", "ada.key").out

    early = fedsci("site", "approve", "lab-1.yaml", "tumours", "--state", "state", "--key", "ada.key")
    assert (early.code, early.error_line) == (2, "fedsci: the site has not signed tumours yet")
    half = fedsci("site", "approve", "lab-1.yaml", "tumours", "--state", "state").out
    assert "is signed by the site and waits for ada's signature" in half
    waits = fedsci("site", "pending", "lab-1.yaml", "--state", "state").out
    assert "permit    signed by the site:" in waits
    assert re.search(r"--key FILE \(signed by ada\)", waits)
    status = json.loads(fedsci("site", "status", "lab-1.yaml", "--state", "state", "--json").out)
    assert status["pending"] == ["tumours"]
    fedsci("site", "signer", "lab-1.yaml", "ben", "--key", "ben.key")
    wrong = fedsci("site", "approve", "lab-1.yaml", "tumours", "--state", "state", "--key", "ben.key")
    assert (wrong.code, "is not ada's" in wrong.error_line) == (4, True)
    own = fedsci("site", "approve", "lab-1.yaml", "tumours", "--state", "state", "--key", "state/identity.key")
    assert (own.code, "one key is one signer" in own.error_line) == (4, True)
    done = fedsci("site", "approve", "lab-1.yaml", "tumours", "--state", "state", "--key", "ada.key")
    assert "may run here once, until" in done.out
    assert done.out.splitlines()[1] == half.splitlines()[1]


def test_a_permit_that_has_expired_waits_again_and_says_so(waiting, study, fedsci):
    for name in ("ada", "ben"):
        fedsci("signer", "new", f"{name}.key")
    study.sites["lab-1"]["policy"]["second_signers"] = {"ada": fedsci("signer", "show", "ada.key").out.strip()}
    assert "expired" not in waiting(safety_critical=True)
    [asked] = json.loads(fedsci("site", "pending", "lab-1.yaml", "--state", "state", "--json").out)
    digest, name = asked["digest"], asked["study"]
    assert asked["expired"] is None
    assert fedsci("site", "approve", "lab-1.yaml", digest, "--state", "state").code == 0
    [kept] = (fedsci.folder / "state" / "approvals").glob("*.json")
    kept.write_text(json.dumps(json.loads(kept.read_text()) | {"until": 1000.0}))
    late = fedsci("site", "approve", "lab-1.yaml", digest, "--state", "state", "--key", "ada.key")
    assert (late.code, late.error_line) == (2, f"fedsci: the permit for {name} has expired")
    assert late.hint_line.startswith("hint: first: fedsci site approve SITE_FILE ")
    shown = fedsci("site", "pending", "lab-1.yaml", "--state", "state").out
    assert lines(shown, "expired") == ["expired   what was signed was good until 1970-01-01 00:16 UTC; sign again"]
    assert fedsci("site", "approve", "lab-1.yaml", digest, "--state", "state").code == 0
    assert "expired" not in fedsci("site", "pending", "lab-1.yaml", "--state", "state").out


def test_simulated_labs_do_not_run_a_safety_critical_study(study, fedsci):
    study.values["safety_critical"] = True
    study.write()
    refused = fedsci("run", study.path)
    assert (refused.code, "safety-critical" in refused.error_line) == (4, True)
