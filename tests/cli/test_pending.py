"""What an operator reads before giving a word: the coordinator's words cannot pass for the program's."""

import json

import pytest

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
