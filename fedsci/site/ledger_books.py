"""What a ledger's entries add up to: budgets, charges, whose data is whose, who may change what.

Entries are taken in one by one, in order, once their place in the chain was checked; so a long ledger is read
once and then only what is new.
"""

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from fedsci.errors import BudgetRefused
from fedsci.privacy.budget import BudgetPolicy, budget_policy, budget_policy_at
from fedsci.privacy.events import Plan as EventPlan
from fedsci.privacy.events import from_json, neighbouring_of
from fedsci.secagg.profile import Profile
from fedsci.secagg.profiles import DEFAULT
from fedsci.site.anchor import Spent
from fedsci.site.ledger_store import GENESIS, Entry, LedgerBroken
from fedsci.site.officer import is_signed

_ONE = 1 << 1074  # over the smallest float there is


@dataclass(kw_only=True)
class Charge:
    """What one run is charged on one data set.

    Attributes:
        dataset, run: whose.
        time: of the reservation.
        rounds, measurements: reserved while it is open, computed once it is settled.
        rdp: Renyi divergence at the data set's order.
        distance: of its noise from exact, in total variation.
        events: what was released or may be, as JSON.
        exact_evaluation: unnoised metric sums may have left beside it.
        settled: nothing more is computed for it: it was settled, or open when the ledger was adopted.
        steps, measures: the rounds, and rounds after which the model was measured, whose noise was drawn.
    """

    dataset: str
    run: str
    time: float
    rounds: int
    measurements: int
    rdp: float
    distance: float
    events: str
    exact_evaluation: bool
    settled: bool = False
    steps: set[int] = field(default_factory=set)
    measures: set[int] = field(default_factory=set)

    @property
    def plan(self) -> EventPlan:
        """The events as an accountant prices them."""
        return _plan(self.events)


@dataclass(kw_only=True)
class Account:
    """One data set's budget.

    Attributes:
        unit, group_by: whom the guarantee is for; frozen.
        policy: epsilon and delta as they are now, at the order frozen at the start.
        highest_epsilon: the highest ceiling there ever was; what can be claimed of everything released.
    """

    unit: str
    policy: BudgetPolicy
    highest_epsilon: float
    group_by: str | None = None

    @property
    def protects(self) -> str:
        """The unit and, where there is one, the column that makes groups."""
        return protected(self.unit, self.group_by)


