"""What both ends of the connection to SuperLink share: messages as objects, whole messages in one call, retries.

A message is a tree of objects. The small ones travel with it (``express.py``), the large ones by Flower's calls, side
by side; then the message is complete and whoever waits for it is woken.
"""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from typing import Any

import httpx
from flwr.app import Message
from flwr.app.message.arraychunk import ArrayChunk
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_id,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents, pull_objects
from flwr.supercore.interceptors.http.utils import add_headers
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufClient, ProtobufRequestContext

SITE_RECEIVE = "/v1/fleet/fedsci-receive"
SITE_SEND = "/v1/fleet/fedsci-send"
STUDY_RECEIVE = "/v1/runtime/fedsci-receive"
STUDY_SEND = "/v1/runtime/fedsci-send"
#: Objects up to this size travel with their message.
SMALL_BYTES = 64 * 1024
#: Answers that pass: the other end is starting or overloaded.
_TRANSIENT = frozenset({429, 502, 503, 504})
_FROM_SENDER_S = 0.01


class Wake:
    """A Flower interceptor that marks the calls made while it is on, so that SuperLink's end wakes who waits."""

    def __init__(self) -> None:
        self.on = False

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Flower's hook."""
        if self.on:
            add_headers(context.request, {"fedsci-wake": "1"})
        return call_next(context)


def is_passing(error: Exception) -> bool:
    """Say whether a failed call may work if it is made again."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in _TRANSIENT
    return isinstance(error, httpx.TransportError)


def post(client: ProtobufClient, path: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float) -> bytes:
    """Make one of the calls of ``express.py`` over the connection that Flower's client holds.

    Raises:
        httpx.HTTPError: no answer, or a refusal.
    """
    response = client._client.post(client._base_url + path, content=body, headers=dict(headers), timeout=timeout_s)
    response.raise_for_status()
    return response.content


def small_and_large(messages: Iterable[Message]) -> tuple[list[bytes], dict[str, Any]]:
    """Return the contents of the messages' small objects, and the large objects by id; shared ones once."""
    small: dict[str, bytes] = {}
    large: dict[str, Any] = {}
    for message in messages:
        for object_id, item in get_all_nested_objects(message).items():
            if object_id in small or object_id in large:
                continue
            if isinstance(item, ArrayChunk) and len(item.data) > SMALL_BYTES // 2:
                large[object_id] = item  # sent piece by piece: no second copy of a whole model
                continue
            content = item.deflate()
            if len(content) <= SMALL_BYTES:
                small[object_id] = content
            else:
                large[object_id] = item
    return list(small.values()), large


def push_large(
    large: Mapping[str, Any], missing: Iterable[str], push: Callable[[str, bytes], None], wake: Wake, pool: Executor
) -> None:
    """Push the large objects that SuperLink does not have, the last one with a wake-up."""
    *others, last = missing
    for _ in pool.map(lambda number: push(number, large[number].deflate()), others):
        pass
    wake.on = True
    try:
        push(last, large[last].deflate())
    finally:
        wake.on = False


def assemble(
    message_id: str, tree: ObjectTree, contents: Mapping[str, bytes], pull: Callable[[str], bytes], *, wait_s: float
) -> tuple[Message, bool]:
    """Return a message from the contents that came with it, pulling what did not; and whether anything was pulled.

    Raises:
        flwr's ObjectPullError: an object is gone, or did not arrive in time.
    """
    ids = [node.object_id for node in iterate_object_tree(tree)]
    missing = [object_id for object_id in ids if object_id not in contents]
    parts = {object_id: contents[object_id] for object_id in ids if object_id in contents}
    if missing:
        parts |= pull_objects(
            missing,
            pull,
            max_time=wait_s,
            max_tries_per_object=None,
            initial_backoff=_FROM_SENDER_S,
            backoff_cap=0.5,
        )
    message = inflate_object_from_contents(message_id, parts)
    if not isinstance(message, Message):
        raise TypeError("Flower parsed a message into something else")
    message.metadata.__dict__["_message_id"] = message_id
    return message, bool(missing)


def by_id(contents: Iterable[bytes]) -> dict[str, bytes]:
    """Return contents by the ids that they have: no one can pass one object off as another."""
    return {get_object_id(content): content for content in contents}
