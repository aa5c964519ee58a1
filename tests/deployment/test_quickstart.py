"""docs/deploy/quickstart.md, command by command, from an empty folder; only the ports are this test's own."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from fedsci_test_program import COMMAND  # made by conftest.py

PAGE = Path(__file__).parents[2] / "docs" / "deploy" / "quickstart.md"


@pytest.mark.slow
def test_the_quickstart_works_as_written(free_ports):
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    commands = [*blocks[0].strip().splitlines(), *blocks[1:]]
    assert len(commands) <= 10
    folder = Path(tempfile.mkdtemp(prefix="fedsci-test-"))
    enrolment, fleet = free_ports
    (folder / "bin").mkdir()
    (folder / "bin" / "fedsci").write_text(f'#!/bin/sh\nexec {" ".join(COMMAND)} "$@"\n')
    (folder / "bin" / "fedsci").chmod(0o755)
    here = folder / "here"
    here.mkdir()
    environment = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}

    def start(command: str) -> subprocess.Popen[bytes]:
        with (folder / "out").open("ab") as out:
            process = ["bash", "-c", command]
            return subprocess.Popen(process, cwd=here, env=environment, stdout=out, stderr=out, start_new_session=True)

    def run(command: str) -> None:
        assert start(command).wait(300) == 0, (command, (folder / "out").read_text())

    init, begin, *others = commands
    run(init + f":{enrolment} --fleet-port {fleet}")
    started = [start(begin)]
    try:
        deadline = time.monotonic() + 60
        while '"started"' not in (folder / "out").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        for command in others:
            if "site start" in command:
                started.append(start(command + "\nwait"))
            else:
                run(command)
        (run_folder,) = (here / "runs").iterdir()
        summary = json.loads((run_folder / "summary.json").read_text())
        assert (summary["engine"], summary["status"]) == ("flower", "completed")
        assert summary["metrics"]["federated"]["accuracy"] > 0.75
        print((folder / "out").read_text())
        assert "epsilon" in (folder / "out").read_text()
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGTERM)
        for process in started:
            process.wait(60)
        shutil.rmtree(folder)
