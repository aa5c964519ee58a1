"""The log only grows, survives a crash, and notices when what was signed is not there any more."""

import shutil

import pytest
from fedsci_test_runs import (
    COORDINATOR,
    LABS,
    ORIGIN,
    SITES,
    STRANGER,
    WHO,
    cosign,
    open_log,
    round_of,
    run,
    witness_of,
)

from fedsci.audit.entries import make_entry, read_entry
from fedsci.audit.log import AuditLog, statement_file
from fedsci.audit.merkle import Tree, check_consistency, check_inclusion, leaf_hash
from fedsci.audit.note import open_checkpoint, sign_note
from fedsci.audit.note_keys import PostQuantumKey, cosignature_line
from fedsci.audit.statement import digest_of, sign_statement
from fedsci.errors import InputError, VerificationFailed
from fedsci.secagg.seed import Seed


def test_what_is_logged_is_on_disk_named_by_its_digest(tmp_path):
    log = open_log(tmp_path)
    envelope = round_of(1)
    assert log.append("round", envelope, round=1) == 0
    digest = digest_of({"round": 1})
    line = (tmp_path / "entries.jsonl").read_bytes()
    assert line == f'{{"digest":"{digest}","kind":"round","round":1}}\n'.encode()
    assert (tmp_path / statement_file(digest)).read_bytes() == envelope
    assert log.find(digest) == log.entries()[0] == read_entry(0, line[:-1])
    assert log.find("sha256:0") is None


def test_a_statement_is_logged_once(tmp_path):
    log = open_log(tmp_path)
    assert [log.append("round", round_of(1), round=1) for _ in range(2)] == [0, 0]
    assert len(log) == 1
    with pytest.raises(VerificationFailed, match="another round or site"):
        log.append("round", round_of(1), round=2)


def test_a_statement_of_another_kind_is_refused(tmp_path):
    log = open_log(tmp_path)
    with pytest.raises(VerificationFailed, match="this is a round, not a plan"):
        log.append("plan", round_of(1))
    with pytest.raises(VerificationFailed, match="DSSE"):
        log.append("plan", b"{}")
    assert len(log) == 0
    assert list(tmp_path.glob("statements/*")) == []


def test_a_checkpoint_speaks_of_every_entry_and_is_signed_once_a_size(tmp_path):
    log, tree = open_log(tmp_path), Tree()
    with pytest.raises(VerificationFailed, match="no checkpoint has been signed"):
        log.newest()
    for number in range(5):
        log.append("round", round_of(number), round=number)
        tree.append(log.entries()[-1].line)
        point = open_checkpoint(log.checkpoint(), **WHO).checkpoint
        assert (point.size, point.root) == (number + 1, tree.root())
        assert log.checkpoint() == log.checkpoint() == (tmp_path / "checkpoint").read_bytes()


def test_proofs_are_of_the_newest_checkpoint_whatever_came_since(tmp_path):
    log = open_log(tmp_path)
    for number in range(6):
        log.append("round", round_of(number), round=number)
        if number == 2:
            old = open_checkpoint(log.checkpoint(), **WHO).checkpoint
        if number == 4:
            new = open_checkpoint(log.checkpoint(), **WHO).checkpoint
    leaf = leaf_hash(log.entries()[1].line)
    check_inclusion(leaf, 1, new.size, log.inclusion_proof(1), new.root)
    check_consistency(old.size, new.size, log.consistency_proof(old.size), old.root, new.root)
    with pytest.raises(ValueError, match="no leaf 5"):
        log.inclusion_proof(5)


def test_a_quorum_is_kept(tmp_path):
    log = open_log(tmp_path / "audit")
    log.append("round", round_of(1))
    for site, reached in (("lab-1", False), ("lab-2", True), ("lab-3", True)):
        assert log.add_cosignature(site, cosign(witness_of(tmp_path, site), log, site)) is reached
        assert (tmp_path / "audit/checkpoints/1.note").exists() is reached
    assert log.cosigners() == tuple(SITES)
    assert (tmp_path / "audit/checkpoints/1.note").read_bytes() == log.newest().content == log.checkpoint()
    assert len(log.newest().content.splitlines()) == 3 + 1 + 4


def test_a_second_cosignature_of_one_key_changes_nothing(tmp_path):
    log, witness = open_log(tmp_path / "audit"), witness_of(tmp_path, "lab-1")
    log.append("round", round_of(1))
    assert log.add_cosignature("lab-1", cosign(witness, log)) is False
    before = log.newest().content
    assert log.add_cosignature("lab-1", cosign(witness, log, now_s=2_000_000_000)) is False
    assert log.newest().content == before


