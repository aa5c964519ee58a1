"""The pass that measures what scales a study, as its coordinator sees it."""

from fedsci.config.plan import Plan
from fedsci.config.scaling import by_the_bounds, scaled
from fedsci.coordinator.progress import Progress, RoundResult
from fedsci.coordinator.run import Display
from fedsci.errors import BudgetRefused, PolicyRefused
from fedsci.privacy.budget import admits, budget_policy_at, charge_cost, too_much
from fedsci.training.accountant import cost_of


class Measuring:
    """Shows the pass as one phase of the study that it is for."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._display.phase("scaling")

    def phase(self, name: str) -> None:
        """Show nothing."""

    def round_finished(self, progress: Progress, result: RoundResult, epsilon: float | None) -> None:
        """Show nothing."""


def require_room(asked: Plan, first: Plan, progress: Progress) -> None:
    """Pass if, by what sites said when they let the pass in, they will let in the study after it, too.

    Asked before the pass computes anything, so that no site pays for statistics of a study that cannot follow. A site
    that stops a study where its budget ends has room always.

    Args:
        asked: the study.
        first: the pass.
        progress: of the pass, which every site has let in, and reserved.

    Raises:
        BudgetRefused: a budget does not hold both.
        PolicyRefused: delta is larger than 1 / records somewhere.
    """
    if not asked.private:
        return
    second, delta = scaled(asked, first, by_the_bounds(asked)), asked.study.privacy.delta
    for site, said in progress.sites.items():
        records = max(said.train, said.holdout)
        if not delta * records <= 1:
            raise PolicyRefused(
                f"{site}: delta {delta:g} is larger than 1 / {records} records",
                hint="lower privacy.delta; 1.0e-5 is usual",
            )
        cost, stated = cost_of(second, dimension=said.parameters), said.privacy
        order, spent = stated["rdp_order"], stated["rdp_total"]
        if order is None or spent is None or said.stops:
            continue
        policy = budget_policy_at(
            order, epsilon=stated["budget"], delta=stated["budget_delta"], neighbouring=cost.neighbouring
        )
        charge = charge_cost(cost.events(second.training.rounds, cost.measurements), policy)
        if not admits(policy, spent, charge):
            refusal: BudgetRefused = too_much(policy, spent, charge, site=site, dataset=asked.study.dataset)
            raise refusal
