"""Whoever has the folder and the keys finds out what was changed in it, and where."""

import json
import shutil
from base64 import b64decode, b64encode

import pytest
from fedsci_test_runs import (
    COORDINATOR,
    LABS,
    ORIGIN,
    QUORUM,
    SITES,
    STRANGER,
    WHO,
    cosign,
    open_log,
    round_of,
    run,
    witness_of,
)

from fedsci.audit.checkpoint import Checkpoint
from fedsci.audit.log import statement_file
from fedsci.audit.note import add_line, sign_note
from fedsci.audit.note_keys import PostQuantumKey, cosignature_line
from fedsci.audit.statement import add_signature, digest_of, sign_statement
from fedsci.audit.verification import usual_signers, verify_log
from fedsci.errors import VerificationFailed
from fedsci.secagg.seed import Seed


@pytest.fixture
def audit(tmp_path):
    run(tmp_path).close()
    return tmp_path / "audit"


def verify(audit, **other):
    return verify_log(audit, **{**WHO, "sites": SITES, "quorum": QUORUM, **other})


def refused(audit, file, field="", **other):
    with pytest.raises(VerificationFailed) as failed:
        verify(audit, **other)
    assert (failed.value.file, failed.value.field) == (file, field)


def lines_of(audit, change):
    path = audit / "entries.jsonl"
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


def of(body):
    return statement_file(digest_of(body))


def test_a_whole_log_checks_out(audit):
    log = verify(audit)
    assert [entry.kind for entry in log.entries] == ["plan", *["permit"] * 3, *["round"] * 3]
    assert [note.checkpoint.size for note in log.kept] == [5, 6, 7]
    assert log.newest.checkpoint.size == 7
    assert [log.statements[entry.digest].kind for entry in log.entries] == [entry.kind for entry in log.entries]


@pytest.mark.slow
def test_no_changed_byte_passes_and_its_file_is_named(audit):
    files = [path for path in audit.rglob("*") if path.is_file()]
    assert len(files) == 1 + 1 + 3 + 7
    for number, path in enumerate(files):
        whole = path.read_bytes()
        for at in range(number % 7, len(whole), 7):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ (1, 0x20, 0x80)[at % 3]]) + whole[at + 1 :])
            with pytest.raises(VerificationFailed) as failed:
                verify(audit)
            assert failed.value.file == str(path.relative_to(audit)), (path.name, at)
        for cut in (whole[:-1], whole + b"\n", whole + whole, b""):
            path.write_bytes(cut)
            with pytest.raises(VerificationFailed) as failed:
                verify(audit)
            assert failed.value.file == str(path.relative_to(audit))
        path.write_bytes(whole)
    verify(audit)


def test_no_file_can_go_missing(audit):
    for path in [path for path in audit.rglob("*") if path.is_file() and "checkpoints" not in path.parts]:
        content = path.read_bytes()
        path.unlink()
        refused(audit, str(path.relative_to(audit)))
        path.write_bytes(content)
    (audit / "checkpoints/7.note").unlink()
    refused(audit, "checkpoints/7.note")
    shutil.rmtree(audit / "checkpoints")
    refused(audit, "checkpoints/7.note")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda lines: [lines[1], lines[0], *lines[2:]], "lines 1 to 5"),  # reordered
        (lambda lines: [*lines[:5], lines[6], lines[5]], "line 6"),
        (lambda lines: lines[1:], "lines 1 to 5"),  # dropped
        (lambda lines: [*lines[:5], lines[6]], "line 6"),
        (lambda lines: lines[:6], "line 7"),
        (lambda lines: [], "line 1"),
        (lambda lines: [*lines, lines[6]], "line 8: digest"),  # duplicated
        (lambda lines: [lines[0], *lines], "line 2: digest"),
        (lambda lines: [lines[0].replace(b"plan", b"round"), *lines[1:]], "lines 1 to 5"),
        (lambda lines: [*lines[:6], lines[6].replace(b":3", b":4")], "line 7"),
        (lambda lines: [*lines[:6], lines[6].replace(b":3", b": 3")], "line 7"),
        (lambda lines: [*lines[:6], lines[6].replace(b":3", b':3,"site":"lab-1"')], "line 7"),
        (lambda lines: [*lines[:6], lines[6].replace(b":3", b":-3")], "line 7: round"),
    ],
)
def test_entries_reordered_dropped_duplicated_or_changed_are_found(audit, change, field):
    lines_of(audit, change)
    refused(audit, "entries.jsonl", field)


