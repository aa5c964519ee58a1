"""Labs that leave out their share of the noise: what is left for everybody's records.

A sum is private by the noise of those who added theirs. Shares are sized so that ``min_survivors`` less
``privacy.colluding_sites`` of them are enough, so as many labs may leave theirs out (or know and subtract it) while as
few as may finish do. Reckoned by the accountant, and measured in a real run: what is left of the opened sum once the
labs' clipped sums, which only the red team knows, are taken away.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fedsci.config.plan import Plan
from fedsci.config.strategy import ServerOptimiserSpec
from fedsci.config.study_file import StudyOnOneMachine
from fedsci.errors import FedsciError, RoundAborted
from fedsci.names import SiteId
from fedsci.redteam.attackers import not_measured
from fedsci.redteam.deviating import Asked, Contribution, Deviation, deviating, opened
from fedsci.redteam.finding import Curve, Finding, Plot, Verdict, words_for
from fedsci.redteam.real_run import run_for_real, short
from fedsci.redteam.together import Together
from fedsci.site.charging import cost_for, dimension_of
from fedsci.training.accountant import Cost, epsilon_against

ROUNDS = 4
SURE = 5.0  # standard deviations of a measured variance
BLIND = 0.5  # of the shares that are counted on: a lack of so many must show, or nothing was measured
_CLAIM = "Epsilon holds although labs leave out their noise, as many as colluding_sites says"


@dataclass(frozen=True, kw_only=True)
class Left:
    """The noise that a real run's sums were left with.

    Attributes:
        shares: its variance, in shares of one lab's noise.
        error: standard deviation of that, from the number of values.
        finished: labs in each sum.
    """

    shares: float
    error: float
    finished: int

    @property
    def text(self) -> str:
        """The measurement in words."""
        return f"{self.shares:.2f} ± {self.error:.2f} shares of {self.finished} in each sum"


def omitted_noise(
    study: StudyOnOneMachine, together: Together, *, seed: int, told: Callable[[str], None]
) -> tuple[Finding, ...]:
    """Return the rows for as many labs as the study allows for, and for more."""
    plan = together.plan
    cost = cost_for(plan)
    if cost is None or cost.share is None:
        why = "there is no noise" if cost is None else "each lab adds all noise for its own records itself"
        return (not_measured("omitted-noise", _CLAIM, f"no lab's privacy rests on another's noise: {why}"),)
    fewest, allowed, sites = plan.min_survivors, plan.study.privacy.colluding_sites, len(plan.sites)
    more = min(fewest - 1, max(allowed + 1, 2 * allowed + 2))
    told("omitted noise: what the accountant says")
    curves = {f"{present} labs finish": _epsilons(plan, cost, present=present) for present in sorted({fewest, sites})}
    few = curves[f"{fewest} labs finish"]
    told(f"omitted noise: {ROUNDS} rounds for real, {allowed} labs leave theirs out")
    covered = _measured(study, plan, omit=allowed, seed=seed)
    told(f"omitted noise: {ROUNDS} rounds for real, {more} labs leave theirs out")
    beyond = _measured(study, plan, omit=more, seed=seed)
    promised = cost.epsilon(plan.training.rounds)
    plot = Plot(
        title="Epsilon left where labs leave out their noise",
        x="labs without noise",
        y=f"epsilon at delta {cost.delta:g}",
        curves=tuple(
            Curve(name=name, points=tuple((float(k), e) for k, e in each.items() if math.isfinite(e)))
            for name, each in curves.items()
        ),
    )
    measured = {
        "epsilon_promised": promised,
        "epsilon": {name: {str(k): e for k, e in each.items() if math.isfinite(e)} for name, each in curves.items()},
    }
    return (
        _row("omitted-noise", plan, few, covered, omit=allowed, promised=promised, measured=measured, plot=plot),
        _row("omitted-noise-more", plan, few, beyond, omit=more, promised=promised, measured={}, plot=None),
    )


def _row(
    key: str,
    plan: Plan,
    epsilons: Mapping[int, float],
    left: Left | str,
    *,
    omit: int,
    promised: float,
    measured: Mapping[str, object],
    plot: Plot | None,
) -> Finding:
    allowed = plan.study.privacy.colluding_sites
    covered, counted = omit <= allowed, plan.min_survivors - allowed
    epsilon = epsilons[omit]
    result = f"epsilon {epsilon:.2f} where {promised:.2f} is promised, if only {plan.min_survivors} labs finish"
    if isinstance(left, str):
        result += f"; not measured: {left}"
    else:
        result += f"; measured in a real run: {left.text}, where {counted} are counted on"
    enough = epsilon <= promised * (1 + 1e-9)
    short, blind = False, True
    if not isinstance(left, str):
        short = left.shares + SURE * left.error < counted
        blind = SURE * left.error > counted * BLIND
        if not short and (blind or not covered):
            result += "; too few numbers to tell" if blind else "; none is seen to be missing"
    verdict: Verdict
    if not covered:
        verdict = "control" if short and not enough else "not measured"
    elif short or not enough:
        verdict = "broken"
    else:
        verdict = "not measured" if blind else "holds"
    return Finding(
        key=key,
        claim=_CLAIM if covered else "The same with more labs than colluding_sites: not claimed",
        attack=f"{omit} of {len(plan.sites)} labs send clipped sums without noise, and as many drop out as may",
        result=result,
        verdict=verdict,
        measured={
            "without_noise": omit,
            "epsilon_left": epsilon if math.isfinite(epsilon) else None,
            "shares_counted": counted,
            "shares_left": None if isinstance(left, str) else left.shares,
            "shares_left_error": None if isinstance(left, str) else left.error,
            **measured,
        },
        plot=plot,
    )


def _epsilons(plan: Plan, cost: Cost, *, present: int) -> dict[int, float]:
    """Return epsilon by the number of labs without noise, where so many finish every round; infinite without noise."""
    size, survivors = dimension_of(plan), {present: plan.training.rounds}
    return {k: epsilon_against(plan, cost, dimension=size, survivors=survivors, colluding=k) for k in range(present)}


def _measured(study: StudyOnOneMachine, plan: Plan, *, omit: int, seed: int) -> Left | str:
    """Return the noise that is left in a real run where as many labs as may drop out and others leave out theirs.

    The run has fewer rounds, and steps of the whole sum, so that the sums can be read off the models: the noise of
    such a plan is another, in the same shares. Why it cannot be measured, where it cannot.
    """
    if plan.strategy.site_work == "statistics":
        return "the sums of one exchange cannot be read off the model"
    recipe = plan.recipe.model_copy(update={"server_optimiser": ServerOptimiserSpec(learning_rate=1.0, momentum=0.0)})
    changed = replace(short(plan, rounds=ROUNDS), recipe=recipe)
    cost = cost_for(changed)
    if cost is None or cost.share is None:
        return "the noise is not shared out"
    order = [changed.sites[place] for place in np.random.default_rng(seed).permutation(len(changed.sites))]
    away = order[: len(order) - changed.min_survivors]
    there = order[len(away) :]
    totals: dict[SiteId, list[NDArray[np.float64]]] = {site: [] for site in there}
    bad: dict[SiteId, Deviation] = dict.fromkeys(away, partial(deviating, act=_dropping_out))
    bad |= {site: partial(opened, totals=totals[site], noised=place >= omit) for place, site in enumerate(there)}
    try:
        run = run_for_real(study, changed, bad)
    except FedsciError as error:
        return words_for(error)
    weight = float(len(there))
    if plan.study.privacy.unit != "site":
        weight = cost.sample_rate * sum(run.summary["metrics"]["by_site"][site]["records"]["train"] for site in there)
    sums = [weight * (after.astype(np.float64) - before) for before, after in pairwise(run.models)]
    rest = np.stack([total - sum(each[number] for each in totals.values()) for number, total in enumerate(sums)])
    shares = float(np.square(rest).mean()) / (cost.share.deviation * cost.share.gamma) ** 2
    return Left(shares=shares, error=shares * math.sqrt(2.0 / rest.size), finished=len(there))


def _dropping_out(asked: Asked) -> Contribution:
    raise RoundAborted("this lab drops out")
