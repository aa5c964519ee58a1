"""A site's side of Flower: one warm process that asks for messages, answers them with installed code, and comes back.

Flower's own SuperNode would run an app bundle sent by the coordinator. This loop never asks for one: what a message
names is looked up among the actions in ``messages.py``.
"""

import contextlib
import fcntl
import logging
import os
import random
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import httpx
from flwr.app import Error, Message, Metadata
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
from flwr.supercore.inflatable.inflatable_object import get_object_tree, no_object_id_recompute
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient

from fedsci.errors import ConnectionFailed, InputError
from fedsci.transport.clock import Clock, Signature, ask_time
from fedsci.transport.messages import Handler
from fedsci.transport.site_app import answer
from fedsci.transport.tls import SiteTls
from fedsci.transport.wire import SITE, Line, assemble, by_id, is_passing, push_large, small_and_large

#: A site that is silent for twice as long counts as gone. Flower allows 10 s to 30 min.
HEARTBEAT_S = 10.0
_SHORTEST_POLL_S = 0.05
_LONGEST_BACKOFF_S = 30.0
_OBJECTS_WAIT_S = 120.0
_CALL_S = 30.0
_PROCESS_ENDED = 2  # flwr.common.constant.ErrorCode.CLIENT_APP_RAISED_EXCEPTION
_IN_FLIGHT = "in-flight"
_CLOCKS_AGREE_S = 2.0
_LOST_S = 60.0
_OUT_OF_DATE = ("certificate is not yet valid", "certificate has expired")

_log = logging.getLogger("fedsci.site")
Result = TypeVar("Result")


class SiteConnection:
    """Serves a site's handler to the coordinator until told to stop, whatever happens to the connection.

    Args:
        handler: answers requests; its errors leave as codes only.
        address: ``host:port`` of the coordinator's door.
        tls: the site's certificate and key, and the root to trust.
        state: folder of the site; remembers the message in work, so that a restarted site can say that it lost it.
        idle_wait_s: how long one call may wait for a message; stopping takes as long.
        notice: told ``connected``, or why there is no connection.
        clock: told by how many seconds this machine's clock is ahead of the coordinator's, whenever that changes.
        late: told the type of a message whose time was over before it was begun, or before it was answered.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        address: str,
        tls: SiteTls,
        state: Path,
        idle_wait_s: float = 5.0,
        notice: Callable[[str], None] = lambda text: None,
        clock: Callable[[float], None] = lambda ahead_s: None,
        late: Callable[[str, str], None] = lambda message_type, when: None,
    ) -> None:
        self._handler, self._address, self._tls = handler, address, tls
        self._state, self._in_flight = state, state / _IN_FLIGHT
        self._idle_wait_s, self._notice, self._late = idle_wait_s, notice, late
        self._clock = Clock(clock)
        self._stop = threading.Event()

    def stop(self) -> None:
        """Let :meth:`serve` return, after the message in work; callable from anywhere, also from a signal handler."""
        self._stop.set()

    def serve(self) -> None:
        """Answer until :meth:`stop`.

        Raises:
            ConfigError: the site's TLS files cannot be used.
            InputError: another process serves this site already.
        """
        self._state.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(self._state / "connection.lock", os.O_WRONLY | os.O_CREAT, 0o600), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"another process serves this site already (its folder is {self._state})") from None
            self._serve()

    def _serve(self) -> None:
        context, key = self._tls.context(), self._tls.private_key()
        public_key = public_key_to_bytes(key.public_key())
        failures, last = 0, ""
        while not self._stop.is_set():
            client = FleetHttpClient(
                f"https://{self._address}",
                interceptors=[Signature(key, self._clock)],
                verify=context,
            )
            try:
                with client, _active(client, public_key) as node:
                    failures, last = 0, ""
                    self._notice("connected")
                    self._work(_Node(client, node, public_key, self._stop, self._clock))
            except (httpx.HTTPError, OSError, ConnectionFailed) as error:
                reason = _reason(error)
                if any(text in reason for text in _OUT_OF_DATE):
                    ask_time(self._address, self._tls.context(), self._clock)
                    reason = "by this machine's clock the coordinator's certificate is out of date"
                if reason != last:
                    self._notice(f"no connection to {self._address}: {reason}")
                last = reason
                failures += 1
                self._pause(failures)

    def _work(self, node: "_Node") -> None:
        self._report_lost(node)
        failures = 0
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                message = node.receive(wait_s=self._idle_wait_s)
            except httpx.HTTPError as error:
                if not is_passing(error):
                    raise
                # keep the node: who activates it anew is refused until Flower has noticed that it was gone
                if not failures:
                    self._notice(f"no connection to {self._address}: {_reason(error)}")
                failures += 1
                self._pause(failures)
                continue
            if failures:
                self._notice("connected")
            failures = 0
            if message is not None:
                about = message.metadata
                if node.is_over():
                    self._late(about.message_type, "not begun")
                    continue
                self._remember(message)
                reply = answer(self._handler, message)
                del message
                if node.is_over():
                    self._late(about.message_type, "not sent")
                else:
                    node.send(reply, about)
                self._in_flight.unlink(missing_ok=True)
            elif time.monotonic() - began < _SHORTEST_POLL_S:  # the other end does not wait: never spin
                self._stop.wait(random.uniform(1, 2) * _SHORTEST_POLL_S)  # noqa: S311

    def _pause(self, failures: int) -> None:
        pause = min(_LONGEST_BACKOFF_S, 0.25 * 2.0 ** min(failures, 10))
        self._stop.wait(pause * random.uniform(0.75, 1.25))  # noqa: S311 (spreads sites, no secret)

    def _remember(self, message: Message) -> None:
        """Keep a message's envelope; where the disk is full, a coordinator waits longer for a process that ended."""
        content = message_to_proto(remove_content_from_message(message)).SerializeToString()
        with contextlib.suppress(OSError):
            descriptor = os.open(self._in_flight, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)

    def _report_lost(self, node: "_Node") -> None:
        """Say that the message that was in work when the process ended will not be answered."""
        with contextlib.suppress(FileNotFoundError):
            content = self._in_flight.read_bytes()
            with contextlib.suppress(Exception):  # half written: the coordinator finds out by its clock
                lost = message_from_proto(MessageProto.FromString(content))
                node.send(Message(Error(_PROCESS_ENDED, "the site's process ended"), reply_to=lost), lost.metadata)
            self._in_flight.unlink(missing_ok=True)


