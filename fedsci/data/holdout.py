"""Which records a site keeps aside for evaluation.

A record's side is a keyed hash of that record alone. So adding or removing one record never moves another
between training and holdout, and one record changes the training set by one record: that is what keeps the
record-level sensitivity of training and of evaluation at 1 (add or remove one record). A shuffled split of a
fixed size would not: one record more, and others change sides.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from fedsci.data.table import RawTable, absent_column
from fedsci.data.values import is_missing, matching_key
from fedsci.errors import DataError, InputError

_PERSON = b"fedsci-holdout-1"


def record_keys(raw: RawTable) -> NDArray[np.int64]:
    """Return a key for each row that depends on the record's content, not on its place in the file.

    All columns of the file count, whatever a study uses of them. Equal records are numbered among themselves, so that
    they need not all fall on one side; which of them is removed makes no difference, so the set of keys still changes
    by one. Positions would not do: a row less in the middle, and all later records change sides.
    """
    columns = [raw.columns[name] for name in sorted(raw.columns)]
    seen: dict[bytes, int] = {}
    keys = np.empty(raw.rows, dtype=np.int64)
    for row in range(raw.rows):
        cells = (c[row].tobytes() if c.ndim > 1 else str(c[row]).encode("utf-8", "surrogatepass") for c in columns)
        content = b"".join(len(cell).to_bytes(8, "big") + cell for cell in cells)
        copy = seen.get(content, 0)
        seen[content] = copy + 1
        digest = hashlib.blake2b(content + copy.to_bytes(8, "big"), digest_size=8, person=b"fedsci-record-1")
        keys[row] = int.from_bytes(digest.digest(), "big", signed=True)
    return keys


def group_keys(raw: RawTable, column: str, source: str) -> NDArray[np.int64]:
    """Return a key for each row that rows with the same value in ``column`` share, and no others.

    Values are compared as categories are: 7, "7" and 7.0 are one group.

    Raises:
        DataError: there is no such column, or a row has no value in it: nothing could protect that row.
    """
    if column not in raw.columns:
        raise absent_column(raw, column, source, "which groups the records")
    keys = np.empty(raw.rows, dtype=np.int64)
    for row, value in enumerate(raw.columns[column].tolist()):
        if isinstance(value, list):
            raise DataError(f"{source}: column {column!r} holds arrays, which make no groups")
        if is_missing(value):
            raise DataError(
                f"{source}: {raw.row_label(row)} has no value in {column!r}, which groups the records",
                hint="fill it in; a record of its own needs a value that no other has",
            )
        content = matching_key(value).encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(content, digest_size=8, person=b"fedsci-group-1")
        keys[row] = int.from_bytes(digest.digest(), "big", signed=True)
    return keys


def split_holdout(
    row_ids: NDArray[np.int64], *, fraction: float, seed: int, site: str, secret: bytes = b""
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the masks ``(train, holdout)``; each row is on one side, whatever other rows there are.

    Args:
        row_ids: int64, shape ``(n,)``; a record's lasting identity, such as :func:`record_keys`; rows with the same
            one stay together, as with :func:`group_keys`.
        fraction: the chance of holdout, 0 up to but not including 1; 0 keeps every row for training.
        seed: of the study; public.
        site: the site's name, so that sites split independently.
        secret: of the site; without it anybody who knows a record knows its side.

    Raises:
        InputError: if ``fraction`` is out of range.
        DataError: if a side that should have rows has none.
    """
    if not 0.0 <= fraction < 1.0:
        raise InputError(f"holdout {fraction} is out of range", hint="use 0 or more, and less than 1")
    key = hashlib.blake2b(f"{seed}|{site}".encode(), key=secret[:64], digest_size=32, person=_PERSON).digest()
    below = int(fraction * 2**64)
    holdout = np.fromiter(
        (
            int.from_bytes(
                hashlib.blake2b(int(row).to_bytes(8, "big", signed=True), digest_size=8, key=key).digest(), "big"
            )
            < below
            for row in row_ids
        ),
        dtype=np.bool_,
        count=len(row_ids),
    )
    if holdout.all() or (fraction > 0 and not holdout.any()):
        side = "training" if holdout.all() else "holdout"
        raise DataError(
            f"{site}: a holdout of {fraction:g} of {len(row_ids)} rows leaves none for {side}",
            hint="the site needs more rows; or change `holdout` or the seed in the study",
        )
    return ~holdout, holdout
