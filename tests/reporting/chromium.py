"""A real Chromium from Debian, installed if need be and possible, driven over a pipe by its own protocol."""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_PATIENCE_S = 60


def program() -> str:
    """Return Chromium, installed from Debian if need be and possible; else skip."""
    if shutil.which("chromium") is None and os.getuid() == 0 and shutil.which("apt-get"):
        quiet: dict[str, Any] = {"capture_output": True, "timeout": 900, "check": False}
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        if subprocess.run(["apt-get", "update", "-q"], **quiet).returncode == 0:
            install = ["apt-get", "install", "-qy", "--no-install-recommends", "chromium"]
            subprocess.run(install, env=environment, **quiet)
    found = shutil.which("chromium")
    if found is None or shutil.which("bash") is None:
        pytest.skip("there is no Chromium here and it cannot be installed: apt-get install chromium")
    return found


class Browser:
    """One tab.

    Attributes:
        said: what the page or the browser wrote to the console, warnings and errors alike.
        asked: addresses of everything that was requested.
    """

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write, self._rest, self._number = read, write, b"", 0
        self.said: list[str] = []
        self.asked: list[str] = []
        targets = self._call("Target.getTargets")["targetInfos"]
        page = next(each["targetId"] for each in targets if each["type"] == "page")
        attached = self._call("Target.attachToTarget", targetId=page, flatten=True)
        self._session: str | None = attached["sessionId"]
        for domain in ("Page", "Log", "Runtime", "Network"):
            self._call(f"{domain}.enable")

    _session: str | None = None

    def show(self, page: Path, *, view: str = "", width: int = 1280, dark: bool = False) -> None:
        """Open a page at a fragment, so wide, in light or dark."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._call("Emulation.setEmulatedMedia", features=scheme)
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self._call("Page.navigate", url="about:blank")
        self._call("Page.navigate", url=page.as_uri() + (f"#{view}" if view else ""))
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")

    def medium(self, name: str) -> None:
        """Show the page as on ``screen`` or in ``print``; empty for what it is."""
        self._call("Emulation.setEmulatedMedia", media=name)

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script: str) -> None:
        """Return when an expression in the page is true."""
        deadline = time.monotonic() + _PATIENCE_S
        while not self.run(script):
            assert time.monotonic() < deadline, script
            time.sleep(0.02)

    def screenshot(self, target: Path, *, longest: int = 12_000) -> None:
        """Write a picture of the whole page, from its top."""
        self.run("window.scrollTo(0, 0)")
        height = min(longest, int(self.run("document.documentElement.scrollHeight")))
        clip = {"x": 0, "y": 0, "width": self.run("innerWidth"), "height": height, "scale": 1}
        shot = self._call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        target.write_bytes(base64.b64decode(shot["data"]))

    def _call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            answer = self._next(deadline)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self._note(answer.get("method", ""), answer.get("params", {}))

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))[0]
            assert ready, "the browser does not answer"
            more = os.read(self._read, 1 << 20)
            assert more, "the browser has ended"
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _note(self, event: str, values: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.asked.append(values["request"]["url"])
        elif event in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            self.said.append(json.dumps(values))


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Browser]:
    """Run a browser without any network, its profile in a folder of its own."""
    options = [
        *("--headless", "--remote-debugging-pipe", f"--user-data-dir={folder}", "--disable-gpu", "--no-first-run"),
        *("--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND", "--disable-dev-shm-usage"),
        *(("--no-sandbox",) if os.getuid() == 0 else ()),
    ]
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    # the browser reads 3 and writes 4, so its ends must not be those already
    theirs = [fcntl.fcntl(each, fcntl.F_DUPFD, 20) for each in (theirs_in, theirs_out)]
    command = ["bash", "-c", 'exec "${@:3}" 3<&"$1" 4>&"$2"', "bash", *map(str, theirs), program(), *options]
    process = subprocess.Popen(
        [*command, "about:blank"], pass_fds=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for each in (theirs_in, theirs_out, *theirs):
        os.close(each)
    try:
        yield Browser(ours_in, ours_out)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)
        os.close(ours_in)
        os.close(ours_out)
