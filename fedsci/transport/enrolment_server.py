"""The enrolment service: three paths over TLS, no client certificate, and errors that say a code and no more.

``GET /root`` gives the root certificate (public; a site compares it with its token before it sends anything),
``POST /enrol`` and ``POST /renew`` take the messages of :mod:`fedsci.identity.messages`.
"""

import asyncio
import json
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn

from fedsci.errors import ConnectionFailed, EnrolmentRefused
from fedsci.identity.messages import REQUEST_LIMIT, Answer, EnrolRequest, RenewRequest, decode
from fedsci.identity.tls import ServerTls

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]
Note = Callable[[str, str], None]

FAILURES_ALLOWED, FAILURE_WINDOW_S = 20, 600.0
_ADDRESSES_KEPT = 1024
_BODY_S = 10.0
_START_S = 30.0


class FailureLimit:
    """Counts refused requests by address over ten minutes; the oldest of 1024 addresses is forgotten."""

    def __init__(self, *, allowed: int = FAILURES_ALLOWED, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowed, self._clock = allowed, clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def reached(self, address: str) -> bool:
        """Return whether this address must wait."""
        times = self._failures.get(address, deque())
        while times and times[0] < self._clock() - FAILURE_WINDOW_S:
            times.popleft()
        return len(times) >= self._allowed

    def failed(self, address: str) -> None:
        """Count one."""
        self._failures.setdefault(address, deque(maxlen=self._allowed)).append(self._clock())
        self._failures.move_to_end(address)
        while len(self._failures) > _ADDRESSES_KEPT:
            self._failures.popitem(last=False)


class EnrolmentApp:
    """An ASGI application.

    Args:
        root: PEM of the root certificate.
        enrol, renew: answer a request, or raise EnrolmentRefused; called in worker threads.
        note: told of what was refused and why (code, message), for the coordinator's own eyes.
        limit: how many failures an address has.
    """

    def __init__(
        self,
        *,
        root: bytes,
        enrol: Callable[[EnrolRequest], Answer],
        renew: Callable[[RenewRequest], Answer],
        note: Note = lambda code, message: None,
        limit: FailureLimit | None = None,
    ) -> None:
        self._root, self._enrol, self._renew, self._note = root, enrol, renew, note
        self._limit = limit or FailureLimit()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; other kinds of connection are ignored."""
        if scope["type"] != "http":
            return
        address = (scope.get("client") or ("", 0))[0]
        route = (scope["method"], scope["path"])
        if route == ("GET", "/root"):
            await _reply(send, 200, self._root, kind=b"application/x-pem-file")
        elif route not in (("POST", "/enrol"), ("POST", "/renew")):
            await _refuse(send, 404, "unknown")
        elif self._limit.reached(address):
            await _refuse(send, 429, "too-many")
        else:
            try:
                body = await asyncio.wait_for(_body(receive), _BODY_S)
                answer = await asyncio.to_thread(self._answer, scope["path"], body)
            except EnrolmentRefused as error:
                self._failed(address, error.rule, error.message)
                await _refuse(send, 403, error.rule)
            except TimeoutError:
                self._failed(address, "request", "the request never ended")
                await _refuse(send, 408, "request")
            except Exception as error:
                self._failed(address, "internal", f"{type(error).__name__}: {error}")
                await _refuse(send, 500, "internal")
            else:
                await _reply(send, 200, answer)

    def _answer(self, path: str, body: bytes) -> bytes:
        if path == "/enrol":
            return self._enrol(decode(EnrolRequest, body)).encode()
        return self._renew(decode(RenewRequest, body)).encode()

    def _failed(self, address: str, code: str, message: str) -> None:
        self._limit.failed(address)
        self._note(code, f"{address}: {message}")


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        event = await receive()
        if event["type"] != "http.request":
            raise EnrolmentRefused("the site hung up", rule="request")
        body, more = body + event.get("body", b""), event.get("more_body", False)
        if len(body) > REQUEST_LIMIT:
            raise EnrolmentRefused(f"the request passes {REQUEST_LIMIT} bytes", rule="request")
    return body


async def _refuse(send: Send, status: int, code: str) -> None:
    await _reply(send, status, json.dumps({"code": code}).encode())


async def _reply(send: Send, status: int, body: bytes, *, kind: bytes = b"application/json") -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _config(app: EnrolmentApp, tls: ServerTls, host: str, port: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        ssl_context_factory=lambda config, default: tls,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        limit_concurrency=64,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=5,
    )


class EnrolmentServer:
    """Serves an :class:`EnrolmentApp` from a thread, between ``start`` and ``stop`` or as a context.

    Args:
        app: what answers.
        tls: the server's certificate; no client certificates are asked for.
        host: the interface to listen on.
        port: 0 for any free one; see :attr:`port` once started.
    """

    def __init__(self, app: EnrolmentApp, tls: ServerTls, *, host: str = "0.0.0.0", port: int = 0) -> None:  # noqa: S104
        self.app = app
        self._server = uvicorn.Server(_config(app, tls, host, port))
        self._thread = threading.Thread(target=self._run, name="enrolment", daemon=True)
        self._where = f"{host}:{port}"

    def _run(self) -> None:
        try:
            self._server.run()
        except SystemExit:  # uvicorn's way to say that it could not listen
            return

    @property
    def port(self) -> int:
        """The port it listens on."""
        found: int = self._server.servers[0].sockets[0].getsockname()[1]
        return found

    @property
    def alive(self) -> bool:
        """Whether it is serving."""
        return self._thread.is_alive()

    def start(self) -> "EnrolmentServer":
        """Return when connections are taken.

        Raises:
            ConnectionFailed: the port is taken or not ours to take.
        """
        self._thread.start()
        deadline = time.monotonic() + _START_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise ConnectionFailed(f"cannot listen on {self._where}", hint="is the port taken? choose with --port")
            time.sleep(0.01)
        return self

    def stop(self) -> None:
        """Finish what is being answered and stop."""
        self._server.should_exit = True
        self._thread.join()

    def __enter__(self) -> "EnrolmentServer":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
