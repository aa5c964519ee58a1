"""A study whose scaling is measured first, over a real fleet: two studies, one turn, and nobody pays a pass twice."""

import json

import pytest

pytestmark = pytest.mark.slow


def measured(deploy, *, rounds, **policy):
    """A consortium whose study measures its scaling; all sites run."""
    consortium = deploy(rounds=rounds)
    consortium.study.values["features"]["scaling"] = "federated"
    consortium.study.values["privacy"]["epsilon"] = 2.0
    for values in consortium.study.sites.values():
        values["policy"]["strategies"].append("feature_statistics")
    consortium.study.sites["lab-2"]["policy"] |= policy
    consortium.study.write()
    consortium.found()
    for lab in consortium.study.labs:
        consortium.start_site(lab)
    return consortium


def result(consortium):
    (run,) = consortium.runs()
    folder = consortium.folder / "runs" / run["folder"].rsplit("/", maxsplit=1)[-1]
    return folder, json.loads((folder / "summary.json").read_text())


def passes(consortium):
    """Passes that each lab has admitted."""
    logs = [(consortium.folder / "state" / lab / "site.log").read_text() for lab in consortium.study.labs]
    plans = [{json.loads(line).get("plan") for line in log.splitlines() if '"admitted"' in line} for log in logs]
    return [len(each) for each in plans]


def test_a_coordinator_that_dies_after_the_pass_finds_what_it_measured(deploy):
    consortium = measured(deploy, rounds=6)
    assert consortium.submit().code == 0
    (job,) = consortium.folder.glob("*/studies/000001")
    consortium.until((job / "scaled.json").exists)
    consortium.kill("coordinator")
    kept = (job / "scaled.json").read_bytes()
    consortium.start_coordinator()
    consortium.until(lambda: consortium.runs()[0]["state"] == "completed", seconds=300)
    assert (job / "scaled.json").read_bytes() == kept
    folder, summary = result(consortium)
    assert summary["status"] == "completed"
    assert passes(consortium) == [2, 2, 2]  # the pass and the study, each once
    for said in summary["privacy"]["by_site"].values():
        assert said["epsilon_spent_scaling"] == pytest.approx(0.2, abs=0.01)
        assert said["epsilon_spent_study"] <= 2.0
    assert (folder / "scaling" / "privacy_statement.md").exists()
    assert "training 1.80" in (folder / "privacy_statement.md").read_text()
    assert len(list(consortium.folder.glob("runs/*/summary.json"))) == 1  # the pass lies inside


def test_an_operator_is_asked_for_both_one_after_the_other(deploy):
    consortium = measured(deploy, rounds=2, approval="manual")
    assert consortium.submit().code == 0
    for name in ("tumours.scaling", "tumours"):
        consortium.until(lambda: "approval" in consortium.runs()[0]["waiting"].get("lab-2", ""))
        (asked,) = consortium.json("site", "pending", "lab-2.yaml")
        assert asked["study"] == name
        consortium.good("site", "approve", "lab-2.yaml", asked["digest"][7:19])
        consortium.until(lambda: not consortium.runs()[0]["waiting"])
    consortium.until(lambda: consortium.runs()[0]["state"] == "completed", seconds=300)
    assert result(consortium)[1]["scaling"]["columns"].keys() == {"mean_radius", "mean_texture", "mean_smoothness"}


def test_a_site_that_would_refuse_the_study_is_asked_before_the_pass(deploy):
    consortium = measured(deploy, rounds=2, strategies=["feature_statistics"])
    refused = consortium.submit("--wait")
    assert refused.code == 4
    assert "policy.strategies does not allow 'dp_fedsgd'" in refused.error_line
    assert consortium.json("site", "status", "lab-1.yaml")["datasets"]["tumours"]["spent"] == 0.0
