"""A site cosigns one history of a log, remembers which, and keeps the proof of a second one."""

import json
import shutil

import pytest
from fedsci_test_runs import (
    COORDINATOR,
    LABS,
    ORIGIN,
    QUORUM,
    SITES,
    STRANGER,
    TIME,
    WHO,
    cosign,
    open_log,
    raw,
    round_of,
    run,
    witness_of,
)
from hypothesis import given
from hypothesis import strategies as st

from fedsci.audit.checkpoint import Checkpoint
from fedsci.audit.merkle import EMPTY_ROOT
from fedsci.audit.note import add_line, open_checkpoint, sign_note
from fedsci.audit.note_keys import PostQuantumKey, cosignature_line, cosigner_key
from fedsci.audit.quorum import quorum_of, require_quorum, require_receipt
from fedsci.audit.witness import Witness
from fedsci.errors import VerificationFailed
from fedsci.secagg.seed import Seed


def two_histories(tmp_path, rounds):
    """Two logs of one coordinator that agree in the first round only."""
    logs = []
    for name in ("one", "two"):
        log = open_log(tmp_path / name)
        for number in range(rounds):
            log.append("round", round_of(number, **({} if number == 0 else {"told": name})))
        logs.append(log)
    return logs


def grow(log, rounds, told="one"):
    for _ in range(rounds):
        log.append("round", round_of(len(log), told=told))


def test_a_witness_cosigns_what_grows(tmp_path):
    log, witness = open_log(tmp_path / "one"), witness_of(tmp_path, "lab-1")
    assert witness.seen(**WHO) == Checkpoint(origin=ORIGIN, size=0, root=EMPTY_ROOT)
    for rounds in (1, 1, 5, 2):
        grow(log, rounds)
        line = cosign(witness, log)
        note = open_checkpoint(add_line(log.checkpoint(), line), **WHO, cosigners={"lab-1": [SITES["lab-1"]]})
        assert note.signed_by[cosigner_key("lab-1", SITES["lab-1"])] == TIME
        assert witness.seen(**WHO) == note.checkpoint
        assert cosign(witness, log) == line  # asked again, it says the same


def test_a_witness_remembers_across_processes(tmp_path):
    log = open_log(tmp_path / "one")
    grow(log, 3)
    cosign(witness_of(tmp_path, "lab-1"), log)
    assert witness_of(tmp_path, "lab-1").seen(**WHO).size == 3


def test_the_state_is_durable_before_the_cosignature_leaves(tmp_path, monkeypatch):
    log, witness = open_log(tmp_path / "one"), witness_of(tmp_path, "lab-1")
    grow(log, 3)
    found = []

    def sign(*_, **__):
        found.extend(json.loads(path.read_text())["size"] for path in (tmp_path / "lab-1").glob("*/*.json"))
        return ""

    monkeypatch.setattr("fedsci.audit.witness.cosignature_line", sign)
    cosign(witness, log)
    assert found == [3, 3]


def test_a_log_that_shrinks_is_refused(tmp_path):
    log, witness = open_log(tmp_path / "one"), witness_of(tmp_path, "lab-1")
    grow(log, 3)
    early = log.checkpoint()
    grow(log, 2)
    cosign(witness, log)
    with pytest.raises(VerificationFailed, match="only grows"):
        witness.cosign(early, **WHO, site="lab-1", signer=LABS["lab-1"], old_size=5, proof=())


@pytest.mark.parametrize("sizes", [(2, 2), (3, 3), (2, 5), (3, 5), (4, 8), (3, 4)])
def test_a_fork_is_refused_kept_and_the_end(tmp_path, sizes):
    one, two = two_histories(tmp_path, 2)
    grow(one, sizes[0] - 2)
    grow(two, sizes[1] - 2, told="two")
    witness = witness_of(tmp_path, "lab-1")
    cosign(witness, one)
    with pytest.raises(VerificationFailed, match="two histories"):
        cosign(witness, two)
    kept = tmp_path / f"lab-1/witness/forks/{ORIGIN[7:]}"
    assert (kept / "first.note").read_bytes() == one.checkpoint()
    assert (kept / "second.note").read_bytes() == two.checkpoint()
    first, second = (open_checkpoint((kept / name).read_bytes(), **WHO) for name in ("first.note", "second.note"))
    assert first.checkpoint.root != second.checkpoint.root
    grow(one, 1)
    witness = Witness(tmp_path / "lab-1/witness", tmp_path / "lab-1/anchors")
    for ask in (
        lambda: cosign(witness, one),
        lambda: witness.begin(**WHO),
        lambda: witness.require_quorum(one.checkpoint(), **WHO, keys=SITES, quorum=QUORUM),
    ):
        with pytest.raises(VerificationFailed, match="two histories"):
            ask()


