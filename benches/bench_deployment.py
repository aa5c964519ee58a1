"""Three sites in processes of their own over SuperLink and mutual TLS, beside Flower's own deployment.

Handlers hand back what they get, so that the whole time of an exchange is transport. Flower's side runs SuperLink and
SuperNodes over TLS as its documentation sets them up, with its FedAvg on a model of the same size; a round is the time
between the starts of two rounds. Both sides average the replies.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

import numpy as np
from deployment_return import measure_return, memory_mb
from deployment_seventeen import measure_seventeen
from harness import Results, check, main

from fedsci.transport.flower_coordinator import connect_grid
from fedsci.transport.link import SiteLink
from fedsci.transport.messages import Reply, Request
from fedsci.transport.superlink_process import Superlink
from fedsci.transport.superlink_sites import register_sites
from fedsci.transport.tls import CoordinatorTls

HERE = Path(__file__).resolve().parent
SITES = ["lab-01", "lab-02", "lab-03"]
PARAMETERS = 10_000_000
IDLE_S = 30.0
TICKS = os.sysconf("SC_CLK_TCK")
PYPROJECT = """
[project]
name = "stock"
version = "1.0.0"
description = "Flower's own FedAvg"
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "bench"
[tool.flwr.app.components]
serverapp = "stock.server:app"
clientapp = "stock.client:app"
[tool.flwr.app.config]
rounds = 4
parameters = 10000000
out = "x"
"""
CLIENT = """
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
app = ClientApp()
@app.train()
def train(message: Message, context: Context) -> Message:
    records = {"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": 1})}
    return Message(RecordDict(records), reply_to=message)
"""
SERVER = """
import json, time
import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
app = ServerApp()
class Timed(FedAvg):
    starts = []
    def configure_train(self, *args, **kwargs):
        self.starts.append(time.monotonic())
        return super().configure_train(*args, **kwargs)
@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    model = np.zeros(int(config["parameters"]), np.float32)
    strategy = Timed(fraction_evaluate=0.0, min_train_nodes=3, min_available_nodes=3)
    strategy.start(grid, ArrayRecord([model]), num_rounds=int(config["rounds"]))
    with open(config["out"], "w") as file:
        json.dump(strategy.starts, file)
"""


def processor_s(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def exchange(link: SiteLink, vector: Any = None) -> float:
    """Send a request to every site and wait for all replies; average the vectors that come back."""
    began = time.monotonic()
    replies = link.ask({site: Request(action="votes", vector=vector) for site in SITES})
    vectors = [reply.vector for reply in replies.values() if isinstance(reply, Reply)]
    assert len(vectors) == len(SITES)
    if vector is not None:
        mean = sum(vectors) / np.float32(len(vectors))
        assert mean[-1] == vector[-1]
    return time.monotonic() - began


def start_site(folder: Path, authority: Any, site: str, address: str) -> "subprocess.Popen[bytes]":
    """Start a site that hands back what it gets."""
    command = [sys.executable, str(HERE / "deployment_site.py"), site, str(authority.folder / site), address]
    return subprocess.Popen([*command, str(folder / site)])


def measure_ours(folder: Path, authority: Any, *, tiny: int, large: int, idle_s: float) -> dict[str, Any]:
    """Return the measurements of fedsci's deployment."""
    found: dict[str, Any] = {}
    tls = CoordinatorTls.in_folder(authority.folder)
    certificates = [(authority.site(site) / "site.crt").read_bytes() for site in SITES]
    state = folder / "coordinator"
    with Superlink(state, tls, host="127.0.0.1", port=0) as superlink:
        register_sites(state, certificates)
        sites = [start_site(folder, authority, site, f"127.0.0.1:{superlink.port}") for site in SITES]
        try:
            with connect_grid(state) as grid:
                link = SiteLink(grid=grid, timeout_s=120, registered=grid.nodes)
                link.discover(SITES, wait_s=120)
                used = processor_s(superlink.pid or 0), sum(processor_s(site.pid) for site in sites)
                found["tiny_s"] = [exchange(link) for _ in range(tiny)]
                found["tiny_processor_s"] = {
                    "superlink": (processor_s(superlink.pid or 0) - used[0]) / tiny,
                    "a site": (sum(processor_s(site.pid) for site in sites) - used[1]) / tiny / len(sites),
                }
                time.sleep(1)
                before, began = [processor_s(site.pid) for site in sites], time.monotonic()
                link_before = processor_s(superlink.pid or 0)
                time.sleep(idle_s)
                seconds = time.monotonic() - began
                found["idle"] = [(processor_s(p.pid) - b) / seconds for p, b in zip(sites, before, strict=True)]
                found["idle_superlink"] = (processor_s(superlink.pid or 0) - link_before) / seconds
                found["rss_mb"] = [memory_mb(site.pid, "VmRSS") for site in sites]
                model = np.random.default_rng(0).random(PARAMETERS, dtype=np.float32)
                found["large_s"] = [exchange(link, model) for _ in range(large)]
                found["rss_mb_after_10m"] = [memory_mb(site.pid, "VmRSS") for site in sites]
                found["most_mb_10m"] = [memory_mb(site.pid, "VmHWM") for site in sites]
                found["superlink_most_mb_10m"] = memory_mb(superlink.pid or 0, "VmHWM")
        finally:
            for site in sites:
                site.terminate()
            for site in sites:
                site.wait(30)
    return found


