"""Reading and writing the explicit binary form of every message and state.

Integers are big-endian and unsigned; lists carry a 16-bit count. A reader never allocates more than the
bytes it was given, refuses what is left over, and has one error for everything that does not parse:
``ProtocolError(rule="malformed-message")``.
"""

from collections.abc import Iterable
from typing import NoReturn

from fedsci.errors import ProtocolError
from fedsci.secagg.profile import Profile
from fedsci.secagg.profiles import DEFAULT, profile_of_message

MAGIC = b"FSA"


def malformed(reason: str) -> NoReturn:
    """Raise the one error of hostile or damaged bytes."""
    raise ProtocolError(reason, rule="malformed-message")


def number(value: int, size: int) -> bytes:
    """Return ``value`` as ``size`` bytes."""
    if not 0 <= value < 1 << (8 * size):
        malformed(f"{value} does not fit {size} bytes")
    return value.to_bytes(size, "big")


def numbers(values: Iterable[int]) -> bytes:
    """Return a count and the values, 16 bits each."""
    listed = tuple(values)
    return number(len(listed), 2) + b"".join(number(value, 2) for value in listed)


def blob(content: bytes) -> bytes:
    """Return a 32-bit length and the bytes."""
    return number(len(content), 4) + content


def opening(kind: int, profile: Profile = DEFAULT) -> bytes:
    """Return the five bytes every message starts with: magic, the profile's version, kind."""
    return MAGIC + bytes((profile.version, kind))


class Reader:
    """A cursor over received bytes; every method refuses to read past the end."""

    def __init__(self, content: bytes, *, limit: int) -> None:
        if not isinstance(content, bytes):
            malformed("a message is not bytes")
        if len(content) > limit:
            malformed(f"a message of {len(content)} bytes passes its limit of {limit}")
        self._content = content
        self._at = 0

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes."""
        end = self._at + size
        if end > len(self._content):
            malformed("a message ends too early")
        part = self._content[self._at : end]
        self._at = end
        return part

    def number(self, size: int) -> int:
        """Return the next ``size`` bytes as an integer."""
        return int.from_bytes(self.take(size), "big")

    def numbers(self) -> tuple[int, ...]:
        """Return a list written by :func:`numbers`."""
        content = self.take(2 * self.number(2))
        return tuple(int.from_bytes(content[i : i + 2], "big") for i in range(0, len(content), 2))

    def blob(self) -> bytes:
        """Return bytes written by :func:`blob`."""
        return self.take(self.number(4))

    def opening(self, kind: int) -> Profile:
        """Check the first five bytes and return the profile they name; who reads it checks that it is the right one."""
        start = self.take(5)
        profile = profile_of_message(start, MAGIC)
        if profile is None or start != opening(kind, profile):
            malformed("a message has another magic, version or kind")
        return profile

    def end(self) -> None:
        """Refuse bytes that are left over."""
        if self._at != len(self._content):
            malformed("a message has bytes left over")


def ascending(indices: tuple[int, ...]) -> tuple[int, ...]:
    """Return ``indices`` if they rise strictly from at least 1: how sets of sites travel."""
    if any(a >= b for a, b in zip((0, *indices), indices, strict=False)):
        malformed("site indices do not rise strictly from 1")
    return indices