def test_a_cosignature_is_checked_before_it_is_kept(tmp_path):
    log = open_log(tmp_path / "audit")
    log.append("round", round_of(1))
    log.checkpoint()
    point, old = log.newest().checkpoint, log.newest().content
    good = cosignature_line(point, "lab-1", LABS["lab-1"], time=1)
    log.append("round", round_of(2))
    log.checkpoint()
    bad = [
        ("lab-1", good),  # of the checkpoint before
        ("lab-1", cosignature_line(log.newest().checkpoint, "lab-1", STRANGER, time=1)),
        ("lab-1", cosignature_line(log.newest().checkpoint, "lab-2", LABS["lab-2"], time=1)),
        ("lab-2", cosignature_line(log.newest().checkpoint, "lab-1", LABS["lab-1"], time=1)),
        ("lab-9", cosignature_line(log.newest().checkpoint, "lab-9", STRANGER, time=1)),
        ("lab-1", ""),
        ("lab-1", "\n".join(cosignature_line(log.newest().checkpoint, s, LABS[s], time=1) for s in ("lab-1", "lab-2"))),
        ("lab-1", cosignature_line(log.newest().checkpoint, "lab-1", LABS["lab-1"], time=1) + "\n— x AAAAAAAA"),
    ]
    for site, line in bad:
        with pytest.raises(VerificationFailed):
            log.add_cosignature(site, line)
    assert log.cosigners() == ()
    assert log.newest().content != old


def test_a_lattice_signature_stands_beside_and_does_not_count(tmp_path):
    log, lattice = run(tmp_path), PostQuantumKey(Seed(bytes(32)))
    line = cosign(witness_of(tmp_path, "lab-1"), log, signer=lattice)
    with pytest.raises(VerificationFailed):
        log.add_cosignature("lab-1", line)
    log.trust("lab-1", lattice.public)
    assert log.add_cosignature("lab-1", line)
    assert len(log.newest().signed_by) == 5
    assert log.cosigners() == tuple(SITES)
    kept = tmp_path / f"audit/checkpoints/{len(log)}.note"
    assert kept.read_bytes() == log.newest().content


def test_a_log_goes_on_where_it_was(tmp_path):
    log = run(tmp_path)
    entries, note = log.entries(), log.newest()
    log.close()
    again = open_log(tmp_path / "audit")
    assert (again.entries(), again.newest(), again.has_quorum()) == (entries, note, True)
    assert again.append("round", round_of(4), round=4) == len(entries)
    cosign(witness_of(tmp_path, "lab-1"), again)


@pytest.mark.parametrize("half", [b"{", b'{"digest":"sha256:00', b"\0" * 40])
def test_the_half_of_a_line_that_a_crash_left_is_dropped(tmp_path, half):
    run(tmp_path).close()
    path = tmp_path / "audit/entries.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + half)
    log = open_log(tmp_path / "audit")
    assert path.read_bytes() == whole
    log.append("round", round_of(9), round=9)
    assert path.read_bytes().startswith(whole + b'{"digest"')


def test_what_a_crash_left_before_its_entry_is_taken_away(tmp_path):
    run(tmp_path).close()
    (tmp_path / "audit" / statement_file(digest_of({"round": 7}))).write_bytes(round_of(7))
    (tmp_path / "audit/statements/.half.json.1234").write_bytes(b"{")
    (tmp_path / "audit/.checkpoint.1234").write_bytes(b"{")
    log = open_log(tmp_path / "audit")
    assert len(list((tmp_path / "audit/statements").iterdir())) == len(log)
    assert not (tmp_path / "audit/.checkpoint.1234").exists()


def test_half_a_line_that_was_signed_is_no_crash(tmp_path):
    run(tmp_path).close()
    path = tmp_path / "audit/entries.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(VerificationFailed, match="has 6 entries, and a checkpoint was signed over 7") as failed:
        open_log(tmp_path / "audit")
    assert (failed.value.file, failed.value.field) == ("entries.jsonl", "line 7")


def lines_of(audit, change):
    path = audit / "entries.jsonl"
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


@pytest.mark.parametrize(
    "change",
    [
        lambda audit: lines_of(audit, lambda lines: lines[:-1]),
        lambda audit: lines_of(audit, lambda lines: [lines[1], lines[0], *lines[2:]]),
        lambda audit: lines_of(audit, lambda lines: [lines[0], *lines]),
        lambda audit: lines_of(audit, lambda lines: [lines[0].replace(b"plan", b"pl-n"), *lines[1:]]),
        lambda audit: lines_of(audit, lambda lines: [b"x\n", *lines[1:]]),
        lambda audit: (audit / "entries.jsonl").unlink(),
        lambda audit: (audit / "checkpoint").unlink(),
        lambda audit: shutil.copy(audit / "checkpoints/5.note", audit / "checkpoint"),
        lambda audit: (audit / "checkpoint").write_bytes(b""),
        lambda audit: (audit / "checkpoints/6.note").write_bytes(b"x"),
        lambda audit: next(iter((audit / "statements").iterdir())).unlink(),
        lambda audit: shutil.rmtree(audit / "statements"),
    ],
)
def test_a_log_that_is_not_what_was_signed_does_not_go_on(tmp_path, change):
    run(tmp_path).close()
    change(tmp_path / "audit")
    with pytest.raises(VerificationFailed) as failed:
        open_log(tmp_path / "audit")
    assert failed.value.file


