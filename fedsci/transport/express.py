"""Whole messages in one call: SuperLink's own state, without a call and a transaction for every object.

Flower sends a message in about ten HTTP calls, each with its own authentication and its own database transactions.
Here a message with its small objects is one call and one transaction; large objects (the chunks of a model) follow as
they are, without a wrapping. What each call does with the state is in ``superlink_state.py``.

Bodies are frames (``wire.frames``): a Flower protobuf, then the contents of objects, whose ids are their SHA-256.
"""

import asyncio
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import anyio.to_thread
from flwr.supercore.constant import TASK_TOKEN_HEADER
from google.protobuf.message import DecodeError

from fedsci.transport import wire
from fedsci.transport.asgi import App, Receive, Send, read_body, respond
from fedsci.transport.superlink_state import Actor, Refused

#: Where the door says who calls: the certificate's public key.
CALLER = "fedsci_caller"
MAX_WAIT_S = 20.0


class Bell:
    """Wakes everybody who waits.

    Attributes:
        closed: there is nothing to wait for any more.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.closed = False

    def ring(self) -> None:
        """Wake all; who comes later waits for the next ring."""
        self._event.set()
        self._event = asyncio.Event()

    def close(self) -> None:
        """Send everybody away who waits, or comes later."""
        self.closed = True
        self.ring()

    def next_ring(self) -> asyncio.Event:
        """Return what is set by the next ring from now."""
        return self._event


class Express:
    """SuperLink's app with the calls that carry whole messages and large objects, for one kind of caller.

    Attributes:
        app: SuperLink's; answers everything else.
        prefix: of the paths of ``begin``, ``receive`` (which may wait), ``send``, ``put`` and ``get``.
        actor: does it.
        awaits: rung when messages for these callers are complete.
        rings: rung when one of these callers has completed messages.
        notice: called before every call.
    """

    def __init__(
        self, app: App, *, prefix: str, actor: Actor, awaits: Bell, rings: Bell, notice: Callable[[], None]
    ) -> None:
        self._app, self._prefix, self._actor, self._awaits, self._rings = app, prefix, actor, awaits, rings
        self._notice = notice

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one call."""
        self._notice()
        if scope["type"] != "http" or not scope["path"].startswith(self._prefix):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        caller = scope.get(CALLER, headers.get(TASK_TOKEN_HEADER, ""))
        try:
            body = await read_body(receive)
            status, answer = await self._answer(
                scope["path"].removeprefix(self._prefix), caller, headers, body, receive
            )
        except Refused as refused:
            status, answer = refused.status, b""
        except (DecodeError, ValueError):
            status, answer = 400, b""
        await respond(send, status, answer)

    async def _answer(
        self, call: str, caller: Any, headers: Mapping[str, str], body: bytes, receive: Receive
    ) -> tuple[int, bytes]:
        actor, run = self._actor, anyio.to_thread.run_sync
        if call == "receive":
            return 200, await self._wait(caller, body, receive, float(headers.get(wire.WAIT, "0")))
        if call in ("begin", "send"):
            answer, complete = await run(actor.send if call == "send" else actor.begin, caller, body)
            if complete:
                self._rings.ring()
            return 200, answer
        if call not in ("put", "get"):
            raise Refused(404)
        run_id, object_id = int(headers.get(wire.RUN, "")), headers.get(wire.OBJECT, "")
        if call == "put":
            await run(actor.put, caller, run_id, object_id, headers.get(wire.SESSION, ""), body)
            if wire.WAKE in headers:
                self._rings.ring()
            return 200, b""
        content = await run(actor.get, caller, run_id, object_id)
        return (404, b"") if content is None else (200, content) if content else (202, b"")

    async def _wait(self, caller: Any, body: bytes, receive: Receive, wait_s: float) -> bytes:
        deadline = asyncio.get_running_loop().time() + (min(wait_s, MAX_WAIT_S) if wait_s > 0 else 0.0)
        gone = asyncio.ensure_future(receive())  # the caller hangs up: then no message may be taken for it
        try:
            while True:
                if self._awaits.closed:  # no message may be taken for who will not get it
                    raise Refused(503)
                ring = self._awaits.next_ring()
                answer = await anyio.to_thread.run_sync(self._actor.receive, caller, body)
                left = deadline - asyncio.get_running_loop().time()
                if answer or left <= 0:
                    return answer
                rung = asyncio.ensure_future(ring.wait())
                await asyncio.wait({rung, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                rung.cancel()
                if gone.done():
                    return b""
        finally:
            gone.cancel()