class _Node:
    """One activated connection: messages in, messages out."""

    def __init__(
        self, client: FleetHttpClient, node: Node, public_key: bytes, stop: threading.Event, clock: Clock
    ) -> None:
        self._client, self._node, self._stop, self._clock = client, node, stop, clock
        self._until = time.monotonic() + _LOST_S
        self._line = Line(client, SITE, {FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public_key).decode("ascii")})

    def receive(self, *, wait_s: float) -> Message | None:
        """Return the next message, or None if there was none for ``wait_s`` seconds."""
        head, *contents = self._line.receive(b"", wait_s=wait_s) or [b""]
        if not head:
            return None
        response = PullMessagesResponse.FromString(head)
        envelope = message_from_proto(response.messages_list[0])
        self._count_down(envelope.metadata)
        run_id, number = envelope.metadata.run_id, envelope.metadata.message_id

        def pull(object_id: str) -> bytes:
            return self._again(lambda: self._line.get(run_id, object_id))

        try:
            tree = response.message_object_trees[0]
            message, pulled = assemble(number, tree, by_id(contents), pull, wait_s=_OBJECTS_WAIT_S)
            if pulled:
                confirm = ConfirmMessageReceivedRequest(node=self._node, run_id=run_id, message_object_id=number)
                self._again(lambda: self._client.ConfirmMessageReceived(confirm))
        except ObjectPullError:
            _log.warning("a message's content did not arrive")
            return None
        except httpx.HTTPStatusError as error:
            if error.response.status_code != httpx.codes.FORBIDDEN:
                raise
            return None  # the run has ended meanwhile
        return message

    def is_over(self) -> bool:
        """Say whether the time of the message that was received last is over, for certain."""
        return time.monotonic() > self._until

    def _count_down(self, about: Metadata) -> None:
        """Note how long a message lives that was received now; SuperLink gives out none whose time is over."""
        left_s = about.created_at + about.ttl - self._clock.now() + _CLOCKS_AGREE_S
        self._until = time.monotonic() + (min(left_s, about.ttl) if left_s > 0 else about.ttl)

    def send(self, reply: Message, about: Metadata) -> None:
        """Deliver a reply to a message; give up when its run has ended or its time is over."""
        run_id = reply.metadata.run_id
        # a reply lives as long as its request; Flower would reckon with this machine's clock
        reply.metadata.created_at, reply.metadata.ttl = about.created_at, about.ttl
        with no_object_id_recompute(), ThreadPoolExecutor(2) as pool:
            reply.metadata.__dict__["_message_id"] = reply.object_id
            request = PushMessagesRequest(
                node=self._node,
                messages_list=[message_to_proto(remove_content_from_message(reply))],
                message_object_trees=[get_object_tree(reply)],
            )
            small, large = small_and_large([reply])
            try:
                answer = self._again(lambda: self._line.send([request.SerializeToString(), *small]))
                response = PushMessagesResponse.FromString(answer)
                if response.objects_to_push:
                    session = response.session_id

                    def put(number: str, content: bytes, last: bool) -> None:
                        self._again(lambda: self._line.put(run_id, session, number, content, last=last))

                    push_large(large, response.objects_to_push, put, pool)
            except httpx.HTTPStatusError as error:
                if error.response.status_code not in (httpx.codes.FORBIDDEN, httpx.codes.CONFLICT):
                    raise
                _log.warning("a reply was not taken: its run or its time is over")

    def _again(self, call: Callable[[], Result]) -> Result:
        """Make a call until it works, as long as the message that was received last lives."""
        pause = 0.2
        while True:
            try:
                return call()
            except httpx.HTTPError as error:
                if not is_passing(error) or self.is_over() or self._stop.wait(pause * random.uniform(0.75, 1.25)):  # noqa: S311
                    raise
            pause = min(2 * pause, _LONGEST_BACKOFF_S)


@contextlib.contextmanager
def _active(client: FleetHttpClient, public_key: bytes) -> Iterator[Node]:
    """Be known as present: activated, heartbeats in the background, deactivated at the end."""
    request = ActivateNodeRequest(public_key=public_key, heartbeat_interval=HEARTBEAT_S)
    node = Node(node_id=client.ActivateNode(request).node_id)
    stop = threading.Event()

    def beat() -> None:
        pause = 0.5 * HEARTBEAT_S
        while not stop.wait(pause * random.uniform(0.8, 1.0)):  # noqa: S311
            try:
                client.SendNodeHeartbeat(SendNodeHeartbeatRequest(node=node, heartbeat_interval=HEARTBEAT_S))
                pause = 0.5 * HEARTBEAT_S
            except (httpx.HTTPError, RuntimeError):
                pause = 2.0

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield node
    finally:
        stop.set()
        with contextlib.suppress(httpx.HTTPError, RuntimeError):
            client.DeactivateNode(DeactivateNodeRequest(node_id=node.node_id))


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        known = {401: "this site's key is not registered there", 403: "the certificate is not, or no longer, accepted"}
        return known.get(status, f"refused for now ({status})")
    text = str(error)
    return text if text else type(error).__name__
