"""The coordinator's log of a run: statements, their entries, and checkpoints that the sites cosign.

    statements/<sha256>.json   what was signed, named by the digest of its payload
    entries.jsonl              a line for each, in order: the leaves of the tree
    checkpoint                 the newest signed checkpoint with the cosignatures it has
    checkpoints/<size>.note    those that a quorum cosigned

A statement is on the disk before its entry, an entry before a checkpoint that speaks of it, a checkpoint before it is
shown to anyone. So a crash leaves at the end what no checkpoint speaks of; anything else that is missing was taken.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from fedsci.audit.checkpoint import Checkpoint, check_origin
from fedsci.audit.entries import FILE, Entry, EntryFile, make_entry
from fedsci.audit.merkle import Proof
from fedsci.audit.note import Note, add_line, open_checkpoint, sign_note
from fedsci.audit.note_keys import NoteKey, Signer, log_key
from fedsci.audit.quorum import check_cosigners, cosigned_by
from fedsci.audit.statement import digest_of, peek
from fedsci.errors import InputError, VerificationFailed
from fedsci.identity.files import replace_private
from fedsci.names import Digest

NEWEST, KEPT, STATEMENTS = "checkpoint", "checkpoints", "statements"


def statement_file(digest: str) -> str:
    """Return where the statement with this digest lies in a log's folder."""
    return f"{STATEMENTS}/{digest.removeprefix('sha256:')}.json"


@contextlib.contextmanager
def wrong_in(file: str) -> Iterator[None]:
    """Let a failed verification inside say which file it is about, where it does not yet."""
    try:
        yield
    except VerificationFailed as error:
        error.file = error.file or file
        raise


