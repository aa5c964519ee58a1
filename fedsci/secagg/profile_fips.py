"""The profile ``fips``: ECDSA and ECDH over P-384 with SHA-384, HKDF-SHA-384.

FIPS 186-5 (signatures), SP 800-186 (the curve), SP 800-56A (key agreement), SP 800-56C and RFC 5869 (derivation). What
that does and does not say about a validated module is in docs/security.md.

Public keys are uncompressed points, 97 bytes (SEC 1, section 2.3.3); a signature is ``r | s``, 48 bytes each, with
``s`` in the lower half: one spelling, since transcripts hash signatures.
"""

from collections.abc import Callable

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fedsci.secagg.profile import Profile

_CURVE = ec.SECP384R1()
# The order of the curve's group (SP 800-186, section 3.2.1.4); it is prime, so no point has small order.
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
_SCALAR_BYTES = 48
_EXTRA_BYTES = 8  # 64 bits more than the order has, so that the remainder is as good as uniform
_SIGNING = b"fedsci/fips/v1/signing key"


def _ecdsa() -> ec.ECDSA:
    """Return ECDSA with the nonce of RFC 6979, or a random one where the installed OpenSSL has no other."""
    try:
        return ec.ECDSA(SHA384(), deterministic_signing=True)
    except UnsupportedAlgorithm:
        return ec.ECDSA(SHA384())


class FipsProfile(Profile):
    """P-384 for both signatures and key agreement."""

    name = "fips"
    version = 0x81
    seed_bytes = 48
    verification_bytes = 97
    signature_bytes = 96
    exchange_bytes = 97

    def signer(self, seed: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
        """Return the public key of ECDSA over P-384, and what signs with it."""
        key = _private(seed, _SIGNING)

        def sign(body: bytes) -> bytes:
            r, s = decode_dss_signature(key.sign(body, _ecdsa()))
            return r.to_bytes(_SCALAR_BYTES, "big") + min(s, ORDER - s).to_bytes(_SCALAR_BYTES, "big")

        return _encoded(key), sign

    def verify(self, public: bytes, body: bytes, signature: bytes) -> None:
        """Pass if the signature holds and is spelled with the smaller ``s``."""
        r, s = (int.from_bytes(half, "big") for half in (signature[:_SCALAR_BYTES], signature[_SCALAR_BYTES:]))
        if len(signature) != self.signature_bytes or s > ORDER // 2:
            raise ValueError("the signature is not spelled as it should be")
        try:
            _point(public).verify(encode_dss_signature(r, s), body, ec.ECDSA(SHA384()))
        except InvalidSignature:
            raise ValueError("the signature does not hold") from None

    def stretch(self, secret: bytes, *, salt: bytes, info: bytes) -> bytes:
        """Return 32 bytes of HKDF-SHA-384."""
        return _hkdf(secret, salt=salt, info=info, size=32)

    def exchange_public(self, seed: bytes, info: bytes) -> bytes:
        """Return the P-384 public key."""
        return _encoded(_private(seed, info))

    def exchange(self, seed: bytes, info: bytes, publics: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """Return the ECDH shared secrets: x-coordinates of 48 bytes."""
        private = _private(seed, info)
        return tuple(private.exchange(ec.ECDH(), _point(public)) for public in publics)

    def check_exchange_key(self, public: bytes) -> None:
        """Pass if the key is a point of the curve, and not the one at infinity."""
        _point(public)


def _hkdf(secret: bytes, *, salt: bytes, info: bytes, size: int) -> bytes:
    return HKDF(algorithm=SHA384(), length=size, salt=salt, info=info).derive(secret)


def _private(seed: bytes, info: bytes) -> ec.EllipticCurvePrivateKey:
    """Return the key of a seed, by extra random bits (FIPS 186-5, A.2.1): ``HKDF mod (n - 1) + 1``."""
    stretched = _hkdf(seed, salt=b"", info=info, size=_SCALAR_BYTES + _EXTRA_BYTES)
    return ec.derive_private_key(int.from_bytes(stretched, "big") % (ORDER - 1) + 1, _CURVE)


def _encoded(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _point(public: bytes) -> ec.EllipticCurvePublicKey:
    """Return the key at a point; the library refuses what is not on the curve."""
    if len(public) != FipsProfile.verification_bytes:
        raise ValueError("no uncompressed point of P-384")
    return ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, public)
