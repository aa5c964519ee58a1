"""A site's side of Flower: one warm process that asks for messages, answers them with installed code, and comes back.

Flower's own SuperNode would run an app bundle sent by the coordinator. This loop never asks for one: what a message
names is looked up among the actions in ``messages.py``.
"""

import contextlib
import fcntl
import logging
import os
import random
import secrets
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import httpx
from flwr.app import Message, Metadata
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    DeactivateNodeRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
from flwr.supercore.inflatable.inflatable_object import get_object_tree, no_object_id_recompute
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient

from fedsci.errors import InputError
from fedsci.transport.clock import Clock, Signature, ask_time
from fedsci.transport.messages import Handler
from fedsci.transport.site_app import answer
from fedsci.transport.tls import SiteTls
from fedsci.transport.wire import HEARTBEAT_S, SITE, Line, assemble, by_id, is_passing, push_large, small_and_large

_SHORTEST_POLL_S = 0.05
_SHORTEST_BACKOFF_S, _LONGEST_BACKOFF_S = 0.25, 30.0
_BACKOFF = 0.15  # of the time since there was a connection: an outage is at most so much longer for it
_OBJECTS_WAIT_S = 120.0
_PROCESS = "connection.process"
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
        state: folder of the site; remembers which process served it, so that the next one is known as its heir.
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
        self._state = state
        self._idle_wait_s, self._notice, self._late = idle_wait_s, notice, late
        self._tell_clock, self._clock = clock, Clock(clock)
        self._said_clock = Clock(clock)  # what somebody said who was not known
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
        heir = _Heir(self._state / _PROCESS)
        outage = _Outage(self._stop, lambda error: self._notice(f"no connection to {self._address}: {_reason(error)}"))
        while not self._stop.is_set():
            client = FleetHttpClient(
                f"https://{self._address}",
                interceptors=[Signature(key, self._clock)],
                verify=context,
            )
            try:
                with client:
                    self._work(_Node(client, public_key, heir, self._stop, self._clock), outage)
            except (httpx.HTTPError, OSError) as error:
                if not _is_out_of_date(error):
                    outage.wait(error)
                    continue
                ask_time(self._address, self._tls, self._said_clock)
                outage.wait(OSError("by this machine's clock the coordinator's certificate is out of date"))
            except Exception as error:  # whatever a coordinator answers, a site does not end
                outage.wait(OSError(f"its answer makes no sense ({type(error).__name__})"))

    def _work(self, node: "_Node", outage: "_Outage") -> None:
        present = False
        with node.heartbeats():
            while not self._stop.is_set():
                began = time.monotonic()
                try:
                    if not present:
                        node.begin()
                        present = True
                        outage.over()
                        if self._said_clock.ahead_s:
                            self._said_clock = Clock(self._tell_clock)
                            self._tell_clock(self._clock.ahead_s)
                        self._notice("connected")
                    message = node.receive(wait_s=self._idle_wait_s)
                except httpx.HTTPError as error:
                    if not is_passing(error) or _is_out_of_date(error):
                        raise
                    present = False  # what was on its way is given out again; what was in work is lost
                    outage.wait(error)
                    continue
                if message is not None:
                    about = message.metadata
                    if node.is_over():
                        self._late(about.message_type, "not begun")
                        continue
                    reply = answer(self._handler, message)
                    del message
                    if node.is_over():
                        self._late(about.message_type, "not sent")
                    else:
                        node.send(reply, about)
                elif time.monotonic() - began < _SHORTEST_POLL_S:  # the other end does not wait: never spin
                    self._stop.wait(random.uniform(1, 2) * _SHORTEST_POLL_S)  # noqa: S311
        node.leave()


