"""What both ends of the connection to SuperLink share: Flower's HTTP clients, extra headers, objects in and out.

Flower sends a message as a tree of objects, each pushed and pulled by a call of its own. Here the message itself goes
last, so that it is complete when the other end is woken for it.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any

import httpx
from flwr.app import Message
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents, pull_objects
from flwr.supercore.interceptors.http.utils import add_headers
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext

WAIT = "fedsci-wait"
WAKE = "fedsci-wake"
#: Answers that pass: the other end is starting or overloaded.
TRANSIENT = frozenset({429, 502, 503, 504})


class ExtraHeaders:
    """Adds headers to the calls that a thread makes inside :meth:`sending`."""

    def __init__(self) -> None:
        self._local = threading.local()

    @contextmanager
    def sending(self, **headers: str) -> Iterator[None]:
        """Send these headers; underscores become hyphens."""
        self._local.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            yield
        finally:
            self._local.headers = {}

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Flower's hook."""
        add_headers(context.request, getattr(self._local, "headers", {}))
        return call_next(context)


def is_passing(error: Exception) -> bool:
    """Say whether a failed call may work if it is made again."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in TRANSIENT
    return isinstance(error, httpx.TransportError)


def push_message_objects(
    messages: Iterable[Message], wanted: set[str], push: Callable[[str, bytes], None], finish: Callable[[str, bytes], None],
    pool: Executor,
) -> None:
    """Push the wanted objects of messages: parts side by side, then the messages, the last one with ``finish``."""
    heads: dict[str, Message] = {}
    parts: dict[str, Any] = {}
    for message in messages:
        for object_id, item in get_all_nested_objects(message).items():
            if object_id in wanted:
                (heads if item is message else parts)[object_id] = item
    for _ in pool.map(lambda item: push(item[0], item[1].deflate()), parts.items()):
        pass
    for number, (object_id, message) in enumerate(heads.items(), start=1):
        (finish if number == len(heads) else push)(object_id, message.deflate())


def pull_message(message_id: str, tree: ObjectTree, pull: Callable[[str], bytes], *, wait_s: float) -> Message:
    """Return a message whose objects are pulled.

    Raises:
        flwr's ObjectPullError: an object is gone, or did not arrive in time.
    """
    ids = [node.object_id for node in iterate_object_tree(tree)]
    contents = pull_objects(
        ids, pull, max_time=wait_s, max_tries_per_object=None, initial_backoff=0.01, backoff_cap=0.5
    )
    message = inflate_object_from_contents(message_id, contents)
    if not isinstance(message, Message):
        raise TypeError("Flower parsed a message into something else")
    message.metadata.__dict__["_message_id"] = message_id
    return message


