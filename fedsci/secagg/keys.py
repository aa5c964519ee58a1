"""Key agreement, derivation and signatures, each under its own label, in the primitives of a crypto profile.

SHA-256 (FIPS 180-4); the rest is the profile's (:mod:`fedsci.secagg.profiles`). Every derived key and
every signed or hashed message starts with a label that names its purpose, and every variable-length part is
preceded by its length, so that no two different inputs ever read the same.
"""

import hashlib
from collections.abc import Callable
from typing import NoReturn

from fedsci.errors import ProtocolError
from fedsci.secagg.profile import Profile
from fedsci.secagg.profiles import DEFAULT, PROFILES, profile_of_key, profile_of_seed, require_profile
from fedsci.secagg.seed import Seed

RandomBytes = Callable[[int], bytes]
"""Returns that many uniform secret bytes: the operating system's in production, seeded in tests."""

_PREFIX = b"fedsci/secagg/v1/"
_EXCHANGE = "exchange key"


def labelled(label: str, *parts: bytes) -> bytes:
    """Return ``prefix label | 0 | (length, part)*``; different arguments never give equal bytes."""
    framed = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    return _PREFIX + label.encode("ascii") + b"\0" + framed


def tagged_hash(label: str, *parts: bytes) -> bytes:
    """Return SHA-256 of :func:`labelled`; labels keep the uses of the hash apart."""
    return hashlib.sha256(labelled(label, *parts)).digest()


def derive(secret: Seed, *, salt: bytes, label: str, parts: tuple[bytes, ...] = (), profile: Profile = DEFAULT) -> Seed:
    """Return the 32-byte HKDF key of ``secret`` for the purpose ``label`` and context ``parts``."""
    return Seed(profile.stretch(secret.reveal(), salt=salt, info=labelled(label, *parts)))


def check_exchange_key(public: bytes, profile: Profile = DEFAULT) -> bytes:
    """Return a public key that is sound.

    Raises:
        ProtocolError: ``weak-key``: it has another size, is no point of the curve, or is of small order, which would
            fix the shared secret in advance.
    """
    try:
        profile.check_exchange_key(public)
    except ValueError as error:
        raise _weak() from error
    return public


def exchange_public(seed: Seed, profile: Profile = DEFAULT) -> bytes:
    """Return the public key of key agreement that grows from ``seed``."""
    return profile.exchange_public(seed.reveal(), labelled(_EXCHANGE))


def exchange(seed: Seed, publics: tuple[bytes, ...], profile: Profile = DEFAULT) -> tuple[Seed, ...]:
    """Return the shared secret of ``seed`` with each public key; refuses weak keys."""
    try:
        return tuple(Seed(shared) for shared in profile.exchange(seed.reveal(), labelled(_EXCHANGE), publics))
    except ValueError as error:
        raise _weak() from error


def _weak() -> ProtocolError:
    return ProtocolError("an exchange key has small order, or is none", rule="weak-key")


class SigningKey:
    """A site's (or the consortium's) long-term key; prints as ``SigningKey(…)``.

    The size of the seed says of which crypto profile: Ed25519 from 32 bytes, ECDSA over P-384 from 48.

    Attributes:
        profile: its crypto profile.
        public: the verification key.

    >>> SigningKey(Seed(bytes(32)))
    SigningKey(…)
    """

    __slots__ = ("_sign", "profile", "public")

    def __init__(self, seed: Seed) -> None:
        profile = profile_of_seed(seed.reveal())
        if profile is None:
            sizes = " or ".join(str(one.seed_bytes) for one in PROFILES.values())
            raise ProtocolError(f"a signing key grows from {sizes} bytes", rule="weak-key")
        self.profile: Profile = profile
        self.public, self._sign = profile.signer(seed.reveal())

    def sign(self, label: str, body: bytes) -> bytes:
        """Return the signature of ``body`` for the purpose ``label``."""
        return self._sign(labelled(label, body))

    def sign_exact(self, body: bytes) -> bytes:
        """Return the signature of ``body`` as it stands: for formats of others that name their own purpose first.

        Raises:
            ProtocolError: ``not-ours``: the body reads as one of this protocol's labelled messages.
        """
        if body.startswith(_PREFIX):
            raise ProtocolError("a labelled message is signed under its label", rule="not-ours")
        return self._sign(body)

    def __repr__(self) -> str:
        return "SigningKey(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SigningKey is never pickled")


def check_signature(public: bytes, label: str, body: bytes, signature: bytes, *, rule: str, who: str) -> None:
    """Refuse, under ``rule``, a signature that ``public`` did not make over ``body`` for ``label``.

    Raises:
        ProtocolError: ``rule``, or ``wrong-profile`` if the signature is of another crypto profile than the key.
    """
    _check(public, labelled(label, body), signature, rule=rule, what=f"the {label} signature of {who}")


def check_exact(public: bytes, body: bytes, signature: bytes, *, rule: str, who: str) -> None:
    """Refuse, under ``rule``, what :meth:`SigningKey.sign_exact` of ``public``'s owner did not return for ``body``.

    Raises:
        ProtocolError: ``rule``, or ``wrong-profile`` if the signature is of another crypto profile than the key.
    """
    _check(public, body, signature, rule=rule, what=f"the signature of {who}")


def _check(public: bytes, body: bytes, signature: bytes, *, rule: str, what: str) -> None:
    profile = profile_of_key(public)
    try:
        if profile is None:
            raise ValueError("no verification key")
        for other in PROFILES.values():
            if other is not profile and len(signature) == other.signature_bytes:
                require_profile(other, profile, what)
        profile.verify(public, body, signature)
    except ValueError as error:
        raise ProtocolError(f"{what} is not valid", rule=rule) from error
