"""Bytes in text fields, and the digest of everything that steers a site in a round."""

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

from fedsci.errors import InputError
from fedsci.transport.messages import Reply

#: Fields that carry a setup or the audit log along; they are checked on their own. All others are bound into the masks.
_UNBOUND = ("setup_batch", "setup_of", "setup_adverts", "setup_delivery", "log", "checkpoint")


def config_digest(plan_digest: str, action: str, fields: Mapping[str, Any]) -> bytes:
    """Return the SHA-256 of plan, action and every field that steers a site's computation in a round."""
    steering = {name: value for name, value in fields.items() if name not in _UNBOUND}
    text = json.dumps({"plan": plan_digest, "action": action, "fields": steering}, sort_keys=True)
    return hashlib.sha256(text.encode()).digest()


def pack(content: bytes) -> str:
    """Return bytes as text."""
    return b64encode(content).decode()


def unpack(text: object) -> bytes:
    """Return the bytes of :func:`pack`.

    Raises:
        InputError: it is not such a text.
    """
    try:
        return b64decode(text, validate=True) if isinstance(text, str) else _no_text(text)
    except ValueError:
        raise InputError("a field that should be base64 is not") from None


def _no_text(value: object) -> bytes:
    raise InputError(f"a field that should be base64 is a {type(value).__name__}")


def receipt_of(reply: Reply) -> str:
    """Return the digest of what an upload is: its vector, and what is said with it; both ends compute it."""
    said = {name: value for name, value in reply.fields.items() if name in ("header", "metrics")}
    vector = b"" if reply.vector is None else reply.vector.tobytes()
    about = json.dumps({"said": said, "vector": hashlib.sha256(vector).hexdigest()}, sort_keys=True)
    return "sha256:" + hashlib.sha256(about.encode()).hexdigest()