def test_another_log_or_signer_does_not_go_on_with_it(tmp_path):
    run(tmp_path).close()
    for other in ({"signer": STRANGER}, {"origin": "fedsci/" + "0" * 32}):
        with pytest.raises(VerificationFailed):
            open_log(tmp_path / "audit", **other)
    with pytest.raises(VerificationFailed, match="names no log"):
        open_log(tmp_path / "x", origin="elsewhere")


@pytest.mark.parametrize(
    ("sites", "quorum", "why"),
    [
        ({"lab-1": SITES["lab-1"], "lab-2": SITES["lab-1"]}, 2, "have one key"),
        ({"lab-1": COORDINATOR.public}, 1, "the coordinator have one key"),
        (SITES, 4, "a quorum of 4 among 3"),
        (SITES, 0, "a quorum of 0"),
        ({}, 1, "a quorum of 1 among 0"),
    ],
)
def test_witnesses_that_cannot_make_a_quorum_are_refused_at_once(tmp_path, sites, quorum, why):
    with pytest.raises(VerificationFailed, match=why):
        AuditLog(tmp_path, origin=ORIGIN, signer=COORDINATOR, sites=sites, quorum=quorum)


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path, monkeypatch):
    log = open_log(tmp_path)
    log.append("round", round_of(1))
    whole = (tmp_path / "entries.jsonl").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("fedsci.audit.entries.os.write", lambda fd, content: len(content) - 3)
        with pytest.raises(InputError, match="No space left"):
            log.append("round", round_of(2))
    assert (len(log), (tmp_path / "entries.jsonl").read_bytes()) == (1, whole)
    assert log.append("round", round_of(2)) == 1
    monkeypatch.setattr("fedsci.audit.entries.os.fsync", lambda fd: (_ for _ in ()).throw(OSError(5, "I/O error")))
    for _ in range(2):  # what the disk holds is not known: nothing more is written or signed
        with pytest.raises(InputError, match="cannot be written"):
            log.append("round", round_of(3))
        with pytest.raises(InputError, match="cannot be written"):
            log.checkpoint()


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (b"", ""),
        (b"[]", ""),
        (b"{}", ""),
        (b'{"digest":"sha256:00","kind":"round"}', "digest"),
        (b'{"digest":"sha256:' + b"0" * 64 + b'","kind":"Round"}', "kind"),
        (b'{"digest":"sha256:' + b"0" * 64 + b'","kind":"round","round":-1}', "round"),
        (b'{"digest":"sha256:' + b"0" * 64 + b'","kind":"round","round":true}', "round"),
        (b'{"digest":"sha256:' + b"0" * 64 + b'","kind":"round","round":null}', "round"),
        (b'{"digest":"sha256:' + b"0" * 64 + b'","kind":"round","site":"../x"}', "site"),
        (b'{"digest":"sha256:' + b"0" * 64 + b'","kind":"round","more":1}', ""),
        (b'{"kind":"round","digest":"sha256:' + b"0" * 64 + b'"}', ""),
        (b'{"digest":"sha256:' + b"0" * 64 + b'","kind":"round"} ', ""),
        (b"[" * 900, ""),
        (b" " * 2000, ""),
    ],
)
def test_an_entry_has_one_spelling(line, field):
    with pytest.raises(VerificationFailed) as failed:
        read_entry(3, line)
    assert failed.value.file == "entries.jsonl"
    assert failed.value.field == "line 4" + (f": {field}" if field else "")


def test_an_entry_reads_as_it_was_made():
    entry = make_entry(0, "spend", "sha256:" + "0" * 64, round=3, site="lab-1")
    assert read_entry(0, entry.line) == entry


def test_an_honest_log_of_another_root_is_told_apart(tmp_path):
    log = run(tmp_path)
    other = sign_note(log.newest().checkpoint.__class__(origin=ORIGIN, size=7, root=bytes(32)), COORDINATOR)
    (tmp_path / "audit/checkpoint").write_bytes(other)
    log.close()
    with pytest.raises(VerificationFailed, match="not those that were signed"):
        open_log(tmp_path / "audit")


def test_a_statement_signed_by_two_is_the_same_entry(tmp_path):
    log = open_log(tmp_path)
    once = sign_statement("permit", {"site": "lab-1"}, [LABS["lab-1"]])
    twice = sign_statement("permit", {"site": "lab-1"}, [LABS["lab-1"], STRANGER])
    assert log.append("permit", twice, site="lab-1") == log.append("permit", once, site="lab-1") == 0
