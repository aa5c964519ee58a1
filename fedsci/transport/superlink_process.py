"""SuperLink as a child process of the coordinator's."""

import secrets
import subprocess  # runs this package, nothing else
import sys
import time
from pathlib import Path

import httpx
from flwr.proto.control_pb2 import ListNodesRequest
from flwr.supercore.control.control_http_client import ControlHttpClient

from fedsci.errors import ConnectionFailed
from fedsci.transport.superlink import listening
from fedsci.transport.superlink_client import inner_client
from fedsci.transport.tls import CoordinatorTls

_OWNER = secrets.token_hex(16)  # studies live in this process: with another, they are over


class Superlink:
    """SuperLink behind its door, as a child process that ends with this one.

    Args:
        state: the coordinator's folder; database, socket, secret and log are kept there.
        tls: the coordinator's certificates.
        host: the address to listen on.
        port: the port to listen on; 0 takes a free one.
    """

    def __init__(self, state: Path, tls: CoordinatorTls, *, host: str = "0.0.0.0", port: int) -> None:  # noqa: S104
        self._state, self._tls, self._host, self._asked_port = state, tls, host, port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process, or None if it does not run."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    @property
    def port(self) -> int:
        """The port that sites connect to; 0 while it does not run."""
        return listening(self._state)[0]

    def start(self, *, timeout_s: float = 60.0) -> None:
        """Start it and return when sites can connect; its errors go to ``superlink.log``.

        Raises:
            ConnectionFailed: it did not start; the message holds the last line of its log.
        """
        self._state.mkdir(parents=True, exist_ok=True, mode=0o700)
        log = self._state / "superlink.log"
        command = [sys.executable, "-m", "fedsci.transport.superlink", "--with-parent", "--state", str(self._state)]
        command += ["--host", self._host, "--port", str(self._asked_port), "--owner", _OWNER]
        for name in ("certificate", "key", "ca", "crl"):
            command += [f"--{name}", str(getattr(self._tls, name))]
        with log.open("ab") as file:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file, stderr=file)  # noqa: S603
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self.pid is not None:
            if listening(self._state)[1] == self.pid and is_up(self._state):
                return
            time.sleep(0.05)
        self.stop()
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        said = lines[-1].removeprefix("fedsci: ") if lines else "it said nothing"
        raise ConnectionFailed(f"SuperLink did not start: {said}", hint=f"see {log}")

    def stop(self, *, timeout_s: float = 10.0) -> None:
        """Stop it; after ``timeout_s`` by force."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None

    def __enter__(self) -> "Superlink":
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


def is_up(state: Path) -> bool:
    """Say whether a SuperLink answers on a coordinator's folder."""
    try:
        with inner_client(ControlHttpClient, state) as client:
            client.ListNodes(ListNodesRequest())
    except (httpx.HTTPError, OSError):
        return False
    return True
