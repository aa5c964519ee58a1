"""The site's loop where there is nobody to talk to, and beside another of its kind."""

import fcntl
import socket
import threading

import pytest

from fedsci.errors import InputError
from fedsci.transport.flower_site import SiteConnection
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
