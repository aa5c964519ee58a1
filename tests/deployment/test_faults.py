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


def test_a_coordinator_killed_in_a_study_ends_it_and_serves_on(deploy):
    consortium = deploy(rounds=60)
    consortium.study.values["privacy"]["epsilon"] = 1.0
    consortium.study.write()
    consortium.found()
    for lab in consortium.study.labs:
        consortium.start_site(lab)
    assert consortium.submit().code == 0
    consortium.until(begun(consortium, 3))
    consortium.kill("coordinator")
    assert consortium.json("coordinator", "status")["running"] is False
    consortium.start_coordinator()
    consortium.until(over(consortium), seconds=200)
    (run,) = consortium.runs()
    assert run["state"] == "aborted"
    assert "the coordinator was restarted after round" in run["reason"]
    summary = consortium.fedsci.folder / run["folder"] / "summary.json"
    values = json.loads(summary.read_text())
    assert values["status"] == "aborted"
    assert (summary.parent / "report.html").exists()
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
