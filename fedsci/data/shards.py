"""One data set split among simulated labs, unevenly and with different mixes, the same way every time.

A shard depends on the whole data set, so it makes no privacy claim: it stands for data that a lab would
have had by itself.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsci.data.table import RawTable
from fedsci.data.values import is_missing, matching_key, parse_number
from fedsci.errors import DataError, InputError


def shard_indices(
    labels: NDArray[Any], *, of: int, skew: float, uneven: float, seed: int = 0
) -> list[NDArray[np.int64]]:
    """Return the rows of each lab, ascending: every row in exactly one lab, no lab empty.

    Args:
        labels: the target of each row; text, numbers or gaps.
        of: the number of labs.
        skew: 0 to 1, the part of each lab's rows dealt from the label-sorted order; the rest is dealt at random.
        uneven: 0 to 1; sizes are proportional to a ramp from ``1 - uneven`` to ``1 + uneven``, shuffled.
        seed: 0 or more.

    Raises:
        DataError: if there are fewer rows than labs.
        InputError: if another argument is out of range.
    """
    rows = len(labels)
    if of < 1 or seed < 0:
        raise InputError(
            f"{of} labs with seed {seed} cannot be dealt", hint="use 1 lab or more, and a seed of 0 or more"
        )
    for name, value in (("skew", skew), ("uneven", uneven)):
        if not 0.0 <= value <= 1.0:
            raise InputError(f"{name} {value} is out of range", hint="use a number from 0 to 1")
    if rows < of:
        raise DataError(f"{rows} rows cannot fill {of} labs", hint="use fewer labs, or more rows")
    # Only the raw stream of a bit generator is fixed across numpy releases; its shuffles are not.
    stream = np.random.PCG64(seed)
    sizes = _sizes(rows, of, uneven, stream)
    order = _permutation(rows, stream)
    from_sorted = np.floor(sizes * skew + 0.5).astype(np.int64)
    pool = order[: from_sorted.sum()]
    by_label = pool[np.argsort(_ranks(labels)[pool], kind="stable")]
    sorted_parts = np.split(by_label, np.cumsum(from_sorted)[:-1])
    random_parts = np.split(order[from_sorted.sum() :], np.cumsum(sizes - from_sorted)[:-1])
    return [np.sort(np.concatenate(parts)) for parts in zip(sorted_parts, random_parts, strict=True)]


def take(raw: RawTable, indices: NDArray[np.int64]) -> RawTable:
    """Return the rows at ``indices``; they keep their row ids and line numbers."""
    return RawTable(
        columns={name: column[indices] for name, column in raw.columns.items()},
        row_ids=raw.row_ids[indices],
        lines=None if raw.lines is None else raw.lines[indices],
    )


def _permutation(count: int, stream: np.random.PCG64) -> NDArray[np.int64]:
    return np.argsort(np.atleast_1d(stream.random_raw(count)), kind="stable").astype(np.int64)


def _sizes(rows: int, of: int, uneven: float, stream: np.random.PCG64) -> NDArray[np.int64]:
    """Return sizes that add up to ``rows``: the ramp by largest remainder, then no lab without a row."""
    ramp = np.linspace(1.0 - uneven, 1.0 + uneven, of) if of > 1 else np.ones(1)
    shares = ramp[_permutation(of, stream)] * (rows / of)
    sizes = np.floor(shares).astype(np.int64)
    largest_first = np.argsort(sizes - shares, kind="stable")
    sizes[largest_first[: rows - sizes.sum()]] += 1
    for empty in np.flatnonzero(sizes == 0):
        sizes[np.argmax(sizes)] -= 1
        sizes[empty] = 1
    return sizes


def _ranks(labels: NDArray[Any]) -> NDArray[np.int64]:
    """Return each label's place in sorted order: by value if all are numbers, else by text; gaps last."""
    keys = [None if is_missing(label) else matching_key(label) for label in labels.tolist()]
    distinct = {key for key in keys if key is not None}
    try:
        ordered = sorted(distinct, key=parse_number)
    except ValueError:
        ordered = sorted(distinct)
    rank: dict[str | None, int] = {key: place for place, key in enumerate(ordered)}
    return np.array([rank.get(key, len(ordered)) for key in keys], dtype=np.int64)
