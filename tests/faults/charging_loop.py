"""Charges, computes and releases until it is killed: what tests/faults/test_killed_ledger.py runs.

A parent that has imported everything forks one child after the other and kills each at a random instant; a child
writes every release to a file of its own making, with fsync, as soon as the ledger let it go.
"""

import os
import secrets
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from fedsci.privacy.calibration import gaussian_plan
from fedsci.privacy.events import Plan
from fedsci.site.ledger import Ledger

state, kills = Path(sys.argv[1]), int(sys.argv[2])
ROUNDS = 2


def events(rounds: int, measurements: int = 0) -> Plan:
    if rounds == 0:
        return Plan(events=())
    return gaussian_plan(noise_multiplier=20_000.0, sample_rate=1.0, steps=rounds)


def release(run: str, number: int) -> None:
    """What would leave the site; written so that a kill right after it cannot lose it."""
    descriptor = os.open(state.parent / "releases", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, f"{run} {number}\n".encode())
    os.close(descriptor)


def loop(ready: int) -> None:
    ledger = Ledger(state)
    ledger.entries()
    os.write(ready, b".")
    while True:
        study(ledger, release)


def study(ledger: Ledger, release: Callable[[str, int], None]) -> None:
    """Charge, compute and settle one study."""
    policy = ledger.register("heart", epsilon=8.0, delta=1e-5, unit="record")
    run = secrets.token_hex(16)
    ledger.reserve("heart", run, policy=policy, plan=events, rounds=ROUNDS, measurements=0, distance=0.0)
    for number in range(1, ROUNDS + 1):
        ledger.step("heart", run, number)
        release(run, number)
    ledger.settle("heart", run, policy=policy, used=events)


def time_of_a_study() -> float:
    """How long this machine now takes for one, in seconds."""
    start = time.monotonic()
    study(Ledger(state.parent / "another"), lambda *_: None)
    return time.monotonic() - start


for kill in range(kills):
    if kill % 10 == 0:
        window_s = 1.5 * time_of_a_study()
    heard, ready = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            loop(ready)
        finally:
            os._exit(1)  # a loop that ends by itself, for whatever reason, is a failure
    if secrets.randbelow(10):  # most are killed while they charge, some as they open the ledger
        os.close(ready)
        os.read(heard, 1)
        ready = -1
    time.sleep(window_s * secrets.randbelow(10**6) / 1e6)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    for descriptor in {heard, ready} - {-1}:
        os.close(descriptor)
    if not os.WIFSIGNALED(status):
        sys.exit("the ledger refused to go on after a kill")