def test_an_entry_that_no_checkpoint_speaks_of_is_refused(tmp_path):
    log = run(tmp_path)
    log.append("round", round_of(4), round=4)
    refused(tmp_path / "audit", "entries.jsonl", "line 8")
    log.checkpoint()
    refused(tmp_path / "audit", "checkpoint", "quorum")


def test_statements_left_over_or_exchanged_are_found(audit):
    extra = audit / of({"round": 9})
    extra.write_bytes(round_of(9))
    refused(audit, of({"round": 9}))
    extra.unlink()
    shutil.copy(audit / of({"round": 1}), audit / of({"round": 2}))
    refused(audit, of({"round": 2}), "payload")


def test_a_statement_signed_by_the_wrong_key_is_found(audit):
    (audit / of({"round": 2})).write_bytes(round_of(2, key=STRANGER))
    refused(audit, of({"round": 2}), "signatures")
    (audit / of({"round": 2})).write_bytes(add_signature(round_of(2), STRANGER))
    refused(audit, of({"round": 2}), "signatures")
    (audit / of({"round": 2})).write_bytes(round_of(2).replace(b": ", b":"))
    refused(audit, of({"round": 2}))
    (audit / of({"round": 2})).write_bytes(sign_statement("model", {"round": 2}, [COORDINATOR]))
    refused(audit, of({"round": 2}), "payloadType")
    (audit / of({"round": 2})).write_bytes(round_of(2))
    verify(audit)
    permit = audit / of({"site": "lab-1"})
    permit.write_bytes(sign_statement("permit", {"site": "lab-1"}, [LABS["lab-2"]]))
    refused(audit, of({"site": "lab-1"}), "signatures")


def test_what_entry_and_statement_say_agrees(tmp_path):
    log = open_log(tmp_path)
    log.append("round", round_of(1), round=2)
    point = log.checkpoint() and log.newest().checkpoint
    for site, key in LABS.items():
        log.add_cosignature(site, cosignature_line(point, site, key, time=1))
    refused(tmp_path, of({"round": 1}), "round")


def test_a_permit_is_of_a_site_of_the_run(tmp_path):
    signers = usual_signers(COORDINATOR.public, SITES)
    log = open_log(tmp_path)
    log.append("permit", sign_statement("permit", {"site": "lab-1"}, [LABS["lab-1"]]), site="lab-2")
    log.append("permit", sign_statement("permit", {"site": "lab-2"}, [LABS["lab-2"]]))
    log.append("plan", sign_statement("plan", {}, [COORDINATOR]))
    for entry, body in zip(log.entries(), ({"site": "lab-1"}, {"site": "lab-2"}), strict=False):
        with pytest.raises(VerificationFailed, match="of no site of the run"):
            signers(entry, body, [])
    assert signers(log.entries()[2], {}, []) == (COORDINATOR.public,)


def test_who_signs_what_is_the_caller_s_to_say(audit):
    two = sign_statement("permit", {"site": "lab-1"}, [LABS["lab-1"], STRANGER])
    (audit / of({"site": "lab-1"})).write_bytes(two)

    def signers(entry, body, named):
        usual = tuple(usual_signers(COORDINATOR.public, SITES)(entry, body, named))
        return (*usual, STRANGER.public) if entry.site == "lab-1" else usual

    verify(audit, signers=signers)
    refused(audit, of({"site": "lab-1"}), "signatures")


