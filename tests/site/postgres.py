"""A PostgreSQL server of the tests' own: a fresh cluster on a Unix socket, run by a user without rights."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

USER, PASSWORD = "keeper", "pa55word/of@the:keeper"


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server.

    Attributes:
        folder: holds the cluster, the socket and the log.
        process: the postmaster.
    """

    folder: Path
    process: "subprocess.Popen[bytes]"

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://{USER}:{quote(PASSWORD, safe='')}@/postgres?host={self.folder}"

    def execute(self, sql: str) -> int:
        """Run one statement outside of the ledger; return how many rows it changed."""
        import psycopg

        place = {"host": str(self.folder), "dbname": "postgres"}
        with psycopg.connect(**place, user=USER, password=PASSWORD, autocommit=True) as connection:
            return connection.execute(sql).rowcount


def programs() -> Path:
    """Return the folder of PostgreSQL's programs, installed from Debian if need be and possible; else skip."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found and os.getuid() == 0 and shutil.which("apt-get"):
        quiet: dict[str, Any] = {"capture_output": True, "timeout": 600, "check": False}
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        if subprocess.run(["apt-get", "update", "-q"], **quiet).returncode == 0:
            subprocess.run(["apt-get", "install", "-qy", "postgresql"], env=environment, **quiet)
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        pytest.skip("there is no PostgreSQL here and it cannot be installed: apt-get install postgresql")
    return found[-1].parent if found else Path(str(on_path)).resolve().parent


@contextmanager
def running_server() -> Iterator[Server]:
    """Start a server, and stop it and remove all it wrote at the end."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'fedsci[postgres]'")
    tools = programs()
    as_user: dict[str, Any] = {}
    folder = Path(tempfile.mkdtemp(prefix="fedsci-postgres-"))
    if os.getuid() == 0:  # it refuses to run as root
        known = [name for name in ("postgres", "nobody") if name in {entry.pw_name for entry in pwd.getpwall()}]
        owner = pwd.getpwnam(known[0])
        as_user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    try:
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)
        initialise = [tools / "initdb", "-D", folder / "data", "-U", USER, "-A", "scram-sha-256", "--no-sync"]
        done = subprocess.run(
            [*initialise, f"--pwfile={folder / 'password'}"], capture_output=True, cwd=folder, check=False, **as_user
        )
        assert done.returncode == 0, done.stderr
        with (folder / "log").open("wb") as log:
            options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}"]
            process = subprocess.Popen(
                [tools / "postgres", "-D", folder / "data", *options], stdout=log, stderr=log, cwd=folder, **as_user
            )
        server = Server(folder=folder, process=process)
        try:
            wait_for(server)
            yield server
        finally:
            process.send_signal(signal.SIGINT)  # closes connections and stops
            process.wait(60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(server: Server) -> None:
    """Wait until the server answers."""
    import psycopg

    for _ in range(300):
        try:
            server.execute("SELECT 1")
        except psycopg.OperationalError:
            assert server.process.poll() is None, (server.folder / "log").read_text()
            time.sleep(0.1)
        else:
            return
    raise AssertionError((server.folder / "log").read_text())
