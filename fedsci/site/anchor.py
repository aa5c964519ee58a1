"""Where a ledger's head is written down a second time, outside the database and the state folder.

A backup that was restored, rows that were cut off and a new empty database are whole chains by themselves; only
a second place that knows how far the chain had come can tell. The anchor is written, whole and durably, after
every commit, so a ledger may be ahead of it by the one entry that a crash in between leaves, and by no more.
Whoever replaces ledger and anchor together by older copies is not noticed: keep the anchor where the ledger's
backups do not go.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from fedsci.errors import BudgetRefused


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a data set had spent: Renyi divergence at ``order``, the distance of its noise from exact, and for whom.

    ``unit`` is as :attr:`fedsci.site.ledger_books.Account.protects`; empty where it is not known.
    """

    rdp: float
    distance: float
    order: int
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """How far a ledger had come.

    Attributes:
        ledger: the ledger's id, empty before its first entry.
        sequence, hash: of its last entry; 0 and the chain's start before the first.
        spent: by data set, so that charges that were lost with the ledger can still be counted.
    """

    ledger: str
    sequence: int
    hash: str
    spent: Mapping[str, Spent]


def read_anchor(path: Path) -> Anchor | None:
    """Return the anchor, or None if there is none.

    Raises:
        BudgetRefused: it cannot be read; a damaged anchor is no anchor.
    """
    try:
        values = json.loads(path.read_bytes())
        spent = {name: Spent(**one) for name, one in values.pop("spent").items()}
        anchor = Anchor(**values, spent=spent)
        if type(anchor.sequence) is not int or anchor.sequence < 0:
            raise ValueError("sequence")
        return anchor
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        problem = error.strerror if isinstance(error, OSError) else "it is not an anchor"
        raise BudgetRefused(
            f"the ledger's anchor {path} cannot be read: {problem}",
            hint="restore the file, or move it away and let the officer adopt the ledger as it is",
        ) from None


def write_anchor(path: Path, anchor: Anchor) -> None:
    """Replace the anchor, whole and durably.

    Raises:
        OSError: it cannot be written; the old one stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f".{path.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(anchor), file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
