"""How long the ledger takes: a study's reservation and settlement, and the report over 10,000 charges.

Checked: reserve and settle together, in milliseconds, each a durable commit (fsync) and a durable anchor, on a
ledger that holds 10,000 charges already; and the PLD report, in seconds, of 10,000 charges of ten kinds of studies,
five with full batches and five with Poisson sampling, from a process that opens the ledger anew.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from harness import Results, check, main
from sqlalchemy import URL

from fedsci.privacy.budget import charge_cost
from fedsci.privacy.calibration import gaussian_plan
from fedsci.privacy.events import Plan, to_json
from fedsci.site.anchor import Anchor, write_anchor
from fedsci.site.ledger import Ledger
from fedsci.site.ledger_books import Books
from fedsci.site.ledger_store import Store

CHARGES = 10_000
KINDS = [
    *((1.0, noise, 60) for noise in (4_000.0, 5_000.0, 6_000.0, 8_000.0, 12_000.0)),
    *(
        (rate, noise, 300)
        for rate, noise in ((0.05, 400.0), (0.1, 800.0), (0.2, 1_500.0), (0.01, 150.0), (0.2, 2_000.0))
    ),
]
REPORT = """
import sys, time
from pathlib import Path
import dp_accounting.pld.privacy_loss_distribution
from fedsci.config.site import Site
from fedsci.site.ledger import Ledger
from fedsci.site.ledger_report import budget_reports
site = Site.model_validate(
    {"site": "lab", "datasets": {"heart": {"path": "heart.csv", "privacy": {"epsilon": 8.0, "delta": 1e-5}}}}
)
start = time.perf_counter()
seen = Ledger(Path(sys.argv[1])).inspect()
opened = time.perf_counter()
assert seen.problem is None
[report] = budget_reports(site, seen.books)
assert len(report.uses) == int(sys.argv[2])
assert 0 < report.epsilon_fixed_in_advance < report.epsilon_spent < 8
print(opened - start, time.perf_counter() - opened)
"""


def plan_of(kind: int, steps: int | None = None) -> Plan:
    """Return the events of one of ten kinds of studies."""
    rate, noise, usual = KINDS[kind % len(KINDS)]
    return gaussian_plan(noise_multiplier=noise, sample_rate=rate, steps=usual if steps is None else steps)


def fill(state: Path) -> None:
    """Write a ledger of 10,000 reserved studies as a site would over the years, but in one transaction."""
    ledger = Ledger(state)
    policy = ledger.register("heart", epsilon=8.0, delta=1e-5, unit="record")
    writer = (state / "writer.id").read_text(encoding="ascii")
    books = Books(site=ledger.site, writer=writer)
    for entry in ledger.entries():
        books.take(entry)
    store = Store(URL.create("sqlite", database=str(state / "ledger.sqlite")), site=ledger.site)
    with store.begin() as connection:
        for number in range(CHARGES):
            plan, rounds = plan_of(number), KINDS[number % len(KINDS)][2]
            body = {"rounds": rounds, "rounds_asked": rounds, "measurements": 0, "order": policy.order}
            body |= {"rdp": charge_cost(plan, policy), "distance": 1e-24, "events": to_json(plan)}
            body |= {"exact_evaluation": False}
            about = {"kind": "reserve", "dataset": "heart", "run": f"{number:032x}", "body": body, "writer": writer}
            books.take(store.append(connection, sequence=books.sequence + 1, previous=books.head, **about))
    spent = books.everything_spent()
    anchor = Anchor(ledger=books.ledger, sequence=books.sequence, hash=books.head, spent=spent)
    write_anchor(state.parent / "anchors" / f"{ledger.site}.json", anchor)


def charge(ledger: Ledger, number: int) -> float:
    """Reserve and settle a study; return the milliseconds."""
    policy = ledger.register("heart", epsilon=8.0, delta=1e-5, unit="record")
    run, start = f"{number:032x}", time.perf_counter()
    asked = {"rounds": KINDS[number % len(KINDS)][2], "measurements": 0, "distance": 1e-24}
    ledger.reserve("heart", run, policy=policy, plan=lambda rounds: plan_of(number, rounds), **asked)
    ledger.settle("heart", run, policy=policy, used=lambda _, __: Plan(events=()))
    return (time.perf_counter() - start) * 1e3


def measure(quick: bool) -> Results:
    """Fill a ledger, measure on top of it, then report from new processes."""
    repeats, studies = (3, 40) if quick else (5, 200)
    results = Results(bench="ledger")
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:  # not in memory, where fsync costs nothing
        state = Path(folder) / "lab"
        fill(state)
        reports = []
        for _ in range(repeats):
            command = [sys.executable, "-c", REPORT, str(state), str(CHARGES)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            reports.append([float(number) for number in done.stdout.split()])
        ledger = Ledger(state)
        both = [charge(ledger, CHARGES + number) for number in range(studies)]
        ledger.close()
    results.checks = [
        check("reserve_settle_ms", median(both), at_most=20.0),
        check("report_s_10000_charges", median(map(sum, reports)), at_most=2.0),
    ]
    results.details = {
        "reserve_settle_ms_worst": max(both),
        "open_and_verify_s": median(opened for opened, _ in reports),
        "report_alone_s": median(alone for _, alone in reports),
    }
    for name, value in results.details.items():
        print(f"{name:<28} {value:.4g}", flush=True)
    return results


if __name__ == "__main__":
    main("ledger", __doc__ or "", measure)