def measure_stock(folder: Path, authority: Any, *, rounds: int, timeout_s: float) -> list[float] | None:
    """Return the seconds of Flower's rounds, the first left out; None if it did not finish."""
    app, home, out = folder / "app", folder / "home", folder / "rounds.json"
    (app / "stock").mkdir(parents=True)
    (app / "stock" / "__init__.py").touch()
    (app / "stock" / "client.py").write_text(CLIENT)
    (app / "stock" / "server.py").write_text(SERVER)
    (app / "pyproject.toml").write_text(PYPROJECT)
    home.mkdir()
    port, node_ports = free_ports(1)[0], free_ports(len(SITES))
    address, ca = f"127.0.0.1:{port}", str(authority.folder / "ca.crt")
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "bench"\n[superlink.bench]\naddress = "{address}"\nroot-certificates = "{ca}"\n'
    )
    bin_folder = Path(sys.executable).parent
    environment = os.environ | {"FLWR_HOME": str(home), "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    log = (folder / "stock.log").open("wb")
    common = {"env": environment, "stdout": log, "stderr": log, "cwd": folder}
    processes: list[subprocess.Popen[bytes]] = []
    try:
        command = ["flower-superlink", "--host", "127.0.0.1", "--port", str(port), "--ssl-ca-certfile", ca]
        command += ["--ssl-certfile", str(authority.folder / "server.crt")]
        command += ["--ssl-keyfile", str(authority.folder / "server.key")]
        command += ["--disable-runtime-dependency-installation", "--database", str(folder / "stock.db")]
        processes.append(subprocess.Popen(command, **common))
        time.sleep(8)
        for node_port in node_ports:
            command = ["flower-supernode", "--superlink", address, "--root-certificates", ca]
            command += ["--host", "127.0.0.1", "--port", str(node_port)]
            processes.append(subprocess.Popen(command, **common))
        config = f'rounds={rounds + 1} parameters={PARAMETERS} out="{out}"'
        run = subprocess.run(["flwr", "run", str(app), "bench", "-c", config], timeout=120, check=False, **common)
        deadline = time.monotonic() + timeout_s
        while run.returncode == 0 and not out.exists() and time.monotonic() < deadline:
            time.sleep(1)
        time.sleep(0.5)
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        log.close()
    if not out.exists():
        print((folder / "stock.log").read_text(errors="replace")[-2000:])
        return None
    starts = json.loads(out.read_text())
    return [later - earlier for earlier, later in pairwise(starts)][1:]


def free_ports(count: int) -> list[int]:
    """Return ports that are free now."""
    import socket

    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [item.getsockname()[1] for item in sockets]
    for item in sockets:
        item.close()
    return ports


def measure(quick: bool, only: str | None = None) -> Results:
    """Measure both sides' exchanges, the return of what was killed, and a study of many sites."""
    results = Results(bench="deployment")
    spec = importlib.util.spec_from_file_location(
        "certificates", HERE.parent / "tests" / "transport" / "certificates.py"
    )
    assert spec is not None
    assert spec.loader is not None
    certificates = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(certificates)
    folder = Path(tempfile.mkdtemp(prefix="fedsci-bench-"))
    try:
        authority = certificates.Authority(folder / "ca")
        if only in (None, "exchange"):
            exchanges(results, folder, authority, quick=quick)
        if only in (None, "return"):
            for site in SITES:
                authority.site(site)
            (folder / "return").mkdir()
            results.details["return_s"] = measure_return(
                folder / "return",
                authority,
                SITES,
                lambda site, address: start_site(folder / "return", authority, site, address),
                times=2 if quick else 5,
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if only == "seventeen" or (only is None and not quick):
        found = results.details["seventeen"] = measure_seventeen()
        results.checks.append(check("seventeen_sites_rounds_completed", found["rounds"], at_least=20))
    results.details["load_average"] = os.getloadavg()
    return results


def exchanges(results: Results, folder: Path, authority: Any, *, quick: bool) -> None:
    """Measure tiny and large exchanges, idle sites, and Flower's own deployment."""
    ours = measure_ours(
        folder, authority, tiny=15 if quick else 40, large=3 if quick else 5, idle_s=15.0 if quick else IDLE_S
    )
    (folder / "stock").mkdir()
    stock = measure_stock(folder / "stock", authority, rounds=3 if quick else 4, timeout_s=240 if quick else 480)
    large = median(ours["large_s"])
    ratio = None if not stock else median(stock) / large
    print(f"40 MB to three sites and back: {large:.2f} s; Flower: {'-' if not stock else f'{median(stock):.2f} s'}")
    results.checks += [
        check("tiny_roundtrip_s_median", median(ours["tiny_s"]), at_most=0.3),
        check("speedup_10m_over_stock", ratio, at_least=2.0),
        check("idle_cpu_fraction", max(ours["idle"]), at_most=0.01),
        check("site_rss_mb", max(ours["rss_mb"]), at_most=400),
    ]
    results.details |= ours | {"stock_round_s": stock}


if __name__ == "__main__":
    main("deployment", __doc__.splitlines()[0], measure, parts=("exchange", "return", "seventeen"))
