"""What comes over the wire: Flower's objects with a message inside, frames, calls to SuperLink, paths and headers."""

import asyncio
import contextlib
import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError
from flwr.supercore.task_identity import TaskIdentity
from google.protobuf.message import DecodeError

from fedsci.errors import ConnectionFailed, InputError
from fedsci.transport.binding import pack, unpack
from fedsci.transport.codec import decode_reply, decode_request, encode
from fedsci.transport.express import CALLER
from fedsci.transport.frames import pack_frames, unpack_frames
from fedsci.transport.front import SITE_PATHS, Door
from fedsci.transport.messages import ACTIONS, Reply, Request
from fedsci.transport.site_app import answer
from fedsci.transport.wire import assemble, by_id
from tests.fuzz.engine import Target

_CALLER = b"-----BEGIN PUBLIC KEY-----"


def codec(data: bytes, *, decode: Callable[[RecordDict], Request | Reply]) -> None:
    """A body, and an array with any type, shape and bytes; what decodes travels on unchanged."""
    body, _, rest = data.partition(b"\n")
    records = RecordDict({"fedsci": ConfigRecord({"body": body.decode("utf-8", "surrogateescape")})})
    if rest:
        records["vector"] = ArrayRecord({"v": _array(rest)})
    decoded = decode(records)
    again = decode(encode(decoded))
    assert _same(again.fields, decoded.fields)
    if decoded.vector is not None:
        assert decoded.vector.nbytes <= len(data)


def _same(one: object, other: object) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _array(data: bytes) -> Array:
    """Return an array that says of itself what a first line says."""
    head, _, content = data.partition(b"\n")
    dtype, _, rest = head.decode("latin-1").partition(" ")
    stype, _, shape = rest.partition(" ")
    sizes = tuple(int(size) for size in shape.split(",")[:40] if size.strip("-").isdecimal() and len(size) < 30)
    return Array(dtype=dtype, shape=sizes, stype=stype, data=content)


def site_message(data: bytes) -> None:
    """A message of Flower's, in the objects that it is sent in; a site answers it, or takes it for none."""
    try:
        head, *contents = unpack_frames(data)
        tree = ObjectTree.FromString(head)
        message, _ = assemble(tree.object_id, tree, by_id(contents), _missing, wait_s=0.0)
    except (ValueError, DecodeError, ObjectPullError, RecursionError):  # the connection takes these for no message
        raise ConnectionFailed("no message") from None
    if not message.has_content():
        return
    reply = answer(lambda request: Reply(fields={"action": request.action}), message)
    assert reply.has_content()
    said = decode_reply(reply.content)
    assert said.error is None or said.error["code"] in ("connection", "internal")
    with contextlib.suppress(ConnectionFailed):
        decode_reply(message.content)


def body_of_message(data: bytes) -> None:
    """What a message holds, and its kind, sent in objects whose digests are right: all of the codec is behind them."""
    kind, _, rest = data.partition(b"\n")
    body, _, array = rest.partition(b"\n")
    try:
        records = RecordDict({"fedsci": ConfigRecord({"body": body.decode("utf-8")})})
        if array:
            records["vector"] = ArrayRecord({"v": _array(array)})
        content = _objects(records, kind.decode("ascii"))
    except (ValueError, TypeError):  # Flower makes no such message
        raise ConnectionFailed("no message") from None
    site_message(content)


def _missing(number: str) -> bytes:
    raise ObjectPullError(number, "it is not there")


def frames(data: bytes) -> None:
    """Frames; what is refused is a ValueError, which every reader of frames answers."""
    try:
        parts = unpack_frames(data)
    except ValueError:
        raise ConnectionFailed("no frames") from None
    assert pack_frames(parts) == data


def field(data: bytes) -> None:
    """A text field that carries bytes."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise InputError("no text") from None
    content = unpack(text)
    assert unpack(pack(content)) == content


def door(data: bytes) -> None:
    """A call at the public door: method, path and headers; what is let through is a site's call, as itself."""
    line, _, rest = data.partition(b"\n")
    method, _, path = line.decode("latin-1").partition(" ")
    headers = [(name.lower(), value.strip()) for name, _, value in (one.partition(b":") for one in rest.split(b"\n"))]
    reached: list[Any] = []
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope)

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    gate = Door(app, site="lab-1", public_key=_CALLER, until=2.0**33, is_revoked=lambda: False)
    asyncio.run(gate({"type": "http", "method": method, "path": path, "headers": headers}, receive, send))
    if reached:
        assert (reached[0]["path"] in SITE_PATHS, reached[0]["method"], reached[0][CALLER]) == (True, "POST", _CALLER)
    else:
        assert sent[0]["status"] in (403, 404, 405, 411, 413)


def _bodies(*, reply: bool) -> Mapping[str, bytes]:
    vector = np.arange(4, dtype=np.float32)
    body: dict[str, Any] = {"fields": {"round": 1, "records": {"lab-1": [40, 20]}, "run": "0" * 32}}
    body |= {"error": {"code": "input", "message": "no"}} if reply else {"action": "train"}
    text = json.dumps(body).encode()
    return {"plain": text, "array": text + b"\nfloat32 fedsci.raw.v1 2,2\n" + vector.tobytes()}


def _messages() -> Mapping[str, bytes]:
    found = {}
    for name, vector in (("plain", None), ("array", np.arange(4, dtype=np.float32))):
        found[name] = _objects(encode(Request(action="train", fields={"round": 1}, vector=vector)), ACTIONS["train"])
    return found


def _objects(records: RecordDict, kind: str) -> bytes:
    """Return a message in the frames of its objects."""
    TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 1  # as in a process of Flower's
    message = Message(records, 2, kind, ttl=60.0)
    message.metadata.__dict__["_message_id"] = message.object_id
    contents = [item.deflate() for item in get_all_nested_objects(message).values()]
    return pack_frames([get_object_tree(message).SerializeToString(), *contents])


_TYPES = (
    b"float64",
    b"object",
    b"<U4",
    b"V8",
    b"fedsci.raw.v1",
    b"numpy.ndarray",
    b"-1,",
    b"99999999999,",
    b"0,",
    b"\n",
)
_DOOR = b"POST /v1/fleet/fedsci-send\ncontent-length: 4\nflwr-public-key: "

TARGETS = [
    Target(
        name="codec-request",
        run=partial(codec, decode=decode_request),
        seeds=lambda: _bodies(reply=False),
        tokens=_TYPES,
        tries=120,
    ),
    Target(
        name="codec-reply",
        run=partial(codec, decode=decode_reply),
        seeds=lambda: _bodies(reply=True),
        tokens=_TYPES,
        tries=120,
    ),
    Target(name="site-message", run=site_message, seeds=_messages, fresh=True, tries=60),
    Target(
        name="message-body",
        run=body_of_message,
        seeds=lambda: {name: ACTIONS["train"].encode() + b"\n" + body for name, body in _bodies(reply=False).items()},
        tokens=_TYPES,
        headed=True,
        tries=100,
    ),
    Target(name="frames", run=frames, seeds=lambda: {"two": pack_frames([b"first", b""])}, tries=200),
    Target(name="base64-field", run=field, seeds=lambda: {"valid": b"AAEC/w=="}, tokens=(b"=", b"\n", b"-"), tries=120),
    Target(
        name="door",
        run=door,
        seeds=lambda: {"valid": _DOOR + b64encode(_CALLER)},
        tokens=(b"/../", b"%2e", b"content-length: ", b"\n", "²".encode(), b"-1", b"GET ", b"9" * 5000),
        tries=100,
    ),
]
