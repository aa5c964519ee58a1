"""Whether a run's files are those that its log names: what a page must know before it shows a number.

It compares digests: of statements with entries, of entries with the newest checkpoint, and of the run's files with its
manifest, which is there when the run has ended. Whose signatures stand on all of it is for ``fedsci verify``.
"""

import hashlib
import json
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path

from fedsci.audit.statement import canonical, digest_of, peek
from fedsci.errors import VerificationFailed
from fedsci.reporting.audit_facts import AUDIT, CHECKPOINT, ENTRIES, STATEMENTS, CheckpointFacts, read_checkpoint
from fedsci.reporting.run_folder import mapping, text

_MANIFEST = "manifest.json"


def check_log(run_folder: Path) -> None:
    """Pass if what lies in the run folder is what its log names.

    Raises:
        VerificationFailed: a file was changed, or is missing; the message begins with the file and the field.
    """
    folder = run_folder / AUDIT
    where = f"{AUDIT}/{ENTRIES}"
    lines = _read(folder / ENTRIES, where).splitlines()
    for number, line in enumerate(lines, start=1):
        _check_entry(run_folder, line, f"{where}: line {number}")
    where = f"{AUDIT}/{CHECKPOINT}"
    checkpoint = read_checkpoint(_read(folder / CHECKPOINT, where))
    if checkpoint is None:
        raise VerificationFailed(f"{where}: body: this is no checkpoint")
    if not 0 < checkpoint.size <= len(lines):
        raise VerificationFailed(f"{where}: size: it covers {checkpoint.size} entries, and there are {len(lines)}")
    root = b64encode(_root([_hash(b"\0" + line) for line in lines[: checkpoint.size]])).decode()
    if root != checkpoint.root:
        raise VerificationFailed(f"{where}: root: the entries lead to {root[:12]}…, not {checkpoint.root[:12]}…")
    if (folder / _MANIFEST).exists():
        _check_manifest(run_folder, checkpoint)


def _check_manifest(run_folder: Path, checkpoint: CheckpointFacts) -> None:
    where = f"{AUDIT}/{_MANIFEST}"
    try:
        kind, body = peek(_read(run_folder / where, where))
    except VerificationFailed as error:
        raise VerificationFailed(f"{where}: {error.message}") from None
    if (kind, body.get("size"), body.get("root")) != ("manifest", checkpoint.size, checkpoint.root):
        raise VerificationFailed(f"{where}: root: it is of another log than the checkpoint")
    for file, digest in mapping(body, "files").items():
        name = Path(file).name  # a manifest names files beside it and no others
        if f"sha256:{hashlib.sha256(_read(run_folder / name, name)).hexdigest()}" != digest:
            raise VerificationFailed(f"{name}: digest: the file is not the one that the manifest names")


def _check_entry(run_folder: Path, line: bytes, where: str) -> None:
    try:
        entry = json.loads(line)
        if not isinstance(entry, dict) or canonical(entry) != line:
            raise ValueError
    except (ValueError, RecursionError, VerificationFailed):
        raise VerificationFailed(f"{where}: this is no entry") from None
    name = text(entry.get("digest")).removeprefix("sha256:")
    file = f"{AUDIT}/{STATEMENTS}/{name}.json"
    if len(name) != 64 or not set(name) <= set("0123456789abcdef"):
        raise VerificationFailed(f"{where}: digest: this is none")
    try:
        kind, body = peek(_read(run_folder / file, file))
    except VerificationFailed as error:
        raise VerificationFailed(f"{file}: {error.message.removeprefix(f'{file}: ')}") from None
    if digest_of(dict(body)) != f"sha256:{name}":
        raise VerificationFailed(f"{file}: payload: it is not what the log names (by digest)")
    if kind != entry.get("kind"):
        raise VerificationFailed(f"{where}: kind: it says {entry.get('kind')!r}, the statement {kind!r}")


def _read(path: Path, where: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise VerificationFailed(f"{where}: it cannot be read ({error.strerror})") from None


def _root(hashes: Sequence[bytes]) -> bytes:
    """Return the root of a Merkle tree (RFC 6962, 2.1) over at least one leaf's hash."""
    if len(hashes) == 1:
        return hashes[0]
    split = 1 << ((len(hashes) - 1).bit_length() - 1)
    return _hash(b"\1" + _root(hashes[:split]) + _root(hashes[split:]))


def _hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
