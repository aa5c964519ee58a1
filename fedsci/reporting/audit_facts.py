"""What a run's audit log says, typed; nothing is checked here (:mod:`fedsci.reporting.log_check` does that)."""

import json
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedsci.audit.statement import peek
from fedsci.errors import VerificationFailed
from fedsci.reporting.run_folder import count, items, mapping, text

AUDIT = "audit"
ENTRIES = "entries.jsonl"
CHECKPOINT = "checkpoint"
STATEMENTS = "statements"
_LINE = re.compile(r"— (\S+) (\S+)")
_KEY_ID_BYTES = 4
_TIME_BYTES = 8


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry of the log.

    Attributes:
        kind: ``plan``, ``permit``, ``round``, ``spend``, ...
        digest: of the statement.
        round, site: as the entry names them; None and empty where it does not.
        body: the statement's values; empty where it cannot be read.
    """

    kind: str
    digest: str
    round: int | None
    site: str
    body: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class CheckpointFacts:
    """What a checkpoint says, and who cosigned it.

    Attributes:
        origin: the log's name.
        size: entries it covers.
        root: of their Merkle tree, base64.
        cosigned: sites, with the time of each cosignature in seconds since 1970.
    """

    origin: str
    size: int
    root: str
    cosigned: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class AuditFacts:
    """A run's log.

    Attributes:
        entries: in the log's order.
        newest: the newest checkpoint; None where there is none.
        held: the newest one that a quorum cosigned; None where none did.
        quorum: how many sites must cosign; None where not stated.
        sites: how many sites have keys in the log.
    """

    entries: Sequence[Entry]
    newest: CheckpointFacts | None
    held: CheckpointFacts | None
    quorum: int | None
    sites: int

    def of(self, kind: str) -> list[Entry]:
        """Return the entries of one kind, in the log's order."""
        return [entry for entry in self.entries if entry.kind == kind]


def read_audit(run_folder: Path) -> AuditFacts | None:
    """Return what the run's log says, None for a run without one; never raises, whatever the files hold."""
    folder = run_folder / AUDIT
    if not folder.is_dir():
        return None
    keys = mapping(_json(_content(folder / "keys.json")))
    quorum = count(keys.get("quorum"))
    notes = sorted((folder / "checkpoints").glob("*.note")) if (folder / "checkpoints").is_dir() else []
    newest = read_checkpoint(_content(folder / CHECKPOINT))
    known = [found for path in notes if (found := read_checkpoint(_content(path))) is not None]
    held = [each for each in (*known, newest) if each is not None and len(each.cosigned) >= max(quorum or 1, 1)]
    return AuditFacts(
        entries=[_entry(folder, line) for line in _content(folder / ENTRIES).splitlines() if line.strip()],
        newest=newest,
        held=max(held, key=lambda each: each.size, default=None),
        quorum=quorum,
        sites=len(mapping(keys.get("sites"))),
    )


def read_checkpoint(content: bytes) -> CheckpointFacts | None:
    """Return what a signed-note checkpoint says, its signatures unchecked; None if it is none."""
    body, blank, signatures = content.decode("utf-8", errors="replace").rpartition("\n\n")
    lines = body.split("\n")
    if not blank or len(lines) != 3 or not re.fullmatch("[0-9]{1,19}", lines[1]):
        return None
    cosigned: dict[str, int] = {}
    for found in map(_LINE.fullmatch, signatures.splitlines()):
        if found is None or found[1] == lines[0]:
            continue
        try:
            signature = b64decode(found[2], validate=True)
        except ValueError:
            continue
        time = int.from_bytes(signature[_KEY_ID_BYTES : _KEY_ID_BYTES + _TIME_BYTES], "big")
        cosigned[found[1]] = max(time, cosigned.get(found[1], 0))
    return CheckpointFacts(origin=lines[0], size=int(lines[1]), root=lines[2], cosigned=cosigned)


def _entry(folder: Path, line: bytes) -> Entry:
    said = mapping(_json(line))
    digest = text(said.get("digest"))
    name = digest.removeprefix("sha256:")
    content = _content(folder / STATEMENTS / f"{name}.json") if re.fullmatch("[0-9a-f]{64}", name) else b""
    try:
        body = mapping(peek(content)[1])
    except VerificationFailed:
        body = {}
    return Entry(
        kind=text(said.get("kind")),
        digest=digest,
        round=count(said.get("round", body.get("round"))),
        site=text(said.get("site")) or text(body.get("site")),
        body=body,
    )


def survivors_of(entry: Entry) -> list[str]:
    """Return the labs in a round's sum."""
    return [site for site in items(entry.body.get("survivors")) if isinstance(site, str)]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _json(content: bytes) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
