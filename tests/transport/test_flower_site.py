"""The site's loop where there is nobody to talk to, and beside another of its kind."""

import contextlib
import fcntl
import socket
import ssl
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fedsci.errors import InputError
from fedsci.transport.flower_site import SiteConnection
from fedsci.transport.frames import pack_frames
from fedsci.transport.messages import Reply
from fedsci.transport.tls import SiteTls


def connection(authority, state, address: str, notices: list[str]) -> SiteConnection:
    tls = SiteTls.in_folder(authority.site("lab-01"))
    return SiteConnection(lambda request: Reply(), address=address, tls=tls, state=state, notice=notices.append)


def test_without_a_coordinator_it_says_so_once_goes_on_trying_and_stops_when_told(authority, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    notices: list[str] = []
    site = connection(authority, tmp_path / "state", f"127.0.0.1:{port}", notices)
    thread = threading.Thread(target=site.serve)
    thread.start()
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.settimeout(30)
        for _ in range(2):  # it comes back, and is hung up on
            listener.accept()[0].close()
    site.stop()
    thread.join(30)
    assert not thread.is_alive()
    assert notices
    assert all(text.startswith(f"no connection to 127.0.0.1:{port}: ") for text in notices)
    assert len(notices) == len(set(notices))


def test_a_site_is_served_by_one_process(authority, tmp_path):
    site = connection(authority, tmp_path, "127.0.0.1:9", [])
    with (tmp_path / "connection.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="serves this site already"):
            site.serve()


def test_told_to_stop_before_it_began_it_does_nothing(authority, tmp_path):
    site = connection(authority, tmp_path, "127.0.0.1:9", [])
    site.stop()
    site.serve()


@contextlib.contextmanager
def coordinator(chain, key, said):
    """Somebody who answers calls with ``said(path)``: a date and a body; yields the address and the paths called."""
    calls = []

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            calls.append(self.path)
            date, body = said(self.path)
            self.send_response_only(200)
            self.send_header("Date", date)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None: ...

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    with Quiet(("127.0.0.1", 0), Answers) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}", calls
        server.shutdown()
        thread.join()


def until(what) -> None:
    end = time.monotonic() + 30
    while not what() and time.monotonic() < end:
        time.sleep(0.02)
    assert what()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("begin", "receive"),
    [(b"no node", b""), (b"1", b"\xff"), (b"1", pack_frames([b"\xff\xff"])), (b"1", pack_frames([b"\x12\x00"]))],
    ids=["node", "frames", "protobuf", "no-message"],
)
def test_an_answer_that_makes_no_sense_is_no_connection_and_not_the_sites_end(authority, tmp_path, begin, receive):
    def said(path):
        return "Fri, 31 Dec 9999 23:59:59 GMT", begin if path.endswith("begin") else receive

    notices: list[str] = []
    files = authority.folder
    with coordinator(files / "server.crt", files / "server.key", said) as (address, calls):
        site = connection(authority, tmp_path / "state", address, notices)
        thread = threading.Thread(target=site.serve)
        thread.start()
        try:
            until(lambda: sum(path.endswith("begin") for path in calls) >= 3)
            assert thread.is_alive()
        finally:
            site.stop()
            thread.join(30)
    assert any("its answer makes no sense" in text for text in notices)


@pytest.mark.parametrize("date", ["Sat, 01 Jan 2050 00:00:00 GMT", "Mon, 01 Jan 2024 00:00:00 +99999999999999999999"])
def test_who_has_no_good_certificate_is_told_about_and_sets_no_clock(authority, tmp_path, date):
    """Somebody in the middle shows an old certificate of the coordinator's, and says what he likes."""
    old = authority.site("old", days=(-30, -1), server=True)
    told: list[float] = []
    with coordinator(old / "site.crt", old / "site.key", lambda path: (date, b"")) as (address, calls):
        tls = SiteTls.in_folder(authority.site("lab-01"))
        site = SiteConnection(lambda _: Reply(), address=address, tls=tls, state=tmp_path, clock=told.append)
        thread = threading.Thread(target=site.serve)
        thread.start()
        try:
            until(lambda: len(calls) >= 2)
            assert thread.is_alive()
        finally:
            site.stop()
            thread.join(30)
    assert set(calls) == {"/"}  # no call of a site's was made
    assert len(told) == (1 if "2050" in date else 0)
    assert site._clock.ahead_s == 0


def test_the_first_answer_of_the_coordinator_tells_what_time_it_is(authority, tmp_path):
    told: list[float] = []
    there = formatdate(time.time() - 3000, usegmt=True)
    files = authority.folder
    with coordinator(files / "server.crt", files / "server.key", lambda path: (there, b"1")) as (address, calls):
        tls = SiteTls.in_folder(authority.site("lab-01"))
        site = SiteConnection(lambda _: Reply(), address=address, tls=tls, state=tmp_path, clock=told.append)
        thread = threading.Thread(target=site.serve)
        thread.start()
        try:
            until(lambda: told)
        finally:
            site.stop()
            thread.join(30)
    assert calls[0].endswith("begin")  # long before the first heartbeat
    assert told[0] == pytest.approx(3000, abs=5)
