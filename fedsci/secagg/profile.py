"""What a crypto profile is: one way to sign, agree on keys and derive them, with the sizes that follow.

Which profiles there are says :mod:`fedsci.secagg.profiles`. Hashes (SHA-256), masks (AES-256 in counter mode) and the
seal of envelopes (AES-256-GCM) are the same in all.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar


class Profile(ABC):
    """The primitives of one profile. It has no others: keys, points and signatures of another size are refused.

    Attributes:
        name: as people write it.
        version: the fourth byte of every message: the protocol's version; high bit if not the default.
        seed_bytes: what a signing key grows from.
        verification_bytes: a public key of signatures.
        signature_bytes: a signature.
        exchange_bytes: a public key of key agreement.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    seed_bytes: ClassVar[int]
    verification_bytes: ClassVar[int]
    signature_bytes: ClassVar[int]
    exchange_bytes: ClassVar[int]

    @abstractmethod
    def signer(self, seed: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
        """Return the public key that grows from ``seed``, and what signs with it."""

    @abstractmethod
    def verify(self, public: bytes, body: bytes, signature: bytes) -> None:
        """Pass if ``public``'s owner signed ``body``.

        Raises:
            ValueError: not so, or it is no key.
        """

    @abstractmethod
    def stretch(self, secret: bytes, *, salt: bytes, info: bytes) -> bytes:
        """Return the 32 bytes that HKDF (RFC 5869) makes of ``secret``."""

    @abstractmethod
    def exchange_public(self, seed: bytes, info: bytes) -> bytes:
        """Return the public key of the agreement key that grows from ``seed``, for the purpose ``info``."""

    @abstractmethod
    def exchange(self, seed: bytes, info: bytes, publics: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """Return the secret shared with each of ``publics``.

        Raises:
            ValueError: one of them is no sound key.
        """

    @abstractmethod
    def check_exchange_key(self, public: bytes) -> None:
        """Pass if ``public`` is a sound key: one that leaves the shared secret open.

        Raises:
            ValueError: it is not.
        """

    def __repr__(self) -> str:
        return f"<crypto profile {self.name}>"
