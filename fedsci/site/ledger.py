"""What a site has spent of each data set's lifetime budget: append-only, hash-chained, durable, anchored.

A charge is reserved (committed with fsync) before data is touched and settled afterwards; a crash in between
leaves the whole reservation spent. Entries are never changed. Before anything is answered, the entries that are
new are checked (all of them when a process opens the ledger) and the whole is compared with its anchor; where
something does not fit, everything is refused:

- an entry that was edited, removed, added or reordered: the chain breaks;
- a restored backup, rows cut off at the end, a new empty database: the anchor is ahead, or knows another entry;
- another installation writing to the same ledger: its entries carry another writer's id;
- a budget that was changed without the officer: its entry's signature is not the officer's.

What it cannot see: ledger and anchor replaced together by older copies; data that was saved again in another
form under another name (one byte more and the digest is another); two data sets that share records. A budget
that is raised after results were seen gives the guarantee of the highest ceiling there ever was.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsci.config.site import Site
from fedsci.errors import BudgetRefused, InputError
from fedsci.privacy.budget import (
    BudgetPolicy,
    admits,
    budget_policy_at,
    charge_cost,
    distance_capacity,
    epsilon_enforced,
    too_much,
)
from fedsci.privacy.events import Plan as EventPlan
from fedsci.privacy.events import to_json
from fedsci.secagg import SigningKey
from fedsci.site.keystore import Keystore
from fedsci.site.ledger_books import Account, Books, Charge, opening_policy
from fedsci.site.ledger_keeping import KeptLedger, check_reason
from fedsci.site.ledger_store import read_url


@dataclass(frozen=True, kw_only=True)
class Spending:
    """What a data set's budget looks like now. Neighbouring relation: add or remove one record.

    Attributes:
        policy: the budget and the filter's fixed order.
        spent_rdp: Renyi divergence charged so far at that order.
        plans: the charged events, for a tighter after-the-fact epsilon.
        no_privacy_runs: studies that ran without any guarantee.
        lost_rdp: the part of ``spent_rdp`` whose entries were lost, so that ``plans`` does not hold them.
        spent_distance: of all noise so far from exact, in total variation.
    """

    policy: BudgetPolicy
    spent_rdp: float
    plans: tuple[EventPlan, ...]
    no_privacy_runs: int
    lost_rdp: float
    spent_distance: float = 0.0

    @property
    def epsilon_enforced(self) -> float:
        """Epsilon that holds however the studies were chosen; what the filter compares with the budget."""
        return epsilon_enforced(self.policy, self.spent_rdp)


class Ledger(KeptLedger):
    """A site's ledger. Every method is one durable transaction that adds at most one entry."""

    def register(
        self,
        dataset: str,
        *,
        epsilon: float,
        delta: float,
        unit: str,
        group_by: str | None = None,
        content: str | None = None,
    ) -> BudgetPolicy:
        """Fix a data set's budget, unit and filter order, once; later calls return what holds.

        Args:
            dataset: its name at this site.
            epsilon, delta, unit, group_by: as the site file says now.
            content: the digest of what the data set holds; noted at first use and whenever it is another.
                Byte for byte only: the same records saved again are another digest.

        Raises:
            BudgetRefused: the site file names another budget than the ledger holds, or the content belongs to
                a data set of another name.
        """
        with self._transaction() as held:
            books = held.books
            self._check_content(books, dataset, content)
            account = books.accounts.get(dataset)
            if account is None:
                policy = opening_policy(books, dataset, epsilon=epsilon, delta=delta, unit=unit, group_by=group_by)
                body = {"epsilon": epsilon, "delta": delta, "unit": unit, "order": policy.order}
                more = {"group_by": group_by, "content": content}
                held.add(
                    "register", dataset, "", body | {key: value for key, value in more.items() if value is not None}
                )
                return policy
            self._check_same(dataset, account, epsilon=epsilon, delta=delta, unit=unit, group_by=group_by)
            if content is not None and content not in books.contents:
                held.add("data", dataset, "", {"content": content})
            return account.policy

    def look(self, dataset: str, *, epsilon: float, delta: float, unit: str, group_by: str | None = None) -> Spending:
        """Return what :meth:`register` and :meth:`spending` would, with nothing written; a ledger need not be there.

        Raises:
            BudgetRefused: as they do; or the ledger cannot be trusted.
        """
        seen = self.inspect()
        if seen.problem is not None:
            raise BudgetRefused(f"{self.site}: {seen.problem.message}", hint=seen.problem.hint)
        account = seen.books.accounts.get(dataset)
        if account is None:
            policy = opening_policy(seen.books, dataset, epsilon=epsilon, delta=delta, unit=unit, group_by=group_by)
        else:
            self._check_same(dataset, account, epsilon=epsilon, delta=delta, unit=unit, group_by=group_by)
            policy = account.policy
        return spending_of(seen.books, dataset, policy)

    def _check_same(
        self, dataset: str, account: Account, *, epsilon: float, delta: float, unit: str, group_by: str | None
    ) -> None:
        now = account.policy
        if account.unit != unit:
            raise BudgetRefused(
                f"{self.site}: data set {dataset}: the site file says unit {unit}, the ledger was opened with unit "
                f"{account.unit}",
                hint="write the old unit in the site file: a unit is fixed when a data set is first used",
            )
        if account.group_by != group_by:
            raise BudgetRefused(
                f"{self.site}: data set {dataset}: the site file groups records by {group_by!r}, the ledger was opened "
                f"for groups by {account.group_by!r}",
                hint="write the old column in the site file: what a group is, is fixed when a data set is first used",
            )
        if (now.epsilon, now.delta) != (epsilon, delta):
            raise BudgetRefused(
                f"{self.site}: data set {dataset}: the site file says epsilon {epsilon:g}, delta {delta:g}, but "
                f"the ledger {self._store.name} says epsilon {now.epsilon:g}, delta {now.delta:g}",
                hint="write the ledger's numbers in the site file, or let the privacy officer sign the new ones: "
                f"fedsci privacy set SITE {dataset} --epsilon {epsilon:g} --delta {delta:g} --reason TEXT",
            )

    def spending(self, dataset: str, policy: BudgetPolicy) -> Spending:
        """Return what is spent on ``dataset``."""
        with self._transaction() as held:
            return spending_of(held.books, dataset, policy)

    def reserve(
        self,
        dataset: str,
        run: str,
        *,
        policy: BudgetPolicy,
        plan: Callable[[int], EventPlan],
        rounds: int,
        measurements: int,
        distance: float,
        exact_evaluation: bool = False,
        stop: bool = False,
    ) -> int:
        """Charge a study before its first round and return how many of its rounds are paid for.

        That is all of them or, with ``stop``, as many as the budget affords, but at least one.

        Args:
            dataset, run: what the charge is for.
            policy: as :meth:`register` returned it.
            plan: the events of that many rounds and of all the study's measurements.
            rounds: how many the study asks for.
            measurements: how often its models are measured with noise; all of it is reserved.
            distance: of all its noise from exact, in total variation; charged against delta.
            exact_evaluation: written down beside it: unnoised metric sums may leave too, and are not charged.
            stop: take fewer rounds rather than none.

        Raises:
            BudgetRefused: it would pass the budget, or the run is in the ledger already.
        """
        with self._transaction() as held:
            books = held.books
            if run in books.charges or any(run in runs for runs in books.no_privacy.values()):
                raise BudgetRefused(f"run {run} was already charged", hint="start a new run")
            if dataset in books.accounts and books.accounts[dataset].policy != policy:
                raise BudgetRefused(f"{self.site}: the budget of {dataset} was changed meanwhile", hint="ask again")
            spent = books.spent(dataset)
            check_distance(policy, spent.distance, distance, site=self.site, dataset=dataset)
            cost, allowed = charge_cost(plan(rounds), policy), rounds
            if not admits(policy, spent.rdp, cost):
                allowed = _most_rounds(policy, spent.rdp, plan, rounds) if stop else 0
                if allowed == 0:
                    few = " for even one round" if stop else ""
                    raise too_much(policy, spent.rdp, cost, site=self.site, dataset=dataset, rounds=few)
                cost = charge_cost(plan(allowed), policy)
            body: dict[str, Any] = {
                "rounds": allowed,
                "rounds_asked": rounds,
                "measurements": measurements,
                "rdp": cost,
                "order": policy.order,
                "distance": distance,
                "events": to_json(plan(allowed)),
                "exact_evaluation": exact_evaluation,
            }
            held.add("reserve", dataset, run, body)
            return allowed

    def step(self, dataset: str, run: str, number: int) -> None:
        """Record, durably, that a round's noise is about to be drawn; each round at most once.

        Raises:
            BudgetRefused: the run has no open reservation, or the round is beyond it or was computed before.
        """
        with self._transaction() as held:
            books = held.books
            charge = _open_charge(books, dataset, run)
            _check_round(run, number, charge)
            held.add("step", dataset, run, {"round": number})

    def measure(self, dataset: str, run: str, after: int) -> None:
        """Record, durably, that noise for the metrics of the model after a round is about to be drawn; once a round.

        Raises:
            BudgetRefused: the run has no open reservation, or none for another measurement, or this one was made.
        """
        with self._transaction() as held:
            books = held.books
            charge = _open_charge(books, dataset, run)
            if after in charge.measures:
                raise BudgetRefused(
                    f"the model after round {after} of run {run} was already measured",
                    hint="a second answer to the same question would cost twice",
                    public="this model was already measured",
                )
            if len(charge.measures) >= charge.measurements:
                raise BudgetRefused(
                    f"run {run} paid for {charge.measurements} measurements and made them",
                    hint="measure the model less often, or let the study say so beforehand",
                    public="the site's privacy budget pays for no more measurements of this study",
                )
            held.add("measure", dataset, run, {"after": after})

    def settle(
        self, dataset: str, run: str, *, policy: BudgetPolicy, used: Callable[[int, int], EventPlan]
    ) -> tuple[int, int]:
        """Close a run's charge and return the rounds and measurements that were made; only those stay charged.

        Args:
            dataset, run: whose charge.
            policy: as :meth:`register` returned it.
            used: the events of that many rounds and measurements.
        """
        with self._transaction() as held:
            books = held.books
            charge = books.charges.get(run)
            if charge is None or charge.dataset != dataset:
                return 0, 0
            rounds, measurements = len(charge.steps), len(charge.measures)
            if not charge.settled:
                plan = used(rounds, measurements)
                computed = rounds + measurements > 0
                body: dict[str, Any] = {
                    "rounds": rounds,
                    "measurements": measurements,
                    "rdp": charge_cost(plan, policy) if computed else 0.0,
                    "distance": charge.distance if computed else 0.0,
                    "events": to_json(plan),
                }
                held.add("settle", dataset, run, body)
            return rounds, measurements

    def record_no_privacy(self, dataset: str, run: str, *, content: str | None = None) -> None:
        """Record that a study without any guarantee is about to run: an infinite epsilon.

        Raises:
            BudgetRefused: ``content`` belongs to a data set of another name.
        """
        with self._transaction() as held:
            books = held.books
            self._check_content(books, dataset, content)
            held.add("no_privacy", dataset, run, {} if content is None else {"content": content})

    def change_budget(
        self, dataset: str, *, epsilon: float, delta: float | None, reason: str, key: SigningKey
    ) -> tuple[BudgetPolicy, BudgetPolicy]:
        """Raise or lower a budget, signed by the officer; return the old and the new one.

        The filter's order stays. Lowered below what is spent, nothing more is admitted. Raised after results were
        seen, what can be claimed of everything released is the highest ceiling there ever was.

        Raises:
            InputError: the data set was never used, the numbers say nothing new, or there is no reason.
            PolicyRefused: the key is not the officer's.
        """
        check_reason(reason)
        with self._transaction() as held:
            books = held.books
            if dataset not in books.accounts:
                raise InputError(
                    f"{self.site}: data set {dataset} has no charges yet, so there is nothing to change",
                    hint="until its first study the site file alone says its budget",
                )
            old = books.accounts[dataset].policy
            new = budget_policy_at(
                old.order,
                epsilon=epsilon,
                delta=old.delta if delta is None else delta,
                neighbouring=old.neighbouring,
            )
            if new == old:
                raise InputError(
                    f"{self.site}: the budget of {dataset} is epsilon {old.epsilon:g}, delta {old.delta:g} already",
                    hint="give another --epsilon or --delta",
                )
            body = {"old": [old.epsilon, old.delta], "new": [new.epsilon, new.delta], "reason": reason}
            held.add("set", dataset, "", body, key)
            return old, new

    def _check_content(self, books: Books, dataset: str, content: str | None) -> None:
        other = books.contents.get(content or "", dataset)
        if other != dataset:
            raise BudgetRefused(
                f"{self.site}: data set {dataset} holds the same data as {other}, whose budget holds for it",
                hint=f"let studies name {other}, and take {dataset} out of the site file: one file has one budget",
            )


