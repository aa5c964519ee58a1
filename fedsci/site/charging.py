"""What a study costs a site: reserved before any data is opened, and stated from the ledger."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from fedsci.config.plan import Plan
from fedsci.config.site import Policy, Site
from fedsci.errors import BudgetRefused
from fedsci.names import Digest
from fedsci.privacy.accounting import epsilon as plan_epsilon
from fedsci.privacy.budget import BudgetPolicy, charge_cost, epsilon_enforced
from fedsci.privacy.events import Plan as EventPlan
from fedsci.privacy.events import one_after_another
from fedsci.site.gate import check_cost, require_budget
from fedsci.site.ledger import Ledger
from fedsci.training.accountant import Cost, cost_of
from fedsci.training.learner import module_for
from fedsci.training.models import layout_of
from fedsci.training.schema import schema_of


@dataclass(frozen=True, kw_only=True)
class Paid:
    """How many rounds and noised measurements of a study a site's budget pays for."""

    rounds: int
    measurements: int


class Charging:
    """Charges studies to the budgets of one site's data sets.

    Args:
        site: its file.
        ledger: opens its ledger.
    """

    def __init__(self, site: Site, ledger: Callable[[], Ledger]) -> None:
        self._site, self._ledger = site, ledger

    def check_cost(self, plan: Plan, policy: Policy) -> None:
        """Pass if the study costs no more than the policy lets one cost.

        Raises:
            PolicyRefused: it does.
        """
        cost = cost_for(plan)
        if cost is not None:
            budget = require_budget(self._site, plan.study.dataset)
            epsilon = cost.epsilon_at(plan.training.rounds, delta=budget.delta)
            check_cost(plan, self._site, policy, epsilon=epsilon)

    def charge(self, run: str, plan: Plan, policy: Policy, content: Digest) -> "tuple[Cost | None, Paid]":
        """Write down, durably and before any data is opened, what the study may release.

        Returns:
            Its price, and how much of it is paid for.
        """
        cost, dataset, rounds = cost_for(plan), plan.study.dataset, plan.training.rounds
        if cost is None:
            self._ledger().record_no_privacy(dataset, run, content=content)
            return None, Paid(rounds=rounds, measurements=0)
        budget = self.budget(dataset, content)
        check_cost(plan, self._site, policy, epsilon=cost.epsilon_at(rounds, delta=budget.delta))
        stop = self.stops(dataset)
        # a measurement costs a held-out record as much as the whole study: where that does not fit, none is made
        for measurements in (cost.measurements, 0) if stop else (cost.measurements,):
            try:
                allowed = self._ledger().reserve(
                    dataset,
                    run,
                    policy=budget,
                    plan=partial(_events, cost, measurements),
                    rounds=rounds,
                    measurements=measurements,
                    distance=cost.total_variation(rounds, measurements),
                    exact_evaluation=policy.exact_evaluation,
                    stop=stop and not measurements,
                )
                break
            except BudgetRefused:
                if not stop or not measurements:
                    raise
        return cost, Paid(rounds=allowed, measurements=measurements)

    def stops(self, dataset: str) -> bool:
        """Return whether a study that would pass the data set's budget is stopped there, and not refused."""
        budget = self._site.datasets[dataset].privacy
        return budget is not None and budget.when_exceeded == "stop"

    def budget(self, dataset: str, content: str | None = None) -> BudgetPolicy:
        """Return the data set's budget as the ledger keeps it.

        Raises:
            BudgetRefused: it has none, or the ledger knows another.
        """
        budget = require_budget(self._site, dataset)
        return self._ledger().register(
            dataset,
            epsilon=budget.epsilon,
            delta=budget.delta,
            unit=budget.unit,
            group_by=budget.group_by,
            content=content,
        )

    def privacy(
        self, plan: Plan, cost: Cost | None, used: tuple[int, int], *, charged: "Paid | None" = None
    ) -> dict[str, Any]:
        """What the study cost, and all studies together (infinite: "inf").

        ``used`` are its rounds and measurements so far; ``charged`` is what is charged for it now, if that is more.
        """
        dataset, delta = plan.study.dataset, plan.study.privacy.delta
        budget = self._site.datasets[dataset].privacy
        limits = {"budget": budget and budget.epsilon, "budget_delta": budget and budget.delta}
        if cost is None:
            return {"study": "inf", "total": "inf", "enforced_total": None} | limits
        policy = self.budget(dataset)
        spending = self._ledger().spending(dataset, policy)
        everything = one_after_another(spending.plans)
        total = plan_epsilon(everything, delta=delta)
        charged = charged or Paid(rounds=used[0], measurements=used[1])
        charge = charge_cost(cost.events(charged.rounds, charged.measurements), policy)
        return limits | {
            "study": cost.epsilon(*used),
            "total": "inf" if spending.no_privacy_runs else total,
            "enforced_total": spending.epsilon_enforced,
            "enforced_before": epsilon_enforced(policy, _less(spending.spent_rdp, charge)),
            "noise_multiplier": cost.noise_multiplier,
            "rounds_charged": charged.rounds,
            "measurements_charged": charged.measurements,
            "rdp_order": policy.order,
            "rdp_study": charge,
            "rdp_total": spending.spent_rdp,
        }


def cost_for(plan: Plan, *, alone: bool = False) -> Cost | None:
    """Return the plan's price at this site, from the public schema alone; None without privacy."""
    return cost_of(plan, dimension=dimension_of(plan), alone=alone) if plan.private else None


def dimension_of(plan: Plan) -> int:
    """Return the number of parameters of the plan's model, from the public schema alone."""
    return layout_of(module_for(plan, inputs=schema_of(plan.study).width)).size


def _less(total: float, part: float) -> float:
    """Return the difference, and zero where only rounding is left of it."""
    return total - part if total - part > 1e-9 * total else 0.0


def _events(cost: Cost, measurements: int, rounds: int) -> EventPlan:
    return cost.events(rounds, measurements)
