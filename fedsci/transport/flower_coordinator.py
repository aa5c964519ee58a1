"""The coordinator's side of Flower: the Grid by which a study, in the coordinator's process, reaches its sites."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import httpx
from flwr.app import Error, Message, Metadata
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode, SubStatus
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import (
    GetNodesRequest,
    PullAppMessagesRequest,
    PullAppMessagesResponse,
    PushAppMessagesRequest,
    PushAppMessagesResponse,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.serverapp import Grid
from flwr.supercore.constant import SYSTEM_MESSAGE_TYPE, TASK_TOKEN_HEADER
from flwr.supercore.inflatable.inflatable_object import (
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor
from flwr.supercore.run import Run
from flwr.supercore.runtime import RuntimeHttpClient

from fedsci.errors import ConnectionFailed
from fedsci.names import SiteId
from fedsci.transport.superlink_client import Result, flower_version, inner_client
from fedsci.transport.superlink_run import PATIENCE_S, begin_run
from fedsci.transport.superlink_sites import register_sites
from fedsci.transport.wire import STUDY, Line, assemble, by_id, is_passing, push_large, small_and_large

_HEARTBEAT_S = 10.0
_OUTAGE_S = 900.0
_WAIT_S = 1.0
_PAUSE_S = 0.2
_GLANCE_S = 0.02
_OBJECTS_WAIT_S = 60.0  # for the next of a reply's large objects


class SuperlinkGrid(Grid):
    """Flower's Grid over a SuperLink on this machine, for one study.

    A SuperLink that is away is waited for, up to 15 minutes: meanwhile messages are kept here, there are no replies,
    and nobody is connected. Replies are waited for at SuperLink, not polled.

    Attributes:
        nodes: the node of every registered site, by its certificate.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="grid")
        self._lost: dict[str, Message] = {}
        self._arriving: dict[str, Future[Message]] = {}
        self._unsent: list[list[Message]] = []
        self._away_since: float | None = None
        self._closed = threading.Event()
        token, self._run, self._task = begin_run(state)
        self.nodes: Mapping[SiteId, int] = register_sites(state, [], patience_s=PATIENCE_S)
        self._readers = ThreadPoolExecutor(max(1, len(self.nodes)), thread_name_prefix="reply")
        self._node = Node(node_id=SUPERLINK_NODE_ID)
        self._client = inner_client(
            RuntimeHttpClient, state, RuntimeTokenHttpInterceptor(token=token), flower_version()
        )
        self._line = Line(self._client, STUDY, {TASK_TOKEN_HEADER: token})
        self._pulse = inner_client(RuntimeHttpClient, state, RuntimeTokenHttpInterceptor(token=token), flower_version())
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def close(self, *, completed: bool = True) -> None:
        """End the run: sites get nothing more from it."""
        if self._closed.is_set():
            return
        self._closed.set()
        request = PushTaskOutputRequest(sub_status=SubStatus.COMPLETED if completed else SubStatus.FAILED)
        with contextlib.suppress(httpx.HTTPError):  # Flower ends the run when its heartbeats stop
            self._client.PushTaskOutput(request)
        self._pool.shutdown()
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._client.close()
        self._pulse.close()

    def __enter__(self) -> "SuperlinkGrid":
        return self

    def __exit__(self, kind: object, *exc_info: object) -> None:
        self.close(completed=kind is None)

    def set_run(self, run: Run) -> None:
        """Set Flower's run."""
        self._run = run

    @property
    def run(self) -> Run:
        """Flower's run."""
        return self._run

    def create_message(self, *_: Any, **__: Any) -> Message:
        """Deprecated in Flower; use ``Message(...)``."""
        raise TypeError("use flwr.app.Message(...)")

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes of the sites that are connected.

        Raises:
            ConnectionFailed: SuperLink did not come back, or gave the study up.
        """
        try:
            response = self._once(lambda: self._client.GetNodes(GetNodesRequest()))
        except _Away:
            return []
        ours = set(self.nodes.values())
        return [node.node_id for node in response.nodes if node.node_id in ours]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Hand messages over, now or when SuperLink is back, and return their ids.

        They become this study's, whichever study began last.

        Raises:
            ConnectionFailed: SuperLink gave the study up.
        """
        messages = list(messages)
        with no_object_id_recompute():
            for message in messages:
                about = message.metadata.__dict__  # Flower's own identity is one for the whole process
                about |= {"_run_id": self._run.run_id, "_src_task_id": self._task, "_src_node_id": SUPERLINK_NODE_ID}
                about["_message_id"] = message.object_id
        if messages:
            self._unsent.append(messages)
            with contextlib.suppress(_Away):
                self._push()
        return [message.metadata.message_id for message in messages]

    def _push(self) -> None:
        while self._unsent:
            self._once(lambda: self._push_all(self._unsent[0]))
            self._unsent.pop(0)

    def _push_all(self, messages: list[Message]) -> None:
        """Hand messages over; if that was done before, nothing happens."""
        with no_object_id_recompute():
            request = PushAppMessagesRequest(
                messages_list=[message_to_proto(remove_content_from_message(message)) for message in messages],
                message_object_trees=[get_object_tree(message) for message in messages],
            )
            small, large = small_and_large(messages)
            response = PushAppMessagesResponse.FromString(self._line.send([request.SerializeToString(), *small]))
            if response.objects_to_push:
                session, run_id = response.session_id, self._run.run_id

                def put(number: str, content: bytes, last: bool) -> None:
                    self._line.put(run_id, session, number, content, last=last)

                push_large(large, response.objects_to_push, put, self._pool)
        for message, taken in zip(messages, response.message_ids, strict=True):
            if not taken:
                self._lost[message.metadata.message_id] = _no_reply(message.metadata.message_id, self._run.run_id)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there; waits up to a second for the first.

        A reply that is still on its way in keeps no other back. Replies that are not asked for any more are dropped.

        Raises:
            ConnectionFailed: SuperLink did not come back, or gave the study up.
        """
        wanted = set(message_ids)
        for late in self._arriving.keys() - wanted:
            self._arriving.pop(late).cancel()
        try:
            self._push()
            there = [self._lost.pop(number) for number in wanted & self._lost.keys()]
            there += [self._arriving.pop(n).result() for n, one in list(self._arriving.items()) if one.done()]
            if there:
                return there
            unheard = wanted - self._arriving.keys()
            if not unheard:
                wait(self._arriving.values(), timeout=_WAIT_S, return_when=FIRST_COMPLETED)
                return []
            asked = PullAppMessagesRequest(message_ids=unheard).SerializeToString()
            wait_s = _GLANCE_S if self._arriving else _WAIT_S
            head, *contents = self._once(lambda: self._line.receive(asked, wait_s=wait_s)) or [b""]
        except _Away:
            time.sleep(_PAUSE_S)
            return []
        response, here = PullAppMessagesResponse.FromString(head), by_id(contents)
        replies = []
        for envelope, tree in zip(response.messages_list, response.message_object_trees, strict=True):
            if all(node.object_id in here for node in iterate_object_tree(tree)):
                replies.append(self._read(envelope, tree, here))
            else:
                sent = envelope.metadata.reply_to_message_id
                self._arriving[sent] = self._readers.submit(self._read, envelope, tree, here)
        return replies

    def _read(self, envelope: ProtoMessage, tree: ObjectTree, here: Mapping[str, bytes]) -> Message:
        """Return a reply, pulling what of it did not come along; one that cannot be had is an error."""
        number, sent = envelope.metadata.message_id, envelope.metadata.reply_to_message_id

        def pull(object_id: str) -> bytes:
            return self._again(lambda: self._line.get(self._run.run_id, object_id))

        try:
            message, pulled = assemble(number, tree, here, pull, wait_s=_OBJECTS_WAIT_S)
        except ObjectPullError:
            return _no_reply(sent, self._run.run_id)
        if pulled:
            confirm = ConfirmMessageReceivedRequest(node=self._node, run_id=self._run.run_id, message_object_id=number)
            self._again(lambda: self._client.ConfirmMessageReceived(confirm))
        if message.metadata.reply_to_message_id != sent:  # SuperLink checked the envelope, not what is in it
            return _no_reply(sent, self._run.run_id)
        return message

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push, wait for all or for ``timeout`` seconds, return the replies."""
        pending = set(self.push_messages(messages))
        deadline = time.monotonic() + (3600.0 if timeout is None else timeout)
        replies: list[Message] = []
        while pending and time.monotonic() < deadline:
            got = list(self.pull_messages(pending))
            replies += got
            pending -= {message.metadata.reply_to_message_id for message in got}
        return replies

    def _once(self, call: Callable[[], Result]) -> Result:
        """Make a call.

        Raises:
            _Away: SuperLink does not answer now.
            ConnectionFailed: it has not for long, or it refuses.
        """
        try:
            answer = call()
        except httpx.HTTPError as error:
            if isinstance(error, httpx.HTTPStatusError) and error.response.status_code in (401, 403):
                raise ConnectionFailed(
                    "SuperLink has given this study up",
                    hint=f"its run was stopped, or its database is gone (see {self._state / 'superlink.log'}); "
                    "submit the study again",
                ) from None
            if not is_passing(error):
                raise ConnectionFailed(f"SuperLink refused a call: {error}") from None
            self._away_since = self._away_since or time.monotonic()
            if time.monotonic() - self._away_since > _OUTAGE_S:
                raise ConnectionFailed(
                    f"SuperLink has not answered for {_OUTAGE_S:g} s", hint=f"see {self._state / 'superlink.log'}"
                ) from None
            raise _Away from None
        self._away_since = None
        return answer

    def _again(self, call: Callable[[], Result]) -> Result:
        """Make a call until it works: of a reply that has been taken, nothing may be lost."""
        while True:
            try:
                return self._once(call)
            except _Away:
                time.sleep(_PAUSE_S)

    def _beat(self) -> None:
        pause = _HEARTBEAT_S
        while not self._closed.wait(pause):
            try:
                self._pulse.SendTaskHeartbeat(SendTaskHeartbeatRequest())
                pause = _HEARTBEAT_S
            except (httpx.HTTPError, RuntimeError):  # RuntimeError: closed meanwhile
                pause = 1.0


class _Away(Exception):
    """SuperLink does not answer now."""


def connect_grid(state: Path) -> SuperlinkGrid:
    """Return a Grid for one study over the SuperLink of a coordinator's folder; close it when the study is over.

    Several studies of one process may have one each, in threads of their own.

    Raises:
        ConnectionFailed: SuperLink does not answer.
    """
    return SuperlinkGrid(state)


def _no_reply(sent: str, run_id: int) -> Message:
    metadata = Metadata(
        run_id=run_id,
        message_id="",
        src_node_id=SUPERLINK_NODE_ID,
        dst_node_id=SUPERLINK_NODE_ID,
        message_type=SYSTEM_MESSAGE_TYPE,
        group_id="",
        ttl=0,
        reply_to_message_id=sent,
        created_at=time.time(),
    )
    return make_message(metadata=metadata, error=Error(ErrorCode.MESSAGE_UNAVAILABLE, "lost on the way"))
