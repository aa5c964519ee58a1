"""Requests and replies as Flower RecordDicts: one JSON text and at most one raw array.

Few, flat objects: Flower spends milliseconds on each. The array travels as its raw little-endian bytes.
"""

import json
from collections.abc import Mapping
from math import isfinite, prod
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedsci.errors import ConnectionFailed
from fedsci.transport.messages import ACTIONS, DTYPES, Reply, Request, Vector

_STYPE = "fedsci.raw.v1"
_MAX_FIELDS_BYTES = 16 * 1024 * 1024


def encode(message: Request | Reply) -> RecordDict:
    """Return the RecordDict that carries ``message``."""
    body: dict[str, Any] = {"fields": message.fields}
    if isinstance(message, Request):
        body["action"] = message.action
    elif message.error is not None:
        body["error"] = message.error
    text = json.dumps(body, separators=(",", ":"), allow_nan=False)
    records = RecordDict({"fedsci": ConfigRecord({"body": text})})
    if message.vector is not None:
        records["vector"] = encode_vector(message.vector)
    return records


def encode_vector(vector: Vector) -> ArrayRecord:
    """Return the record of one array; it may be put into many messages."""
    little = np.ascontiguousarray(vector, dtype=vector.dtype.newbyteorder("<"))
    array = Array(dtype=vector.dtype.name, shape=tuple(vector.shape), stype=_STYPE, data=little.tobytes())
    return ArrayRecord({"v": array})


def decode_request(records: RecordDict) -> Request:
    """Return the request.

    Raises:
        ConnectionFailed: it is not one.
    """
    body = _body(records)
    action = body.get("action")
    if not isinstance(action, str) or action not in ACTIONS:
        raise ConnectionFailed(f"unknown action {action!r}")
    return Request(action=action, fields=_mapping(body, "fields"), vector=_vector(records))


def decode_reply(records: RecordDict) -> Reply:
    """Return the reply.

    Raises:
        ConnectionFailed: it is not one.
    """
    body = _body(records)
    error = _mapping(body, "error") if "error" in body else None
    return Reply(fields=_mapping(body, "fields"), vector=_vector(records), error=error)


def _body(records: RecordDict) -> dict[str, Any]:
    try:
        text = records.config_records["fedsci"]["body"]
    except KeyError:
        raise ConnectionFailed("a message without a body") from None
    if not isinstance(text, str) or len(text) > _MAX_FIELDS_BYTES:
        raise ConnectionFailed("a message whose body is no text, or too long")
    try:
        body = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError):
        raise ConnectionFailed("a message whose body is not JSON") from None
    if not isinstance(body, dict):
        raise ConnectionFailed("a message whose body is not a mapping")
    return body


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):  # 1e999
        raise ValueError(f"{text[:20]} is beyond all floats")
    return number


def _mapping(body: dict[str, Any], name: str) -> Mapping[str, Any]:
    value = body.get(name, {})
    if not isinstance(value, dict):
        raise ConnectionFailed(f"a message whose {name} is not a mapping")
    return value


def _vector(records: RecordDict) -> Vector | None:
    if "vector" not in records.array_records:
        return None
    array = records.array_records["vector"].get("v")
    if array is None or array.stype != _STYPE or array.dtype not in DTYPES:
        raise ConnectionFailed("a message whose array has an unknown type")
    kind = np.dtype(array.dtype).newbyteorder("<")
    if any(size < 0 for size in array.shape) or len(array.data) != prod(array.shape) * kind.itemsize:
        raise ConnectionFailed("a message whose array has another length than it says")
    try:
        return np.frombuffer(array.data, dtype=kind).reshape(tuple(array.shape))
    except ValueError:  # more dimensions, or larger ones, than arrays have
        raise ConnectionFailed("a message whose array has a shape that no array has") from None
