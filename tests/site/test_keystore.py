"""A site's keys on disk: who may read them, what is pinned, and that nothing old can be used again."""

import os
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from fedsci import secagg
from fedsci.errors import InputError, PolicyRefused, ProtocolError
from fedsci.identity.files import write_private
from fedsci.site.keystore import Keystore

RUN, OTHER = "a" * 32, "b" * 32


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def folder(tmp_path):
    """A state folder; what lies in memory for it is taken away at the end."""
    yield tmp_path / "state"
    shutil.rmtree(batches_of(tmp_path / "state"), ignore_errors=True)


def batches_of(folder: Path) -> Path:
    return Keystore(folder)._batches


@pytest.fixture
def state_of(make_plan):
    """A site's state just after its advert."""

    def make(keystore: Keystore, *, batch: int = 0) -> secagg.SiteState:
        keys = [keystore.signing_key(), *(secagg.SigningKey(secagg.Seed(bytes([n]) * 32)) for n in (2, 3))]
        sites = tuple(
            secagg.RosterSite(index=n, name=f"lab-{n}", verification_key=key.public) for n, key in enumerate(keys, 1)
        )
        terms = secagg.default_terms(3)
        roster = secagg.Roster(serial=1, sites=sites, terms=terms, ring_bits=32)
        cohort = secagg.Cohort(
            members=(1, 2, 3), terms=terms, ring_bits=32, site_bound=10, sum_bound=30, plan_digest=bytes(32)
        )
        setup = secagg.Setup(roster=roster, cohort=cohort, run=bytes(32), batch=batch)
        return secagg.advertise(setup, site=1, signing_key=keys[0], random_bytes=os.urandom)[0]

    return make


def test_the_identity_is_made_once_and_only_its_owner_reads_it(folder):
    first = Keystore(folder).signing_key().public
    assert Keystore(folder).signing_key().public == first
    assert mode_of(folder / "identity.key") == 0o600
    assert len((folder / "identity.key").read_bytes()) == 32
    assert [path.name for path in folder.iterdir()] == ["identity.key"]


def test_two_sites_have_two_identities(folder, tmp_path):
    assert Keystore(folder).signing_key().public != Keystore(tmp_path / "other").signing_key().public


def test_the_first_process_to_write_a_key_wins(tmp_path):
    write_private(tmp_path / "key", b"first")
    write_private(tmp_path / "key", b"second")
    assert (tmp_path / "key").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_another_consortium_is_refused(folder):
    keystore = Keystore(folder)
    keystore.pin_consortium(b"a" * 32)
    keystore.pin_consortium(b"a" * 32)
    for process in (keystore, Keystore(folder)):
        with pytest.raises(PolicyRefused, match="belongs to another consortium") as refused:
            process.pin_consortium(b"b" * 32)
        assert refused.value.exit_code == 4
        assert process.consortium_key() == b"a" * 32
    assert mode_of(folder / "consortium.pub") == 0o600


def test_a_site_that_was_never_enrolled_trusts_nobody(folder):
    with pytest.raises(PolicyRefused, match="never enrolled"):
        Keystore(folder).consortium_key()


def test_batch_secrets_are_read_by_their_owner_only_and_lie_outside_of_the_state_folder(folder, state_of):
    keystore = Keystore(folder)
    state = state_of(keystore)
    keystore.store(RUN, state)
    batches = batches_of(folder)
    assert mode_of(batches) == 0o700
    [file] = batches.iterdir()
    assert mode_of(file) == 0o600
    assert folder.resolve() not in file.resolve().parents
    assert not [path for path in folder.rglob("*") if RUN in path.name]
    assert Keystore(folder).load(RUN, 0).encode() == state.encode()


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701, 0o770])
def test_an_open_batch_folder_is_refused(folder, state_of, mode):
    keystore = Keystore(folder)
    batches_of(folder).mkdir(mode=0o700)
    batches_of(folder).chmod(mode)
    with pytest.raises(ProtocolError) as refused:
        keystore.store(RUN, state_of(keystore))
    assert refused.value.rule == "keystore-open"
    assert list(batches_of(folder).iterdir()) == []


