"""Killed at any instant, a site has never released what it had not durably paid for, and its ledger goes on."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from fedsci.privacy.budget import charge_cost
from fedsci.privacy.calibration import gaussian_plan
from fedsci.site.ledger import Ledger

LOOP = Path(__file__).with_name("charging_loop.py")


def check(tmp_path, kills):
    tmp_path.mkdir(exist_ok=True)
    state = tmp_path / "lab-1"
    done = subprocess.run([sys.executable, LOOP, state, str(kills)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ledger = Ledger(state)
    assert ledger.inspect().problem is None
    books = ledger.inspect().books
    releases = [line.split() for line in (tmp_path / "releases").read_text().splitlines()]
    for run, number in releases:
        assert int(number) in books.charges[run].steps, "released without a durable charge"
    assert max(Counter(map(tuple, releases)).values()) == 1
    policy = ledger.register("heart", epsilon=8.0, delta=1e-5, unit="record")
    for run, rounds in Counter(run for run, _ in releases).items():
        plan = gaussian_plan(noise_multiplier=20_000.0, sample_rate=1.0, steps=rounds)
        assert books.charges[run].rdp >= charge_cost(plan, policy) * (1 - 1e-12)
    crashed = [charge for charge in books.charges.values() if not charge.settled]
    assert all(charge.rounds == 2 for charge in crashed), "what crashed stays charged whole"
    return releases, crashed


@pytest.mark.slow
def test_a_few_kills(tmp_path):
    check(tmp_path, 20)


@pytest.mark.slow
def test_a_thousand_kills_at_random_instants(tmp_path):
    counts = [list(map(len, check(tmp_path / str(part), 100))) for part in range(10)]
    releases, crashed = (sum(column) for column in zip(*counts, strict=True))
    assert releases > 500
    assert crashed > 200
