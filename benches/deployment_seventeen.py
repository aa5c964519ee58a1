"""A part of bench_deployment.py: 17 sites' daemons on this machine run a masked private study of 20 rounds.

Everything is started by the commands people use; see tests/deployment/conftest.py.
"""

import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from deployment_return import memory_mb

ROOT = Path(__file__).resolve().parents[1]
LABS, ROUNDS = 17, 20


def loaded(name: str, path: Path) -> Any:
    """Return a module of the tests."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules.setdefault(name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


def measure_seventeen(*, rounds: int = ROUNDS) -> dict[str, Any]:
    """Return seconds to set up, to start and to run, seconds a round, and the daemons' memory."""
    tests = loaded("fedsci_bench_deployment_tests", ROOT / "tests" / "deployment" / "conftest.py")
    for name in ("FEDSCI_STATE", "FEDSCI_COORDINATOR", "FEDSCI_DEBUG"):
        os.environ.pop(name, None)
    folder = Path(tempfile.mkdtemp(prefix="fedsci-bench-"))
    consortium = tests.masked_labs(folder, labs=LABS, rounds=rounds, min_survivors=12)
    try:
        times = [time.monotonic()]
        consortium.found()
        times.append(time.monotonic())
        for lab in consortium.study.labs:
            consortium.start_site(lab)
        consortium.until(
            lambda: all("connected" in consortium.events(lab) for lab in consortium.study.labs), seconds=600
        )
        times.append(time.monotonic())
        outcome = consortium.submit("--wait", "--json")
        times.append(time.monotonic())
        assert outcome.code == 0, outcome.err + consortium.said()
        summary = json.loads(outcome.out)
        (run,) = consortium.runs()
        log = (consortium.folder / "consortium" / "studies").glob("*/log.jsonl")
        lines = [json.loads(line) for path in log for line in path.read_text().splitlines()]
        ends = [line["time"] for line in lines if line["event"] == "round"]
        found = dict(zip(("founding_s", "starting_s", "study_s"), (b - a for a, b in pairwise(times)), strict=True))
        found["round_s"] = [after - before for before, after in pairwise(ends)]
        found["site_mb"] = [memory_mb(consortium.processes[lab].pid, "VmRSS") for lab in consortium.study.labs]
        found["dropped"] = summary["secure_aggregation"]["dropped"]
        found["rounds"] = run["rounds"]
    finally:
        consortium.close()
        shutil.rmtree(folder, ignore_errors=True)
    print(
        f"{LABS} sites, {found['rounds']} rounds, masked and private: {found['study_s']:.1f} s, "
        f"a round {median(found['round_s']):.2f} s (median); starting the daemons {found['starting_s']:.0f} s, "
        f"founding and {LABS} enrolments {found['founding_s']:.0f} s; a daemon {median(found['site_mb']):.0f} MB; "
        f"dropped: {found['dropped']}"
    )
    return found
