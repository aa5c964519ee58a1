"""What a site has spent of each data set's lifetime budget: append-only, hash-chained, durable.

A charge is reserved (committed with fsync) before data is touched and settled afterwards; a crash in
between leaves the whole reservation spent. Entries are never changed; each carries the hash of the one
before it, so that an edited or removed row is noticed and everything is refused from then on.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Connection, Float, Integer, MetaData, String, Table, create_engine, event, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from fedsci import names
from fedsci.errors import BudgetRefused
from fedsci.privacy.budget import BudgetPolicy, budget_policy, charge_cost, epsilon_enforced, require_admitted
from fedsci.privacy.events import Plan as EventPlan
from fedsci.privacy.events import from_json, neighbouring_of, to_json

_metadata = MetaData()
_entries = Table(
    "entries",
    _metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("time", Float, nullable=False),
    Column("kind", String, nullable=False),
    Column("dataset", String, nullable=False),
    Column("run", String, nullable=False),
    Column("body", String, nullable=False),
    Column("previous", String, nullable=False),
    Column("hash", String, nullable=False),
)
_GENESIS = "sha256:" + "0" * 64


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the ledger.

    Attributes:
        sequence: 1, 2, 3, ...
        kind: ``register``, ``reserve``, ``step``, ``settle`` or ``no_privacy``.
        dataset, run: what it is about; ``run`` is empty for ``register``.
        body: JSON-ready details.
    """

    sequence: int
    time: float
    kind: str
    dataset: str
    run: str
    body: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Spending:
    """What a data set's budget looks like now. Neighbouring relation: add or remove one record.

    Attributes:
        policy: the budget and the filter's fixed order.
        spent_rdp: Renyi divergence charged so far at that order.
        plans: the charged events, for a tighter after-the-fact epsilon.
        no_privacy_runs: studies that ran without any guarantee.
    """

    policy: BudgetPolicy
    spent_rdp: float
    plans: tuple[EventPlan, ...]
    no_privacy_runs: int

    @property
    def epsilon_enforced(self) -> float:
        """Epsilon that holds however the studies were chosen; what the filter compares with the budget."""
        return epsilon_enforced(self.policy, self.spent_rdp)


