"""A run that pauses, and people at other terminals who decide: real processes, real files."""

import json
import signal
import time

import pytest
from safetensors.numpy import load_file

from fedsci.names import digest


@pytest.fixture
def paused(fedsci, study):
    """Start a study with these checkpoints, and return its process and run folder once it waits."""

    def start(checkpoints, *options):
        keys = {}
        for role in ("officer", "coordinator"):
            assert fedsci("signer", "new", f"{role}.key", "--role", role).code == 0
            keys[role] = [fedsci("signer", "show", f"{role}.key").out.strip()]
        study.values |= {"checkpoints": checkpoints, "signers": keys}
        study.write()

        def undo_ignored_interrupts():  # a parent in the background may have had them ignored
            signal.signal(signal.SIGINT, signal.SIG_DFL)

        process = fedsci.start("run", "study.yaml", *options, preexec=undo_ignored_interrupts)
        return process, wait_for(fedsci, process)

    return start


def wait_for(fedsci, process, name="*"):
    """Return the run folder once it waits at a checkpoint."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        for request in fedsci.folder.glob(f"runs/*/decisions/{name}.request.json"):
            return request.parent.parent
        time.sleep(0.05)
    process.kill()
    raise AssertionError(fedsci.finish(process).err)


@pytest.mark.slow
def test_a_run_goes_on_when_everybody_has_decided_and_says_who_did(fedsci, paused):
    both = ["officer", "coordinator"]
    process, folder = paused([{"every_rounds": 2, "who": both[1:]}, {"before": "release", "who": both}])
    shown = fedsci("decide", folder)
    assert "paused after round 2, 2 of 3 rounds done: waits for coordinator to decide" in shown.out
    assert "measured after round 1: accuracy 0." in shown.out
    wrong = fedsci("decide", folder, "approve", "--key", "officer.key")
    assert (wrong.code, wrong.hint_line) == (2, "hint: who decides: coordinator")
    assert fedsci("decide", folder, "approve", "--key", "coordinator.key", "--name", "K. Berg").code == 0
    wait_for(fedsci, process, "before-release")
    assert not (folder / "model.safetensors").exists()

    # the officer is elsewhere: the request goes there, the signed decision comes back
    away = fedsci.folder / "away.json"
    away.write_bytes((folder / "decisions" / "before-release.request.json").read_bytes())
    answer = ("approve", "--key", "officer.key", "--name", "Dr. Ito", "--reason", "agreed on 12 May")
    alone = fedsci("decide", away, *answer)
    assert (alone.code, alone.error_line) == (2, f"fedsci: {away} does not lie in a run folder")
    assert fedsci("decide", away, *answer, "--out", "back.json").code == 0
    handed = fedsci("decide", folder, "--signed", "back.json")
    assert handed.out == "handed in: Dr. Ito (officer) approved before release\n"
    forged = json.loads((fedsci.folder / "back.json").read_text())
    forged["signatures"][0]["sig"] = "00" * 64
    (fedsci.folder / "forged.json").write_text(json.dumps(forged))
    refused = fedsci("decide", folder, "--signed", "forged.json")
    assert refused.code == 6
    assert refused.error_line.endswith("on the decision is not valid")
    (folder / "decisions" / "forged.decision.json").write_text(json.dumps(forged))
    time.sleep(1)
    assert process.poll() is None  # one role is not two, and a forged decision is none
    assert not (folder / "model.safetensors").exists()
    assert fedsci("decide", folder, "approve", "--key", "coordinator.key").code == 0
    outcome = fedsci.finish(process)
    assert outcome.code == 0, outcome.err
    assert "Dr. Ito (officer) approved before release" in outcome.err
    assert "a decision does not count: the signature of key" in outcome.err

    summary = json.loads((folder / "summary.json").read_text())
    said = [(one["checkpoint"], one["role"], one["decision"]) for one in summary["checkpoints"]]
    assert said == [
        ("round:2", "coordinator", "approve"),
        ("before:release", "officer", "approve"),
        ("before:release", "coordinator", "approve"),
    ]
    assert (summary["checkpoints"][1]["name"], summary["checkpoints"][1]["reason"]) == ("Dr. Ito", "agreed on 12 May")
    released = digest((folder / "model.safetensors").read_bytes())
    assert {one["model"] for one in summary["checkpoints"][1:]} == {released}  # what they signed is what there is
    assert json.loads((folder / "model.json").read_text())["digest"] == released
    late = fedsci("decide", folder, "refuse", "--key", "officer.key")
    assert (late.code, late.error_line) == (2, f"fedsci: {folder} waits for no decision")


@pytest.mark.slow
def test_a_refused_release_leaves_no_model(fedsci, paused):
    process, folder = paused([{"before": "release", "who": ["officer"]}], "--quiet")
    reason = "two labs asked for more time"
    assert fedsci("decide", folder, "refuse", "--key", "officer.key", "--name", "Dr. Ito", "--reason", reason).code == 0
    outcome = fedsci.finish(process)
    assert outcome.code == 4
    assert outcome.error_line == f"fedsci: Dr. Ito (officer) refused before release: {reason}"
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["status"], summary["rounds_completed"]) == ("aborted", 3)
    assert [one["decision"] for one in summary["checkpoints"]] == ["refuse"]
    assert not list(folder.rglob("*.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize(("before", "left"), [("release", 0), (None, 1)])
def test_ctrl_c_ends_a_run_that_waits(fedsci, paused, before, left):
    point = {"every_rounds": 2} if before is None else {"before": before}
    process, folder = paused([point | {"who": ["officer"]}])
    process.send_signal(signal.SIGINT)
    outcome = fedsci.finish(process)
    assert (outcome.code, outcome.error_line) == (130, "fedsci: interrupted")
    assert json.loads((folder / "summary.json").read_text())["status"] == "aborted"
    assert len(list(folder.glob("model.safetensors"))) == left  # as ever, where nobody decides on the release
    for model in folder.glob("model.safetensors"):
        assert load_file(model)


@pytest.mark.slow
def test_a_search_does_not_wait_at_checkpoints(fedsci, study):
    assert fedsci("signer", "new", "officer.key").code == 0
    public = fedsci("signer", "show", "officer.key").out.strip()
    study.values |= {"checkpoints": [{"before": "release", "who": ["officer"]}], "signers": {"officer": [public]}}
    study.write()
    outcome = fedsci("tune", "study.yaml", "--try", "training.rounds=1,2")
    assert outcome.code == 2
    assert "--set checkpoints=[]" in outcome.hint_line
    good = fedsci("tune", "study.yaml", "--try", "training.rounds=1,2", "--set", "checkpoints=[]")
    assert good.code == 0, good.err