def check_distance(policy: BudgetPolicy, spent: float, asked: float, *, site: str, dataset: str) -> None:
    """Pass if delta pays for how far all noise together may be from exact; ledger and plan ask the same.

    Raises:
        BudgetRefused: it does not.
    """
    if not (asked >= 0 and math.isfinite(asked)):
        raise InputError(f"the distance of noise from exact is {asked!r}", hint="give a number of at least 0")
    if spent + asked > distance_capacity(policy):
        raise BudgetRefused(
            f"{site}: delta {policy.delta:g} of {dataset} does not pay for this study: all noise together "
            f"would be {spent + asked:.1e} from exact, at epsilon {policy.epsilon:g} it may be "
            f"{distance_capacity(policy):.1e}",
            hint="ask the privacy officer: a lower epsilon or a higher delta leaves more room",
            public=f"the budget for {dataset} does not allow this study",
        )


def open_ledger(site: Site, state: Path) -> Ledger:
    """Return the ledger that a site file names, of the site whose state folder is ``state``."""
    url = None if site.ledger is None else read_url(site.ledger.get_secret_value())
    if url is not None and url.drivername == "sqlite":  # a path in a file is relative to that file
        url = url.set(database=str(site.folder / str(url.database)))
    anchor = None if site.anchor is None else site.folder / site.anchor
    profile = Keystore(state).profile
    return Ledger(state, site=site.site, url=url, anchor=anchor, officer=site.officer or "", profile=profile)


