"""What strangers and hostile sites can do to the public port: nothing that others would notice."""

import gzip
import os
import socket
import ssl
import threading
import time
from base64 import b64encode
from contextlib import ExitStack
from pathlib import Path

import pytest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from fedsci.transport import wire
from fedsci.transport.front import MAX_BODY_BYTES, MAX_CONNECTIONS, MAX_HEADER_BYTES
from fedsci.transport.superlink_sites import register_sites
from fedsci.transport.tls import SiteTls

HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(40)  # a TLS greeting that goes no further


class Attacker:
    """Speaks to the port as a stranger, or with a certificate."""

    def __init__(self, deployment, name: str = "lab-66") -> None:
        self.address = ("127.0.0.1", deployment.port)
        self.tls = SiteTls.in_folder(deployment.authority.site(name))
        self.key = b64encode(public_key_to_bytes(self.tls.private_key().public_key()))
        register_sites(deployment.state, [self.tls.certificate.read_bytes()])

    def stranger(self, content: bytes = b"") -> socket.socket:
        connection = socket.create_connection(self.address, timeout=30)
        connection.sendall(content)
        return connection

    def site(self, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        plain = socket.create_connection(self.address, timeout=30)
        return (context or self.tls.context()).wrap_socket(plain, server_hostname="127.0.0.1")

    def request(self, body: bytes = b"", *, length: int | None = None, headers: bytes = b"") -> bytes:
        lines = [b"POST " + wire.SITE.encode() + b"send HTTP/1.1", b"host: x"]
        lines += [FLEET_HTTP_PUBLIC_KEY_HEADER.encode() + b": " + self.key]
        lines += [b"content-length: " + str(len(body) if length is None else length).encode()]
        return b"\r\n".join(lines) + b"\r\n" + headers + b"\r\n" + body

    def status(self) -> int:
        """What an honest call by this site gets."""
        with self.site() as connection:
            connection.sendall(self.request(b"\x00"))
            return int(connection.recv(100).split()[1])


def hung_up(connection: socket.socket, *, seconds: float = 30.0) -> bool:
    """Whether the other end closes, whatever it says before."""
    connection.settimeout(seconds)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def answer(attacker: Attacker, context: ssl.SSLContext) -> bytes:
    """What a call with another certificate gets; empty if it is hung up on."""
    try:
        with attacker.site(context) as connection:
            connection.sendall(attacker.request())
            return connection.recv(100)
    except OSError:
        return b""


def files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def memory_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


@pytest.fixture
def attacker(shared_deployment):
    return Attacker(shared_deployment)


@pytest.mark.parametrize(
    "content",
    [b"\x00" * 64, os.urandom(4096), b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"SSH-2.0-x\r\n", HELLO + b"\xff" * 512],
)
def test_what_is_no_tls_is_hung_up_on(attacker, content):
    with attacker.stranger(content) as connection:
        assert hung_up(connection)
    assert attacker.status() == 400


def test_without_the_consortiums_certificate_there_is_no_answer(attacker, shared_deployment, authority):
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nobody.load_verify_locations(cafile=str(attacker.tls.ca))
    other = SiteTls.in_folder(authority.site("lab-66"))  # another consortium's
    foreign = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    foreign.load_verify_locations(cafile=str(attacker.tls.ca))
    foreign.load_cert_chain(str(other.certificate), str(other.key))
    for context in (nobody, foreign):
        assert answer(attacker, context) == b""
    assert attacker.status() == 400


@pytest.mark.parametrize(
    "content",
    [
        b"\x00" * 64,
        b"POST / HTTP/1.1\r\nhost: x\r\n" + b"a: " + b"b" * (8 * MAX_HEADER_BYTES) + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + b"a: b\r\n" * MAX_HEADER_BYTES,
        b"POST /" + b"a" * (8 * MAX_HEADER_BYTES),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=["zeros", "long header", "many headers", "long path", "HTTP/2"],
)
def test_what_is_no_request_is_hung_up_on(attacker, content):
    with attacker.site() as connection:
        try:
            connection.sendall(content)
        except OSError:
            return
        assert hung_up(connection, seconds=10)
    assert attacker.status() == 400


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate", b"br", b"zstd"])
def test_nothing_is_decompressed(attacker, shared_deployment, encoding):
    bomb = gzip.compress(bytes(256 * 1024 * 1024), compresslevel=1) if encoding == b"gzip" else b"\x78\x9c" + bytes(999)
    before = memory_mb(shared_deployment.superlink.pid)
    with attacker.site() as connection:
        connection.sendall(attacker.request(bomb, headers=b"content-encoding: " + encoding + b"\r\n"))
        assert connection.recv(100).startswith(b"HTTP/1.1 400")
    assert memory_mb(shared_deployment.superlink.pid) < before + 100


def test_a_body_that_is_announced_too_large_is_not_read(attacker):
    with attacker.site() as connection:
        connection.sendall(attacker.request(length=MAX_BODY_BYTES + 1))
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_a_site_has_so_many_connections_and_no_more(attacker, shared_deployment):
    other = Attacker(shared_deployment, "lab-67")
    with ExitStack() as stack:
        held = [stack.enter_context(attacker.site()) for _ in range(MAX_CONNECTIONS)]
        for connection in held:
            connection.sendall(b"P")
        with attacker.site() as one_more:
            assert hung_up(one_more, seconds=10)
        assert other.status() == 400  # it was listened to
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with attacker.site() as connection:
            try:
                connection.sendall(attacker.request(b"\x00"))
                if connection.recv(100):
                    return
            except OSError:
                time.sleep(0.1)
    pytest.fail("the connections that were closed still count")


@pytest.mark.slow
def test_a_study_goes_on_while_the_port_is_attacked(deployment, study, tmp_path):
    tiny = study(labs=3, training={"rounds": 12})
    deployment.enrol(*tiny.plan.sites)
    deployment.start_sites(tiny.files, tiny.consortium.public)
    attacker = Attacker(deployment)
    pid = deployment.superlink.pid
    cut: dict[str, bool] = {}
    peak: list[float] = []
    over = threading.Event()

    def slow_headers() -> None:
        with attacker.site() as connection:
            connection.sendall(b"POST / HTTP/1.1\r\n")
            deadline = time.monotonic() + 40
            cut["slow headers"] = False
            while time.monotonic() < deadline and not cut["slow headers"]:
                try:
                    connection.sendall(b"a: b\r\n")
                except OSError:
                    cut["slow headers"] = True
                time.sleep(0.5)

    def silence() -> None:
        with attacker.site() as connection:
            cut["no request"] = hung_up(connection, seconds=40)

    def strangers() -> None:
        with ExitStack() as stack:
            silent = [stack.enter_context(attacker.stranger()) for _ in range(60)]
            silent += [stack.enter_context(attacker.stranger(HELLO)) for _ in range(60)]
            cut["half-open TLS"] = all(map(hung_up, silent))

    def noise() -> None:
        for turn in range(200):
            if over.is_set():
                return
            with attacker.stranger(os.urandom(1000)):
                pass
            with attacker.site() as connection:
                connection.sendall(attacker.request(os.urandom(20_000)) if turn % 2 else os.urandom(1000))
            peak.append(memory_mb(pid))
            time.sleep(0.1)

    def bodies() -> None:
        with ExitStack() as stack:
            for _ in range(4):
                connection = stack.enter_context(attacker.site())
                connection.sendall(attacker.request(bytes(MAX_BODY_BYTES // 2), length=MAX_BODY_BYTES))
            over.wait(60)

    attacks = [threading.Thread(target=attack) for attack in (slow_headers, silence, strangers, noise, bodies)]
    before = files(pid)
    for attack in attacks:
        attack.start()
    progress = tiny.run_deployed(deployment)
    over.set()
    for attack in attacks:
        attack.join()
    assert progress.rounds_completed == 12
    assert progress.dropped == []
    assert deployment.superlink.pid == pid
    assert cut == {"slow headers": True, "no request": True, "half-open TLS": True}
    assert max(peak) < 600
    deadline = time.monotonic() + 30
    while files(pid) > before + 15 and time.monotonic() < deadline:
        time.sleep(0.5)
    assert files(pid) <= before + 15  # three sites have two connections or three
    log = (deployment.state / "superlink.log").read_text()
    assert "Traceback" not in log
    assert len(log) < 200_000
