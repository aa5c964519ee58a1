"""Key agreement, derivation and signatures, each under its own label.

X25519 (RFC 7748), Ed25519 (RFC 8032), HKDF-SHA256 (RFC 5869), SHA-256 (FIPS 180-4). Every derived key and
every signed or hashed message starts with a label that names its purpose, and every variable-length part is
preceded by its length, so that no two different inputs ever read the same.
"""

import hashlib
from collections.abc import Callable
from typing import NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedsci.errors import ProtocolError
from fedsci.secagg.seed import Seed

RandomBytes = Callable[[int], bytes]
"""Returns that many uniform secret bytes: the operating system's in production, seeded in tests."""

KEY_BYTES = 32
SIGNATURE_BYTES = 64
_PREFIX = b"fedsci/secagg/v1/"

_P = 2**255 - 19
# The u-coordinates of points of small order (RFC 7748, section 6.1; the list of curve25519's author).
_SMALL_ORDER = frozenset(
    {
        0,
        1,
        _P - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    }
)


def labelled(label: str, *parts: bytes) -> bytes:
    """Return ``prefix label | 0 | (length, part)*``; different arguments never give equal bytes."""
    framed = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    return _PREFIX + label.encode("ascii") + b"\0" + framed


def tagged_hash(label: str, *parts: bytes) -> bytes:
    """Return SHA-256 of :func:`labelled`; labels keep the uses of the hash apart."""
    return hashlib.sha256(labelled(label, *parts)).digest()


def derive(secret: Seed, *, salt: bytes, label: str, parts: tuple[bytes, ...] = ()) -> Seed:
    """Return the 32-byte HKDF-SHA256 key of ``secret`` for the purpose ``label`` and context ``parts``."""
    hkdf = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=labelled(label, *parts))
    return Seed(hkdf.derive(secret.reveal()))


def check_exchange_key(public: bytes) -> bytes:
    """Return an X25519 public key that is 32 bytes long and not of small order.

    Raises:
        ProtocolError: ``weak-key``; such a key would fix the shared secret in advance.
    """
    if len(public) != KEY_BYTES or (int.from_bytes(public, "little") & (2**255 - 1)) % _P in _SMALL_ORDER:
        raise ProtocolError("an exchange key has small order", rule="weak-key")
    return public


def _private(seed: Seed) -> X25519PrivateKey:
    key = derive(seed, salt=b"", label="exchange key")
    return X25519PrivateKey.from_private_bytes(key.reveal())


def exchange_public(seed: Seed) -> bytes:
    """Return the X25519 public key that grows from ``seed``."""
    return _private(seed).public_key().public_bytes_raw()


def exchange(seed: Seed, publics: tuple[bytes, ...]) -> tuple[Seed, ...]:
    """Return the X25519 shared secret of ``seed`` with each public key; refuses keys of small order."""
    private = _private(seed)
    try:
        return tuple(Seed(private.exchange(X25519PublicKey.from_public_bytes(public))) for public in publics)
    except ValueError as error:
        raise ProtocolError("an exchange key has small order", rule="weak-key") from error


class SigningKey:
    """A site's (or the consortium's) long-term Ed25519 key; prints as ``SigningKey(…)``.

    >>> SigningKey(Seed(bytes(32)))
    SigningKey(…)
    """

    __slots__ = ("_key", "public")

    def __init__(self, seed: Seed) -> None:
        if len(seed) != KEY_BYTES:
            raise ProtocolError("a signing key grows from 32 bytes", rule="weak-key")
        self._key = Ed25519PrivateKey.from_private_bytes(seed.reveal())
        self.public: bytes = self._key.public_key().public_bytes_raw()

    def sign(self, label: str, body: bytes) -> bytes:
        """Return the signature of ``body`` for the purpose ``label``."""
        return self._key.sign(labelled(label, body))

    def sign_exact(self, body: bytes) -> bytes:
        """Return the signature of ``body`` as it stands: for formats of others that name their own purpose first.

        Raises:
            ProtocolError: ``not-ours``: the body reads as one of this protocol's labelled messages.
        """
        if body.startswith(_PREFIX):
            raise ProtocolError("a labelled message is signed under its label", rule="not-ours")
        return self._key.sign(body)

    def __repr__(self) -> str:
        return "SigningKey(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SigningKey is never pickled")


def check_signature(public: bytes, label: str, body: bytes, signature: bytes, *, rule: str, who: str) -> None:
    """Refuse, under ``rule``, a signature that ``public`` did not make over ``body`` for ``label``."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, labelled(label, body))
    except (InvalidSignature, ValueError) as error:
        raise ProtocolError(f"the {label} signature of {who} is not valid", rule=rule) from error


def check_exact(public: bytes, body: bytes, signature: bytes, *, rule: str, who: str) -> None:
    """Refuse, under ``rule``, what :meth:`SigningKey.sign_exact` of ``public``'s owner did not return for ``body``."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, body)
    except (InvalidSignature, ValueError) as error:
        raise ProtocolError(f"the signature of {who} is not valid", rule=rule) from error
