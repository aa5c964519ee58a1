"""A site's memory of a run's log: what it cosigned last, and that it never cosigns two histories.

A file a log, replaced whole and durably *before* a cosignature leaves; an anchor in a second place, after it, that
tells when the first was replaced by an older copy. What cannot be read, or does not fit, ends in a refusal.
"""

import fcntl
import json
import os
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsci.audit.checkpoint import Checkpoint, check_origin, from_base64
from fedsci.audit.merkle import EMPTY_ROOT, check_consistency
from fedsci.audit.note import Note, open_checkpoint
from fedsci.audit.note_keys import Signer, cosignature_line, cosigner_key
from fedsci.audit.quorum import require_quorum
from fedsci.audit.statement import canonical
from fedsci.errors import VerificationFailed
from fedsci.identity.files import replace_private, write_private


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """The last checkpoint that was cosigned; size 0 and no note before the first."""

    checkpoint: Checkpoint
    coordinator: bytes
    note: bytes


class Witness:
    """What one site has cosigned, for all logs.

    Args:
        folder: in the site's state folder.
        anchors: a folder that is not restored together with it.
    """

    def __init__(self, folder: Path, anchors: Path) -> None:
        self._folder, self._anchors = folder, anchors

    def begin(self, origin: str, *, coordinator: bytes) -> None:
        """Take part in a log that this coordinator signs; from then on it may be cosigned.

        Calling it again for the same log changes nothing.

        Raises:
            VerificationFailed: the log is known with another signer, its state was lost or rolled back, or it forked.
        """
        with self._alone():
            run = self._not_forked(origin)
            known, anchored = self._state(run).exists(), self._anchor(run).exists()
            started = known and not anchored and not self._read_state(origin, coordinator).checkpoint.size
            if started or not (known or anchored):  # started: a crash came between the two files
                empty = Checkpoint(origin=origin, size=0, root=EMPTY_ROOT)
                self._write(_Seen(checkpoint=empty, coordinator=coordinator, note=b""))
            self._read(origin, coordinator)

    def seen(self, origin: str, *, coordinator: bytes) -> Checkpoint:
        """Return what this site cosigned last: a consistency proof has to begin there.

        Raises:
            VerificationFailed: as :meth:`cosign`.
        """
        with self._alone():
            return self._read(origin, coordinator).checkpoint

    def cosign(
        self,
        content: bytes,
        *,
        origin: str,
        coordinator: bytes,
        site: str,
        signer: Signer,
        old_size: int,
        proof: Sequence[bytes],
        now_s: int | None = None,
    ) -> str:
        """Return this site's cosignature line for a checkpoint that holds all it has seen of the log.

        Args:
            content: the signed note.
            origin: the log that this site takes part in.
            coordinator: the key that signs it.
            site: this site's name, which goes on the line.
            signer: its key; once more with its other key gives a line of that one.
            old_size: where the proof begins: the size that this site cosigned last.
            proof: of consistency.
            now_s: seconds since 1970; by default the machine's clock.

        Raises:
            VerificationFailed: the log is unknown, another signer, smaller than before, another ``old_size``
                (``field`` is then ``old_size``), no proof; the log forked, now or earlier: then both notes are kept in
                ``forks/`` and nothing of this log is cosigned any more; this site's own state was lost, rolled back or
                damaged.
        """
        with self._alone():
            last = self._read(origin, coordinator)
            cosigners = {site: (signer.public,)}
            note = open_checkpoint(content, origin=origin, coordinator=coordinator, cosigners=cosigners)
            point, before = note.checkpoint, last.checkpoint
            if point.size < before.size:
                raise VerificationFailed(
                    f"the log had {before.size} entries and has {point.size} now: it only grows", field="size"
                )
            if point.size > before.size:
                self._require_growth(
                    note, last, own=cosigner_key(site, signer.public) in note.signed_by, old=old_size, proof=proof
                )
                self._write(_Seen(checkpoint=point, coordinator=coordinator, note=content))
            elif point.root != before.root:
                raise self._forked(last, content, proof)
            return cosignature_line(point, site, signer, time=int(time.time()) if now_s is None else now_s)

    def require_quorum(
        self, content: bytes, *, origin: str, coordinator: bytes, keys: Mapping[str, bytes], quorum: int
    ) -> Note:
        """Return the note of a checkpoint that a quorum cosigned and that is the one this site cosigned last.

        Raises:
            VerificationFailed: as :func:`fedsci.audit.quorum.require_quorum`; another checkpoint than this site's; as
                :meth:`cosign`.
        """
        with self._alone():
            last = self._read(origin, coordinator)
            note = require_quorum(content, origin=origin, coordinator=coordinator, keys=keys, quorum=quorum)
            if note.checkpoint.size != last.checkpoint.size:
                raise VerificationFailed(
                    f"the quorum is for {note.checkpoint.size} entries, this site cosigned {last.checkpoint.size}",
                    field="size",
                )
            if note.checkpoint != last.checkpoint:
                raise self._forked(last, content, ())
            return note

    def _require_growth(self, note: Note, last: _Seen, *, own: bool, old: int, proof: Sequence[bytes]) -> None:
        point, before = note.checkpoint, last.checkpoint
        if own:
            raise _rolled_back(point.size, before.size, file=self._state(_run(point.origin)).name)
        if old != before.size:
            raise VerificationFailed(
                f"the proof begins at {old} entries, this site cosigned {before.size}", field="old_size"
            )
        try:
            check_consistency(before.size, point.size, proof, before.root, point.root)
        except VerificationFailed:
            if not last.note:
                raise
            raise self._forked(last, note.content, proof) from None

    def _forked(self, last: _Seen, content: bytes, proof: Sequence[bytes]) -> VerificationFailed:
        """Keep both signed notes, and the proof that fails, and return the refusal."""
        run = _run(last.checkpoint.origin)
        folder = self._folder / "forks" / run
        write_private(folder / "first.note", last.note)
        write_private(folder / "second.note", content)
        write_private(folder / "proof.json", json.dumps([one.hex() for one in proof]).encode())
        return _fork(run)

    def _not_forked(self, origin: str) -> str:
        run = _run(origin)
        if (self._folder / "forks" / run).exists():
            raise _fork(run)
        return run

    def _read(self, origin: str, coordinator: bytes) -> _Seen:
        run = self._not_forked(origin)
        seen, (size, root) = self._read_state(origin, coordinator), self._read_anchor(run)
        if size > seen.checkpoint.size:
            raise _rolled_back(size, seen.checkpoint.size, file=self._state(run).name)
        if size == seen.checkpoint.size and root != seen.checkpoint.root:
            raise VerificationFailed("state and anchor of this log differ", file=self._state(run).name, field="state")
        return seen

    def _read_state(self, origin: str, coordinator: bytes) -> _Seen:
        path = self._state(_run(origin))
        values = _values(path, {"origin", "coordinator", "size", "root", "note"}, missing="this site takes no part in")
        if values["origin"] != origin or values["coordinator"] != coordinator.hex():
            raise VerificationFailed(f"{origin} is known with another signer", file=path.name, field="coordinator")
        content = str(values["note"]).encode()
        if not content:
            point = Checkpoint(origin=origin, size=0, root=EMPTY_ROOT)
        else:
            point = open_checkpoint(content, origin=origin, coordinator=coordinator).checkpoint
        if (values["size"], values["root"]) != (point.size, b64encode(point.root).decode()):
            raise VerificationFailed("the state of this log is damaged", file=path.name, field="state")
        return _Seen(checkpoint=point, coordinator=coordinator, note=content)

    def _read_anchor(self, run: str) -> tuple[int, bytes]:
        path = self._anchor(run)
        values = _values(path, {"size", "root"}, missing="there is no anchor of")
        if type(values["size"]) is not int or values["size"] < 0:
            raise VerificationFailed("the file is damaged", file=path.name, field="size")
        return values["size"], from_base64(str(values["root"]), field="root")

    def _write(self, seen: _Seen) -> None:
        run, point = _run(seen.checkpoint.origin), seen.checkpoint
        short = {"size": point.size, "root": b64encode(point.root).decode()}
        about = {"origin": point.origin, "coordinator": seen.coordinator.hex(), "note": seen.note.decode()}
        replace_private(self._state(run), canonical(about | short))
        replace_private(self._anchor(run), canonical(short))

    def _state(self, run: str) -> Path:
        return self._folder / f"{run}.json"

    def _anchor(self, run: str) -> Path:
        return self._anchors / f"{run}.anchor.json"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one process at a time, and one thread of it, decide: two at once could cosign two histories."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(self._folder / ".lock", os.O_WRONLY | os.O_CREAT, 0o600), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _run(origin: str) -> str:
    return check_origin(origin).removeprefix("fedsci/")


def _values(path: Path, keys: set[str], *, missing: str) -> Mapping[str, Any]:
    """Return a file's canonical JSON object with these keys; refuses anything else."""
    try:
        content = path.read_bytes()
        values = json.loads(content)
    except FileNotFoundError:
        raise VerificationFailed(f"{missing} the log of run {path.name[:32]}", file=path.name, field="state") from None
    except (OSError, ValueError, RecursionError):
        raise VerificationFailed("the file is damaged", file=path.name, field="state") from None
    if not isinstance(values, dict) or set(values) != keys or canonical(values) != content:
        raise VerificationFailed("the file is damaged", file=path.name, field="state")
    return values


def _rolled_back(size: int, known: int, *, file: str) -> VerificationFailed:
    return VerificationFailed(
        f"this site cosigned {size} entries and its state knows of {known}: it was rolled back",
        hint="this site sits the run out; it could cosign a second history unawares",
        file=file,
        field="state",
    )


def _fork(run: str) -> VerificationFailed:
    return VerificationFailed(
        f"the coordinator signed two histories of run {run}; both notes are kept, nothing of it is cosigned any more",
        hint=f"show forks/{run} in this site's state folder to the other sites",
        public="the coordinator signed two histories of this run",
    )
