"""The door's uvicorn server: strangers cannot use up what sites need.

Whoever reaches the port can open connections. Here only a few at a time may be without a finished TLS handshake, and
each for a few seconds; the others wait in the system's queue, where they cost nothing. Connections that are open
already, those of a running study, do not notice.
"""

import asyncio
import contextlib
import resource
import socket
import ssl
from collections.abc import Coroutine, Iterator
from typing import Any

import uvicorn

HANDSHAKES, HANDSHAKE_S = 128, 10.0
_EXHAUSTED_S = 0.1


class QuietServer(uvicorn.Server):
    """A uvicorn server that leaves signals alone: two of them share a process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing."""
        yield


class DoorServer(QuietServer):
    """Serves TLS connections from one listening socket.

    Args:
        config: uvicorn's; its protocol gets connections whose handshake is done.
        listener: accepts.
        context: TLS.
    """

    def __init__(self, config: uvicorn.Config, listener: socket.socket, context: ssl.SSLContext) -> None:
        super().__init__(config)
        self._listener, self._context = listener, context
        self._handshakes = asyncio.Semaphore(HANDSHAKES)
        self._tasks: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept."""
        await super().startup(sockets=[])
        self._listener.setblocking(False)
        self._keep(self._accept())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, and finish what is being answered."""
        for task in self._tasks:
            task.cancel()
        await super().shutdown(sockets=[self._listener])

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._handshakes.acquire()
            try:
                connection, _ = await loop.sock_accept(self._listener)
            except OSError:  # hung up meanwhile, or no file descriptors left
                self._handshakes.release()
                await asyncio.sleep(_EXHAUSTED_S)
            else:
                self._keep(self._admit(connection))

    async def _admit(self, connection: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._protocol, connection, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_S
            )
        except (OSError, ValueError):  # no TLS, no certificate of the consortium, or too slow
            connection.close()
        finally:
            self._handshakes.release()

    def _protocol(self) -> asyncio.Protocol:
        make = self.config.http_protocol_class
        protocol: asyncio.Protocol = make(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def allow_many_files() -> None:
    """Let this process open as many files and connections as the system permits."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