def test_a_fork_behind_a_quorum_is_noticed_too(tmp_path):
    one, two = two_histories(tmp_path, 2)
    witness = witness_of(tmp_path, "lab-1")
    cosign(witness, one)
    for site in ("lab-2", "lab-3"):
        two.add_cosignature(site, cosign(witness_of(tmp_path, site), two, site))
    with pytest.raises(VerificationFailed, match="two histories"):
        witness.require_quorum(two.checkpoint(), **WHO, keys=SITES, quorum=QUORUM)
    assert (tmp_path / f"lab-1/witness/forks/{ORIGIN[7:]}/second.note").read_bytes() == two.checkpoint()


def test_two_histories_cannot_both_get_a_quorum(tmp_path):
    one, two = two_histories(tmp_path, 2)
    witnesses = {site: witness_of(tmp_path, site) for site in LABS}
    reached = []
    for site, first, second in (("lab-1", one, two), ("lab-2", two, one), ("lab-3", one, two)):
        first.add_cosignature(site, cosign(witnesses[site], first, site))
        with pytest.raises(VerificationFailed, match="two histories"):
            cosign(witnesses[site], second, site)
        reached = [one.has_quorum(), two.has_quorum()]
    assert reached == [True, False]


def test_a_proof_from_elsewhere_is_refused_and_is_no_fork(tmp_path):
    log, witness = open_log(tmp_path / "one"), witness_of(tmp_path, "lab-1")
    grow(log, 3)
    cosign(witness, log)
    grow(log, 4)
    log.checkpoint()
    with pytest.raises(VerificationFailed, match="begins at 2 entries, this site cosigned 3") as failed:
        cosign(witness, log, old_size=2, proof=log.consistency_proof(2))
    assert failed.value.field == "old_size"
    cosign(witness, log)


def test_the_first_checkpoint_needs_no_proof_and_takes_no_wrong_one(tmp_path):
    log, witness = open_log(tmp_path / "one"), witness_of(tmp_path, "lab-1")
    grow(log, 3)
    with pytest.raises(VerificationFailed, match="too long"):
        cosign(witness, log, proof=(bytes(32),))
    cosign(witness, log)


def test_another_signer_log_or_unasked_log_is_refused(tmp_path):
    log, witness = open_log(tmp_path / "one"), witness_of(tmp_path, "lab-1")
    grow(log, 1)
    point = open_checkpoint(log.checkpoint(), **WHO).checkpoint
    asked = {"site": "lab-1", "signer": LABS["lab-1"], "old_size": 0, "proof": ()}
    with pytest.raises(VerificationFailed, match="no signature of a known key"):
        witness.cosign(sign_note(point, STRANGER), **WHO, **asked)
    with pytest.raises(VerificationFailed, match="another signer"):
        witness.cosign(sign_note(point, STRANGER), origin=ORIGIN, coordinator=STRANGER.public, **asked)
    with pytest.raises(VerificationFailed, match="another signer"):
        witness.begin(ORIGIN, coordinator=STRANGER.public)
    far = Checkpoint(origin="fedsci/" + "0" * 32, size=1, root=bytes(32))
    foreign = sign_note(far, COORDINATOR)
    with pytest.raises(VerificationFailed, match="no signature of a known key"):
        witness.cosign(foreign, **WHO, **asked)
    with pytest.raises(VerificationFailed, match="takes no part in the log of run 0000"):
        witness.cosign(foreign, origin=far.origin, coordinator=COORDINATOR.public, **asked)
    with pytest.raises(VerificationFailed, match="names no log"):
        witness.begin("../../etc", coordinator=COORDINATOR.public)


def copy_of(tmp_path, name):
    """Put a copy of a site's folder aside and return how to put it back."""
    shutil.copytree(tmp_path / "lab-1" / name, tmp_path / f"old-{name}")

    def restore():
        shutil.rmtree(tmp_path / "lab-1" / name)
        shutil.copytree(tmp_path / f"old-{name}", tmp_path / "lab-1" / name)

    return restore


