"""Flower's SuperLink as fedsci runs it: one process, reachable from outside only through the door (``front.py``).

Its Control and Runtime APIs know no users, so they listen on a Unix socket that only this machine's account can open;
there is no second TCP port. Started by ``superlink_process.Superlink``.
"""

import argparse
import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from fedsci.errors import FedsciError, InputError
from fedsci.identity.tls import ServerTls
from fedsci.transport.tls import CoordinatorTls

SOCKET = "superlink.sock"
PORT = "superlink.port"
OWNER = "superlink.owner"
SECRET = "superexec.secret"  # noqa: S105 (a file's name)
_LONGEST_SOCKET_PATH = 100  # bytes; systems allow 104 to 108


def socket_path(state: Path) -> Path:
    """Return where the inner socket of a coordinator's state folder is.

    Raises:
        InputError: the path is longer than systems allow.
    """
    path = state.resolve() / SOCKET
    if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        raise InputError(
            f"{path} is too long for a socket's path ({_LONGEST_SOCKET_PATH} bytes)",
            hint="choose a folder with a shorter path with --state",
        )
    return path


def listening(state: Path) -> tuple[int, int]:
    """Return the port on which a SuperLink listens for sites, and its process; zeros if none does."""
    try:
        port, process = (state / PORT).read_text(encoding="ascii").split()
    except FileNotFoundError:
        return 0, 0
    return int(port), int(process)


def secret_of(state: Path) -> bytes:
    """Return the secret that whoever runs a study must know, made when first needed."""
    path = state / SECRET
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
    return path.read_bytes()