class _Heir:
    """This process, and the one that served the site before it.

    Attributes:
        forerunner: known to the coordinator as the one that serves the site; empty if there was none.
        process: this one.
        last: the number of the message that this process got as its last.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.process, self.last = secrets.token_bytes(16), ""
        try:
            self.forerunner = path.read_bytes()
        except FileNotFoundError:
            self.forerunner = b""

    def accepted(self) -> None:
        """Note that the coordinator knows this process."""
        if self.forerunner == self.process:
            return
        self.forerunner = self.process
        with contextlib.suppress(OSError):  # a full disk: then the next process waits until this one counts as gone
            new = self._path.with_suffix(".new")
            new.write_bytes(self.process)
            new.replace(self._path)


class _Outage:
    """The time without a connection: says why, once for each reason, and waits in proportion to it."""

    def __init__(self, stop: threading.Event, notice: Callable[[Exception], None]) -> None:
        self._stop, self._notice = stop, notice
        self._since, self._last = 0.0, ""

    def wait(self, error: Exception) -> None:
        """Wait before the next try; soon at first, with longer pauses the longer it takes."""
        self._since = self._since or time.monotonic()
        if _reason(error) != self._last:
            self._notice(error)
        self._last = _reason(error)
        pause = _BACKOFF * (time.monotonic() - self._since)
        pause = min(max(pause, _SHORTEST_BACKOFF_S), _LONGEST_BACKOFF_S)
        self._stop.wait(pause * random.uniform(0.75, 1.25))  # noqa: S311 (spreads sites, no secret)

    def over(self) -> None:
        """Note that there is a connection."""
        self._since, self._last = 0.0, ""


class _Node:
    """One connection of the process that serves a site: messages in, messages out."""

    def __init__(
        self, client: FleetHttpClient, public_key: bytes, heir: _Heir, stop: threading.Event, clock: Clock
    ) -> None:
        self._client, self._heir, self._stop, self._clock = client, heir, stop, clock
        self._until = time.monotonic() + _LOST_S
        self._node = Node()
        headers = {FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public_key).decode("ascii")}
        self._line = Line(client, SITE, headers, heard=clock.learn)

    def begin(self) -> None:
        """Be known as present, with nothing in work."""
        self._node = Node(node_id=self._line.begin(self._heir.forerunner, self._heir.process, self._heir.last))
        self._heir.accepted()

    def leave(self) -> None:
        """Be known as gone."""
        if not self._node.node_id:
            return
        with contextlib.suppress(httpx.HTTPError):
            self._client.DeactivateNode(DeactivateNodeRequest(node_id=self._node.node_id))

    @contextlib.contextmanager
    def heartbeats(self) -> Iterator[None]:
        """Be known as present also while a message is worked on."""
        ended = threading.Event()

        def beat() -> None:
            pause = HEARTBEAT_S / 3
            while not ended.wait(pause * random.uniform(0.8, 1.0)):  # noqa: S311
                request = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=HEARTBEAT_S)
                try:
                    if self._node.node_id:
                        self._client.SendNodeHeartbeat(request)
                    pause = HEARTBEAT_S / 3
                except (httpx.HTTPError, RuntimeError):  # RuntimeError: closed meanwhile
                    pause = 2.0

        threading.Thread(target=beat, name="heartbeat", daemon=True).start()
        try:
            yield
        finally:
            ended.set()

    def receive(self, *, wait_s: float) -> Message | None:
        """Return the next message, or None if there was none for ``wait_s`` seconds."""
        head, *contents = self._line.receive(self._heir.process, wait_s=wait_s) or [b""]
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
            self._heir.last = number
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


def _is_out_of_date(error: Exception) -> bool:
    """Say whether a connection failed since the other end's certificate is out of date by this machine's clock."""
    return any(text in _reason(error) for text in _OUT_OF_DATE)


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        known = {
            401: "this site's key is not registered there",
            403: "the certificate is not, or no longer, accepted",
            409: "another process serves this site, from another folder or machine",
        }
        return known.get(status, f"refused for now ({status})")
    text = str(error)
    return text if text else type(error).__name__
