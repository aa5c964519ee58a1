"""What a site would answer to a plan, by its own rules and ledger, with nothing charged and no data opened.

The same functions decide here and when the study is asked for: the gate's, and the ledger's rule for a charge. What
only data can tell (whether it fits the schema; delta against its number of records, unless given) is not asked.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from fedsci.config.plan import Plan
from fedsci.config.site import Site
from fedsci.errors import BudgetRefused, FedsciError
from fedsci.privacy.accounting import epsilon as plan_epsilon
from fedsci.privacy.budget import (
    BudgetPolicy,
    admits,
    budget_policy,
    charge_cost,
    epsilon_enforced,
    remaining,
    too_much,
)
from fedsci.privacy.events import neighbouring_of
from fedsci.site.gate import check_cost, check_delta, check_policy, require_budget
from fedsci.site.ledger import Spending, check_distance, open_ledger
from fedsci.training.accountant import Cost, cost_of

_STEPS = 50
_LEAST_EPSILON = 0.05


@dataclass(frozen=True, kw_only=True)
class Room:
    """What of a study would still fit a budget.

    Attributes:
        rounds: at the study's noise, without measurements; 0 if not even one.
        epsilon_of_rounds: what so many rounds cost, by PLD.
        epsilon: the largest ``privacy.epsilon``, to two decimals, at which the whole study fits; 0 if none does.
    """

    rounds: int
    epsilon_of_rounds: float
    epsilon: float


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """One site's answer; epsilons hold for adding or removing one record.

    Attributes:
        site: its name.
        records: training records, where they are known; else None.
        policy: the data set's budget, None without one.
        spent, after: enforced epsilon now and after the study; None without a budget.
        alone: what this study alone counts for in the ledger.
        refusal: why the site would refuse, None where it would not.
        exit_code: what ``fedsci run`` would end with because of this site; 0 where it would not refuse.
        hint: what would help.
        room: what would fit, where only the size of the study is in the way.
        stops_after: the round after which the site would stop, where its officer chose that over a refusal; else None.
    """

    site: str
    records: int | None
    policy: BudgetPolicy | None
    spent: float | None
    after: float | None
    alone: float | None
    refusal: str | None
    exit_code: int
    hint: str
    room: Room | None
    stops_after: int | None = None

    @property
    def left_after(self) -> float | None:
        """Budget left after the study; below zero where it would be passed."""
        return None if self.policy is None or self.after is None else self.policy.epsilon - self.after


def spending_of(site: Site, dataset: str, state: Path | None) -> Spending | None:
    """Return what the site's ledger says of a data set, ``state`` being its state folder; None without a budget.

    Nothing is written: a ledger that is not there yet, or ``state`` None, has spent nothing.

    Raises:
        BudgetRefused: the ledger cannot be read, was changed, or holds another budget than the site file.
    """
    budget = site.datasets[dataset].privacy
    if budget is None:
        return None
    if state is None:
        policy = budget_policy(epsilon=budget.epsilon, delta=budget.delta, neighbouring=neighbouring_of(budget.unit))
        return Spending(policy=policy, spent_rdp=0.0, plans=(), no_privacy_runs=0, lost_rdp=0.0)
    return open_ledger(site, state).look(
        dataset, epsilon=budget.epsilon, delta=budget.delta, unit=budget.unit, group_by=budget.group_by
    )


def forecast(
    plan: Plan,
    site: Site,
    *,
    cost: Cost | None,
    dimension: int,
    state: Path | None,
    records: int | None = None,
    approved: bool = False,
    already: Cost | None = None,
) -> Forecast:
    """Return what the site would answer to the plan.

    Args:
        plan: what would be asked.
        site: the site's file.
        cost: the plan's price, None without privacy.
        dimension: the model's number of parameters.
        state: the folder of the site's ledger, None for one that has spent nothing.
        records: the site's training records, if known.
        approved: answer as if the operator had approved the plan.
        already: the price of a study of one round that was charged to the data set just before, if there was one.
    """
    spending, refusal, stop = None, None, False
    dataset, rounds = plan.study.dataset, plan.training.rounds
    if dataset in site.datasets:
        try:
            spending = _with(already, spending_of(site, dataset, state))
        except FedsciError as error:
            refusal = error
    try:
        policy = check_policy(plan, site, approved=approved)
        if cost is not None:
            require_budget(site, dataset)
            if refusal is not None:
                raise refusal
        elif state is not None:  # a run without privacy is written down, so the ledger must be usable
            problem = open_ledger(site, state).inspect().problem
            if problem is not None:
                raise BudgetRefused(f"{site.site}: {problem.message}", hint=problem.hint)
        refusal = None
        if cost is not None and spending is not None:
            budget = spending.policy
            check_cost(plan, site, policy, epsilon=cost.epsilon_at(rounds, delta=budget.delta))
            stops = require_budget(site, dataset).when_exceeded == "stop"
            for measurements in (0, cost.measurements):
                distance = cost.total_variation(rounds, measurements)
                check_distance(budget, spending.spent_distance, distance, site=site.site, dataset=dataset)
                stop = stops  # it may run without measurements
            charge = charge_cost(cost.events(rounds, cost.measurements), budget)
            if not admits(budget, spending.spent_rdp, charge):
                raise too_much(budget, spending.spent_rdp, charge, site=site.site, dataset=dataset)
            if records is not None:
                check_delta(plan, site, records=records)
    except FedsciError as error:
        refusal = error
    if cost is None or spending is None:
        return _answer(site, records, refusal, spending, cost, rounds, None)
    room = None
    if (refusal is not None and refusal.exit_code == 3) or _too_dear(plan, site, cost, spending):
        limit = site.policy.max_epsilon_per_study if site.policy else None
        room = room_for(plan, cost, spending, dimension=dimension, limit=limit)
    if stop and refusal is not None and refusal.exit_code == 3 and room is not None and room.rounds:
        return _answer(site, records, None, spending, cost, room.rounds, room, stops_after=room.rounds)
    return _answer(site, records, refusal, spending, cost, rounds, room)


def forecast_both(
    plans: tuple[Plan, Plan],
    site: Site,
    *,
    costs: tuple[Cost | None, Cost | None],
    dimensions: tuple[int, int],
    state: Path | None,
    records: int | None = None,
    approved: bool = False,
) -> Forecast:
    """Return what the site would answer to a pass that measures the scaling and to the study after it, as one.

    Args:
        plans: the pass, of one round, and the study.
        site, state, records, approved: as for :func:`forecast`.
        costs, dimensions: of the two.
    """
    first, second = (
        forecast(
            plan,
            site,
            cost=cost,
            dimension=dimension,
            state=state,
            records=records,
            approved=approved,
            already=already,
        )
        for plan, cost, dimension, already in zip(plans, costs, dimensions, (None, costs[0]), strict=True)
    )
    if first.refusal is not None or second.policy is None or costs[0] is None or costs[1] is None:
        return first if first.refusal is not None else second
    rounds = plans[1].training.rounds if second.stops_after is None else second.stops_after
    measurements = costs[1].measurements if second.stops_after is None else 0
    charges = (costs[0].events(1, costs[0].measurements), costs[1].events(rounds, measurements))
    alone = epsilon_enforced(second.policy, sum(charge_cost(each, second.policy) for each in charges))
    return replace(second, spent=first.spent, alone=alone)


def _with(already: Cost | None, spending: Spending | None) -> Spending | None:
    if already is None or spending is None:
        return spending
    charge = charge_cost(already.events(1, already.measurements), spending.policy)
    distance = spending.spent_distance + already.total_variation(1, already.measurements)
    return replace(spending, spent_rdp=spending.spent_rdp + charge, spent_distance=distance)


def room_for(plan: Plan, cost: Cost, spending: Spending, *, dimension: int, limit: float | None) -> Room:
    """Return how much of a study fits what is left of a budget, and a policy's limit on one study."""

    def fits(candidate: Cost, rounds: int, measurements: int) -> bool:
        charge = charge_cost(candidate.events(rounds, measurements), spending.policy)
        strict = replace(candidate, delta=min(candidate.delta, spending.policy.delta))
        dear = limit is not None and strict.epsilon(rounds, measurements) > limit
        return admits(spending.policy, spending.spent_rdp, charge) and not dear

    def whole_fits(epsilon: float) -> bool:
        candidate = _cost_at(plan, epsilon, dimension)
        return fits(candidate, plan.training.rounds, candidate.measurements)

    low, high = 0, plan.training.rounds  # the most rounds that fit, by bisection
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(cost, middle, 0) else (low, middle - 1)
    epsilon = _largest_epsilon(plan, cost, spending, limit)
    while epsilon >= _LEAST_EPSILON and not whole_fits(epsilon):
        epsilon = round(epsilon - 0.01, 2)
    return Room(
        rounds=low,
        epsilon_of_rounds=cost.epsilon(low),
        epsilon=epsilon if epsilon >= _LEAST_EPSILON else 0.0,
    )


