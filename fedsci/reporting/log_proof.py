"""What a run's log says of itself: the checkpoint that a document stands on. Signatures are checked elsewhere."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from fedsci.errors import InputError
from fedsci.reporting.run_folder import count, mapping

CHECKPOINTS = Path("audit", "checkpoints")
KEYS = Path("audit", "keys.json")
_NAME = re.compile(r"(0|[1-9][0-9]{0,15})\.note")
_ROOT = re.compile(r"[A-Za-z0-9+/]{43}=")


@dataclass(frozen=True, kw_only=True)
class LogProof:
    """A checkpoint that held a quorum (C2SP tlog-checkpoint).

    Attributes:
        origin: which log.
        size: how many entries it covers.
        root: of the Merkle tree over them, base64.
        quorum: how many witnesses must have signed it.
    """

    origin: str
    size: int
    root: str
    quorum: int


def log_proof(folder: Path, *, size: int | None = None) -> LogProof | None:
    """Return the newest checkpoint that held a quorum, or that of ``size``; None where the run keeps none.

    Raises:
        InputError: there is none of that size, or it is damaged.
    """
    sizes = {int(found[1]) for file in (folder / CHECKPOINTS).glob("*") if (found := _NAME.fullmatch(file.name))}
    if not sizes and size is None:
        return None
    if size is not None and size not in sizes:
        raise InputError(f"{folder / CHECKPOINTS} holds no checkpoint of {size} entries", hint="restore the folder")
    chosen = max(sizes) if size is None else size
    file = folder / CHECKPOINTS / f"{chosen}.note"
    try:
        origin, stated, root = file.read_text(encoding="utf-8").split("\n\n")[0].split("\n")[:3]
    except (OSError, ValueError):
        raise InputError(f"{file} is no checkpoint", hint="restore the file as the run wrote it") from None
    if stated != str(chosen) or not _ROOT.fullmatch(root) or not origin:
        raise InputError(f"{file} is no checkpoint of {chosen} entries", hint="restore the file as the run wrote it")
    return LogProof(origin=origin, size=chosen, root=root, quorum=_quorum(folder))


def _quorum(folder: Path) -> int:
    try:
        quorum = count(mapping(json.loads((folder / KEYS).read_bytes())).get("quorum"))
    except (OSError, ValueError, RecursionError):
        quorum = None
    if quorum is None:
        raise InputError(f"{folder / KEYS} does not say how many witnesses make a quorum", hint="restore the file")
    return quorum
