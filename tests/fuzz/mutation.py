"""Inputs that are almost right: bytes of the corpus, changed at random, and where there is a structure within it.

Whatever parses as JSON is also changed as JSON: one value for another kind, a key away, twice or from elsewhere. Text
within it that is JSON itself, or base64 of it, is changed inside: envelopes carry their payloads so.
"""

import copy
import json
import random
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from typing import Any

Path = list[Any]

_SIZES = (1, 2, 4, 8)
_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
_BYTES = (
    b"\x00",
    b"\xff",
    b"\r\n",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"\xc3\x28",
    b"\xe2\x80\xae",
    b"\x1b[2J",
    b"\n\n",
)
#: Written into JSON as they stand, since no Python value is dumped so.
_RAW = {
    "@inf": "1e999",
    "@nan": "NaN",
    "@neg": "-Infinity",
    "@long": "9" * 5000,
    "@tiny": "1e-400",
    "@deep": "[" * 3000 + "]" * 3000,
}
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 255, 2**31, 2**53, 2**53 + 1, -(2**63), 2**63, 2**64, 10**400),
    *(0.0, -0.0, 0.5, 1.5, -1.5, 1e-320, 1e308, -1e308, 1e17),
    *("", " ", "0", "1", "-1", "inf", "nan", "a", "lab-1", "lab-2", "é", "\x00", "\n", "\ud800", "\u202e", "../../x"),
    *("a" * 2000, "/etc/passwd", "sha256:" + "0" * 64, "0" * 32, "AAAA", "====", "{}", "[]", "\x1b[2J", "__class__"),
    *([], {}, [[]], [{}], [None], [0] * 300, {"": ""}, {"a": {"b": {}}}, ["lab-1"], {"lab-1": 1}, [1, 2], [[1, 2]]),
    *_RAW,
)
_DEEP = 100
_MOST_NODES = 3000


