"""A consortium on one machine with real processes: certificates, SuperLink behind its door, sites."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

with warnings.catch_warnings():  # Flower imports typer, which imports names that click has deprecated
    warnings.filterwarnings("ignore", "'click", DeprecationWarning)
    from fedsci.config.site import load_site
    from fedsci.config.study_file import load_study
    from fedsci.coordinator.progress import Progress, RoundResult
    from fedsci.coordinator.study import run_study
    from fedsci.simulation.consortium import SimulatedConsortium
    from fedsci.site.keystore import Keystore
    from fedsci.site.service import SiteService
    from fedsci.transport.flower_coordinator import connect_grid
    from fedsci.transport.in_memory import LocalGrid
    from fedsci.transport.link import SiteLink
    from fedsci.transport.site_app import build_site_app
    from fedsci.transport.superlink_process import Superlink
    from fedsci.transport.superlink_sites import register_sites
    from fedsci.transport.tls import CoordinatorTls

HERE = Path(__file__).parent
SITE = HERE / "site_process.py"
spec = importlib.util.spec_from_file_location("fedsci_test_certificates", HERE / "certificates.py")
assert spec is not None
assert spec.loader is not None
certificates = sys.modules.setdefault(spec.name, importlib.util.module_from_spec(spec))
spec.loader.exec_module(certificates)
Authority = certificates.Authority


@pytest.fixture
def authority(tmp_path: Path) -> Any:
    """A certificate authority of its own for each test."""
    return Authority(tmp_path / "ca")


@dataclass(kw_only=True)
class Deployment:
    """A coordinator with its SuperLink, and the processes of sites."""

    folder: Path
    authority: Any
    port: int = 0
    superlink: Superlink | None = None
    sites: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.folder / "coordinator"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start_superlink(self) -> None:
        tls = CoordinatorTls.in_folder(self.authority.folder)
        self.superlink = Superlink(self.state, tls, host="127.0.0.1", port=self.port)
        self.superlink.start()
        self.port = self.superlink.port

    def kill_superlink(self) -> None:
        assert self.superlink is not None
        assert self.superlink.pid is not None
        os.kill(self.superlink.pid, signal.SIGKILL)
        self.superlink.stop()

    def enrol(self, *names: str) -> dict[str, int]:
        contents = [(self.authority.site(name) / "site.crt").read_bytes() for name in names]
        return register_sites(self.state, contents)

    def start_sites(self, files: list[Path], consortium: bytes, *, hold: str = "") -> None:
        """Start sites forked from one process, which is the first of them and stops the others when it stops."""
        sites = []
        for file in files:
            name = str(load_site(file).site)
            self.site_state(name).mkdir(parents=True, exist_ok=True)
            site = {"site_file": file, "state": self.site_state(name), "tls": self.authority.folder / name}
            site |= {"address": self.address, "consortium": consortium.hex(), "hold": hold}
            sites.append({key: str(value) for key, value in site.items()})
        name = str(load_site(files[0]).site)
        with (self.folder / f"{name}.log").open("ab") as log:
            command = [sys.executable, str(SITE), *(json.dumps(site) for site in sites)]
            self.sites[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def site_state(self, name: str) -> Path:
        return self.folder / "sites" / name

    def kill_site(self, name: str) -> None:
        self.sites[name].kill()
        self.sites.pop(name).wait()

    def wait_for(self, path: Path, *, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not path.exists():
            assert time.monotonic() < deadline, f"{path} did not appear"
            time.sleep(0.05)

    def stop(self) -> None:
        for process in self.sites.values():
            process.terminate()
        for process in self.sites.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.sites.clear()
        if self.superlink is not None:
            self.superlink.stop()


@pytest.fixture(scope="session")
def shared_deployment() -> Iterator[Deployment]:
    """One SuperLink for all fast tests: it takes seconds to start."""
    folder = Path(tempfile.mkdtemp(prefix="fedsci-test-"))  # a short path: there is a Unix socket in it
    deployment = Deployment(folder=folder, authority=Authority(folder / "ca"))
    try:
        deployment.start_superlink()
        yield deployment
    finally:
        deployment.stop()
        shutil.rmtree(folder)


@pytest.fixture
def deployment(request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """A deployment that a test may break."""
    folder = Path(tempfile.mkdtemp(prefix="fedsci-test-"))
    deployment = Deployment(folder=folder, authority=Authority(folder / "ca"))
    try:
        deployment.start_superlink()
        yield deployment
    finally:
        deployment.stop()
        shutil.rmtree(folder)


@dataclass(kw_only=True)
class Study:
    """A masked study without noise, ready to run anywhere."""

    files: list[Path]
    plan: Any
    consortium: SimulatedConsortium
    progress: Progress = field(default_factory=Progress)
    after_round: Callable[[int], None] = lambda number: None

    def phase(self, name: str) -> None: ...

    def round_finished(self, progress: Progress, result: RoundResult) -> None:
        self.after_round(result.number)

    def run_over(self, link: SiteLink, *, wait_s: float = 60.0) -> Progress:
        self.progress = Progress()
        keys = link.discover(self.plan.sites, wait_s=wait_s)
        run_study(link, self.plan, self.progress, self, roster=self.consortium.roster(self.plan, keys))
        return self.progress

    def run_deployed(self, deployment: Deployment, *, timeout_s: float = 60.0) -> Progress:
        with connect_grid(deployment.state) as grid:
            return self.run_over(SiteLink(grid=grid, timeout_s=timeout_s, registered=grid.nodes))

    def run_in_process(self, state: Path) -> Progress:
        services = [SiteService(load_site(file), state / str(load_site(file).site)) for file in self.files]
        for service in services:
            service.keystore.pin_consortium(self.consortium.public)
        grid = LocalGrid(build_site_app(lambda number: services[number].handle), len(services))
        try:
            return self.run_over(SiteLink(grid=grid, timeout_s=60))
        finally:
            grid.close()


@pytest.fixture
def study(
    write_study: Callable[..., Path], make_lab: Callable[..., Path], tmp_path: Path
) -> Iterator[Callable[..., Study]]:
    """Write a masked study without noise and its labs."""

    def make(*, labs: int = 3, **changes: Any) -> Study:
        files = [make_lab(number, rows=24, policy={"mechanisms": ["none"]}) for number in range(1, labs + 1)]
        values = {
            "privacy": {"mechanism": "none", "epsilon": None},
            "evaluation": {"baselines": []},
            "strategy": "fedavg",
        }
        loaded = load_study(write_study(sites=[file.name for file in files], **values | changes))
        consortium_state = tmp_path / "consortium"
        consortium_state.mkdir()
        return Study(files=list(loaded.site_files), plan=loaded.plan, consortium=SimulatedConsortium(consortium_state))

    yield make
    for folder in [*tmp_path.glob("*/lab-*"), *Path(tempfile.gettempdir()).glob("fedsci-test-*/sites/lab-*")]:
        for run in (folder / "runs").glob("*"):
            Keystore(folder).forget(run.name)
