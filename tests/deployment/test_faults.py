"""Processes that die, and sites that are out."""

import json

import pytest

pytestmark = pytest.mark.slow


def begun(consortium, rounds=1):
    return lambda: any(run["state"] == "running" and run["rounds"] >= rounds for run in consortium.runs())


def over(consortium):
    return lambda: consortium.runs()[-1]["state"] in ("completed", "aborted")


def test_a_site_killed_in_a_study_comes_back_and_its_ledger_holds(deploy):
    consortium = deploy(labs=4, rounds=40)
    consortium.found()
    for lab in consortium.study.labs:
        consortium.start_site(lab)
    assert consortium.submit().code == 0
    consortium.until(begun(consortium, 2))
    consortium.kill("lab-2")
    assert consortium.json("site", "status", "lab-2.yaml")["running"] is False
    consortium.start_site("lab-2")
    consortium.until(over(consortium), seconds=300)
    (run,) = consortium.runs()
    assert (run["state"], run["rounds"]) == ("completed", 40), run
    assert consortium.good("privacy", "ledger", "lab-2.yaml").code == 0
    said = consortium.json("site", "status", "lab-2.yaml")
    assert said["studies"] == {}
    assert said["datasets"]["tumours"]["left"] >= 0


def check_completed(consortium, *, rounds):
    """The newest study is over, every round of it is accounted for, and its sites have settled."""
    run = consortium.runs()[-1]
    assert run["state"] == "completed", run
    folder = consortium.fedsci.folder / run["folder"]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["rounds_completed"] + len(summary["rounds_abandoned"]) == rounds
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == list(range(1, rounds + 1))
    assert (folder / "report.html").exists()
    consortium.good("privacy", "statement", run["folder"])  # figures and accountant agree
    for lab in consortium.study.labs:
        said = summary["privacy"]["by_site"][lab]
        assert said["settled"]
        assert summary["rounds_completed"] <= said["rounds_charged"] <= rounds
        assert consortium.json("site", "status", f"{lab}.yaml")["studies"] == {}
    assert summary["metrics"]["federated"]["accuracy"] > 0.8
    return summary


def test_a_coordinator_killed_in_a_study_goes_on_from_the_last_round(deploy):
    consortium = deploy(rounds=60)
    consortium.found()
    for lab in consortium.study.labs:
        consortium.start_site(lab)
    assert consortium.submit().code == 0
    for done in (3, 30):  # the second time in the midst of the next batch's setup
        consortium.until(begun(consortium, done))
        consortium.kill("coordinator")
        assert consortium.json("coordinator", "status")["running"] is False
        consortium.start_coordinator()
    consortium.until(over(consortium), seconds=200)
    summary = check_completed(consortium, rounds=60)
    assert len(summary["rounds_abandoned"]) <= 2


def test_a_coordinator_that_is_stopped_and_started_again_goes_on_too(deploy):
    consortium = deploy(rounds=30)
    consortium.found()
    for lab in consortium.study.labs:
        consortium.start_site(lab)
    assert consortium.submit().code == 0
    consortium.until(begun(consortium, 3))
    assert consortium.stop("coordinator") == [0]
    (run,) = consortium.runs()
    assert run["state"] == "running"
    consortium.kill("lab-3")  # and a site that restarts meanwhile
    consortium.start_coordinator()
    consortium.start_site("lab-3")
    consortium.until(over(consortium), seconds=200)
    check_completed(consortium, rounds=30)


def test_a_study_stopped_while_the_coordinator_was_down_ends_when_it_is_back(deploy):
    consortium = deploy(rounds=60)
    consortium.study.values["privacy"]["epsilon"] = 1.0
    consortium.study.write()
    consortium.found()
    for lab in consortium.study.labs:
        consortium.start_site(lab)
    assert consortium.submit().code == 0
    consortium.until(begun(consortium, 3))
    consortium.kill("coordinator")
    consortium.good("coordinator", "stop", "tumours")
    consortium.start_coordinator()
    consortium.until(over(consortium), seconds=200)
    (run,) = consortium.runs()
    assert (run["state"], run["exit_code"]) == ("aborted", 5)
    summary = consortium.fedsci.folder / run["folder"] / "summary.json"
    values = json.loads(summary.read_text())
    assert values["status"] == "aborted"
    assert (summary.parent / "privacy_statement.md").exists()
    for lab in consortium.study.labs:
        assert values["privacy"]["by_site"][lab]["settled"]
        assert values["privacy"]["by_site"][lab]["epsilon_spent_study"] < 1.0  # what was not computed is not charged
        assert consortium.json("site", "status", f"{lab}.yaml")["studies"] == {}
    again = consortium.submit("--set", "training.rounds=2", "--wait", "--json")
    assert again.code == 0, again.err + consortium.said()


def test_a_study_that_is_stopped_says_so_and_the_sites_settle(deploy):
    consortium = deploy(rounds=60)
    consortium.found()
    for lab in consortium.study.labs:
        consortium.start_site(lab)
    assert consortium.submit().code == 0
    consortium.until(begun(consortium))
    consortium.good("coordinator", "stop", "tumours")
    consortium.until(over(consortium))
    (run,) = consortium.runs()
    assert (run["state"], run["exit_code"]) == ("aborted", 5)
    assert "stopped by " in run["reason"]
    assert consortium.json("site", "status", "lab-1.yaml")["studies"] == {}


def test_a_revoked_site_is_out_and_a_second_daemon_is_refused(deploy):
    consortium = deploy()
    consortium.found()
    consortium.start_site("lab-3")
    consortium.until(lambda: consortium.json("site", "status", "lab-3.yaml")["connected"])
    twice = consortium.fedsci("site", "start", "lab-3.yaml")
    assert twice.code == 2
    assert twice.error_line.startswith("fedsci: the daemon of lab-3 is running already (process ")
    again = consortium.fedsci("coordinator", "start", "--host", "127.0.0.1")
    assert again.code == 2
    assert again.error_line.startswith("fedsci: the coordinator of consortium is running already (process ")
    consortium.good("coordinator", "revoke", "lab-3", "--reason", "laptop stolen")
    consortium.until(lambda: not consortium.json("site", "status", "lab-3.yaml")["connected"])
    assert consortium.stop("lab-3") == [0]
    consortium.start_site("lab-3")
    consortium.until(lambda: "disconnected" in [line["event"] for line in consortium.log("lab-3")[-2:]])
    said = consortium.json("site", "status", "lab-3.yaml")
    assert not said["connected"]
    assert "no connection" in said["last_error"]
    missing = consortium.submit("--wait")
    assert missing.code == 2  # two sites are too few