@dataclass(kw_only=True)
class Books:
    """All that a site's entries say.

    Attributes:
        site: whose ledger it is.
        writer: the installation that reads it.
        pinned: the officer's public key (hex), from the site file or the first signed entry; empty if neither.
        profile: the site's crypto profile: the officer's key must be of it.
        ledger: the id: the hash of the first entry.
        sequence, head, before: the last entry's number and hash, and the hash of the one before it.
        accounts: by data set.
        charges: by run.
        contents: data set by digest of its content.
        no_privacy: by data set, the runs without any guarantee.
        carried: by data set, charges of entries that were lost, kept by the anchor.
        foreign: the first entry of another installation that was not adopted.
    """

    site: str
    writer: str
    pinned: str = ""
    profile: Profile = DEFAULT
    ledger: str = ""
    sequence: int = 0
    head: str = GENESIS
    before: str = ""
    accounts: dict[str, Account] = field(default_factory=dict)
    charges: dict[str, Charge] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)
    no_privacy: dict[str, list[str]] = field(default_factory=dict)
    carried: dict[str, Spent] = field(default_factory=dict)
    foreign: Entry | None = None
    _rdp: dict[str, int] = field(default_factory=dict)
    _distance: dict[str, int] = field(default_factory=dict)

    def take(self, entry: Entry) -> None:
        """Count one more entry.

        Raises:
            LedgerBroken: it makes no sense, or is not signed by the officer where it has to be.
        """
        try:
            self._count(entry)
        except (KeyError, TypeError, ValueError) as error:
            raise LedgerBroken(entry.sequence, "body", f"it makes no sense ({type(error).__name__})") from None
        if entry.writer != self.writer:
            self.foreign = self.foreign or entry
        elif entry.kind == "adopt":
            self.foreign = None
        self.ledger = self.ledger or entry.hash
        self.sequence, self.before, self.head = entry.sequence, self.head, entry.hash

    def spent(self, dataset: str) -> Spent:
        """Return what ``dataset`` has spent: open reservations whole, settled runs as computed, and what was lost."""
        lost, account = self.carried.get(dataset), self.accounts.get(dataset)
        return Spent(
            rdp=self._rdp.get(dataset, 0) / _ONE,
            distance=self._distance.get(dataset, 0) / _ONE,
            order=account.policy.order if account else lost.order if lost else 0,
            unit=account.protects if account else lost.unit if lost else "",
        )

    def everything_spent(self) -> dict[str, Spent]:
        """Return :meth:`spent` of every data set, for the anchor."""
        return {dataset: self.spent(dataset) for dataset in {*self.accounts, *self.carried}}

    def to_sign(self, entry: Entry) -> dict[str, Any]:
        """Return what the officer signs of an entry: what it says, and where in the chain."""
        return signed_part(self, entry.kind, entry.dataset, entry.body)

    def _count(self, entry: Entry) -> None:
        body = entry.body
        match entry.kind:
            case "register":
                policy = budget_policy_at(
                    body["order"],
                    epsilon=body["epsilon"],
                    delta=body["delta"],
                    neighbouring=neighbouring_of(body["unit"]),
                )
                self.accounts[entry.dataset] = Account(
                    unit=body["unit"], policy=policy, highest_epsilon=policy.epsilon, group_by=body.get("group_by")
                )
                self._bind(entry)
            case "data":
                self._bind(entry)
            case "reserve":
                charge = Charge(
                    dataset=entry.dataset,
                    run=entry.run,
                    time=entry.time,
                    rounds=body["rounds"],
                    measurements=body["measurements"],
                    rdp=_charged(body["rdp"]),
                    distance=_charged(body["distance"]),
                    events=body["events"],
                    exact_evaluation=body["exact_evaluation"],
                )
                self.charges[entry.run] = charge
                self._spend(entry.dataset, charge.rdp, charge.distance)
            case "step":
                self.charges[entry.run].steps.add(body["round"])
            case "measure":
                self.charges[entry.run].measures.add(body["after"])
            case "settle":
                charge = self.charges[entry.run]
                self._spend(charge.dataset, -charge.rdp, -charge.distance)
                charge.rounds, charge.measurements = body["rounds"], body["measurements"]
                charge.rdp, charge.distance = _charged(body["rdp"]), _charged(body["distance"])
                charge.events, charge.settled = body["events"], True
                self._spend(charge.dataset, charge.rdp, charge.distance)
            case "no_privacy":
                self.no_privacy.setdefault(entry.dataset, []).append(entry.run)
                self._bind(entry)
            case "set":
                self._check_officer(entry)
                account, (epsilon, delta) = self.accounts[entry.dataset], body["new"]
                account.policy = budget_policy_at(
                    account.policy.order, epsilon=epsilon, delta=delta, neighbouring=account.policy.neighbouring
                )
                account.highest_epsilon = max(account.highest_epsilon, epsilon)
            case "adopt":
                self._check_officer(entry)
                for charge in self.charges.values():
                    charge.settled = True  # which of its rounds were computed may be among what is lost
                for dataset, lost in body["lost"].items():
                    self._carry(dataset, Spent(**lost))
            case _:
                raise ValueError("kind")

    def _bind(self, entry: Entry) -> None:
        content = entry.body.get("content")
        if content is not None:
            self.contents.setdefault(content, entry.dataset)

    def _spend(self, dataset: str, rdp: float, distance: float) -> None:
        """Add to the sums, exactly: rounding must not build up over thousands of charges and settlements."""
        self._rdp[dataset] = self._rdp.get(dataset, 0) + _exact(rdp)
        self._distance[dataset] = self._distance.get(dataset, 0) + _exact(distance)

    def _carry(self, dataset: str, lost: Spent) -> None:
        before = self.carried.get(dataset)
        rdp, distance = (before.rdp, before.distance) if before else (0.0, 0.0)
        self.carried[dataset] = Spent(
            rdp=rdp + _charged(lost.rdp),
            distance=distance + _charged(lost.distance),
            order=lost.order,
            unit=lost.unit,
        )
        self._spend(dataset, lost.rdp, lost.distance)

    def _check_officer(self, entry: Entry) -> None:
        key, signature = str(entry.body["key"]), str(entry.body["signature"])
        if self.pinned and key != self.pinned:
            raise LedgerBroken(entry.sequence, "key", f"it is not the officer's ({self.pinned[:16]}…)")
        if len(key) != 2 * self.profile.verification_bytes:
            raise LedgerBroken(entry.sequence, "key", f"it is not of the crypto profile {self.profile.name}")
        if not is_signed(self.to_sign(entry), public=key, signature=signature):
            raise LedgerBroken(entry.sequence, "signature", "it is not the officer's over this entry")
        self.pinned = key


def protected(unit: str, group_by: str | None) -> str:
    """Return one word for whom a guarantee is for: a unit and, where there is one, the column that makes groups."""
    return unit if group_by is None else f"{unit} by {group_by}"


def signed_part(books: Books, kind: str, dataset: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return what the officer signs of the entry that comes after what ``books`` holds."""
    return {
        "site": books.site,
        "ledger": books.ledger,
        "kind": kind,
        "dataset": dataset,
        "sequence": books.sequence + 1,
        "previous": books.head,
        "body": {name: value for name, value in body.items() if name != "signature"},
    }


def _exact(value: float) -> int:
    """Return a finite float in units of the smallest one there is."""
    numerator, denominator = value.as_integer_ratio()
    return numerator * (_ONE // denominator)


def _charged(value: Any) -> float:
    number = float(value)
    if not (number >= 0 and math.isfinite(number)):
        raise ValueError("a charge is a number of at least 0")
    return number


@lru_cache(maxsize=512)
def _plan(events: str) -> EventPlan:
    return from_json(events)


def opening_policy(
    books: Books, dataset: str, *, epsilon: float, delta: float, unit: str, group_by: str | None
) -> BudgetPolicy:
    """Return the budget with which a data set enters the ledger; with entries lost, at the order they were charged.

    Raises:
        BudgetRefused: what was lost was charged for another unit.
    """
    lost, relation = books.carried.get(dataset), neighbouring_of(unit)
    if lost is None:
        return budget_policy(epsilon=epsilon, delta=delta, neighbouring=relation)
    if lost.unit not in ("", protected(unit, group_by)):
        raise BudgetRefused(
            f"{books.site}: data set {dataset}: the site file says unit {protected(unit, group_by)}, what its lost "
            f"entries were charged is for unit {lost.unit}",
            hint="write the old unit in the site file: a unit is fixed when a data set is first used",
        )
    # what the lost entries were charged is known at their order only
    return budget_policy_at(lost.order, epsilon=epsilon, delta=delta, neighbouring=relation)
