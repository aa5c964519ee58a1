"""A real nginx from Debian, installed if need be and possible."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


def program() -> str:
    """Return nginx with its stream module, installed from Debian if need be and possible; else skip."""
    if not (shutil.which("nginx") and STREAM.exists()) and os.getuid() == 0 and shutil.which("apt-get"):
        quiet: dict[str, Any] = {"capture_output": True, "timeout": 600, "check": False}
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        if subprocess.run(["apt-get", "update", "-q"], **quiet).returncode == 0:
            install = ["apt-get", "install", "-qy", "--no-install-recommends", "nginx-light", "libnginx-mod-stream"]
            subprocess.run(install, env=environment, **quiet)
    found = shutil.which("nginx")
    if found is None or not STREAM.exists():
        pytest.skip(
            "there is no nginx here and it cannot be installed: apt-get install nginx-light libnginx-mod-stream"
        )
    return found


@contextmanager
def running(folder: Path, configuration: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Serve by a configuration, from a folder of its own; a configuration that nginx refuses fails the test."""
    nginx = program()
    folder.mkdir(exist_ok=True)
    path = folder / "nginx.conf"
    path.write_text(configuration)
    command = [nginx, "-c", str(path), "-e", str(folder / "error.log")]
    tried = subprocess.run([*command, "-t"], capture_output=True, text=True, timeout=60, check=False)
    assert tried.returncode == 0, tried.stderr
    process = subprocess.Popen([*command, "-g", "daemon off;"], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not (folder / "nginx.pid").exists() or not (folder / "nginx.pid").read_text().strip():
            assert process.poll() is None, (folder / "error.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        process.wait(60)