def spending_of(books: Books, dataset: str, policy: BudgetPolicy) -> Spending:
    """Return what ``books`` say of a data set."""
    mine = [charge for charge in books.charges.values() if charge.dataset == dataset]
    lost = books.carried.get(dataset)
    return Spending(
        policy=policy,
        spent_rdp=books.spent(dataset).rdp,
        plans=tuple(charge.plan for charge in mine),
        no_privacy_runs=len(books.no_privacy.get(dataset, [])),
        lost_rdp=lost.rdp if lost else 0.0,
        spent_distance=books.spent(dataset).distance,
    )


def _open_charge(books: Books, dataset: str, run: str) -> Charge:
    charge = books.charges.get(run)
    if charge is None or charge.dataset != dataset or charge.settled:
        raise BudgetRefused(f"run {run} has no open charge on {dataset}", hint="start a new run")
    return charge


def _check_round(run: str, number: int, charge: Charge) -> None:
    if not 1 <= number <= charge.rounds:
        raise BudgetRefused(
            f"round {number} is beyond the {charge.rounds} rounds charged",
            hint="the site said when it let the study in how many it pays for",
            public="this round is beyond what the site's privacy budget pays for",
        )
    if number in charge.steps:
        raise BudgetRefused(
            f"round {number} of run {run} was already computed",
            hint="a second answer to the same round would cost twice",
            public="this round was already answered",
        )


def _most_rounds(policy: BudgetPolicy, spent: float, plan: Callable[[int], EventPlan], rounds: int) -> int:
    """Return the largest number of rounds below ``rounds`` that the budget affords, or 0."""
    low, high = 0, rounds
    while high - low > 1:
        middle = (low + high) // 2
        if admits(policy, spent, charge_cost(plan(middle), policy)):
            low = middle
        else:
            high = middle
    return low
