"""Whether a log's folder is what its coordinator signed and its sites cosigned: from its files alone, offline."""

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsci.audit.entries import FILE, Entry, read_entry
from fedsci.audit.log import KEPT, NEWEST, STATEMENTS, statement_file, wrong_in
from fedsci.audit.merkle import Tree
from fedsci.audit.note import Note, open_checkpoint
from fedsci.audit.quorum import check_cosigners, cosigned_by
from fedsci.audit.statement import Statement, open_statement, peek
from fedsci.errors import VerificationFailed

BY_SITE = frozenset({"record", "permit", "spend"})
_NOTE = re.compile(r"(0|[1-9][0-9]{0,18})\.note")

SignersOf = Callable[[Entry, Mapping[str, Any], Collection[str]], Iterable[bytes]]
"""Returns the public keys that must have signed a statement, and no others may have; raises VerificationFailed.

Given are its entry, its body, and the names of the keys on its envelope, unchecked.
"""


@dataclass(frozen=True, kw_only=True)
class VerifiedLog:
    """A log that checks out.

    Attributes:
        entries: all of them, in their order.
        statements: what they name, by digest.
        newest: the checkpoint over all of them.
        kept: every checkpoint that a quorum cosigned, by size.
    """

    entries: tuple[Entry, ...]
    statements: Mapping[str, Statement]
    newest: Note
    kept: tuple[Note, ...]


def usual_signers(coordinator: bytes, sites: Mapping[str, bytes]) -> SignersOf:
    """Return who signs what without second signers or human decisions: a site its own, the coordinator the rest."""

    def signers(entry: Entry, body: Mapping[str, Any], named: Collection[str]) -> tuple[bytes, ...]:
        if entry.kind not in BY_SITE:
            return (coordinator,)
        public = sites.get(entry.site or "")
        if public is None or body.get("site") != entry.site:
            raise VerificationFailed(f"this {entry.kind} is of no site of the run", field="site")
        return (public,)

    return signers


def verify_log(
    folder: Path,
    *,
    origin: str,
    coordinator: bytes,
    sites: Mapping[str, bytes],
    quorum: int,
    others: Mapping[str, Iterable[bytes]] | None = None,
    signers: SignersOf | None = None,
    finished: bool = True,
    cut_off: bool = False,
) -> VerifiedLog:
    """Return the log of a folder in which everything is as signed, and nothing is missing or left over.

    Args:
        folder: a run folder's ``audit/``.
        origin: the log it must be.
        coordinator: the key that signs it.
        sites: the key by which each witness counts, from a source that is not the folder.
        quorum: how many of them.
        others: further keys of sites whose cosignatures may stand beside: ML-DSA-44.
        signers: whose statements are whose; by default :func:`usual_signers`.
        finished: whether the run came to its end; else its last checkpoint may stand without a quorum.
        cut_off: whether its process was killed: then entries at the end that no checkpoint speaks of are left out.

    Raises:
        VerificationFailed: ``file`` and ``field`` say what is wrong first: an entry, a checkpoint, a statement.
    """
    check_cosigners(sites, coordinator=coordinator, quorum=quorum)
    entries, tree = _read_entries(folder, cut_off=cut_off)
    keys = {site: {public, *(others or {}).get(site, ())} for site, public in sites.items()}

    def read_note(name: str, *, witnessed: bool = True) -> Note:
        with wrong_in(name):
            note = open_checkpoint(_content(folder, name), origin=origin, coordinator=coordinator, cosigners=keys)
            if note.unknown:
                raise VerificationFailed(f"a signature of {note.unknown[0]} is of no key of the run", field="signature")
            if witnessed and len(found := cosigned_by(note, sites)) < quorum:
                raise VerificationFailed(f"{len(found)} sites cosigned it, {quorum} must", field="quorum")
        return note

    kept = _read_kept(folder, read_note, finished=finished)
    newest = read_note(NEWEST, witnessed=finished)
    _check_roots([*kept, newest], tree)
    if cut_off:
        entries = entries[: newest.checkpoint.size]
    if newest.checkpoint.size != len(entries):
        where = f"line {newest.checkpoint.size + 1}"
        raise VerificationFailed("no checkpoint speaks of this entry", file=FILE, field=where)
    if finished and (not kept or kept[-1].checkpoint != newest.checkpoint):
        raise VerificationFailed("the newest checkpoint is not kept", file=f"{KEPT}/{newest.checkpoint.size}.note")
    statements = _read_statements(folder, entries, signers or usual_signers(coordinator, sites), finished=finished)
    return VerifiedLog(entries=entries, statements=statements, newest=newest, kept=tuple(kept))