def test_a_site_whose_state_was_rolled_back_is_refused(tmp_path):
    log, witness = open_log(tmp_path / "one"), witness_of(tmp_path, "lab-1")
    grow(log, 2)
    cosign(witness, log)
    restore = copy_of(tmp_path, "witness")
    grow(log, 2)
    cosign(witness, log)
    restore()
    with pytest.raises(VerificationFailed, match="cosigned 4 entries and its state knows of 2: it was rolled back"):
        witness.seen(**WHO)
    with pytest.raises(VerificationFailed, match="rolled back"):
        witness.begin(**WHO)


def test_a_site_that_was_rolled_back_whole_knows_its_own_cosignature(tmp_path):
    log, witness = open_log(tmp_path / "one"), witness_of(tmp_path, "lab-1")
    grow(log, 2)
    cosign(witness, log)
    restores = [copy_of(tmp_path, name) for name in ("witness", "anchors")]
    grow(log, 2)
    log.add_cosignature("lab-1", cosign(witness, log))
    for restore in restores:
        restore()
    assert witness.seen(**WHO).size == 2
    with pytest.raises(VerificationFailed, match="cosigned 4 entries and its state knows of 2"):
        cosign(witness, log)


def test_an_anchor_that_was_rolled_back_harms_nothing(tmp_path):
    log, witness = open_log(tmp_path / "one"), witness_of(tmp_path, "lab-1")
    grow(log, 2)
    restore = copy_of(tmp_path, "anchors")
    cosign(witness, log)
    restore()  # or a crash before it was written
    assert witness.seen(**WHO).size == 2
    grow(log, 1)
    cosign(witness, log)


@pytest.mark.parametrize("lost", ["witness", "anchors"])
def test_a_lost_file_is_not_a_new_log(tmp_path, lost):
    log, witness = open_log(tmp_path / "one"), witness_of(tmp_path, "lab-1")
    grow(log, 2)
    cosign(witness, log)
    shutil.rmtree(tmp_path / "lab-1" / lost)
    for ask in (lambda: witness.begin(**WHO), lambda: witness.seen(**WHO)):
        with pytest.raises(VerificationFailed, match=r"takes no part in|no anchor"):
            ask()


def test_a_beginning_that_a_crash_cut_short_is_finished(tmp_path):
    witness = witness_of(tmp_path, "lab-1")
    shutil.rmtree(tmp_path / "lab-1/anchors")
    with pytest.raises(VerificationFailed, match="no anchor"):
        witness.seen(**WHO)
    witness.begin(**WHO)
    assert witness.seen(**WHO).size == 0


@pytest.mark.parametrize("path", [f"witness/{ORIGIN[7:]}.json", f"anchors/{ORIGIN[7:]}.anchor.json"])
def test_every_damaged_byte_and_half_of_a_file_is_refused(tmp_path, path):
    log, witness = open_log(tmp_path / "one"), witness_of(tmp_path, "lab-1")
    grow(log, 2)
    cosign(witness, log)
    file = tmp_path / "lab-1" / path
    whole = file.read_bytes()
    for at in range(0, len(whole), 3):
        for changed in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
            file.write_bytes(changed)
            with pytest.raises(VerificationFailed):
                witness.seen(**WHO)
    file.write_bytes(whole)
    assert witness.seen(**WHO).size == 2


def test_the_state_and_the_anchor_must_be_of_one_log(tmp_path):
    witness = witness_of(tmp_path, "lab-1")
    anchor = tmp_path / f"lab-1/anchors/{ORIGIN[7:]}.anchor.json"
    good = json.loads(anchor.read_text())
    for wrong in ({"size": -1}, {"size": True}, {"size": "0"}, {"root": "AA=="}, {"root": 3}, {"more": 1}):
        anchor.write_text(json.dumps(good | wrong, separators=(",", ":"), sort_keys=True))
        with pytest.raises(VerificationFailed):
            witness.seen(**WHO)


def test_both_keys_of_a_site_cosign_the_end(tmp_path):
    log, lattice = run(tmp_path), PostQuantumKey(Seed(bytes(32)))
    line = cosign(witness_of(tmp_path, "lab-1"), log, signer=lattice)
    assert len(raw(line)) == 4 + 8 + 2420
    open_checkpoint(add_line(log.checkpoint(), line), **WHO, cosigners={"lab-1": [lattice.public]})
    keys = {"lab-1": lattice.public}
    require_quorum(add_line(log.checkpoint(), line), **WHO, keys=keys, quorum=1)


# quorum and receipts