def test_another_log_key_quorum_or_cosigner_is_refused(audit):
    refused(audit, "checkpoints/5.note", "origin", origin="fedsci/" + "0" * 32)
    refused(audit, "checkpoints/5.note", "signature", coordinator=STRANGER.public)
    refused(audit, "checkpoints/5.note", "signature", sites={**SITES, "lab-3": STRANGER.public})
    revoked = {site: SITES[site] for site in ("lab-1", "lab-2")}
    refused(audit, "checkpoints/5.note", "signature", sites=revoked)
    refused(audit, "", "quorum", quorum=4)
    refused(audit, "", "lab-3", sites={**SITES, "lab-3": SITES["lab-1"]})


def test_every_checkpoint_that_is_kept_has_a_quorum_and_its_name(audit):
    whole = (audit / "checkpoints/6.note").read_bytes()
    short = b"".join(whole.splitlines(keepends=True)[:6])
    (audit / "checkpoints/6.note").write_bytes(short)
    refused(audit, "checkpoints/6.note", "quorum")
    (audit / "checkpoints/6.note").write_bytes((audit / "checkpoints/5.note").read_bytes())
    refused(audit, "checkpoints/6.note", "size")
    (audit / "checkpoints/6.note").write_bytes(whole)
    (audit / "checkpoints/06.note").write_bytes(whole)
    refused(audit, "checkpoints/06.note")


def test_a_checkpoint_of_another_history_is_found_though_a_quorum_lied(audit):
    point = Checkpoint(origin=ORIGIN, size=6, root=bytes(32))
    note = sign_note(point, COORDINATOR)
    for site, key in LABS.items():
        note = add_line(note, cosignature_line(point, site, key, time=1))
    (audit / "checkpoints/6.note").write_bytes(note)
    refused(audit, "entries.jsonl", "line 6")


def test_lattice_cosignatures_are_checked_where_their_keys_are_known(tmp_path):
    log, lattice = run(tmp_path), PostQuantumKey(Seed(bytes(32)))
    log.trust("lab-1", lattice.public)
    point = log.newest().checkpoint
    log.add_cosignature("lab-1", cosignature_line(point, "lab-1", lattice, time=1))
    audit = tmp_path / "audit"
    assert len(verify(audit, others={"lab-1": [lattice.public]}).newest.signed_by) == 5
    refused(audit, "checkpoints/7.note", "signature")  # of a key that nobody answers for
    content = (audit / "checkpoint").read_bytes()
    *lines, last = content.decode().splitlines()
    name, raw = last.rsplit(" ", 1)
    changed = bytearray(b64decode(raw))
    changed[1000] ^= 1
    (audit / "checkpoint").write_text("\n".join([*lines, f"{name} {b64encode(changed).decode()}"]) + "\n")
    refused(audit, "checkpoint", "signature", others={"lab-1": [lattice.public]})


def test_a_failed_verification_says_its_file_once():
    error = VerificationFailed("x", file="a", field="b")
    assert (error.file, error.field, error.public()["message"]) == ("a", "b", "verification failed")
    assert json.dumps(error.public())
    assert (VerificationFailed("x").file, VerificationFailed("x").field) == ("", "")


def test_a_log_that_a_coordinator_wrote_anew_has_no_quorum(tmp_path):
    """All its own signatures are good; the sites' are not to be had."""
    old = run(tmp_path / "old")
    old.close()
    new = open_log(tmp_path / "new")
    for entry in old.entries():
        if entry.kind != "round":
            new.append(
                entry.kind, (tmp_path / "old/audit" / statement_file(entry.digest)).read_bytes(), site=entry.site
            )
    for number in (1, 2, 3):
        new.append("round", round_of(number, better=True), round=number)
    new.checkpoint()
    refused(tmp_path / "new", "checkpoint", "quorum")
    for site in LABS:
        with pytest.raises(VerificationFailed, match="two histories"):
            cosign(witness_of(tmp_path / "old", site), new, site)
