"""A consortium founded, joined and left by its commands alone."""

import io
import json
import socket
import stat
import time

import pytest


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def consortium(fedsci, study, port):
    """A consortium on the loopback whose enrolment is served by a process of its own."""
    assert fedsci("coordinator", "init", "--address", f"127.0.0.1:{port}").code == 0
    process = fedsci.start("coordinator", "serve-enrolment", "--host", "127.0.0.1")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.05)
    raise AssertionError(fedsci.finish(process).err)


def token_for(fedsci, name):
    outcome = fedsci("coordinator", "enrol", name, "--quiet")
    assert (outcome.code, outcome.err) == (0, "")
    return outcome.out.strip()


@pytest.mark.slow
def test_three_labs_join_and_one_is_shut_out(fedsci, consortium):
    for number in range(1, 4):
        lab, state = f"lab-{number}", f"state-{number}"
        assert fedsci("site", "init", f"{lab}.yaml", "--state", state).code == 0
        outcome = fedsci("site", "join", f"{lab}.yaml", token_for(fedsci, lab), "--state", state)
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.out.startswith(f"{lab} has joined as number {number}; its certificate is good until ")
    assert "names 3 sites, this one by its own key" in outcome.out
    facts = json.loads(fedsci("site", "identity", "lab-3.yaml", "--state", "state-3", "--json").out)
    assert (facts["site"], facts["enrolled"], facts["roster_sites"]) == ("lab-3", True, 3)
    assert (
        f"verification key  {facts['verification_key']}"
        in fedsci("site", "identity", "lab-3.yaml", "--state", "state-3").out
    )

    token_for(fedsci, "lab-4")
    listed = json.loads(fedsci("coordinator", "sites", "--json").out)
    assert [(site["site"], site["state"]) for site in listed] == [
        ("lab-1", "active"),
        ("lab-2", "active"),
        ("lab-3", "active"),
        ("lab-4", "invited"),
    ]
    assert listed[2]["verification_key"] == facts["verification_key"]

    outcome = fedsci("coordinator", "revoke", "lab-2", "--reason", "left")
    assert outcome.out.splitlines()[0] == "lab-2 is revoked"
    assert "revoked" in fedsci("coordinator", "sites").out
    outcome = fedsci("site", "join", "lab-2.yaml", token_for(fedsci, "lab-2"), "--state", "state-2")
    assert outcome.code == 7
    assert "--new-keys" in outcome.hint_line
    assert fedsci("site", "init", "lab-2.yaml", "--new-keys", "--state", "state-2").code == 0
    outcome = fedsci("site", "join", "lab-2.yaml", token_for(fedsci, "lab-2"), "--state", "state-2")
    assert "has joined as number 4" in outcome.out


@pytest.mark.slow
def test_mistakes_at_the_door(fedsci, consortium, monkeypatch):
    assert fedsci("site", "init", "lab-1.yaml", "--state", "s").code == 0
    token = token_for(fedsci, "lab-1")
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdin", io.StringIO(f"{token}\n"))
        used = fedsci("site", "join", "lab-1.yaml", "-", "--state", "s")
    again = fedsci("site", "join", "lab-1.yaml", token, "--state", "s")
    assert (used.code, again.code) == (0, 7)
    assert again.error_line.endswith("refused: the token was used before")
    assert again.hint_line.startswith("hint: a token enrols once; ask the coordinator for a new one")
    other = fedsci("site", "join", "lab-1.yaml", token_for(fedsci, "lab-2"), "--state", "s")
    assert other.error_line == "fedsci: the token is for lab-2, and this site is lab-1"
    assert other.code == 2
    consortium.terminate()
    assert "refused (token-used)" in fedsci.finish(consortium).err
    gone = fedsci("site", "join", "lab-1.yaml", token_for(fedsci, "lab-1"), "--state", "s")
    assert gone.code == 7
    assert gone.error_line.endswith("Connection refused")
    assert gone.hint_line == "hint: is the coordinator running, and does a firewall let you through?"


def test_the_site_file_may_name_the_state_folder(fedsci, study):
    file = fedsci.folder / "lab-1.yaml"
    file.write_text(file.read_text() + "state: keys/lab-1\n")
    assert fedsci("site", "init", "lab-1.yaml").code == 0
    assert stat.S_IMODE((fedsci.folder / "keys/lab-1/identity.key").stat().st_mode) == 0o600


def test_a_port_that_is_taken(fedsci, study, port):
    assert fedsci("coordinator", "init", "--address", f"127.0.0.1:{port}").code == 0
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        outcome = fedsci("coordinator", "serve-enrolment", "--host", "127.0.0.1")
    assert outcome.code == 7
    assert outcome.error_line == f"fedsci: cannot listen on 127.0.0.1:{port}"


def test_a_folder_that_cannot_be_read_is_named(fedsci, study):
    """As with another user's folder; these tests may run as root, who may read everything."""
    assert fedsci("site", "init", "lab-1.yaml", "--state", "s").code == 0
    (fedsci.folder / "s" / "identity.key").unlink()
    (fedsci.folder / "s" / "identity.key").mkdir()
    assert fedsci("coordinator", "init", "--address", "localhost").code == 0
    (fedsci.folder / "consortium" / "crl").unlink()
    (fedsci.folder / "consortium" / "crl").mkdir()
    for outcome, folder in (
        (fedsci("site", "identity", "lab-1.yaml", "--state", "s"), "s"),
        (fedsci("coordinator", "serve-enrolment"), "consortium"),
    ):
        assert outcome.code == 2
        assert outcome.error_line == f"fedsci: cannot use {folder}: Is a directory"
        assert outcome.hint_line.startswith("hint: run as the user who owns the folder")
