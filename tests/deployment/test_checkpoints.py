"""A study on a real fleet that waits for people, while its coordinator is killed, stopped and started again."""

import json

import pytest

from fedsci.names import digest

pytestmark = pytest.mark.slow


@pytest.fixture
def waiting(deploy):
    """A running consortium whose study waits for its officer before release."""

    def start(*, rounds=2, checkpoints):
        consortium = deploy(rounds=rounds)
        consortium.good("signer", "new", "officer.key", "--role", "officer")
        public = consortium.good("signer", "show", "officer.key").out.strip()
        consortium.study.values["privacy"]["epsilon"] = 1.0
        consortium.study.values |= {"checkpoints": checkpoints, "signers": {"officer": [public]}}
        consortium.study.write()
        consortium.found()
        for lab in consortium.study.labs:
            consortium.start_site(lab)
        assert consortium.submit().code == 0
        consortium.until(waits(consortium))
        return consortium

    return start


def waits(consortium):
    return lambda: "officer" in consortium.runs()[-1]["waiting"]


def shown(consortium):
    """What the run's log says of waiting, once for each process that waits."""
    lines = (consortium.folder / "consortium" / "studies" / "000001" / "log.jsonl").read_text().splitlines()
    return [one for one in map(json.loads, lines) if one["event"] == "checkpoint"]


def over(consortium):
    return lambda: consortium.runs()[-1]["state"] in ("completed", "aborted")


def folder_of(consortium):
    return consortium.fedsci.folder / consortium.runs()[-1]["folder"]


def test_a_coordinator_killed_while_it_waits_goes_on_waiting_and_then_on(waiting):
    consortium = waiting(
        rounds=4,
        checkpoints=[{"every_rounds": 3, "who": ["officer"]}, {"before": "release", "who": ["officer"]}],
    )
    said = consortium.good("coordinator", "status").out
    assert "waits for officer, which must decide after round 3: fedsci decide 1" in said
    (run,) = consortium.runs()
    assert (run["state"], run["rounds"]) == ("running", 3)
    consortium.kill("coordinator")
    consortium.start_coordinator()
    consortium.until(lambda: len(shown(consortium)) == 2)  # it asks again, and asks the same
    assert len({(one["name"], one["model"]) for one in shown(consortium)}) == 1
    consortium.good("decide", "1", "approve", "--key", "officer.key", "--name", "Dr. Ito")
    folder, release = folder_of(consortium), "before-release.request.json"
    consortium.until(lambda: (folder / "decisions" / release).exists())
    assert not (folder / "model.safetensors").exists()
    consortium.kill("coordinator")
    asked = (folder / "decisions" / release).read_bytes()
    # decided while no coordinator runs
    consortium.good("decide", "1", "approve", "--key", "officer.key", "--name", "Dr. Ito")
    consortium.start_coordinator()
    consortium.until(over(consortium), seconds=200)
    (run,) = consortium.runs()
    assert (run["state"], run["rounds"], run["waiting"]) == ("completed", 4, {}), run
    assert (folder / "decisions" / "before-release.decided.json").read_bytes() == asked
    summary = json.loads((folder / "summary.json").read_text())
    assert [one["checkpoint"] for one in summary["checkpoints"]] == ["round:3", "before:release"]
    assert summary["rounds_abandoned"] == []
    assert summary["checkpoints"][-1]["model"] == digest((folder / "model.safetensors").read_bytes())
    for lab in consortium.study.labs:
        assert summary["privacy"]["by_site"][lab]["settled"]
        assert consortium.json("site", "status", f"{lab}.yaml")["studies"] == {}


def test_a_study_that_waits_obeys_a_stop_and_a_refusal(waiting):
    consortium = waiting(rounds=1, checkpoints=[{"before": "release", "who": ["officer"]}])
    consortium.good("coordinator", "stop", "1")
    consortium.until(over(consortium))
    run = consortium.runs()[-1]
    assert (run["exit_code"], run["waiting"]) == (5, {})
    assert "stopped by " in run["reason"]
    assert not (folder_of(consortium) / "model.safetensors").exists()

    assert consortium.submit().code == 0
    consortium.until(waits(consortium))
    consortium.good("decide", "2", "refuse", "--key", "officer.key", "--name", "Dr. Ito", "--reason", "not yet")
    consortium.until(over(consortium))
    run = consortium.runs()[-1]
    assert (run["state"], run["exit_code"], run["waiting"]) == ("aborted", 4, {})
    assert run["reason"] == "Dr. Ito (officer) refused before release: not yet"
    assert not (folder_of(consortium) / "model.safetensors").exists()
    for lab in consortium.study.labs:
        assert consortium.json("site", "status", f"{lab}.yaml")["studies"] == {}
