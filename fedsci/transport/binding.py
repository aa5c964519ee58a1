"""Bytes in text fields, and the digest of everything that steers a site in a round."""

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

from fedsci.errors import InputError

#: Fields that carry a setup along; they are checked on their own. All others are bound into the masks.
_UNBOUND = ("setup_batch", "setup_of", "setup_adverts", "setup_delivery")


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
