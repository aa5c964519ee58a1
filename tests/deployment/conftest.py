"""A coordinator and its sites, started by the commands people use, each in a process of its own."""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fedsci.site.keystore import Keystore

NAME = "fedsci_test_program"
if NAME not in sys.modules:
    spec = importlib.util.spec_from_file_location(NAME, Path(__file__).parents[1] / "cli" / "program.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules[NAME] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[NAME])
program = sys.modules[NAME]


@dataclass
class Deployment:
    """Commands run in ``folder``; processes are known by name and stopped by their pid."""

    folder: Path
    fedsci: Any
    study: Any
    ports: tuple[int, int]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        """Start a command as a process of its own; what it says goes to ``<name>.out``."""
        with (self.folder / f"{name}.out").open("ab") as out:
            self.processes[name] = subprocess.Popen(
                [*program.COMMAND, *arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=os.environ | {"OMP_NUM_THREADS": "1"} | dict(environment or {}),
            )

    def start_coordinator(self) -> None:
        self.start("coordinator", "coordinator", "start", "--host", "127.0.0.1")

    def start_site(self, lab: str, environment: Mapping[str, str] | None = None) -> None:
        self.start(lab, "site", "start", f"{lab}.yaml", environment=environment)

    def found(self, *options: str) -> None:
        """Found a consortium, start its coordinator, and let all labs join with tokens."""
        enrolment, fleet = self.ports
        self.good("coordinator", "init", "--address", f"127.0.0.1:{enrolment}", "--fleet-port", str(fleet), *options)
        self.start_coordinator()
        for lab in self.study.labs:
            self.good("site", "init", f"{lab}.yaml")
        self.until(lambda: "started" in self.events("coordinator"))
        for lab in self.study.labs:
            self.join(lab)

    def join(self, lab: str) -> None:
        token = self.good("coordinator", "enrol", lab, "--quiet").out.strip()
        self.good("site", "join", f"{lab}.yaml", token)

    def good(self, *arguments: str) -> Any:
        """Run a command that must work."""
        outcome = self.fedsci(*arguments)
        assert outcome.code == 0, outcome.err
        return outcome

    def json(self, *arguments: str) -> Any:
        return program.strict_json(self.good(*arguments, "--json").out)

    def submit(self, *arguments: str) -> Any:
        return self.fedsci("coordinator", "submit", "study.yaml", "--sites", "all", *arguments)

    def runs(self) -> Any:
        return self.json("coordinator", "runs")

    def until(self, holds: Callable[[], Any], *, seconds: float = 120.0) -> None:
        """Wait until something holds; every process that was started must live."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, self.said()
            ended = [name for name, process in self.processes.items() if process.poll() is not None]
            assert not ended, self.said()
            time.sleep(0.1)

    def log(self, name: str) -> list[dict[str, Any]]:
        """What a process wrote down, line by line."""
        lines = (self.folder / f"{name}.out").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def events(self, name: str) -> list[str]:
        return [line["event"] for line in self.log(name)]

    def said(self) -> str:
        return "\n".join(f"{path.name}: {path.read_text()[-1500:]}" for path in sorted(self.folder.glob("*.out")))

    def kill(self, name: str) -> None:
        """End a process as a power cut would."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def stop(self, *names: str) -> list[int]:
        """Ask processes to end, and return how they did."""
        processes = [self.processes.pop(name) for name in names]
        for process in processes:
            process.terminate()
        return [process.wait(60) for process in processes]

    def close(self) -> None:
        coordinator = self.processes.pop("coordinator", None)
        if coordinator is not None:
            coordinator.terminate()  # and its SuperLink with it
        for process in self.processes.values():
            process.kill()
            process.wait()
        if coordinator is not None:
            coordinator.wait(60)
        for folder in self.folder.glob("state/lab-*"):
            for run in (folder / "runs").glob("*"):
                Keystore(folder).forget(run.name)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def masked_labs(folder: Path, *, labs: int, rounds: int, min_survivors: int = 3) -> Deployment:
    """Write labs with a masked, private study; nothing is started."""
    study = program.Study(folder, labs=labs)
    study.values["training"]["rounds"] = rounds
    study.values["privacy"] = {"mechanism": "distributed", "epsilon": 3.0, "colluding_sites": 1}
    study.values["secure_aggregation"] = {"min_survivors": min_survivors}
    del study.values["sites"]
    for lab, values in study.sites.items():
        values["state"] = f"state/{lab}"
        values["policy"] |= {"mechanisms": ["distributed"], "unmasked_updates": False}
    study.write()
    return Deployment(folder, program.Program(folder), study, (free_port(), free_port()))


@pytest.fixture
def free_ports() -> tuple[int, int]:
    """Two ports that nobody uses."""
    return free_port(), free_port()


@pytest.fixture
def deploy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Deployment]]:
    """Labs with a masked, private study, written but not started."""
    for name in ("FEDSCI_STATE", "FEDSCI_COORDINATOR", "FEDSCI_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "400")
    folder = Path(tempfile.mkdtemp(prefix="fedsci-test-"))  # a short path: there is a Unix socket in it
    made: list[Deployment] = []

    def make(*, labs: int = 3, rounds: int = 3, min_survivors: int = 3) -> Deployment:
        made.append(masked_labs(folder, labs=labs, rounds=rounds, min_survivors=min_survivors))
        return made[-1]

    yield make
    for deployment in made:
        deployment.close()
    shutil.rmtree(folder)
