"""The lines of a log: what each entry names, and the file that only grows."""

import errno
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsci import names
from fedsci.audit.merkle import Tree
from fedsci.audit.statement import canonical
from fedsci.errors import InputError, VerificationFailed
from fedsci.names import Digest

FILE = "entries.jsonl"
#: The kinds whose statements witnesses are shown whole; of all others they see the entry.
SHOWN = ("sites", "round")
_KIND = re.compile(r"[a-z][a-z-]{0,31}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LONGEST = 1000


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry.

    Attributes:
        index: its place, from 0.
        kind: of its statement.
        digest: of its statement's payload.
        round: where it belongs to one.
        site: where it belongs to one.
        line: canonical JSON, the leaf of the tree.
    """

    index: int
    kind: str
    digest: Digest
    round: int | None
    site: str | None
    line: bytes


def make_entry(index: int, kind: str, digest: str, *, round: int | None = None, site: str | None = None) -> Entry:  # noqa: A002
    """Return an entry with its line."""
    values: dict[str, object] = {"kind": kind, "digest": digest}
    values |= {} if round is None else {"round": round}
    values |= {} if site is None else {"site": site}
    return read_entry(index, canonical(values))


def read_entry(index: int, line: bytes) -> Entry:
    """Return the entry of a line.

    Raises:
        VerificationFailed: it is none, or spelt in another way; ``field`` says what of it.
    """
    values = _values(line) if len(line) <= _LONGEST else None
    if values is None or not {"kind", "digest"} <= set(values) <= {"kind", "digest", "round", "site"}:
        raise _wrong(index, "an entry has a kind and a digest, and may have a round and a site")
    kind, digest, number, site = (values.get(name) for name in ("kind", "digest", "round", "site"))
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        raise _wrong(index, "this is no kind of a statement", field="kind")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise _wrong(index, "a digest is sha256: and 64 hexadecimal digits", field="digest")
    if "round" in values and (type(number) is not int or number < 0):
        raise _wrong(index, "a round is a whole number", field="round")
    if "site" in values and not _is_site(site):
        raise _wrong(index, "this is no name of a site", field="site")
    if canonical(values) != line:
        raise _wrong(index, "the line is not canonical")
    return Entry(index=index, kind=kind, digest=Digest(digest), round=number, site=site, line=line)


class EntryFile:
    """A log's entries on disk and their tree in memory.

    Args:
        path: the file; made where there is none.
        covered: how many entries a signed checkpoint speaks of.

    Raises:
        VerificationFailed: there are fewer than that, or a line is wrong. The half of a line that a crash left at the
            end is cut off, as no checkpoint can speak of it.
    """

    def __init__(self, path: Path, *, covered: int) -> None:
        self.tree, self.entries = Tree(), list[Entry]()
        content = path.read_bytes() if path.exists() else b""
        *lines, half = content.split(b"\n")
        for index, line in enumerate(lines):
            self._add(read_entry(index, line))
        if len(lines) < covered:
            raise VerificationFailed(
                f"the log has {len(lines)} entries, and a checkpoint was signed over {covered}",
                file=FILE,
                field=f"line {len(lines) + 1}",
            )
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._bytes = len(content) - len(half)
        if half:
            os.ftruncate(self._descriptor, self._bytes)
        self.sync()

    def append(self, entry: Entry) -> None:
        """Write an entry at the end; it is durable after :meth:`sync`.

        Raises:
            OSError: the disk is full, or cannot be written; the log is as it was.
        """
        content = entry.line + b"\n"
        try:
            if os.write(self._descriptor, content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.ftruncate(self._descriptor, self._bytes)
            raise
        self._bytes += len(content)
        self._add(entry)

    def sync(self) -> None:
        """Return when all entries are on the disk.

        Raises:
            OSError: nobody knows what is on it; nothing is written any more.
        """
        try:
            os.fsync(self._descriptor)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Let the file go."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _add(self, entry: Entry) -> None:
        self.tree.append(entry.line)
        self.entries.append(entry)


def _values(line: bytes) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def _is_site(site: object) -> bool:
    try:
        return isinstance(site, str) and bool(names.site_id(site))
    except InputError:
        return False


def _wrong(index: int, what: str, *, field: str = "") -> VerificationFailed:
    where = f"line {index + 1}" + (f": {field}" if field else "")
    return VerificationFailed(what, file=FILE, field=where)