class Ledger:
    """A site's ledger in one SQLite file. Every method is one durable transaction."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = path
        self._engine = create_engine(f"sqlite:///{path}", poolclass=NullPool, connect_args={"timeout": 30})
        event.listen(self._engine, "connect", _durable)
        event.listen(self._engine, "begin", _take_write_lock)
        with self._transaction() as connection:
            _metadata.create_all(connection)
        path.chmod(0o600)

    def register(self, dataset: str, *, epsilon: float, delta: float, unit: str) -> BudgetPolicy:
        """Fix a data set's budget and filter order, once; later calls return what was fixed.

        Raises:
            BudgetRefused: the site file now names another budget than the ledger holds.
        """
        wanted = budget_policy(epsilon=epsilon, delta=delta, neighbouring=neighbouring_of(unit))
        with self._transaction() as connection:
            for entry in _read(connection):
                if entry.kind == "register" and entry.dataset == dataset:
                    held = entry.body
                    if (held["epsilon"], held["delta"], held["unit"]) != (epsilon, delta, unit):
                        raise BudgetRefused(
                            f"data set {dataset}: the site file says epsilon {epsilon:g}, delta {delta:g} for each "
                            f"{unit}, but the ledger {self._path} was opened with epsilon {held['epsilon']:g}, "
                            f"delta {held['delta']:g} for each {held['unit']}",
                            hint="restore the old numbers; a budget is not changed by editing the site file",
                        )
                    return wanted
            body = {"epsilon": epsilon, "delta": delta, "unit": unit, "order": wanted.order}
            _append(connection, "register", dataset, "", body)
        return wanted

    def spending(self, dataset: str, policy: BudgetPolicy) -> Spending:
        """Return what is spent on ``dataset``."""
        with self._transaction() as connection:
            return _spending(_read(connection), dataset, policy)

    def reserve(
        self,
        dataset: str,
        run: str,
        *,
        policy: BudgetPolicy,
        plan: EventPlan,
        rounds: int,
        measurements: int = 0,
        exact_evaluation: bool = False,
    ) -> None:
        """Charge the whole of a study's plan before its first round.

        ``exact_evaluation`` is written down beside it: unnoised metric sums may leave too, and are not charged.

        Raises:
            BudgetRefused: it would pass the budget, or the run is in the ledger already.
        """
        cost = charge_cost(plan, policy)
        with self._transaction() as connection:
            entries = _read(connection)
            if any(entry.run == run for entry in entries):
                raise BudgetRefused(f"run {run} was already charged", hint="start a new run")
            now = _spending(entries, dataset, policy)
            require_admitted(policy, now.spent_rdp, cost, dataset=dataset)
            body: dict[str, Any] = {"rounds": rounds, "rdp": cost, "order": policy.order, "events": to_json(plan)}
            body |= {"measurements": measurements, "exact_evaluation": exact_evaluation}
            _append(connection, "reserve", dataset, run, body)

    def measure(self, dataset: str, run: str, after: int) -> None:
        """Record, durably, that noise for the metrics of the model after a round is about to be drawn; once a round.

        Raises:
            BudgetRefused: the run has no open reservation, or none for another measurement, or this one was made.
        """
        with self._transaction() as connection:
            mine = [entry for entry in _read(connection) if entry.run == run and entry.dataset == dataset]
            reserved = next((entry for entry in mine if entry.kind == "reserve"), None)
            if reserved is None or any(entry.kind == "settle" for entry in mine):
                raise BudgetRefused(f"run {run} has no open charge on {dataset}", hint="start a new run")
            made = [entry.body["after"] for entry in mine if entry.kind == "measure"]
            if after in made:
                raise BudgetRefused(f"the model after round {after} of run {run} was already measured")
            if len(made) >= int(reserved.body.get("measurements", 0)):
                raise BudgetRefused(f"run {run} paid for {len(made)} measurements and made them")
            _append(connection, "measure", dataset, run, {"after": after})

    def step(self, dataset: str, run: str, round_number: int) -> None:
        """Record, durably, that a round's noise is about to be drawn; each round at most once.

        Raises:
            BudgetRefused: the run has no open reservation, or the round is beyond it or was computed before.
        """
        with self._transaction() as connection:
            mine = [entry for entry in _read(connection) if entry.run == run and entry.dataset == dataset]
            reserved = next((entry for entry in mine if entry.kind == "reserve"), None)
            if reserved is None or any(entry.kind == "settle" for entry in mine):
                raise BudgetRefused(f"run {run} has no open charge on {dataset}", hint="start a new run")
            if not 1 <= round_number <= int(reserved.body["rounds"]):
                raise BudgetRefused(f"round {round_number} is beyond the {reserved.body['rounds']} rounds charged")
            if any(entry.kind == "step" and entry.body["round"] == round_number for entry in mine):
                raise BudgetRefused(
                    f"round {round_number} of run {run} was already computed",
                    hint="a second answer to the same round would cost twice",
                    public="this round was already answered",
                )
            _append(connection, "step", dataset, run, {"round": round_number})

    def settle(
        self, dataset: str, run: str, *, policy: BudgetPolicy, used: Callable[[int, int], EventPlan]
    ) -> tuple[int, int]:
        """Close a run's charge and return the rounds and measurements that were made; only those stay charged.

        Args:
            used: the events of that many rounds and measurements.
        """
        with self._transaction() as connection:
            mine = [entry for entry in _read(connection) if entry.run == run and entry.dataset == dataset]
            rounds = sum(entry.kind == "step" for entry in mine)
            measurements = sum(entry.kind == "measure" for entry in mine)
            kinds = {entry.kind for entry in mine}
            if "reserve" in kinds and "settle" not in kinds:
                plan = used(rounds, measurements)
                body: dict[str, Any] = {
                    "rounds": rounds,
                    "measurements": measurements,
                    "rdp": charge_cost(plan, policy),
                    "events": to_json(plan),
                }
                _append(connection, "settle", dataset, run, body)
        return rounds, measurements

    def record_no_privacy(self, dataset: str, run: str) -> None:
        """Record that a study without any guarantee is about to run: an infinite epsilon."""
        with self._transaction() as connection:
            _append(connection, "no_privacy", dataset, run, {})

    def entries(self) -> list[Entry]:
        """Return every entry, oldest first, after checking the chain."""
        with self._transaction() as connection:
            return _read(connection)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise BudgetRefused(
                f"the ledger {self._path} cannot be used: {str(error.__cause__ or error).splitlines()[0]}",
                hint="nothing is released without a ledger; check the disk and the file's rights",
            ) from None


def _durable(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # we begin transactions ourselves
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _take_write_lock(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _read(connection: Connection) -> list[Entry]:
    entries: list[Entry] = []
    previous = _GENESIS
    for row in connection.execute(select(_entries).order_by(_entries.c.sequence)):
        number = len(entries) + 1
        if row.sequence != number or row.previous != previous or row.hash != _hash(row):
            raise BudgetRefused(
                f"the ledger was changed: entry {number} does not follow from the one before",
                hint="restore the ledger from the site's own copy; until then nothing is released",
            )
        previous = row.hash
        body = json.loads(row.body)
        entries.append(
            Entry(sequence=row.sequence, time=row.time, kind=row.kind, dataset=row.dataset, run=row.run, body=body)
        )
    return entries


def _append(connection: Connection, kind: str, dataset: str, run: str, body: dict[str, Any]) -> None:
    last = connection.execute(
        select(_entries.c.sequence, _entries.c.hash).order_by(_entries.c.sequence.desc()).limit(1)
    ).first()
    values: dict[str, Any] = {
        "sequence": last.sequence + 1 if last else 1,
        "time": time.time(),
        "kind": kind,
        "dataset": dataset,
        "run": run,
        "body": json.dumps(body, sort_keys=True),
        "previous": last.hash if last else _GENESIS,
    }
    connection.execute(_entries.insert().values(**values, hash=_hash_of(values)))


def _hash(row: Any) -> str:
    return _hash_of(
        {name: getattr(row, name) for name in ("sequence", "time", "kind", "dataset", "run", "body", "previous")}
    )


def _hash_of(values: dict[str, Any]) -> str:
    return names.digest(json.dumps(values, sort_keys=True).encode())


def _spending(entries: list[Entry], dataset: str, policy: BudgetPolicy) -> Spending:
    charges: dict[str, dict[str, Any]] = {}
    no_privacy = 0
    for entry in entries:
        if entry.dataset != dataset:
            continue
        if entry.kind in ("reserve", "settle"):
            charges[entry.run] = entry.body
        no_privacy += entry.kind == "no_privacy"
    plans = tuple(from_json(body["events"]) for body in charges.values())
    spent = sum(float(body["rdp"]) for body in charges.values())
    return Spending(policy=policy, spent_rdp=spent, plans=plans, no_privacy_runs=no_privacy)
