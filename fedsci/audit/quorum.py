"""How many sites must have cosigned a checkpoint before anyone acts on it."""

from collections.abc import Mapping, Sequence

from fedsci.audit.merkle import check_inclusion, leaf_hash
from fedsci.audit.note import Note, open_checkpoint
from fedsci.audit.note_keys import cosigner_key
from fedsci.errors import VerificationFailed


def quorum_of(sites: int, colluding: int) -> int:
    """Return how many of ``sites`` witnesses make a quorum where up to ``colluding`` of them may lie.

    Two quorums of q share at least 2q - n sites; with more than c of these, one is honest, and no honest site cosigns
    two histories. So q is the smallest with 2q - n > c, or all of them where that is more than there are.

    >>> quorum_of(17, 2), quorum_of(3, 1), quorum_of(1, 0)
    (10, 3, 1)
    """
    if sites < 1 or colluding < 0:
        raise ValueError(f"no quorum of {sites} sites of which {colluding} may lie")
    return min(sites, (sites + colluding) // 2 + 1)


def check_cosigners(keys: Mapping[str, bytes], *, coordinator: bytes, quorum: int) -> None:
    """Refuse cosigners of which two are one, one is the coordinator, or that are fewer than a quorum.

    Raises:
        VerificationFailed: it is so.
    """
    owners: dict[bytes, str] = {coordinator: "the coordinator"}
    for site, public in keys.items():
        if public in owners:
            raise VerificationFailed(f"{site} and {owners[public]} have one key: they count as one", field=site)
        owners[public] = site
    if not 1 <= quorum <= len(keys):
        raise VerificationFailed(f"a quorum of {quorum} among {len(keys)} sites", field="quorum")


def cosigned_by(note: Note, keys: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return the sites whose key, as given here, cosigned an opened note."""
    return tuple(site for site, public in keys.items() if cosigner_key(site, public) in note.signed_by)


def require_quorum(content: bytes, *, origin: str, coordinator: bytes, keys: Mapping[str, bytes], quorum: int) -> Note:
    """Return the note of log ``origin`` that its coordinator signed and at least ``quorum`` sites cosigned.

    Args:
        content: the note.
        origin: the log.
        coordinator: the key that signs it.
        keys: the one public key by which each site counts; leave out those that are revoked.
        quorum: see :func:`quorum_of`.

    Raises:
        VerificationFailed: as :func:`fedsci.audit.note.open_checkpoint`; two cosigners are one; too few.
    """
    check_cosigners(keys, coordinator=coordinator, quorum=quorum)
    cosigners = {site: (public,) for site, public in keys.items()}
    note = open_checkpoint(content, origin=origin, coordinator=coordinator, cosigners=cosigners)
    found = cosigned_by(note, keys)
    if len(found) < quorum:
        raise VerificationFailed(
            f"{len(found)} sites cosigned the checkpoint of {note.checkpoint.size} entries, {quorum} must",
            field="quorum",
        )
    return note


def require_receipt(leaf: bytes, *, index: int, proof: Sequence[bytes], note: Note) -> None:
    """Refuse a log that does not hold an entry: ``leaf`` is its line, ``note`` an opened checkpoint.

    Raises:
        VerificationFailed: the proof does not show it.
    """
    check_inclusion(leaf_hash(leaf), index, note.checkpoint.size, proof, note.checkpoint.root)
