"""The only door to the coordinator's SuperLink: what sites may call, as whom, and how long they may wait.

SuperLink authenticates its Fleet API and nothing else, so nothing else is reachable from outside. In front of it stand:

- mutual TLS (``tls.py``): no certificate of the consortium, no connection;
- a short list of paths (404 otherwise);
- the binding of a connection to its certificate: a call must be signed with the certificate's own key, so a site can
  only act as the node that was registered for it, and may only send messages in its own name (403 otherwise);
- waiting: a call that asks for messages may stay open until there is one, so that nobody polls.
"""

import asyncio
import logging
from base64 import b64decode
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from cryptography import x509
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
from google.protobuf.message import DecodeError
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fedsci.errors import InputError
from fedsci.transport.tls import ReloadingContext, identity_of

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

#: What a site needs of the Fleet API. Not: registering itself, runs, app bundles.
SITE_PATHS = frozenset(
    f"/v1/fleet/{name}"
    for name in (
        "activate-node",
        "deactivate-node",
        "send-node-heartbeat",
        "pull-messages",
        "push-messages",
        "pull-object",
        "push-object",
        "confirm-message-received",
    )
)
#: Seconds that a call for messages may wait; absent: not at all.
WAIT_HEADER = b"fedsci-wait"
#: Marks the call that completes a message.
WAKE_HEADER = b"fedsci-wake"
MAX_WAIT_S = 20.0
MAX_BODY_BYTES = 32 * 1024 * 1024

_log = logging.getLogger("fedsci.front")
_KEY_HEADER = FLEET_HTTP_PUBLIC_KEY_HEADER.lower().encode()


class Bell:
    """Wakes everybody who waits."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake all; who comes later waits for the next ring."""
        self._event.set()
        self._event = asyncio.Event()

    def next_ring(self) -> asyncio.Event:
        """Return what is set by the next ring from now."""
        return self._event


class Waiting:
    """Lets calls for messages wait at SuperLink's app until somebody has completed a message.

    Attributes:
        app: SuperLink's.
        pull: path of the call that may wait.
        awaits: rung when a message for these callers is complete.
        rings: rung when one of these callers has completed a message.
    """

    def __init__(self, app: App, *, pull: str, awaits: Bell, rings: Bell) -> None:
        self._app, self._pull, self._awaits, self._rings = app, pull, awaits, rings

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        wait_s = _seconds(headers.get(WAIT_HEADER, b"0")) if scope["path"] == self._pull else 0.0
        if wait_s:
            await self._wait(scope, receive, send, wait_s)
            return
        await self._app(scope, receive, send)
        if WAKE_HEADER in headers:
            self._rings.ring()

    async def _wait(self, scope: MutableMapping[str, Any], receive: Receive, send: Send, wait_s: float) -> None:
        body = await read_body(receive)
        deadline = asyncio.get_running_loop().time() + wait_s
        gone = asyncio.ensure_future(receive())  # the caller hangs up; then no message may be taken for it
        try:
            while True:
                ring = self._awaits.next_ring()
                answer: list[Message] = []
                await self._app(dict(scope), _replay(body), _collect(answer))
                left = deadline - asyncio.get_running_loop().time()
                if _says_something(answer) or left <= 0:
                    for message in answer:
                        await send(message)
                    return
                rung = asyncio.ensure_future(ring.wait())
                await asyncio.wait({rung, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                rung.cancel()
                if gone.done():
                    return
        finally:
            gone.cancel()


class Door:
    """Lets one connection, whose certificate has been checked, make a site's calls as that site.

    Attributes:
        app: what answers.
        site: the name in the certificate.
        public_key: the certificate's key, PEM.
        is_revoked: says whether the certificate has been revoked since.
    """

    def __init__(self, app: App, *, site: str, public_key: bytes, is_revoked: Callable[[], bool]) -> None:
        self._app, self._site, self._public_key, self._is_revoked = app, site, public_key, is_revoked

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one call, or refuse it."""
        status = self._judge(scope)
        if status is None and scope["path"] == "/v1/fleet/push-messages":
            body = await read_body(receive)
            if not _speaks_for_itself(body):
                status = 403
            receive = _replay(body)
        if status is not None:
            _log.warning("refused %s: %s %s (%d)", self._site, scope.get("method"), scope.get("path"), status)
            await refuse(send, status)
            return
        await self._app(scope, receive, send)

    def _judge(self, scope: MutableMapping[str, Any]) -> int | None:
        if scope["type"] != "http" or scope["path"] not in SITE_PATHS:
            return 404
        if scope["method"] != "POST":
            return 405
        if self._is_revoked():
            return 403
        lengths = [value for name, value in scope["headers"] if name == b"content-length"]
        if len(lengths) != 1 or not lengths[0].isdigit():
            return 411
        if int(lengths[0]) > MAX_BODY_BYTES:
            return 413
        keys = [value for name, value in scope["headers"] if name == _KEY_HEADER]
        try:
            signed_by = [b64decode(key, validate=True) for key in keys]
        except ValueError:
            return 403
        return None if signed_by == [self._public_key] else 403


def door_protocol(app: App, context: ReloadingContext) -> type[HttpToolsProtocol]:
    """Return the uvicorn protocol that binds each connection to the certificate it was made with."""

    class DoorProtocol(HttpToolsProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            shown = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
            try:
                certificate = x509.load_der_x509_certificate(shown or b"")
                site, public_key = identity_of(certificate)
            except (ValueError, InputError):
                _log.warning("refused a certificate that names no site")
                self.app = _nothing
                return
            serial = certificate.serial_number
            self.app = Door(app, site=site, public_key=public_key, is_revoked=lambda: context.is_revoked(serial))

    return DoorProtocol


async def read_body(receive: Receive) -> bytes:
    """Return the whole body of a call."""
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b""
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def refuse(send: Send, status: int) -> None:
    """Answer with a status and nothing else."""
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def _nothing(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    await refuse(send, 403)


def _speaks_for_itself(body: bytes) -> bool:
    """Flower checks that the node which calls is the node which signed, not that it is the node which speaks."""
    try:
        request = PushMessagesRequest.FromString(body)
    except DecodeError:
        return False
    return all(message.metadata.src_node_id == request.node.node_id for message in request.messages_list)


def _says_something(answer: list[Message]) -> bool:
    status = next((m["status"] for m in answer if m["type"] == "http.response.start"), 500)
    return status != 200 or any(m.get("body") for m in answer if m["type"] == "http.response.body")


def _replay(body: bytes) -> Receive:
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if waiting:
            return waiting.pop()
        await asyncio.get_running_loop().create_future()  # as long as the connection is open; the caller cancels
        raise RuntimeError("unreachable")

    return receive


def _collect(answer: list[Message]) -> Send:
    async def send(message: Message) -> None:
        answer.append(message)

    return send


def _seconds(text: bytes) -> float:
    try:
        return min(max(float(text), 0.0), MAX_WAIT_S)
    except ValueError:
        return 0.0
