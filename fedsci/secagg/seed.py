"""A secret that cannot print itself.

Masks, share polynomials and private keys all grow from short byte strings. They are wrapped here so that a
log line, a traceback or a pickle never carries one by accident.
"""

import hmac
from typing import NoReturn


class Seed:
    """Secret bytes: printed as ``Seed(…)``, compared in constant time, never pickled or hashed.

    An empty seed marks a secret that has been erased. Python cannot promise that the bytes are gone from
    memory; it can promise that the state no longer holds them and that no stored copy of it will.

    >>> Seed(b"do not print me")
    Seed(…)
    """

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        self._secret = bytes(secret)

    def reveal(self) -> bytes:
        """Return the bytes; the caller now carries the duty not to print, log or send them."""
        return self._secret

    @property
    def erased(self) -> bool:
        """Whether the secret is gone."""
        return not self._secret

    def __len__(self) -> int:
        return len(self._secret)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Seed) and hmac.compare_digest(self._secret, other._secret)

    def __hash__(self) -> int:
        raise TypeError("a Seed is never hashed")

    def __repr__(self) -> str:
        return "Seed(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Seed is never pickled")


ERASED = Seed(b"")
