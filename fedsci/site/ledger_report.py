"""What an officer wants to know of a ledger: per data set what is left, what used it, and how far it still goes."""

import math
from dataclasses import dataclass
from typing import Any

from fedsci.config.site import Budget, Site
from fedsci.privacy.accounting import epsilon as plan_epsilon
from fedsci.privacy.budget import admits, distance_capacity, epsilon_enforced, remaining
from fedsci.privacy.events import one_after_another
from fedsci.site.ledger_books import Account, Books, Charge, opening_policy
from fedsci.site.ledger_store import Entry


@dataclass(frozen=True, kw_only=True)
class Use:
    """One study's part of a budget.

    Attributes:
        run, time: which, and when it was reserved (seconds since 1970).
        rounds, measurements: reserved, or computed once it is settled.
        epsilon_alone: enforced epsilon had there been nothing else.
        share: of the whole budget, 0 to 1.
        open: not settled: it runs, or it crashed and stays charged whole.
        exact_evaluation: unnoised metric sums may have left beside it.
    """

    run: str
    time: float
    rounds: int
    measurements: int
    epsilon_alone: float
    share: float
    open: bool
    exact_evaluation: bool


@dataclass(frozen=True, kw_only=True)
class BudgetReport:
    """One data set's budget. Neighbouring relation: add or remove one record.

    Attributes:
        unit, epsilon_budget, delta: as the ledger has them; of the site file where nothing was charged yet.
        highest_epsilon: the highest budget there ever was, which is what can be claimed of all releases.
        epsilon_spent: enforced: holds however studies were chosen.
        epsilon_left: the budget less that; never below zero.
        epsilon_fixed_in_advance: of the same releases by PLD, had all been fixed in advance; None where entries
            were lost or a study had no privacy.
        share_spent: of what the filter may admit, 0 to 1.
        delta_share_spent: of the part of delta that pays for noise that is not quite exact.
        lost: some of what was spent is known from the anchor only.
        no_privacy_runs: studies without any guarantee; not counted against the budget.
        still_fit_last, still_fit_mean: how many more studies like the last and like the mean one; None without any.
        uses: every charged study, oldest first.
        in_site_file: the site file says the same numbers; None where it does not name the data set.
    """

    dataset: str
    unit: str
    epsilon_budget: float
    delta: float
    highest_epsilon: float
    epsilon_spent: float
    epsilon_left: float
    epsilon_fixed_in_advance: float | None
    share_spent: float
    delta_share_spent: float
    lost: bool
    no_privacy_runs: int
    still_fit_last: int | None
    still_fit_mean: int | None
    uses: tuple[Use, ...]
    in_site_file: bool | None


def budget_reports(site: Site, books: Books) -> list[BudgetReport]:
    """Return every budget that the ledger or the site file knows, the site file's order first."""
    reports = []
    of_run: dict[str, list[Charge]] = {}
    for charge in books.charges.values():
        of_run.setdefault(charge.dataset, []).append(charge)
    for dataset in dict.fromkeys([*site.datasets, *books.accounts]):
        account = books.accounts.get(dataset)
        source = site.datasets.get(dataset)
        if account is not None:
            reports.append(_report(site, books, dataset, account, of_run.get(dataset, [])))
        elif source is not None and source.privacy is not None:
            reports.append(_unused(dataset, source.privacy, books))
    return reports