def _read_kept(folder: Path, read_note: Callable[[str], Note], *, finished: bool) -> list[Note]:
    names = [path.name for path in (folder / KEPT).glob("*") if finished or not path.name.startswith(".")]
    if strange := sorted(name for name in names if not _NOTE.fullmatch(name)):
        raise VerificationFailed("this file belongs to no checkpoint", file=f"{KEPT}/{strange[0]}")
    notes = []
    for name in sorted(names, key=lambda name: int(name.removesuffix(".note"))):
        notes.append(note := read_note(f"{KEPT}/{name}"))
        if name != f"{note.checkpoint.size}.note":
            raise VerificationFailed("the checkpoint is of another size", file=f"{KEPT}/{name}", field="size")
    return notes


def _check_roots(notes: Iterable[Note], tree: Tree) -> None:
    """Refuse entries that are not those under the signed roots; all roots of one list are consistent."""
    good = 0
    for point in (note.checkpoint for note in notes):
        if point.size > len(tree):
            where = f"line {len(tree) + 1}"
            raise VerificationFailed(f"a checkpoint of {point.size} entries was signed", file=FILE, field=where)
        if tree.root(point.size) != point.root:
            where = f"line {good + 1}" if point.size == good + 1 else f"lines {good + 1} to {point.size}"
            raise VerificationFailed("these entries are not those that were signed", file=FILE, field=where)
        good = point.size


def _read_entries(folder: Path, *, cut_off: bool) -> tuple[tuple[Entry, ...], Tree]:
    *lines, half = _content(folder, FILE).split(b"\n")
    entries, tree, seen = list[Entry](), Tree(), dict[str, int]()
    for index, line in enumerate(lines):
        entry = read_entry(index, line)
        if entry.digest in seen:
            raise VerificationFailed(
                f"line {seen[entry.digest] + 1} names this statement too", file=FILE, field=f"line {index + 1}: digest"
            )
        seen[entry.digest] = index
        entries.append(entry)
        tree.append(line)
    if half and not cut_off:
        raise VerificationFailed("the last line has no end", file=FILE, field=f"line {len(lines) + 1}")
    return tuple(entries), tree


def _read_statements(
    folder: Path, entries: Iterable[Entry], signers: SignersOf, *, finished: bool
) -> dict[str, Statement]:
    found, wanted = dict[str, Statement](), set()
    for entry in entries:
        name = statement_file(entry.digest)
        wanted.add(name)
        with wrong_in(name):
            found[entry.digest] = _read_statement(_content(folder, name), entry, signers)
    there = {f"{STATEMENTS}/{path.name}" for path in (folder / STATEMENTS).glob("*")}
    if finished and (extra := sorted(there - wanted)):  # else a crash came between a statement and its entry
        raise VerificationFailed("no entry names this statement", file=extra[0])
    return found


def _read_statement(content: bytes, entry: Entry, signers: SignersOf) -> Statement:
    kind, body = peek(content)
    if kind != entry.kind:
        raise VerificationFailed(f"this is a {kind}, logged as a {entry.kind}", field="payloadType")
    values = json.loads(content)
    keys = tuple(signers(entry, body, [one["keyid"] for one in values["signatures"]]))
    try:
        statement = open_statement(entry.kind, content, keys)
    except VerificationFailed as error:
        error.field = error.field or "signatures"
        raise
    if len(values["signatures"]) != len(keys):
        raise VerificationFailed("somebody else signed it as well", field="signatures")
    if content != (json.dumps(values, sort_keys=True) + "\n").encode():
        raise VerificationFailed("the envelope is spelt in another way")
    if statement.digest != entry.digest:
        raise VerificationFailed(f"the log names another statement, {entry.digest}", field="payload")
    for name, value in (("round", entry.round), ("site", entry.site)):
        if value is not None and name in body and body[name] != value:
            raise VerificationFailed(f"the log says {value}", field=name)
    return statement


def _content(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise VerificationFailed(f"the file cannot be read: {error.strerror}", file=name) from None