class Mutator:
    """Makes inputs from a pool, which may grow.

    Args:
        rng: where all chance comes from.
        pool: inputs to begin from.
        tokens: pieces that the format gives a meaning.
        headed: a first line says where the rest goes.
    """

    def __init__(
        self, rng: random.Random, pool: Sequence[bytes], *, tokens: Sequence[bytes] = (), headed: bool = False
    ) -> None:
        self._rng, self.pool, self._tokens, self._headed = rng, list(pool), tuple(tokens), headed

    def next(self) -> bytes:
        """Return one input."""
        data = self._rng.choice(self.pool)
        if self._headed and self._rng.random() < 0.95:
            head, line, rest = data.partition(b"\n")
            return head + line + self._changed(rest)
        return self._changed(data)

    def _changed(self, data: bytes) -> bytes:
        values = _parsed(data) if self._rng.random() < 0.85 else None
        if isinstance(values, dict | list):
            for _ in range(self._rng.choice((1, 1, 1, 2, 4))):
                values = self._other_json(values)
            text = self._dumped(values, like=data)
            return text if self._rng.random() < 0.97 else self._other_bytes(text)
        for _ in range(self._rng.choice((1, 1, 2, 4, 8))):
            data = self._other_bytes(data)
        return data

    def _other_bytes(self, data: bytes) -> bytes:
        rng, at = self._rng, self._rng.randrange(len(data) + 1)
        size = rng.choice(_SIZES)
        order = rng.choice(("big", "little"))
        number = (rng.choice(_NUMBERS) % (1 << 8 * size)).to_bytes(size, order)
        length = rng.choice((1, 2, 8, 64, max(1, len(data) // 2)))
        other = rng.choice(self.pool)
        here = int.from_bytes(data[at : at + size], order)
        near = ((here + rng.choice((-1, 1, 2, -2, 256))) % (1 << 8 * size)).to_bytes(size, order)
        choices: list[Callable[[], bytes]] = [
            lambda: data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :] if at < len(data) else data,
            lambda: data[:at] + rng.randbytes(1) + data[at + 1 :],
            lambda: data[:at],
            lambda: data[at:],
            lambda: data[:at] + data[at + length :],
            lambda: data[:at] + number + data[at + size :],
            lambda: data[:at] + number + data[at:],
            lambda: data[:at] + near + data[at + size :] if at + size <= len(data) else data,
            lambda: data[:at] + data[at : at + length] * rng.choice((2, 3, 20)) + data[at + length :],
            lambda: data[:at] + rng.choice((*_BYTES, *self._tokens)) + data[at:],
            lambda: data[:at] + other[rng.randrange(len(other) + 1) :],
            lambda: data[:at] + rng.randbytes(length) + data[at + length :],
        ]
        if self._tokens:
            choices += [lambda: data[:at] + rng.choice(self._tokens) + data[at + length :]] * 3
        return rng.choice(choices)()

    def _other_json(self, values: Any) -> Any:
        rng, values = self._rng, copy.deepcopy(values)
        places = list(_places(values))
        if not places:
            return rng.choice(_VALUES)
        path = rng.choice(places)
        inner, key = _at(values, path[:-1]), path[-1]
        match rng.randrange(10):
            case 0 | 1 | 2 | 3:
                inner[key] = self._value()
            case 4:
                del inner[key]
            case 5:
                inner[key] = copy.deepcopy(_at(values, rng.choice(places)))
            case 6 if isinstance(inner, dict):
                inner[str(self._value())[:50] or "x"] = inner[key]
            case 6:
                inner[:] = inner * 3
            case 7:
                inner[key] = _within(inner[key], self._other_json)
            case 8:
                inner[key] = self._near(inner[key])
            case _:
                inner[key] = [inner[key]] if rng.random() < 0.5 else {"lab-1": inner[key]}
        return values

    def _near(self, value: Any) -> Any:
        if isinstance(value, bool) or value is None:
            return not value
        if isinstance(value, int | float):
            return value + self._rng.choice((-1, 1, 0.5, 1000)) if abs(value) < 1e300 else -value
        if isinstance(value, str):
            at = self._rng.randrange(len(value) + 1)
            return value[:at] + self._rng.choice(("", "x", "0", "\ud800", "\n", "é")) + value[at + 1 :]
        return value

    def _value(self) -> Any:
        if self._rng.random() < 0.03:
            deep: Any = []
            for _ in range(self._rng.choice((30, _DEEP))):
                deep = [deep] if self._rng.random() < 0.5 else {"a": deep}
            return deep
        return copy.deepcopy(self._rng.choice(_VALUES))

    def _dumped(self, values: Any, *, like: bytes) -> bytes:
        compact = b'":"' in like or b'":{' in like
        text = json.dumps(values, separators=(",", ":") if compact else None, sort_keys=True)
        for mark, raw in _RAW.items():
            text = text.replace(f'"{mark}"', raw)
        if self._rng.random() < 0.02 and text.startswith("{"):  # a key twice
            text = '{"study":1,' + text[1:]
        return text.encode() + (b"\n" if like.endswith(b"\n") else b"")


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _places(values: Any) -> "list[Path]":
    """Return where something stands, at most so many places, however deep."""
    found: list[Path] = []
    open_ends: list[tuple[Path, Any]] = [([], values)]
    while open_ends and len(found) < _MOST_NODES:
        path, value = open_ends.pop()
        keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        for key in keys:
            found.append([*path, key])
            open_ends.append(([*path, key], value[key]))
    return found


def _at(values: Any, path: Path) -> Any:
    for key in path:
        values = values[key]
    return values


def _within(text: Any, change: Callable[[Any], Any]) -> Any:
    """Return a text whose inside was changed, if it has one."""
    if not isinstance(text, str) or not text:
        return text
    inner = _parsed(text.encode("utf-8", "surrogatepass"))
    if isinstance(inner, dict | list):
        return json.dumps(change(inner), separators=(",", ":"), sort_keys=True)
    try:
        packed = b64decode(text, validate=True)
    except ValueError:
        return text
    inner = _parsed(packed)
    if isinstance(inner, dict | list):
        packed = json.dumps(change(inner), separators=(",", ":"), sort_keys=True).encode("utf-8", "surrogatepass")
    elif packed:
        at = len(text) * 7 % len(packed)
        packed = packed[:at] + bytes([packed[at] ^ 1]) + packed[at + 1 :]
    return b64encode(packed).decode()
