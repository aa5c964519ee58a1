"""The profile ``default``: X25519 (RFC 7748), Ed25519 (RFC 8032), HKDF-SHA256 (RFC 5869)."""

from collections.abc import Callable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedsci.secagg.profile import Profile

_P = 2**255 - 19
# The u-coordinates of points of small order (RFC 7748, section 6.1; the list of curve25519's author).
SMALL_ORDER = frozenset(
    {
        0,
        1,
        _P - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    }
)


class DefaultProfile(Profile):
    """Curve25519 for both signatures and key agreement."""

    name = "default"
    version = 0x01
    seed_bytes = 32
    verification_bytes = 32
    signature_bytes = 64
    exchange_bytes = 32

    def signer(self, seed: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
        """Return the Ed25519 public key, and what signs with it."""
        key = Ed25519PrivateKey.from_private_bytes(seed)
        return key.public_key().public_bytes_raw(), key.sign

    def verify(self, public: bytes, body: bytes, signature: bytes) -> None:
        """Pass if the signature holds."""
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, body)
        except InvalidSignature:
            raise ValueError("the signature does not hold") from None

    def stretch(self, secret: bytes, *, salt: bytes, info: bytes) -> bytes:
        """Return 32 bytes of HKDF-SHA256."""
        return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(secret)

    def exchange_public(self, seed: bytes, info: bytes) -> bytes:
        """Return the X25519 public key."""
        return self._private(seed, info).public_key().public_bytes_raw()

    def exchange(self, seed: bytes, info: bytes, publics: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """Return the X25519 shared secrets; the library refuses those that are zero."""
        private = self._private(seed, info)
        return tuple(private.exchange(X25519PublicKey.from_public_bytes(public)) for public in publics)

    def check_exchange_key(self, public: bytes) -> None:
        """Pass if the key is 32 bytes long and not of small order, which would fix the shared secret in advance."""
        if len(public) != 32 or (int.from_bytes(public, "little") & (2**255 - 1)) % _P in SMALL_ORDER:
            raise ValueError("the key has small order")

    def _private(self, seed: bytes, info: bytes) -> X25519PrivateKey:
        return X25519PrivateKey.from_private_bytes(self.stretch(seed, salt=b"", info=info))
