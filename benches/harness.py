"""What every bench prints and writes: its command, the machine, versions, medians and checks."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("fedsci", "flwr", "torch", "numpy", "opacus", "cryptography", "ray")


@dataclass(frozen=True, kw_only=True)
class Check:
    """A measured number and what it should be; ``value`` is None where it could not be measured."""

    name: str
    value: float | None
    target: str
    met: bool | None


def check(name: str, value: float | None, *, at_most: float | None = None, at_least: float | None = None) -> Check:
    """Return the check of ``value`` against a bound."""
    target = f"<= {at_most:g}" if at_most is not None else f">= {at_least:g}"
    if value is None:
        return Check(name=name, value=None, target=target, met=None)
    met = value <= at_most if at_most is not None else value >= (at_least or 0.0)
    return Check(name=name, value=value, target=target, met=met)


@dataclass(kw_only=True)
class Results:
    """What a bench found."""

    bench: str
    checks: list[Check] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


def machine() -> str:
    """Return the processor, cores and memory in words."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}"


def versions() -> dict[str, str]:
    """Return the versions of what is measured."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def main(bench: str, description: str, measure: Callable[..., Results], *, parts: Sequence[str] = ()) -> None:
    """Run a bench from the command line; one that has parts is told which with ``--only``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions and the smaller sizes only")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    if parts:
        parser.add_argument("--only", choices=parts, help="measure this part alone")
    arguments = parser.parse_args()
    print(f"command   {' '.join([Path(sys.executable).name, *sys.argv])}")
    print(f"machine   {machine()}")
    print("versions  " + ", ".join(f"{name} {number}" for name, number in versions().items()))
    results = measure(arguments.quick, arguments.only) if parts else measure(arguments.quick)
    print()
    for item in results.checks:
        value = "not measured" if item.value is None else f"{item.value:.4g}"
        verdict = {True: "met", False: "MISSED", None: "-"}[item.met]
        print(f"{item.name:<60} {value:>12}   target {item.target:<10} {verdict}")
    if arguments.json:
        content = {"bench": bench, "machine": machine(), "versions": versions(), "quick": arguments.quick}
        content |= {"checks": [asdict(item) for item in results.checks], "details": results.details}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")
