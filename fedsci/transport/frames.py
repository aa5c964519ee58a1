"""Several byte strings in one: each behind its length, 4 bytes, big-endian."""

from collections.abc import Iterable

_LENGTH_BYTES = 4


def pack_frames(parts: Iterable[bytes]) -> bytes:
    """Return the parts, each behind its length.

    >>> unpack_frames(pack_frames([b"a", b""]))
    [b'a', b'']
    """
    return b"".join(piece for part in parts for piece in (len(part).to_bytes(_LENGTH_BYTES, "big"), part))


def unpack_frames(content: bytes) -> list[bytes]:
    """Return the parts; at least one.

    Raises:
        ValueError: a length is wrong, or there is nothing.
    """
    parts, at = [], 0
    while at < len(content):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(content[at:start], "big")
        if start > len(content) or at > len(content):
            raise ValueError("a frame that is longer than the message")
        parts.append(content[start:at])
    if not parts:
        raise ValueError("a message without frames")
    return parts
