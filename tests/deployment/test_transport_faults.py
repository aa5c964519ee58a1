"""SuperLink and sites killed in each phase of a masked private study, as their logs show it; the study finishes."""

import json
import os
import signal
import time

import pytest

pytestmark = pytest.mark.slow

ROUNDS = 16


def superlink(consortium):
    """SuperLink's process, as it has written it down."""
    try:
        return int((consortium.folder / "consortium" / "fleet" / "superlink.port").read_text().split()[1])
    except (OSError, IndexError):
        return 0


def await_request(consortium, lab, action, number=0):
    """Wait until a lab has answered a request, after it has trained in round ``number``: what follows is under way."""

    def there():
        requests = [line for line in consortium.log(lab) if line["event"] == "request" and not line["error"]]
        trained = [at for at, line in enumerate(requests) if line["action"] == "train" and line["round"] >= number]
        start = trained[0] if number and trained else 0
        return (not number or trained) and any(line["action"] == action for line in requests[start:])

    deadline = time.monotonic() + 120
    while not there():
        assert time.monotonic() < deadline, consortium.said()
        time.sleep(0.01)


def kill_superlink(consortium):
    process = superlink(consortium)
    os.kill(process, signal.SIGKILL)
    consortium.until(lambda: superlink(consortium) not in (0, process), seconds=60)


def kill_site(consortium, lab):
    consortium.kill(lab)
    consortium.start_site(lab)


def test_whatever_is_killed_and_whenever_a_masked_private_study_finishes(deploy):
    consortium = deploy(labs=4, rounds=ROUNDS)
    consortium.found()
    for lab in consortium.study.labs[1:]:
        consortium.start_site(lab)
    assert consortium.submit().code == 0
    consortium.until(lambda: consortium.runs()[0]["waiting"])
    kill_superlink(consortium)  # before any site was asked anything
    consortium.start_site("lab-1")
    await_request(consortium, "lab-2", "prepare")
    kill_superlink(consortium)  # in the setup of the masks
    await_request(consortium, "lab-2", "train", 3)
    kill_superlink(consortium)  # while the sum is opened
    await_request(consortium, "lab-2", "unmask", 5)
    kill_site(consortium, "lab-2")  # while sites compute and upload
    await_request(consortium, "lab-3", "train", 9)
    kill_site(consortium, "lab-3")  # while the sum is opened
    await_request(consortium, "lab-1", "unmask", 12)
    kill_superlink(consortium)  # while sites compute and upload
    await_request(consortium, "lab-1", "unmask", ROUNDS)
    kill_superlink(consortium)  # while the last model is evaluated
    await_request(consortium, "lab-4", "evaluate")
    kill_site(consortium, "lab-4")  # before it has heard that the study is over
    consortium.until(lambda: consortium.runs()[0]["state"] in ("completed", "aborted"), seconds=120)
    (run,) = consortium.runs()
    assert (run["state"], run["rounds"]) == ("completed", ROUNDS), run
    assert consortium.events("coordinator").count("superlink-ended") == 5
    summary = json.loads((consortium.folder / run["folder"] / "summary.json").read_text())
    dropped = summary["secure_aggregation"]["dropped"]
    assert {site for site, _ in dropped} <= {"lab-2", "lab-3"}, dropped
    for lab in consortium.study.labs:
        spent = summary["privacy"]["by_site"][lab]
        assert spent["epsilon_spent_study"] <= 3.0
        assert consortium.good("privacy", "ledger", f"{lab}.yaml").code == 0
    log = (consortium.folder / "consortium" / "fleet" / "superlink.log").read_text()
    assert "Traceback" not in log