class AuditLog:
    """An append-only log in a folder; one process at a time writes it.

    Args:
        folder: the run folder's ``audit/``; made where there is none, gone on with where there is.
        origin: ``fedsci/<run id>``.
        signer: the coordinator's key.
        sites: the public key by which each witness counts.
        quorum: how many of them a checkpoint needs.

    Raises:
        VerificationFailed: what is there is not what was signed: fewer entries, other entries, a statement missing, a
            checkpoint of another key; two witnesses that are one.
    """

    def __init__(self, folder: Path, *, origin: str, signer: Signer, sites: Mapping[str, bytes], quorum: int) -> None:
        check_cosigners(sites, coordinator=signer.public, quorum=quorum)
        self.folder, self.origin, self.quorum = folder, check_origin(origin), quorum
        self._signer, self._sites = signer, dict(sites)
        self._keys = {site: {public} for site, public in sites.items()}
        self._note: Note | None = None
        kept = self._read_checkpoints()
        self._file = EntryFile(folder / FILE, covered=max((note.checkpoint.size for note in kept), default=0))
        try:
            for note in kept:
                self._check_root(note)
            self._by_digest = {entry.digest: entry.index for entry in self._file.entries}
            self._settle_statements()
        except BaseException:
            self._file.close()
            raise

    def __len__(self) -> int:
        return len(self._file.entries)

    def append(self, kind: str, envelope: bytes, *, round: int | None = None, site: str | None = None) -> int:  # noqa: A002
        """Return the index at which a statement is now logged, durably; a statement that is logged already stays there.

        Args:
            kind: the purpose it was signed for.
            envelope: the statement; its signatures are the caller's to check.
            round: the round it belongs to, if it does.
            site: the site it belongs to, if it does.

        Raises:
            VerificationFailed: it is no statement of this kind, or is logged for another round or site.
            InputError: the disk is full, or cannot be written.
        """
        said, body = peek(envelope)
        if said != kind:
            raise VerificationFailed(f"this is a {said}, not a {kind}", field="kind")
        digest = digest_of(body)
        entry = make_entry(self._by_digest.get(digest, len(self)), kind, digest, round=round, site=site)
        if entry.index < len(self):
            if self._file.entries[entry.index] != entry:
                raise VerificationFailed(f"this {kind} is logged already, for another round or site", field="digest")
            return entry.index
        with self._writing():
            replace_private(self.folder / statement_file(digest), envelope)
            self._file.append(entry)
            self._file.sync()
        self._by_digest[digest] = entry.index
        return entry.index

    def entries(self) -> tuple[Entry, ...]:
        """Return all entries, in their order."""
        return tuple(self._file.entries)

    def find(self, digest: Digest) -> Entry | None:
        """Return the entry of a statement, or None."""
        index = self._by_digest.get(digest)
        return None if index is None else self._file.entries[index]

    def checkpoint(self) -> bytes:
        """Return the newest checkpoint, which now speaks of every entry, with the cosignatures it has."""
        size = len(self)
        if self._note is None or self._note.checkpoint.size != size:
            with self._writing():
                self._file.sync()
            point = Checkpoint(origin=self.origin, size=size, root=self._file.tree.root())
            self._keep(sign_note(point, self._signer))
        return self.newest().content

    def newest(self) -> Note:
        """Return the newest signed checkpoint.

        Raises:
            VerificationFailed: none was signed yet.
        """
        if self._note is None:
            raise VerificationFailed("no checkpoint has been signed yet", file=NEWEST)
        return self._note

    def inclusion_proof(self, index: int) -> Proof:
        """Return what shows that the newest checkpoint holds entry ``index``."""
        return self._file.tree.inclusion_proof(index, self.newest().checkpoint.size)

    def consistency_proof(self, old_size: int) -> Proof:
        """Return what shows that the newest checkpoint begins with all that one of ``old_size`` entries held."""
        return self._file.tree.consistency_proof(old_size, self.newest().checkpoint.size)

    def trust(self, site: str, public: bytes) -> None:
        """Know a further key of a site, whose cosignatures stand beside those that count for the quorum."""
        self._keys[site].add(public)

    def add_cosignature(self, site: str, line: str) -> bool:
        """Keep a site's cosignature of the newest checkpoint and return whether a quorum has cosigned it now.

        A second one by the same key changes nothing.

        Raises:
            VerificationFailed: it is not of this site, of another checkpoint, or not valid.
        """
        refused = self.add_cosignatures({site: [line]})
        if refused:
            raise refused[site]
        return self.has_quorum()

    def add_cosignatures(self, lines: Mapping[str, Iterable[str]]) -> dict[str, VerificationFailed]:
        """Keep sites' cosignatures of the newest checkpoint, written at once; return why some sites' are not kept.

        Those of a site are kept together or not at all; a second one by the same key changes nothing.
        """
        note, refused = self.newest(), dict[str, VerificationFailed]()
        content, known = note.content, set(note.signed_by)
        for site, said in lines.items():
            try:
                new = {key: line for line in said for key in self._checked(site, line)}
            except VerificationFailed as error:
                refused[site] = error
                continue
            for key in new.keys() - known:
                content = add_line(content, new[key])
            known |= new.keys()
        if content != note.content:
            self._keep(content)
        return refused

    def _checked(self, site: str, line: str) -> set[NoteKey]:
        """Return the one key of a site by which a line cosigns the newest checkpoint."""
        alone = add_line(sign_note(self.newest().checkpoint, self._signer), line)
        with wrong_in(NEWEST):
            opened = self._open(alone, {site: self._keys.get(site, set())})
            new = set(opened.signed_by) - {self._log_key()}
            if opened.unknown or len(new) != 1:
                raise VerificationFailed(f"this is not one cosignature of {site}", field=site)
        return new

    def cosigners(self) -> tuple[str, ...]:
        """Return the sites that have cosigned the newest checkpoint, by the key that counts."""
        return cosigned_by(self.newest(), self._sites)

    def has_quorum(self) -> bool:
        """Return whether enough sites have cosigned the newest checkpoint."""
        return len(self.cosigners()) >= self.quorum

    def close(self) -> None:
        """Let the files go."""
        self._file.close()

    def _keep(self, content: bytes) -> None:
        note = self._open(content, self._keys)
        with self._writing():
            replace_private(self.folder / NEWEST, content)
            self._note = note
            if self.has_quorum():
                replace_private(self.folder / KEPT / f"{note.checkpoint.size}.note", content)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            problem = error.strerror or str(error)
            raise InputError(f"the audit log {self.folder} cannot be written: {problem}") from None

    def _open(self, content: bytes, cosigners: Mapping[str, set[bytes]]) -> Note:
        return open_checkpoint(content, origin=self.origin, coordinator=self._signer.public, cosigners=cosigners)

    def _log_key(self) -> NoteKey:
        return log_key(self.origin, self._signer.public)

    def _read_checkpoints(self) -> list[Note]:
        """Return every signed checkpoint in the folder; the newest becomes this log's."""
        _sweep(self.folder, self.folder / KEPT, self.folder / STATEMENTS)
        kept = []
        for path in sorted((self.folder / KEPT).glob("*")):
            with wrong_in(f"{KEPT}/{path.name}"):
                kept.append(self._open(path.read_bytes(), self._keys))
        newest = self.folder / NEWEST
        with wrong_in(NEWEST):
            if newest.exists():
                self._note = self._open(newest.read_bytes(), self._keys)
            largest = max((note.checkpoint.size for note in kept), default=-1)
            if largest > (self._note.checkpoint.size if self._note else -1):
                raise VerificationFailed(
                    f"a checkpoint of {largest} entries was signed, and this is older", field="size"
                )
        return [*kept, *([self._note] if self._note else [])]

    def _check_root(self, note: Note) -> None:
        point = note.checkpoint
        if self._file.tree.root(point.size) != point.root:
            raise VerificationFailed(
                f"the first {point.size} entries are not those that were signed", file=FILE, field="root"
            )

    def _settle_statements(self) -> None:
        """Refuse where a statement is missing; take away one whose entry a crash kept from being written."""
        logged = {statement_file(entry.digest) for entry in self._file.entries}
        there = {f"{STATEMENTS}/{path.name}" for path in (self.folder / STATEMENTS).glob("*")}
        if missing := sorted(logged - there):
            raise VerificationFailed("this statement is logged and missing", file=missing[0])
        for name in there - logged:
            (self.folder / name).unlink()


def _sweep(*folders: Path) -> None:
    """Take away the halves of files that a crash left."""
    for folder in folders:
        for path in folder.glob(".*"):
            path.unlink()
