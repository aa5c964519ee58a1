"""Where two documents differ: the first field that is not what it should be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_LONGEST = 80


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A field that is not what it should be.

    Attributes:
        field: its path, with dots: ``fedsci.results.labs.lab-01.train``; items of lists by number.
        found, right: in words, short.
    """

    field: str
    found: str
    right: str

    def __str__(self) -> str:
        return f"{self.field} is {self.found}, and {self.right} by the run's files"


def first_difference(found: Any, right: Any, path: str = "") -> Difference | None:
    """Return the first field in which ``found`` differs, in the order of ``right``; None if it differs in none.

    Types count: true is not 1, and 1 is not 1.0. Only as deep as ``right`` goes, whatever ``found`` is.

    >>> first_difference({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}).field
    'a.b.1'
    >>> str(first_difference({"a": 1, "c": 2}, {"a": 1}))
    "c is 2, and absent by the run's files"
    """
    if isinstance(right, Mapping) and isinstance(found, Mapping):
        for key, value in right.items():
            if key not in found:
                return Difference(field=_inside(path, key), found="absent", right=_short(value))
            inner = first_difference(found[key], value, _inside(path, key))
            if inner is not None:
                return inner
        more = [key for key in found if key not in right]
        return Difference(field=_inside(path, more[0]), found=_short(found[more[0]]), right="absent") if more else None
    if isinstance(right, list) and isinstance(found, list):
        for number, value in enumerate(right):
            if number >= len(found):
                return Difference(field=_inside(path, number), found="absent", right=_short(value))
            inner = first_difference(found[number], value, _inside(path, number))
            if inner is not None:
                return inner
        if len(found) > len(right):
            extra = _short(found[len(right)])
            return Difference(field=_inside(path, len(right)), found=extra, right="absent")
        return None
    if type(found) is type(right) and found == right:
        return None
    return Difference(field=path or "the document", found=_short(found), right=_short(right))


def first_line(found: str, right: str) -> int | None:
    """Return the number of the first line in which two texts differ, from 1; None if in none."""
    if found == right:
        return None
    ours, theirs = right.split("\n"), found.split("\n")
    pairs = zip(theirs, ours, strict=False)
    number = next((n for n, (a, b) in enumerate(pairs, start=1) if a != b), None)
    return number if number is not None else min(len(ours), len(theirs)) + 1


def _inside(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a section"
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