def _largest_epsilon(plan: Plan, cost: Cost, spending: Spending, limit: float | None) -> float:
    """Return about the epsilon of the whole study with just enough noise for what is left, to two decimals."""
    left = remaining(spending.policy, spending.spent_rdp)
    low, high = cost.charged, 1e5

    def charge(noise: float) -> float:
        return charge_cost(replace(cost, charged=noise).events(plan.training.rounds), spending.policy)

    if charge(high) > left:
        return 0.0
    for _ in range(_STEPS):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if charge(middle) <= left else (middle, high)
    wanted = plan.study.privacy.epsilon or 0.0
    found = plan_epsilon(replace(cost, charged=high).events(plan.training.rounds), delta=cost.delta)
    return round(min(found, wanted, limit or wanted), 2)


def _cost_at(plan: Plan, epsilon: float, dimension: int) -> Cost:
    return cost_of(plan_at(plan, epsilon), dimension=dimension)


def plan_at(plan: Plan, epsilon: float) -> Plan:
    """Return the same plan with another ``privacy.epsilon``."""
    privacy = plan.study.privacy.model_copy(update={"epsilon": epsilon})
    study = plan.study.model_copy(update={"privacy": privacy})
    return Plan(study=study, recipe=plan.recipe, sites=plan.sites)


