"""The only door to the coordinator's SuperLink: what sites may call, and as whom.

SuperLink authenticates its Fleet API and nothing else, so nothing else is reachable from outside. In front of it stand:

- mutual TLS (``tls.py``): no certificate of the consortium, no connection;
- a short list of paths (404 otherwise), and bounds on size, time and number of connections: uvicorn has none;
- the binding of a connection to its certificate: a call must be signed with the certificate's own key, so a site can
  only act as the node that was registered for it (403 otherwise), and who calls ``express.py`` is told by the
  certificate alone.
"""

import asyncio
import logging
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, MutableMapping
from typing import Any

from cryptography import x509
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fedsci.errors import InputError
from fedsci.identity.tls import ServerTls
from fedsci.transport.asgi import App, Receive, Send, respond
from fedsci.transport.express import CALLER
from fedsci.transport.tls import identity_of
from fedsci.transport.wire import SITE

#: What a site needs. Not: registering itself, runs, app bundles, Flower's messages without a check of the sender.
SITE_PATHS = frozenset(
    f"/v1/fleet/{name}" for name in ("deactivate-node", "send-node-heartbeat", "confirm-message-received")
) | {SITE + call for call in ("begin", "receive", "send", "put", "get")}
MAX_BODY_BYTES = 32 * 1024 * 1024
_MOST_DIGITS = 19  # Python refuses to read thousands of digits as a number
_CONNECT_ANEW = 421  # RFC 9110, 15.5.20: "the client MAY retry the request over a different connection"
MAX_HEADER_BYTES = 64 * 1024
MAX_CONNECTIONS = 32  # of one site
HEADERS_S, BODY_S = 20.0, 120.0

_log = logging.getLogger("fedsci.front")
_KEY_HEADER = FLEET_HTTP_PUBLIC_KEY_HEADER.lower().encode()


class Door:
    """Lets one connection, whose certificate has been checked, make a site's calls as that site.

    Attributes:
        app: what answers.
        site: the name in the certificate.
        public_key: the certificate's key, PEM.
        until: when the certificate ends, seconds since 1970; the connection ends with it (421: make another one).
        is_revoked: says whether the certificate has been revoked since.
    """

    def __init__(self, app: App, *, site: str, public_key: bytes, until: float, is_revoked: Callable[[], bool]) -> None:
        self._app, self._site, self._public_key = app, site, public_key
        self._until, self._is_revoked = until, is_revoked

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one call, or refuse it."""
        status = self._judge(scope)
        if status is not None:
            _log.warning("refused %s: %s %s (%d)", self._site, scope.get("method"), scope.get("path"), status)
            await respond(send, status, close=status == _CONNECT_ANEW)
            return
        await self._app({**scope, CALLER: self._public_key}, receive, send)

    def _judge(self, scope: MutableMapping[str, Any]) -> int | None:
        if scope["type"] != "http" or scope["path"] not in SITE_PATHS:
            return 404
        if scope["method"] != "POST":
            return 405
        if self._is_revoked():
            return 403
        if time.time() >= self._until:
            return _CONNECT_ANEW
        lengths = [value for name, value in scope["headers"] if name == b"content-length"]
        if len(lengths) != 1 or not lengths[0].isdigit():
            return 411
        if len(lengths[0]) > _MOST_DIGITS or int(lengths[0]) > MAX_BODY_BYTES:
            return 413
        try:
            keys = [b64decode(value, validate=True) for name, value in scope["headers"] if name == _KEY_HEADER]
        except ValueError:
            return 403
        return None if keys == [self._public_key] else 403


def door_protocol(app: App, context: ServerTls) -> type[HttpToolsProtocol]:
    """Return the uvicorn protocol that binds each connection to the certificate it was made with."""
    connections: Counter[bytes] = Counter()

    class DoorProtocol(HttpToolsProtocol):
        _timer: asyncio.TimerHandle | None = None
        _header_bytes, _in_headers = 0, True
        _public_key = b""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._expect_within(HEADERS_S)
            shown = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
            try:
                certificate = x509.load_der_x509_certificate(shown or b"")
                site, public_key = identity_of(certificate)
            except (ValueError, InputError):
                _log.warning("refused a certificate that names no site")
                self.app = _nobody
                return
            serial, until = certificate.serial_number, certificate.not_valid_after_utc.timestamp()
            self.app = Door(
                app, site=site, public_key=public_key, until=until, is_revoked=lambda: context.is_revoked(serial)
            )
            self._public_key = public_key
            connections[public_key] += 1
            if connections[public_key] > MAX_CONNECTIONS:
                _log.warning("refused %s: more than %d connections", site, MAX_CONNECTIONS)
                transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            self._expect_within(None)
            connections[self._public_key] -= 1
            if connections[self._public_key] <= 0:
                del connections[self._public_key]
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            self._header_bytes += len(data)
            super().data_received(data)
            if self._header_bytes > MAX_HEADER_BYTES and self._in_headers:
                self.transport.abort()

        def on_message_begin(self) -> None:
            self._header_bytes, self._in_headers = 0, True
            self._expect_within(HEADERS_S)
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._in_headers = False
            self._expect_within(BODY_S)
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._expect_within(None)
            super().on_message_complete()

        def _expect_within(self, seconds: float | None) -> None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)

    return DoorProtocol


async def _nobody(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    await respond(send, 403)
