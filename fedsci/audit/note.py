"""A checkpoint with its signatures, as one text (C2SP signed-note).

    fedsci/5f0c0f6d1f6a4c0ab6a3b1a5c9f3c7d2
    12
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

    — fedsci/5f0c0f6d1f6a4c0ab6a3b1a5c9f3c7d2 Az3grlgtzPICa5OS8...
    — lab-01 jWbPPwAAAABkGFDLEZMHwSRaJ...

As the format wants it, a line of a key that the reader does not know counts for nothing; a line of one that it knows
must be valid.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fedsci.audit.checkpoint import Checkpoint, from_base64, read_body
from fedsci.audit.note_keys import NoteKey, Signer, cosigner_key, log_key, log_line
from fedsci.errors import VerificationFailed

MOST_BYTES = 1 << 20
MOST_LINES = 256
_ID_BYTES = 4
_LINE = re.compile(r"— ([^\s+\x00-\x1f\x7f]{1,255}) ([A-Za-z0-9+/=]{8,8192})")


@dataclass(frozen=True, kw_only=True)
class Note:
    """A checkpoint whose known signatures have been checked.

    Attributes:
        checkpoint: what they say.
        signed_by: whose they are, with the time of each in seconds since 1970 (0 for the log's own).
        unknown: the names on lines of keys that the reader does not know.
        content: the note, as it was read.
    """

    checkpoint: Checkpoint
    signed_by: Mapping[NoteKey, int]
    unknown: tuple[str, ...]
    content: bytes


def sign_note(checkpoint: Checkpoint, coordinator: Signer) -> bytes:
    """Return a note with the coordinator's signature."""
    return checkpoint.body() + f"\n{log_line(checkpoint, coordinator)}\n".encode()


def add_line(content: bytes, line: str) -> bytes:
    """Return the note with one signature line more, unchecked; see :func:`open_note`."""
    return content + f"{line}\n".encode()


def open_note(content: bytes, keys: Iterable[NoteKey]) -> Note:
    """Return the checkpoint of a note that at least one of ``keys`` signed.

    Raises:
        VerificationFailed: it is no note, or no checkpoint; a key has two lines; a known key's signature is not valid;
            no known key has signed.
    """
    body, lines = _split(content)
    checkpoint, known = read_body(body), {(key.name, key.key_id): key for key in keys}
    signed: dict[NoteKey, int] = {}
    seen, unknown = set(), []
    for line in lines:
        found = _LINE.fullmatch(line)
        value = from_base64(found[2], field="signature") if found else b""
        if not found or len(value) <= _ID_BYTES:
            raise VerificationFailed("a signature line is a dash, a name and base64", field="signature")
        name, key_id, signature = found[1], value[:_ID_BYTES], value[_ID_BYTES:]
        if (name, key_id) in seen:
            raise VerificationFailed(f"a key of {name} signed twice", field="signature")
        seen.add((name, key_id))
        key = known.get((name, key_id))
        if key is None:
            unknown.append(name)
        else:
            signed[key] = key.check(checkpoint, signature)
    if not signed:
        raise VerificationFailed("the checkpoint has no signature of a known key", field="signature")
    return Note(checkpoint=checkpoint, signed_by=signed, unknown=tuple(unknown), content=content)


def open_checkpoint(
    content: bytes, *, origin: str, coordinator: bytes, cosigners: Mapping[str, Iterable[bytes]] | None = None
) -> Note:
    """Return the note of log ``origin`` that its coordinator signed.

    Args:
        content: the note.
        origin: the log it must be of.
        coordinator: the public key that signs this log.
        cosigners: the sites' public keys, of any algorithm: their lines, where there are any, must be valid.

    Raises:
        VerificationFailed: as :func:`open_note`; another log; another signer.
    """
    key = log_key(origin, coordinator)
    others = [cosigner_key(site, public) for site, publics in (cosigners or {}).items() for public in publics]
    note = open_note(content, [key, *others])
    if note.checkpoint.origin != origin:
        raise VerificationFailed(f"the checkpoint is of {note.checkpoint.origin}, not {origin}", field="origin")
    if key not in note.signed_by:
        raise VerificationFailed("the checkpoint is not signed by the coordinator", field="signature")
    return note


def _split(content: bytes) -> tuple[bytes, list[str]]:
    if len(content) > MOST_BYTES:
        raise VerificationFailed(f"a note of {len(content)} bytes passes {MOST_BYTES}", field="body")
    body, blank, signatures = content.rpartition(b"\n\n")
    try:
        lines = signatures.decode().split("\n")
    except UnicodeDecodeError:
        raise VerificationFailed("a note is text", field="signature") from None
    if not blank or lines.pop() or not 1 <= len(lines) <= MOST_LINES:
        raise VerificationFailed(f"a note is a text, an empty line and 1 to {MOST_LINES} signatures", field="body")
    return body + b"\n", lines