def cosigned(point, sites):
    note = sign_note(point, COORDINATOR)
    for site, key in sites.items():
        note = add_line(note, cosignature_line(point, site, key, time=TIME))
    return note


POINT = Checkpoint(origin=ORIGIN, size=4, root=bytes(32))


def test_a_quorum_is_of_sites_that_are_known_and_different():
    note = require_quorum(cosigned(POINT, LABS), **WHO, keys=SITES, quorum=3)
    assert note.checkpoint == POINT
    two = {site: LABS[site] for site in ("lab-1", "lab-2")}
    with pytest.raises(VerificationFailed, match="2 sites cosigned the checkpoint of 4 entries, 3 must"):
        require_quorum(cosigned(POINT, two), **WHO, keys=SITES, quorum=3)


def test_a_revoked_or_foreign_key_does_not_count():
    revoked = {site: public for site, public in SITES.items() if site != "lab-3"}
    with pytest.raises(VerificationFailed, match="1 sites cosigned"):
        require_quorum(cosigned(POINT, {s: LABS[s] for s in ("lab-1", "lab-3")}), **WHO, keys=revoked, quorum=2)
    with pytest.raises(VerificationFailed, match="1 sites cosigned"):
        require_quorum(cosigned(POINT, {"lab-1": LABS["lab-1"], "lab-2": STRANGER}), **WHO, keys=SITES, quorum=2)
    with pytest.raises(VerificationFailed, match="1 sites cosigned"):
        require_quorum(cosigned(POINT, {"lab-1": LABS["lab-1"], "lab-9": LABS["lab-2"]}), **WHO, keys=SITES, quorum=2)


def test_two_cosigners_that_are_one_are_refused():
    same = {"lab-1": LABS["lab-1"], "lab-2": LABS["lab-1"]}
    keys = {site: key.public for site, key in same.items()}
    with pytest.raises(VerificationFailed, match="lab-2 and lab-1 have one key"):
        require_quorum(cosigned(POINT, same), **WHO, keys=keys, quorum=2)
    itself = {"lab-1": COORDINATOR}
    with pytest.raises(VerificationFailed, match="lab-1 and the coordinator have one key"):
        require_quorum(cosigned(POINT, itself), **WHO, keys={"lab-1": COORDINATOR.public}, quorum=1)


def test_one_cosigner_that_signs_twice_is_refused():
    note = add_line(cosigned(POINT, LABS), cosignature_line(POINT, "lab-1", LABS["lab-1"], time=TIME + 1))
    with pytest.raises(VerificationFailed, match="signed twice"):
        require_quorum(note, **WHO, keys=SITES, quorum=2)


def test_a_site_wants_the_quorum_of_its_own_last_checkpoint(tmp_path):
    log, witness = run(tmp_path), witness_of(tmp_path, "lab-1")
    note = witness.require_quorum(log.checkpoint(), **WHO, keys=SITES, quorum=3)
    assert note.checkpoint == witness.seen(**WHO)
    old = (tmp_path / "audit/checkpoints/6.note").read_bytes()
    with pytest.raises(VerificationFailed, match="quorum is for 6 entries, this site cosigned 7"):
        witness.require_quorum(old, **WHO, keys=SITES, quorum=3)


def test_a_receipt_is_in_the_checkpoint_or_refused(tmp_path):
    log = run(tmp_path)
    note = log.newest()
    for entry in log.entries():
        proof = log.inclusion_proof(entry.index)
        require_receipt(entry.line, index=entry.index, proof=proof, note=note)
        for leaf, index, path in (
            (entry.line + b" ", entry.index, proof),
            (entry.line, (entry.index + 1) % len(log), proof),
            (entry.line, entry.index, proof[:-1]),
        ):
            with pytest.raises(VerificationFailed):
                require_receipt(leaf, index=index, proof=path, note=note)


@given(st.integers(1, 100), st.integers(0, 100))
def test_two_quorums_share_more_than_those_who_may_lie(sites, colluding):
    quorum = quorum_of(sites, colluding)
    assert 1 <= quorum <= sites
    if sites > colluding:
        assert 2 * quorum - sites > colluding or quorum == sites
        assert 2 * (quorum - 1) - sites <= colluding


@pytest.mark.parametrize("wrong", [(0, 0), (3, -1)])
def test_there_is_no_quorum_of_nobody(wrong):
    with pytest.raises(ValueError, match="no quorum"):
        quorum_of(*wrong)
