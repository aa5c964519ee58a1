"""What a log's signer says of it: how many entries it has, and their root (C2SP tlog-checkpoint)."""

import re
from base64 import b64decode, b64encode
from dataclasses import dataclass

from fedsci.audit.merkle import HASH_BYTES
from fedsci.errors import VerificationFailed

LARGEST = 2**63 - 1
_ORIGIN = re.compile(r"fedsci/[0-9a-f]{32}")


def check_origin(origin: str) -> str:
    """Return the name of a log: ``fedsci/`` and the run's id, 32 hexadecimal digits.

    A checkpoint begins with it, so it must not begin as the masking protocol's own signed messages do.

    Raises:
        VerificationFailed: it is none.
    """
    if not _ORIGIN.fullmatch(origin):
        raise VerificationFailed(f"{origin[:80]!r} names no log: fedsci/ and 32 hexadecimal digits do", field="origin")
    return origin


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A log at one time.

    Attributes:
        origin: the log's name.
        size: how many entries.
        root: of their Merkle tree, 32 bytes.
    """

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        check_origin(self.origin)
        if not 0 <= self.size <= LARGEST or len(self.root) != HASH_BYTES:
            raise VerificationFailed(f"a checkpoint has a size and a root of {HASH_BYTES} bytes", field="root")

    def body(self) -> bytes:
        """Return the text that is signed: three lines."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n".encode()


def read_body(body: bytes) -> Checkpoint:
    """Return the checkpoint of a note's text; no extension lines, and one spelling only.

    Raises:
        VerificationFailed: it is none; ``field`` says which line.
    """
    try:
        origin, size, root, end = body.decode("ascii").split("\n")
    except ValueError:
        raise VerificationFailed("a checkpoint is three lines: origin, size and root", field="body") from None
    if not re.fullmatch("0|[1-9][0-9]{0,18}", size) or end:
        raise VerificationFailed(f"{size[:40]!r} is no size of a log", field="size")
    return Checkpoint(origin=origin, size=int(size), root=from_base64(root, field="root"))


def from_base64(text: str, *, field: str) -> bytes:
    """Return the bytes of standard base64 in its one spelling; refuses, for ``field``, any other."""
    try:
        value = b64decode(text, validate=True)
    except ValueError:
        value = b""
    if not value or b64encode(value).decode() != text:
        raise VerificationFailed("this is no base64", field=field)
    return value
