"""A run that is stopped, by a person, by the system or by force, leaves what it knew, and a ledger that is right."""

import json
import os
import signal
import time

import pytest

from fedsci.privacy.budget import budget_policy
from fedsci.site.ledger import Ledger

ROUNDS = 2000


@pytest.fixture
def long_study(study):
    """A private study that takes far longer than the test."""
    study.private()
    study.values["training"]["rounds"] = ROUNDS
    study.write()
    return study


def started(fedsci):
    """Start the study as a process and return it with its run folder, once a few rounds are done."""

    def undo_ignored_interrupts():  # a parent in the background may have had them ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    process = fedsci.start("run", "study.yaml", preexec=undo_ignored_interrupts)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        for metrics in fedsci.folder.glob("runs/*/metrics.jsonl"):
            if metrics.read_text().count("\n") >= 3:
                return process, metrics.parent
        time.sleep(0.02)
    raise AssertionError(fedsci.finish(process).err)


def ledger_of(fedsci, lab):
    return Ledger(fedsci.folder / ".fedsci" / lab)


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_an_interrupted_run_ends_cleanly(fedsci, long_study, number):
    process, folder = started(fedsci)
    process.send_signal(number)
    outcome = fedsci.finish(process)
    assert outcome.code == 130, outcome.err
    assert outcome.error_line == "fedsci: interrupted"
    assert "Traceback" not in outcome.err
    assert fedsci.folder / outcome.folder == folder

    summary = fedsci.summary(outcome)
    done = summary["rounds_completed"]
    assert (summary["status"], summary["reason"]) == ("aborted", "interrupted")
    assert 3 <= done < ROUNDS
    assert len(fedsci.rounds(folder)) in (done, done - 1)  # the last line may not have been reached
    assert {"plan.yaml", "model.safetensors", "model.json", "report.html"} <= {path.name for path in folder.iterdir()}
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]

    for lab in long_study.labs:
        entries = ledger_of(fedsci, lab).entries()
        computed = sum(entry.kind == "step" for entry in entries)
        assert done <= computed <= done + 1
        assert [entry.kind for entry in entries if entry.kind != "step"] == ["register", "reserve", "settle"]
        settle = entries[-1]
        assert settle.body["rounds"] == computed
        assert settle.body["rdp"] < entries[1].body["rdp"] * 0.9
        assert summary["privacy"]["by_site"][lab]["epsilon_spent_study"] < 3.0


@pytest.mark.slow
def test_a_killed_run_can_be_read_and_stays_charged_in_full(fedsci, long_study):
    process, folder = started(fedsci)
    os.kill(process.pid, signal.SIGKILL)
    assert fedsci.finish(process).code == -signal.SIGKILL

    assert "tumours" in (folder / "plan.yaml").read_text()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines[:-1]] == list(range(1, len(lines)))
    assert not (folder / "summary.json").exists()

    policy = budget_policy(epsilon=4.0, delta=1e-5)
    for lab in long_study.labs:
        ledger = ledger_of(fedsci, lab)
        [reserve] = [entry for entry in ledger.entries() if entry.kind == "reserve"]
        assert reserve.body["rounds"] == ROUNDS
        assert ledger.spending("tumours", policy).spent_rdp == reserve.body["rdp"]

    outcome = fedsci("report", folder)
    assert (outcome.code, outcome.out.strip()) == (0, str(folder / "report.html"))
    page = (folder / "report.html").read_text()
    assert "Yes, joining pays" not in page
    assert "summary.json is missing" in page

    again = fedsci("run", "study.yaml", "--set", "training.rounds=3", "--quiet")
    assert again.code == 3
    assert "would pass the budget of 4.00" in again.error_line
