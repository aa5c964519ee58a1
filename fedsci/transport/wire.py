"""What both ends of the connection to SuperLink share: messages as objects, whole messages in one call, retries.

A message is a tree of objects. The small ones travel with it (``express.py``), the large ones after it, side by side;
then the message is complete and whoever waits for it is woken.
"""

import time
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
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectUnavailableError,
    inflate_object_from_contents,
    pull_objects,
)
from flwr.supercore.protobuf.client import ProtobufClient

from fedsci.transport.frames import pack_frames, unpack_frames
from fedsci.transport.object_files import SMALL_BYTES

#: Paths of the calls of ``express.py``, for sites and for a study.
SITE, STUDY = "/v1/fleet/fedsci-", "/v1/runtime/fedsci-"
#: Headers: how many seconds a call for messages may wait; this call completes a message; what an object belongs to.
WAIT, WAKE, RUN, SESSION, OBJECT = "fedsci-wait", "fedsci-wake", "fedsci-run", "fedsci-session", "fedsci-object"
#: A site that is silent for twice as long counts as gone; Flower allows 10 s to 30 min. Long, because a process that
#: loads torch on a busy machine is silent for 20 s; a killed one that comes back says so itself.
HEARTBEAT_S = 30.0
#: Answers that pass: the connection has outlived its certificate, or the other end is starting or overloaded.
_TRANSIENT = frozenset({421, 429, 502, 503, 504})
_CONNECTIONS = 5  # as many may be open that began with a certificate that has ended since
_FIRST_RETRY_S = 0.01
_CALL_S = 30.0
_LARGE_CALL_S = 120.0


def is_passing(error: Exception) -> bool:
    """Say whether a failed call may work if it is made again."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in _TRANSIENT
    return isinstance(error, httpx.TransportError)


class Line:
    """The calls of ``express.py``, over the connection that one of Flower's clients holds.

    Args:
        client: Flower's, connected and authenticated.
        prefix: :data:`SITE` or :data:`STUDY`.
        headers: sent with every call.
        heard: told the ``Date`` of every answer, and when the call began and ended by this machine's clock.
    """

    def __init__(
        self,
        client: ProtobufClient,
        prefix: str,
        headers: Mapping[str, str],
        *,
        heard: Callable[[str, float, float], object] = lambda date, began, ended: None,
    ) -> None:
        self._http, self._url, self._headers = client._client, client._base_url + prefix, dict(headers)
        self._heard = heard

    def begin(self, forerunner: bytes, process: bytes, last: str) -> int:
        """Be the process that serves this site and got message ``last`` as its last; return the site's node.

        Raises:
            httpx.HTTPError: no answer, or a refusal: 409 if another process serves it.
        """
        return int(self._post("begin", pack_frames([forerunner, process, last.encode("ascii")]), {}, _CALL_S).content)

    def receive(self, body: bytes, *, wait_s: float) -> list[bytes]:
        """Return the frames of the messages that are there, or that come in time.

        Raises:
            httpx.HTTPError: no answer, or a refusal.
        """
        answer = self._post("receive", body, {WAIT: f"{wait_s:g}"}, wait_s + _CALL_S).content
        return unpack_frames(answer) if answer else []

    def send(self, frames: Iterable[bytes]) -> bytes:
        """Deliver messages with their small objects; return what SuperLink says to it."""
        return self._post("send", pack_frames(frames), {}, _CALL_S).content

    def put(self, run_id: int, session: str, object_id: str, content: bytes, *, last: bool) -> None:
        """Deliver a large object."""
        headers = {RUN: str(run_id), SESSION: session, OBJECT: object_id} | ({WAKE: "1"} if last else {})
        self._post("put", content, headers, _LARGE_CALL_S)

    def get(self, run_id: int, object_id: str) -> bytes:
        """Return a large object.

        Raises:
            flwr's ObjectUnavailableError: it has not arrived yet.
            flwr's ObjectPullError: there is none.
        """
        try:
            response = self._post("get", b"", {RUN: str(run_id), OBJECT: object_id}, _LARGE_CALL_S)
        except httpx.HTTPStatusError as error:
            if error.response.status_code == httpx.codes.NOT_FOUND:
                raise ObjectPullError(object_id, "it is not there") from None
            raise
        if response.status_code == httpx.codes.ACCEPTED:
            raise ObjectUnavailableError(object_id)
        return response.content

    def _post(self, call: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> httpx.Response:
        for _ in range(_CONNECTIONS):
            began = time.time()
            response = self._http.post(
                self._url + call, content=body, headers=self._headers | dict(headers), timeout=timeout_s
            )
            self._heard(response.headers.get("date", ""), began, time.time())
            if response.status_code != httpx.codes.MISDIRECTED_REQUEST:
                break
        return response.raise_for_status()


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
    large: Mapping[str, Any], missing: Iterable[str], put: Callable[[str, bytes, bool], None], pool: Executor
) -> None:
    """Put the large objects that SuperLink does not have side by side, then the last one, marked as the last.

    They go in the order in which :func:`assemble` waits for them.
    """
    *others, last = sorted(missing)
    for _ in pool.map(lambda number: put(number, large[number].deflate(), False), others):
        pass
    put(last, large[last].deflate(), True)


def assemble(
    message_id: str, tree: ObjectTree, contents: Mapping[str, bytes], pull: Callable[[str], bytes], *, wait_s: float
) -> tuple[Message, bool]:
    """Return a message from the contents that came with it, pulling what did not; and whether anything was pulled.

    An object that has not arrived is waited for until none has for ``wait_s``: a slow line may take as long as it does.

    Raises:
        flwr's ObjectPullError: an object is gone, did not arrive in time, or together they are no message.
    """
    ids = [node.object_id for node in iterate_object_tree(tree)]
    missing = sorted(object_id for object_id in ids if object_id not in contents)
    parts = {object_id: contents[object_id] for object_id in ids if object_id in contents}
    heard = time.monotonic()

    def arriving(object_id: str) -> bytes:
        nonlocal heard
        try:
            content = pull(object_id)
        except ObjectUnavailableError:
            if time.monotonic() - heard > wait_s:
                raise ObjectPullError(object_id, "it did not arrive") from None
            raise
        heard = time.monotonic()
        return content

    if missing:
        parts |= pull_objects(
            missing,
            arriving,
            max_time=None,
            max_tries_per_object=None,
            initial_backoff=_FIRST_RETRY_S,
            backoff_cap=0.5,
        )
    try:
        message = inflate_object_from_contents(message_id, parts)
    except Exception as error:  # Flower parses what the other end made up, and names no errors for it
        raise ObjectPullError(message_id, f"it is no message ({type(error).__name__})") from None
    if not isinstance(message, Message):
        raise ObjectPullError(message_id, "it is no message")
    message.metadata.__dict__["_message_id"] = message_id
    return message, bool(missing)


def by_id(contents: Iterable[bytes]) -> dict[str, bytes]:
    """Return contents by the ids that they have: no one can pass one object off as another."""
    return {get_object_id(content): content for content in contents}