def serve(state: Path, tls: CoordinatorTls, *, host: str, port: int, owner: str, with_parent: bool) -> None:
    """Serve until SIGTERM or SIGINT (or, ``with_parent``, until standard input ends).

    Studies go on if they are the same owner's as before; those of another are over.

    Raises:
        FedsciError: the folder, the port or the certificates cannot be used.
    """
    os.umask(0o077)
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.environ |= {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_HOME": str(state / "flwr"),
    }
    with (state / "superlink.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"a SuperLink is running already in {state}") from None
        context = tls.context()
        with _inner_socket(state) as inner, _outer_socket(host, port) as outer:
            number = state / f"{PORT}.new"
            number.write_text(f"{outer.getsockname()[1]} {os.getpid()}\n", encoding="ascii")
            number.replace(state / PORT)
            goes_on = _same_owner(state, owner)
            try:
                _run(state, context, inner, outer, goes_on=goes_on, with_parent=with_parent)
            finally:
                (state / PORT).unlink(missing_ok=True)


def _same_owner(state: Path, owner: str) -> bool:
    file = state / OWNER
    before = file.read_text(encoding="utf-8") if file.exists() else None
    file.write_text(owner, encoding="utf-8")
    return before == owner


def _run(
    state: Path,
    context: ServerTls,
    inner: socket.socket,
    outer: socket.socket,
    *,
    goes_on: bool,
    with_parent: bool,
) -> None:
    import anyio.to_thread
    import uvicorn
    from flwr.common.constant import TRANSPORT_TYPE_GRPC_RERE
    from flwr.supercore.object_store import object_store_factory
    from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
    from flwr.superlink.config_loader import SuperLinkLifespanConfig, load_control_authn_plugin
    from flwr.superlink.main import create_app

    from fedsci.transport import wire
    from fedsci.transport.door_server import DoorServer, QuietServer, allow_many_files
    from fedsci.transport.express import Bell, Express
    from fedsci.transport.front import door_protocol
    from fedsci.transport.object_files import ObjectFiles
    from fedsci.transport.superlink_state import Absence, Coordinator, Sites, end_runs

    allow_many_files()
    logging.getLogger("flwr").setLevel(logging.WARNING)
    vars(object_store_factory)["SqlObjectStore"] = ObjectFiles  # what the factory makes; Flower has no option for it
    app = create_app(
        SuperLinkLifespanConfig(
            control_address="",
            health_server_address=None,
            host="",
            port=0,
            insecure=True,  # TLS is the door's
            certificates=None,
            superexec_auth_secret=secret_of(state),
            authn_plugin=load_control_authn_plugin(),
            event_log_plugin=None,
            fleet_event_log_plugin=None,
            enable_event_log=False,
            artifact_provider=None,
            enable_supernode_auth=True,
            fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
            fleet_api_address=None,
            simulation=False,
            ssl_ca_certfile=None,
            ssl_certfile=None,
            ssl_keyfile=None,
            database=str(state / "superlink.db"),
            isolation="process",
            runtime_dependency_install=False,
        ),
        SuperLinkLifespan,
    )

    async def main() -> None:
        # SQLite has one writer, and nearly every call writes: threads would only wait for each other, asleep
        anyio.to_thread.current_default_thread_limiter().total_tokens = 1
        to_sites, to_coordinator = Bell(), Bell()
        link = app.state.linkstate_factory.state
        absence = Absence(link)
        if goes_on:
            absence.forgive()
        else:
            end_runs(link())
        for_coordinator = Express(
            app,
            prefix=wire.STUDY,
            actor=Coordinator(link),
            awaits=to_coordinator,
            rings=to_sites,
            notice=absence.notice,
        )
        for_sites = Express(
            app, prefix=wire.SITE, actor=Sites(link), awaits=to_sites, rings=to_coordinator, notice=absence.notice
        )
        inside = QuietServer(
            uvicorn.Config(
                for_coordinator,
                log_level="warning",
                access_log=False,
                ws="none",
                lifespan="on",
                server_header=False,
                timeout_keep_alive=60,
                timeout_graceful_shutdown=2,
            )
        )
        outside = DoorServer(
            uvicorn.Config(
                for_sites,
                http=door_protocol(for_sites, context),
                log_level="warning",
                access_log=False,
                ws="none",
                lifespan="off",
                server_header=False,
                timeout_keep_alive=60,
                timeout_graceful_shutdown=2,
            ),
            outer,
            context,
        )

        def stop() -> None:
            to_sites.close()
            to_coordinator.close()
            inside.should_exit = outside.should_exit = True

        async def watch() -> None:
            while True:
                absence.notice()
                await asyncio.sleep(1)

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        if with_parent:
            loop.add_reader(sys.stdin.fileno(), lambda: None if os.read(sys.stdin.fileno(), 1) else stop())
        serving = asyncio.ensure_future(inside.serve(sockets=[inner]))
        while not inside.started and not serving.done():
            await asyncio.sleep(0.02)
        watching = asyncio.ensure_future(watch())
        if inside.started:
            await outside.serve()
        stop()
        await serving
        watching.cancel()

    with asyncio.Runner(loop_factory=uvicorn.Config(app).get_loop_factory()) as runner:
        runner.run(main())


@contextlib.contextmanager
def _inner_socket(state: Path) -> Iterator[socket.socket]:
    path = socket_path(state)
    path.unlink(missing_ok=True)  # the lock is ours, so nobody listens there
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen()
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _outer_socket(host: str, port: int) -> Iterator[socket.socket]:
    try:
        listener = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=128
        )
    except OSError as error:
        raise InputError(f"cannot listen on {host} port {port}: {error.strerror}") from None
    with listener:
        yield listener


def main() -> int:
    """Run from the command line: ``python -m fedsci.transport.superlink --state DIR --tls DIR``."""
    parser = argparse.ArgumentParser(description="Flower's SuperLink behind mutual TLS")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--certificate", type=Path, required=True)
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--ca", type=Path, required=True)
    parser.add_argument("--crl", type=Path, required=True)
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104 (sites come from outside)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--owner", required=True, help="stands for the process whose studies these are")
    parser.add_argument("--with-parent", action="store_true", help="stop when standard input ends")
    asked = parser.parse_args()
    tls = CoordinatorTls(certificate=asked.certificate, key=asked.key, ca=asked.ca, crl=asked.crl)
    try:
        serve(asked.state, tls, host=asked.host, port=asked.port, owner=asked.owner, with_parent=asked.with_parent)
    except FedsciError as error:
        print(f"fedsci: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
