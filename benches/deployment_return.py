"""A part of bench_deployment.py: how long it takes until every site answers again after a process was killed."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from fedsci.transport.flower_coordinator import connect_grid
from fedsci.transport.link import SiteLink
from fedsci.transport.messages import Reply, Request
from fedsci.transport.superlink_process import Superlink
from fedsci.transport.superlink_sites import register_sites
from fedsci.transport.tls import CoordinatorTls

AWAY_S = 8.0


def memory_mb(pid: int, name: str) -> float:
    """Return VmRSS (now) or VmHWM (the most so far) of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def until_all_answer(link: SiteLink, sites: Sequence[str]) -> float:
    """Ask the sites until each has answered; return the seconds it took."""
    began, waiting = time.monotonic(), set(sites)
    while waiting:
        replies = link.ask({site: Request(action="votes") for site in waiting})
        waiting -= {site for site, reply in replies.items() if isinstance(reply, Reply)}
        time.sleep(0.1)
    return time.monotonic() - began


def measure_return(
    folder: Path,
    authority: Any,
    sites: Sequence[str],
    start: Callable[[str, str], "subprocess.Popen[bytes]"],
    times: int,
) -> dict[str, list[float]]:
    """Return seconds until all answer: after a first start, and after each kind of death.

    ``start`` starts a site's process, given its name and the address. SuperLink's own start is not in the seconds.
    """
    found: dict[str, list[float]] = {"superlink killed": [], "superlink stopped, away 8 s": [], "site killed": []}
    tls, state = CoordinatorTls.in_folder(authority.folder), folder / "coordinator"
    superlink = Superlink(state, tls, host="127.0.0.1", port=0)
    superlink.start()
    port = superlink.port
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        register_sites(state, [(authority.site(site) / "site.crt").read_bytes() for site in sites])
        with connect_grid(state) as grid:
            link = SiteLink(grid=grid, timeout_s=60, registered=grid.nodes)
            began = time.monotonic()
            processes = {site: start(site, f"127.0.0.1:{port}") for site in sites}
            link.discover(sites, wait_s=120)
            found["sites started (with their imports)"] = [time.monotonic() - began]
            for _ in range(times):
                os.kill(superlink.pid or 0, signal.SIGKILL)
                superlink.stop()
                superlink = Superlink(state, tls, host="127.0.0.1", port=port)
                superlink.start()
                found["superlink killed"].append(until_all_answer(link, sites))
                time.sleep(5)
                superlink.stop()  # as when its coordinator is killed
                time.sleep(AWAY_S)
                superlink = Superlink(state, tls, host="127.0.0.1", port=port)
                superlink.start()
                found["superlink stopped, away 8 s"].append(until_all_answer(link, sites))
                time.sleep(5)
                processes[sites[0]].kill()
                processes[sites[0]].wait()
                processes[sites[0]] = start(sites[0], f"127.0.0.1:{port}")
                found["site killed"].append(until_all_answer(link, sites[:1]))
                time.sleep(5)
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait(30)
        superlink.stop()
    for what, seconds in found.items():
        print(f"all answer again, {what}: median {median(seconds):.1f} s of {[round(s, 1) for s in seconds]}")
    return found
