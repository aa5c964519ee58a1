"""Statements: canonical JSON (RFC 8785) in an envelope (DSSE 1.0) that names what it is, signed by whom it binds.

A statement's identity is the SHA-256 of its payload, not of its envelope: who signs besides changes nothing in it.
"""

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import rfc8785
from securesystemslib.dsse import Envelope
from securesystemslib.signer import Signature  # type: ignore[attr-defined]

from fedsci.errors import ProtocolError, VerificationFailed
from fedsci.names import Digest
from fedsci.secagg.keys import SigningKey, check_exact

_TYPE = "application/vnd.fedsci.{}.v1+json"
MOST_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What somebody signed.

    Attributes:
        kind: ``permit``, ``decision``, ...: the purpose it was signed for.
        body: JSON values.
        digest: of the canonical payload.
        signers: public keys whose signatures were checked, in the order they were asked for.
        envelope: the signed bytes, as they were read.
    """

    kind: str
    body: Mapping[str, Any]
    digest: Digest
    signers: tuple[bytes, ...]
    envelope: bytes


def key_id(public: bytes) -> str:
    """Return the name of a public key in envelopes: its SHA-256, hexadecimal."""
    return hashlib.sha256(public).hexdigest()


def canonical(values: Any) -> bytes:
    """Return JSON values as their only canonical bytes (RFC 8785).

    Raises:
        VerificationFailed: NaN, infinity, an integer beyond 2^53, or what is no JSON.
    """
    try:
        return rfc8785.dumps(values)
    except (rfc8785.CanonicalizationError, RecursionError, ValueError) as error:
        raise VerificationFailed(f"these values have no canonical form: {error}") from None


def digest_of(values: Any) -> Digest:
    """Return the SHA-256 of JSON values in their canonical form."""
    return Digest("sha256:" + hashlib.sha256(canonical(values)).hexdigest())


def sign_statement(kind: str, body: Mapping[str, Any], signers: Iterable[SigningKey]) -> bytes:
    """Return ``body`` in an envelope, signed by each of ``signers`` for the purpose ``kind``; a file's content."""
    envelope = Envelope(canonical(dict(body)), _TYPE.format(kind), {})
    return _with(envelope, signers)


def add_signature(content: bytes, signer: SigningKey) -> bytes:
    """Return the envelope with one signature more; those that are there stay, unchecked."""
    return _with(_read(content), [signer])


def open_statement(kind: str, content: bytes, keys: Iterable[bytes]) -> Statement:
    """Return the statement, signed by *each* of ``keys``; further signatures count for nothing.

    Args:
        kind: the purpose it must have been signed for.
        content: an envelope.
        keys: public keys, all different.

    Raises:
        VerificationFailed: no envelope, another purpose, not canonical, or a signature missing or wrong.
    """
    envelope, wanted = _read(content), tuple(keys)
    if not wanted or len(set(wanted)) != len(wanted):
        raise VerificationFailed(f"a {kind} needs signers, each once")
    if envelope.payload_type != _TYPE.format(kind):
        raise VerificationFailed(f"this is a {envelope.payload_type!r}, not a {kind}")
    for public in wanted:
        signature = envelope.signatures.get(key_id(public))
        if signature is None:
            raise VerificationFailed(f"the {kind} is not signed by key {key_id(public)[:12]}")
        try:
            check_exact(public, envelope.pae(), bytes.fromhex(signature.signature), rule="statement", who=f"a {kind}")
        except ProtocolError:
            raise VerificationFailed(f"the signature of key {key_id(public)[:12]} on the {kind} is not valid") from None
    return Statement(
        kind=kind,
        body=_body(envelope.payload),
        digest=Digest("sha256:" + hashlib.sha256(envelope.payload).hexdigest()),
        signers=wanted,
        envelope=content,
    )


def peek(content: bytes) -> tuple[str, Mapping[str, Any]]:
    """Return purpose and body of an envelope whose signatures nobody has checked: for finding out whose they must be.

    Raises:
        VerificationFailed: it is no envelope of ours.
    """
    envelope = _read(content)
    before, after = _TYPE.split("{}")
    kind = envelope.payload_type.removeprefix(before).removesuffix(after)
    if _TYPE.format(kind) != envelope.payload_type:
        raise VerificationFailed(f"{envelope.payload_type!r} is no statement of fedsci")
    return kind, _body(envelope.payload)


def _with(envelope: Envelope, signers: Iterable[SigningKey]) -> bytes:
    for signer in signers:
        keyid = key_id(signer.public)
        envelope.signatures[keyid] = Signature(keyid, signer.sign_exact(envelope.pae()).hex())
    return (json.dumps(envelope.to_dict(), sort_keys=True) + "\n").encode()


def _read(content: bytes) -> Envelope:
    if len(content) > MOST_BYTES:
        raise VerificationFailed(f"a statement of {len(content)} bytes passes {MOST_BYTES}")
    try:
        values = json.loads(content)
        if set(values) != {"payload", "payloadType", "signatures"}:
            raise ValueError
        envelope = Envelope.from_dict(values)
        # one spelling only: base64 has several for the same bytes
        if b64encode(envelope.payload).decode() != json.loads(content)["payload"]:
            raise ValueError
        for text in (envelope.payload_type, *envelope.signatures):  # both may hold halves of characters, or be no text
            text.encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise VerificationFailed("this is no DSSE envelope") from None
    except Exception as error:  # securesystemslib has errors of its own for a signature's form
        raise VerificationFailed(f"this is no DSSE envelope ({type(error).__name__})") from None
    return envelope


def _body(payload: bytes) -> Mapping[str, Any]:
    try:
        body = json.loads(payload)
    except (ValueError, RecursionError):
        raise VerificationFailed("the statement's payload is no JSON") from None
    if not isinstance(body, dict) or canonical(body) != payload:
        raise VerificationFailed("the statement's payload is not canonical")
    return body
