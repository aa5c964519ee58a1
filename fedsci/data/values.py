"""When two written values are the same value: ``"1.0"``, ``1``, ``1.0`` and ``True`` are one category."""

import difflib
import math
import re
from collections.abc import Iterable
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_INFINITE = re.compile(r"[+-]?(inf|infinity)", re.IGNORECASE)
_EXACT = Context(prec=100, traps=[Inexact, InvalidOperation, Overflow])
_TRUE = frozenset({"true", "yes", "on"})
_FALSE = frozenset({"false", "no", "off"})
_LONGEST_SHOWN = 40
_MOST_SHOWN = 12


def matching_key(value: object) -> str:
    """Two values are the same category exactly when their keys are equal.

    YAML reads ``yes`` as true and ``1`` as a number where CSV holds text, so the words of a boolean, the
    numbers 1 and 0 and their spellings share a key. Other text is compared stripped, case and all.

    >>> matching_key(" 1.0 ") == matching_key(1) == matching_key(True) == matching_key("yes")
    True
    """
    text = str(value).strip()
    if text.lower() in _TRUE:
        return "1"
    if text.lower() in _FALSE:
        return "0"
    if not _NUMBER.fullmatch(text):
        return text
    try:
        number = Decimal(text).normalize(_EXACT)
    except ArithmeticError:  # more digits, or a larger exponent, than are compared: then it is a text
        return text
    return str(number) if number else "0"


def parse_number(text: str) -> float:
    """Return the finite number that ``text`` spells.

    Raises:
        ValueError: ``is not a number`` (also for ``nan``, ``1_000``, ``1,5``) or ``is infinite``.
    """
    stripped = text.strip()
    if _NUMBER.fullmatch(stripped):
        number = float(stripped)
        if math.isfinite(number):
            return number
        raise ValueError("is infinite")
    raise ValueError("is infinite" if _INFINITE.fullmatch(stripped) else "is not a number")


def is_missing(value: object) -> bool:
    """Say whether a cell holds nothing: None or NaN."""
    return value is None or (isinstance(value, float | np.floating) and bool(np.isnan(value)))


def missing_mask(column: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which cells of a one-dimensional column hold nothing."""
    if column.dtype.kind == "f":
        return np.asarray(np.isnan(column), dtype=np.bool_)
    if column.dtype.kind == "O":
        return np.fromiter((is_missing(value) for value in column), dtype=np.bool_, count=len(column))
    return np.zeros(len(column), dtype=np.bool_)


def show(value: object) -> str:
    """Return ``value`` quoted for an error line, cut when long."""
    shown = repr(value.item() if isinstance(value, np.generic) else value)
    return shown if len(shown) <= _LONGEST_SHOWN else shown[: _LONGEST_SHOWN - 1] + "…"


def show_all(values: Iterable[object]) -> str:
    """Return the values in one comma-separated line, cut when many."""
    texts = [str(value) for value in values]
    more = f", … ({len(texts)} in all)" if len(texts) > _MOST_SHOWN else ""
    return ", ".join(texts[:_MOST_SHOWN]) + more


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name most like ``name``, whatever the case; None if nothing is close."""
    by_lower = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[close[0]] if close else None
