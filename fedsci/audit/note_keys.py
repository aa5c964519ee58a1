"""Who signs checkpoints, and how: all that is known of algorithms (C2SP signed-note and tlog-cosignature).

| key                    | the log's signature | a cosignature | signed                                       |
|------------------------|---------------------|---------------|----------------------------------------------|
| Ed25519, 32 bytes      | type 0x01           | type 0x04     | the note; ``cosignature/v1``, time, the note |
| ML-DSA-44, 1,312 bytes | -                   | type 0x06     | ``subtree/v1``, name, time, origin, size, root |
| any other              | type 0xff, named    | the same      | as with Ed25519                              |

A line carries the first four bytes of SHA-256(name | newline | type | public key), so that a signature for one purpose
is none for the other. What checks keys of other algorithms is :func:`fedsci.secagg.keys.check_exact`.
"""

import enum
import hashlib
from base64 import b64encode
from dataclasses import dataclass
from typing import NoReturn, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from fedsci.audit.checkpoint import LARGEST, Checkpoint
from fedsci.errors import ProtocolError, VerificationFailed
from fedsci.secagg.keys import check_exact
from fedsci.secagg.seed import Seed

SEED_BYTES = 32
ED25519_BYTES = 32
POST_QUANTUM_BYTES = 1312
_TIME_BYTES = 8
_SUBTREE = b"subtree/v1\n\0"


class Use(enum.Enum):
    """What a signature on a checkpoint says."""

    LOG = "note"
    """This is my log."""
    COSIGNER = "cosignature/v1"
    """It holds all that I have seen of it, and this is the newest."""


class Signer(Protocol):
    """A private key: :class:`fedsci.secagg.keys.SigningKey` or :class:`PostQuantumKey`."""

    public: bytes

    def sign_exact(self, body: bytes) -> bytes:
        """Return the signature of ``body`` as it stands."""
        ...


class PostQuantumKey:
    """A cosigner's ML-DSA-44 key (FIPS 204); prints as ``PostQuantumKey(…)``.

    >>> PostQuantumKey(Seed(bytes(32)))
    PostQuantumKey(…)
    """

    __slots__ = ("_key", "public")

    def __init__(self, seed: Seed) -> None:
        if len(seed) != SEED_BYTES:
            raise ProtocolError("a signing key grows from 32 bytes", rule="weak-key")
        self._key = MLDSA44PrivateKey.from_seed_bytes(seed.reveal())
        self.public: bytes = self._key.public_key().public_bytes_raw()

    def sign_exact(self, body: bytes) -> bytes:
        """Return the signature of a cosigner's message, 2,420 bytes, with an empty context.

        Raises:
            ProtocolError: ``not-ours``: it is another message.
        """
        if not body.startswith(_SUBTREE):
            raise ProtocolError("this key only cosigns checkpoints", rule="not-ours")
        return self._key.sign(body)

    def __repr__(self) -> str:
        return "PostQuantumKey(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a PostQuantumKey is never pickled")


@dataclass(frozen=True, kw_only=True)
class NoteKey:
    """A public key whose signatures on checkpoints are known.

    Attributes:
        name: the log's origin, or the site.
        public: the key's raw bytes.
        use: what it signs for.
    """

    name: str
    public: bytes
    use: Use

    @property
    def key_id(self) -> bytes:
        """The four bytes that name key, algorithm and use in a line."""
        return hashlib.sha256(self.name.encode() + b"\n" + _type(self.public, self.use) + self.public).digest()[:4]

    def line(self, signature: bytes) -> str:
        """Return a note's signature line, without its line end."""
        return f"— {self.name} {b64encode(self.key_id + signature).decode()}"

    def check(self, checkpoint: Checkpoint, signature: bytes) -> int:
        """Return when a checkpoint was signed, in seconds since 1970; 0 for a log's own signature, which has no time.

        Raises:
            VerificationFailed: this key did not sign it.
        """
        time = 0
        if self.use is Use.COSIGNER:
            time, signature = int.from_bytes(signature[:_TIME_BYTES], "big"), signature[_TIME_BYTES:]
        try:
            if time > LARGEST:
                raise ValueError
            body = _message(self, checkpoint, time)
            if _is_post_quantum(self.public):
                MLDSA44PublicKey.from_public_bytes(self.public).verify(signature, body)
            else:
                check_exact(self.public, body, signature, rule="note", who=self.name)
        except (InvalidSignature, ProtocolError, ValueError):
            problem = f"the signature of {self.name} on the checkpoint is not valid"
            raise VerificationFailed(problem, field="signature") from None
        return time


def log_key(origin: str, public: bytes) -> NoteKey:
    """Return the key that signs the log itself: the coordinator's."""
    return NoteKey(name=origin, public=public, use=Use.LOG)


def cosigner_key(site: str, public: bytes) -> NoteKey:
    """Return the key of a site that cosigns."""
    return NoteKey(name=site, public=public, use=Use.COSIGNER)


def log_line(checkpoint: Checkpoint, signer: Signer) -> str:
    """Return the coordinator's signature line."""
    key = log_key(checkpoint.origin, signer.public)
    return key.line(signer.sign_exact(_message(key, checkpoint, 0)))


def cosignature_line(checkpoint: Checkpoint, site: str, signer: Signer, *, time: int) -> str:
    """Return a site's cosignature line; ``time`` is in seconds since 1970."""
    key = cosigner_key(site, signer.public)
    return key.line(time.to_bytes(_TIME_BYTES, "big") + signer.sign_exact(_message(key, checkpoint, time)))


def _is_post_quantum(public: bytes) -> bool:
    return len(public) == POST_QUANTUM_BYTES


def _type(public: bytes, use: Use) -> bytes:
    if len(public) == ED25519_BYTES:
        return b"\x01" if use is Use.LOG else b"\x04"
    if _is_post_quantum(public):
        if use is Use.LOG:
            raise VerificationFailed("an ML-DSA-44 key cosigns and signs no log")
        return b"\x06"
    return b"\xfffedsci ecdsa-p384-sha384 " + use.value.encode() + b"\n"


def _message(key: NoteKey, checkpoint: Checkpoint, time: int) -> bytes:
    if _is_post_quantum(key.public):
        name, origin = key.name.encode(), checkpoint.origin.encode()
        framed = bytes([len(name)]) + name + time.to_bytes(_TIME_BYTES, "big") + bytes([len(origin)]) + origin
        return _SUBTREE + framed + (0).to_bytes(8, "big") + checkpoint.size.to_bytes(8, "big") + checkpoint.root
    if key.use is Use.COSIGNER:
        return f"cosignature/v1\ntime {time}\n".encode() + checkpoint.body()
    return checkpoint.body()