def _report(site: Site, books: Books, dataset: str, account: Account, charges: list[Charge]) -> BudgetReport:
    policy, spent = account.policy, books.spent(dataset)
    source, no_privacy = site.datasets.get(dataset), len(books.no_privacy.get(dataset, []))
    enforced, lost = epsilon_enforced(policy, spent.rdp), dataset in books.carried
    everything = one_after_another(charge.plan for charge in charges)
    paid = [charge.rdp for charge in charges if charge.rdp > 0]
    mean = math.fsum(paid) / len(paid) if paid else 0.0
    capacity = policy.rdp_capacity
    return BudgetReport(
        dataset=dataset,
        unit=account.unit,
        epsilon_budget=policy.epsilon,
        delta=policy.delta,
        highest_epsilon=account.highest_epsilon,
        epsilon_spent=enforced,
        epsilon_left=max(0.0, policy.epsilon - enforced),
        epsilon_fixed_in_advance=None if lost or no_privacy else plan_epsilon(everything, delta=policy.delta),
        share_spent=min(1.0, spent.rdp / capacity) if capacity else 1.0,
        delta_share_spent=spent.distance / distance_capacity(policy),
        lost=lost,
        no_privacy_runs=no_privacy,
        still_fit_last=_fit(account, spent.rdp, paid[-1]) if paid else None,
        still_fit_mean=_fit(account, spent.rdp, mean) if paid else None,
        uses=tuple(
            Use(
                run=charge.run,
                time=charge.time,
                rounds=charge.rounds,
                measurements=charge.measurements,
                epsilon_alone=epsilon_enforced(policy, charge.rdp),
                share=charge.rdp / capacity if capacity else 1.0,
                open=not charge.settled,
                exact_evaluation=charge.exact_evaluation,
            )
            for charge in charges
        ),
        in_site_file=None
        if source is None
        else source.privacy is not None
        and (source.privacy.epsilon, source.privacy.delta, source.privacy.unit)
        == (policy.epsilon, policy.delta, account.unit),
    )


def _fit(account: Account, spent: float, cost: float) -> int:
    """Return how many more charges of ``cost`` the filter admits."""
    count = int(remaining(account.policy, spent) / cost)
    while count and not admits(account.policy, spent, count * cost):
        count -= 1
    return count


def _unused(dataset: str, budget: Budget, books: Books) -> BudgetReport:
    policy = opening_policy(
        books, dataset, epsilon=budget.epsilon, delta=budget.delta, unit=budget.unit, group_by=budget.group_by
    )
    spent, lost = books.spent(dataset), dataset in books.carried
    enforced, capacity = epsilon_enforced(policy, spent.rdp), policy.rdp_capacity
    return BudgetReport(
        dataset=dataset,
        unit=budget.unit,
        epsilon_budget=policy.epsilon,
        delta=policy.delta,
        highest_epsilon=policy.epsilon,
        epsilon_spent=enforced,
        epsilon_left=max(0.0, policy.epsilon - enforced),
        epsilon_fixed_in_advance=None if lost or books.no_privacy.get(dataset) else 0.0,
        share_spent=min(1.0, spent.rdp / capacity) if capacity else 1.0,
        delta_share_spent=spent.distance / distance_capacity(policy),
        lost=lost,
        no_privacy_runs=len(books.no_privacy.get(dataset, [])),
        still_fit_last=None,
        still_fit_mean=None,
        uses=(),
        in_site_file=True,
    )


def in_words(entry: Entry) -> str:
    """Return what an entry says, for a reader."""
    body: dict[str, Any] = entry.body
    try:
        match entry.kind:
            case "register":
                return (
                    f"budget fixed: epsilon {body['epsilon']:g}, delta {body['delta']:g}, unit {body['unit']}, "
                    f"charged at Renyi order {body['order']}"
                )
            case "data":
                return f"another version of the data: {body['content'][:23]}…"
            case "reserve":
                asked = body["rounds_asked"]
                rounds = f"{body['rounds']} rounds" + (f" of the {asked} asked" if asked != body["rounds"] else "")
                more = f" and {body['measurements']} measurements" if body["measurements"] else ""
                exact = "; exact metric sums may leave too" if body["exact_evaluation"] else ""
                return f"reserved {rounds}{more}: Renyi divergence {body['rdp']:.4g}{exact}"
            case "step":
                return f"round {body['round']}: noise drawn"
            case "measure":
                return f"measurement after round {body['after']}: noise drawn"
            case "settle":
                more = f" and {body['measurements']} measurements" if body["measurements"] else ""
                return f"settled {body['rounds']} rounds{more}: Renyi divergence {body['rdp']:.4g}"
            case "no_privacy":
                return "a study without any guarantee: infinite epsilon"
            case "set":
                (old, old_delta), (new, new_delta) = body["old"], body["new"]
                return (
                    f"epsilon {old:g} -> {new:g}, delta {old_delta:g} -> {new_delta:g}, signed {body['key'][:16]}…: "
                    f"{body['reason']}"
                )
            case "adopt":
                return f"adopted, signed {body['key'][:16]}…: {body['reason']} (found: {body['found']})"
    except (KeyError, TypeError, ValueError):
        pass
    return f"cannot be read: {body!r}"[:200]