def test_a_batch_folder_that_is_a_link_is_refused(folder, state_of, tmp_path):
    keystore = Keystore(folder)
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    batches_of(folder).symlink_to(tmp_path / "elsewhere")
    try:
        with pytest.raises(ProtocolError) as refused:
            keystore.store(RUN, state_of(keystore))
    finally:
        batches_of(folder).unlink()
    assert refused.value.rule == "keystore-open"
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_batch_folder_of_somebody_else_is_refused(folder, state_of):
    keystore = Keystore(folder)
    batches_of(folder).mkdir(mode=0o700)
    os.chown(batches_of(folder), 12345, 12345)
    with pytest.raises(ProtocolError) as refused:
        keystore.store(RUN, state_of(keystore))
    assert refused.value.rule == "keystore-open"


def test_a_batch_that_is_not_there_is_burnt(folder, state_of):
    keystore = Keystore(folder)
    keystore.store(RUN, state_of(keystore))
    for run, batch in ((RUN, 1), (OTHER, 0)):
        assert not keystore.holds(run, batch)
        with pytest.raises(ProtocolError) as refused:
            keystore.load(run, batch)
        assert refused.value.rule == "batch-burnt"
        assert "next batch" in refused.value.hint


def test_forget_erases_every_batch_of_one_run_and_no_other(folder, state_of):
    keystore = Keystore(folder)
    for batch in (0, 1):
        keystore.store(RUN, state_of(keystore, batch=batch))
    keystore.store(OTHER, state_of(keystore))
    keystore.forget(RUN)
    assert [keystore.holds(RUN, 0), keystore.holds(RUN, 1), keystore.holds(OTHER, 0)] == [False, False, True]
    with pytest.raises(ProtocolError):
        keystore.load(RUN, 0)  # also not from memory
    keystore.forget(OTHER)
    assert not batches_of(folder).exists()
    keystore.forget(OTHER)


def test_a_copy_of_the_state_folder_holds_no_batch(folder, state_of, tmp_path):
    keystore = Keystore(folder)
    keystore.store(RUN, state_of(keystore))
    copy = tmp_path / "restored"
    shutil.copytree(folder, copy)
    restored = Keystore(copy)
    assert restored.signing_key().public == keystore.signing_key().public
    assert not restored.holds(RUN, 0)


def test_a_state_changed_on_disk_is_what_is_loaded(folder, state_of):
    """Another process of this site may have gone on: the copy in memory is only used if the file is the same."""
    first, second = Keystore(folder), Keystore(folder)
    first.store(RUN, state_of(first))
    newer = replace(state_of(first), revision=first.load(RUN, 0).revision + 1)
    second.store(RUN, newer)
    assert first.load(RUN, 0).encode() == newer.encode()


def test_an_older_state_never_replaces_a_newer_one(folder, state_of):
    """Two processes on one state folder: the slower one must not roll the batch back and open a slot again."""
    keystore = Keystore(folder)
    old = state_of(keystore)
    keystore.store(RUN, replace(old, revision=old.revision + 1))
    for stale in (old, replace(state_of(keystore), revision=old.revision + 1)):
        with pytest.raises(ProtocolError) as refused:
            keystore.store(RUN, stale)
        assert refused.value.rule == "two-processes"


def test_a_batch_is_begun_once_also_if_its_secrets_are_lost(folder):
    Keystore(folder).begin_batch(RUN, 0)
    Keystore(folder).begin_batch(RUN, 1)
    with pytest.raises(ProtocolError) as refused:
        Keystore(folder).begin_batch(RUN, 0)
    assert refused.value.rule == "one-transcript"


def test_an_older_roster_is_refused(folder):
    keystore = Keystore(folder)
    keystore.check_serial(3)
    keystore.check_serial(3)
    with pytest.raises(ProtocolError) as refused:
        Keystore(folder).check_serial(2)
    assert refused.value.rule == "old-roster"


@pytest.mark.parametrize("content", [b"", b"x", b"\xff"])
def test_where_the_newest_roster_cannot_be_read_none_is_taken(folder, content):
    keystore = Keystore(folder)
    keystore.check_serial(3)
    (folder / "roster.serial").write_bytes(content)
    with pytest.raises(InputError, match=r"roster\.serial is damaged") as refused:
        keystore.check_serial(4)
    assert "backup" in refused.value.hint
    assert (folder / "roster.serial").read_bytes() == content