def _too_dear(plan: Plan, site: Site, cost: Cost, spending: Spending) -> bool:
    limit = site.policy.max_epsilon_per_study if site.policy else None
    return limit is not None and cost.epsilon_at(plan.training.rounds, delta=spending.policy.delta) > limit


def _answer(
    site: Site,
    records: int | None,
    refusal: FedsciError | None,
    spending: Spending | None,
    cost: Cost | None,
    rounds: int,
    room: Room | None,
    stops_after: int | None = None,
) -> Forecast:
    charge = 0.0
    if cost is not None and spending is not None:
        measurements = cost.measurements if stops_after is None else 0
        charge = charge_cost(cost.events(rounds, measurements), spending.policy)
    policy, spent = (None, 0.0) if spending is None else (spending.policy, spending.spent_rdp)
    return Forecast(
        site=site.site,
        records=records,
        policy=policy,
        spent=None if policy is None else epsilon_enforced(policy, spent),
        after=None if policy is None else epsilon_enforced(policy, spent + charge),
        alone=None if policy is None else epsilon_enforced(policy, charge),
        refusal=None if refusal is None else refusal.message.removeprefix(f"{site.site}: "),
        exit_code=0 if refusal is None else refusal.exit_code,
        hint="" if refusal is None else refusal.hint,
        room=room,
        stops_after=stops_after,
    )
