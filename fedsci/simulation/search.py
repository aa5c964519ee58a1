"""Trying several settings of a study, with every try paid for.

A search is a set of studies on the same records: each try releases its own noised sums, and picking the best of them
afterwards is post-processing. So either all tries together keep within the study's epsilon (each then gets less), or
each is charged as a study of its own. Private selection, which charges about three times one try for a random number
of them (Papernot and Steinke 2022), does not apply: it needs that nobody sees the tries that lose, and in a federation
everybody sees the sums of every round.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from fedsci.config.loading import NOT_YAML, parse_value
from fedsci.config.plan import Plan
from fedsci.config.site import Site
from fedsci.config.study_file import StudyOnOneMachine, load_study
from fedsci.errors import BudgetRefused, ConfigError, InputError
from fedsci.privacy.accounting import epsilon as plan_epsilon
from fedsci.privacy.budget import admits, charge_cost, epsilon_enforced
from fedsci.privacy.events import Plan as EventPlan
from fedsci.privacy.events import one_after_another
from fedsci.site.charging import cost_for
from fedsci.site.forecast import plan_at, spending_of
from fedsci.training.accountant import Cost

MOST_TRIES = 64
_BISECTIONS = 12
_OF_ALL = ("privacy.epsilon", "privacy.delta", "evaluation.baselines")
_BARE = ("evaluation.baselines=[]", "personalise=none")  # tries are compared with each other, not with labs alone


@dataclass(frozen=True, kw_only=True)
class Try:
    """One setting of a search.

    Attributes:
        settings: what differs from the study file, as ``key=value`` texts.
        study: the study with these settings.
        cost: what it costs every site, None without privacy.
    """

    settings: tuple[str, ...]
    study: StudyOnOneMachine
    cost: Cost | None


@dataclass(frozen=True, kw_only=True)
class Search:
    """All tries, in order, and what they cost one unit together.

    Attributes:
        tries: none has run yet.
        epsilon: of all tries together, by PLD, at the study's delta; None without privacy.
    """

    tries: tuple[Try, ...]
    epsilon: float | None


def plan_search(
    path: Path, *, grid: Sequence[str], overrides: Sequence[str] = (), seed: int | None = None, each: bool = False
) -> Search:
    """Return the tries of a study, checked and priced, before anything runs.

    Args:
        path: the study file.
        grid: ``key=value,value,...`` texts; every combination is a try.
        overrides, seed: for all tries, as in :func:`load_study`.
        each: charge every try the study's epsilon; by default all tries together keep within it.

    Raises:
        ConfigError: a setting cannot be, or changes what is measured or protected.
    """
    tries = []
    for settings in itertools.product(*_choices(grid)):
        loaded = load_study(path, overrides=[*overrides, *settings, *_BARE], seed=seed)
        if loaded.plan.awaits_scaling:  # each try would pay for measuring the same numbers
            raise ConfigError(
                "every try would measure the scaling anew (features.scaling: federated)",
                hint="measure once with fedsci data stats, write mean and deviation into the study, and tune that",
            )
        tries.append(Try(settings=settings, study=loaded, cost=None))
    _refuse_moving_targets([found.study.plan for found in tries])
    if not tries[0].study.plan.private:
        return Search(tries=tuple(tries), epsilon=None)
    wanted = tries[0].study.plan.study.privacy.epsilon or 0.0
    priced = [_at(found, wanted) for found in tries] if each else _within(tries, wanted)
    return Search(tries=tuple(priced), epsilon=_together(priced))


def require_affordable(search: Search, sites: Mapping[Path, Site], states: Mapping[str, Path | None]) -> None:
    """Pass if every site's budget holds all tries, so that no search ends half-way.

    Args:
        search: what would run.
        sites: site files.
        states: each site's state folder by name; None for one that has spent nothing.

    Raises:
        BudgetRefused: names site, data set, what the search would cost, and how many tries would fit.
    """
    dataset = search.tries[0].study.plan.study.dataset
    for site in sites.values():
        spending = spending_of(site, dataset, states[site.site])
        if spending is None:
            continue
        spent, fitting = spending.spent_rdp, 0
        for found in search.tries:
            if found.cost is None:
                return
            charge = charge_cost(_events(found.cost, found.study.plan), spending.policy)
            if admits(spending.policy, spent, charge):
                fitting += 1
            spent += charge
        if not admits(spending.policy, spent, 0.0):
            policy = spending.policy
            raise BudgetRefused(
                f"{site.site}: all {len(search.tries)} tries together would take the enforced epsilon of {dataset} to "
                f"{epsilon_enforced(policy, spent):.2f} of {policy.epsilon:.2f} (now {spending.epsilon_enforced:.2f}); "
                f"{fitting} of them would fit",
                hint="try fewer settings, lower privacy.epsilon, or ask the privacy officer",
            )


def _choices(grid: Sequence[str]) -> list[list[str]]:
    choices = []
    for text in grid:
        key, equals, values = text.partition("=")
        try:
            listed = parse_value(f"[{values}]") if equals and key.strip() else None
        except (yaml.YAMLError, *NOT_YAML):
            listed = None
        if not listed:
            raise ConfigError(
                f"--try {text}: expected key=value,value,...", hint="for example: --try training.learning_rate=0.1,0.5"
            )
        if key.strip().split(".")[0] in ("personalise", "seed") or key.strip() in _OF_ALL:
            raise ConfigError(
                f"--try {text}: {key.strip()} is not a setting to search over",
                hint="search over training or model; what holds for all tries goes with --set or --seed",
            )
        choices.append([f"{key.strip()}={yaml.safe_dump(v, default_flow_style=True).splitlines()[0]}" for v in listed])
    if not choices:
        raise ConfigError("nothing to try", hint="for example: --try training.learning_rate=0.1,0.5")
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > MOST_TRIES:
        raise ConfigError(f"{count} combinations are more than {MOST_TRIES}", hint="try fewer values at a time")
    return choices


def _refuse_moving_targets(plans: Sequence[Plan]) -> None:
    """Refuse tries whose results could not be compared, or whose costs could not be added up."""
    for plan in plans:
        if plan.study.checkpoints:
            raise ConfigError(
                "the study has checkpoints, and a search would wait at those of every try",
                hint="--set checkpoints=[] for the search; the study itself keeps them",
            )
        if not plan.makes_model:
            raise ConfigError(
                f"{plan.recipe.name} makes no model, so no try could be measured",
                hint="choose another strategy, or use fedsci run",
            )
    for name, values in (
        ("metric", {plan.metrics[0] for plan in plans}),
        ("data set", {plan.study.dataset for plan in plans}),
        ("sites", {plan.sites for plan in plans}),
        ("unit of privacy", {plan.study.privacy.unit for plan in plans}),
        ("mechanism", {plan.study.privacy.mechanism for plan in plans}),
    ):
        if len(values) > 1:
            raise ConfigError(f"the tries do not have one {name}", hint="search over settings of training or model")


def _at(found: Try, epsilon: float) -> Try:
    plan = plan_at(found.study.plan, epsilon)
    return replace(found, study=replace(found.study, plan=plan), cost=cost_for(plan))


def _within(tries: Sequence[Try], epsilon: float) -> list[Try]:
    """Return the tries, each with the same epsilon, as large as keeps all of them together within ``epsilon``."""
    if len(tries) == 1:
        return [_at(tries[0], epsilon)]
    low, high = epsilon / len(tries), epsilon
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        total = _together([_at(found, middle) for found in tries])
        low, high = (middle, high) if total <= epsilon else (low, middle)
    priced = [_at(found, low) for found in tries]
    if not _together(priced) <= epsilon:
        raise InputError(f"{len(tries)} tries cannot share epsilon {epsilon:g}", hint="try fewer settings")
    return priced


def _together(tries: Sequence[Try]) -> float:
    plans = [_events(found.cost, found.study.plan) for found in tries if found.cost is not None]
    return plan_epsilon(one_after_another(plans), delta=tries[0].study.plan.study.privacy.delta)


def _events(cost: Cost, plan: Plan) -> EventPlan:
    return cost.events(plan.training.rounds, cost.measurements)
