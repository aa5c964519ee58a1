"""The pass that measures what scales a study, as its coordinator sees it."""

from pathlib import Path

from fedsci.config.plan import Plan
from fedsci.config.scaling import by_the_bounds, scaled
from fedsci.coordinator.decisions import Question
from fedsci.coordinator.progress import Progress, RoundResult
from fedsci.coordinator.run import Display
from fedsci.errors import BudgetRefused, PolicyRefused, RoundAborted, SiteFailed
from fedsci.privacy.budget import admits, budget_policy_at, charge_cost, too_much
from fedsci.training.accountant import cost_of
from fedsci.training.scaling import moments_of, noise_of_pass
from fedsci.transport.link import SiteLink
from fedsci.transport.messages import Request


class Measuring:
    """Shows the pass as one phase of the study that it is for."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._display.phase("scaling")

    def phase(self, name: str) -> None:
        """Show nothing."""

    def round_finished(self, progress: Progress, result: RoundResult, epsilon: float | None) -> None:
        """Show nothing."""

    def waits(self, question: Question, roles: tuple[str, ...], folder: Path) -> None:
        """Show it: the pass has checkpoints of its own."""
        self._display.waits(question, roles, folder)

    def heard(self, text: str) -> None:
        """Show it."""
        self._display.heard(text)


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


def require_rules(link: SiteLink, asked: Plan, first: Plan) -> None:
    """Pass if every site's policy lets the study run that will follow the pass; operators are not asked.

    Raises:
        SiteFailed: a site refused; its own exit code says why.
    """
    second = scaled(asked, first, by_the_bounds(asked))
    fields = {"plan": second.to_bytes().decode(), "rules_only": True}
    for reply in link.ask({site: Request(action="propose", fields=fields) for site in second.sites}).values():
        if isinstance(reply, SiteFailed) and reply.exit_code in (PolicyRefused.exit_code, BudgetRefused.exit_code):
            raise reply


def survivors_of(first: Plan, progress: Progress) -> list[int]:
    """Return the public counts of training records of the sites in the pass's sum."""
    away = {site for site, _ in progress.dropped}
    return [progress.sites[site].train for site in first.sites if site not in away]


def noise_in(first: Plan, progress: Progress) -> float:
    """Return the standard deviation of the noise in each number that the pass released; 0 without privacy."""
    cost = cost_of(first, dimension=progress.sites[first.sites[0]].parameters) if first.private else None
    return noise_of_pass(first, cost, survivors_of(first, progress))


def after_pass(asked: Plan, first: Plan, progress: Progress) -> Plan:
    """Return the study scaled by what its pass measured.

    Raises:
        RoundAborted: the pass released nothing.
    """
    if progress.model is None or not progress.rounds_completed:
        raise RoundAborted("the pass that measures the scaling released nothing")
    records, noise = survivors_of(first, progress), noise_in(first, progress)
    return scaled(asked, first, moments_of(first, progress.model, records=records, noise=noise))
