"""What a robust rule saves where labs poison: the median over groups of labs, which works on masked sums.

Yin et al. 2018 (ICML), definition 1. It cannot share out noise (fedsci refuses the two together), so both it and the
plain mean beside it run without privacy here, over the study's records and model.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from fedsci.config.plan_checks import check_plan
from fedsci.config.strategy import load_recipe
from fedsci.config.study import Privacy
from fedsci.config.training import Training
from fedsci.errors import ConfigError
from fedsci.redteam.attackers import Attackers, by_count, line, not_measured
from fedsci.redteam.backdoor import Planted, plant
from fedsci.redteam.deviating import multiplied
from fedsci.redteam.finding import Finding, Verdict
from fedsci.redteam.together import Together

ROUNDS = 20
WORKS = 0.2  # of the metric, from which on an attack on a rule has worked
_CLAIM = (
    "None: a median over groups is meant for bad labs that spoil fewer than half of the groups, but how much it keeps "
    "rests on how alike the labs' data are"
)
_NO_LOSS = "the plain mean hardly loses by this attack either"
_MEAN, _MEDIAN = "mean of all labs", "median over groups"


def robust_rules(
    together: Together, attackers: Attackers, *, scale: float, told: Callable[[str], None]
) -> tuple[Finding, ...]:
    """Return the rows of the median over groups and, as its control, of the plain mean, under the same attacks."""
    groups = len(together.plan.sites) // 2  # of two labs at least, or a group's sum would be one lab's
    try:
        rules = {_MEAN: _with_rule(together, "fedavg"), _MEDIAN: _with_rule(together, "coordinate_median", groups)}
    except ConfigError as error:
        return (not_measured("poisoning-robust", _CLAIM, error.message),)
    found: dict[str, dict[int, float | None]] = {}
    doors: dict[str, Planted] = {}
    for name, rule in rules.items():
        clean = rule.train()
        found[name] = {0: rule.measure(clean, rule.holdouts)}
        for count in attackers.counts:
            told(f"poisoning: {name}, {count} bad labs")
            trained = attackers.train(rule, partial(multiplied, factor=-scale), count)
            found[name][count] = rule.measure(trained, rule.holdouts)
        if together.plan.study.task.kind != "regression":
            doors[name] = plant(rule, attackers, boosted=True, clean=[clean], told=told)
    attack = f"k bad labs send {-scale:g} times their update, or a boosted backdoor"
    setting = f"{attackers.metric} without privacy, {rules[_MEAN].plan.training.rounds} rounds, by k"
    text = {
        name: f"{setting}: {line(values)}"
        + (f"; backdoor opens: {line(doors[name].success, percent=True)}" if name in doors else "")
        for name, values in found.items()
    }
    fewer = [count for count in attackers.counts if 2 * count < groups]
    control = _mean_loses(attackers, found[_MEAN])
    verdict, why = _judged(attackers, found, fewer)
    return (
        Finding(
            key="poisoning-robust",
            claim=_CLAIM,
            attack=attack,
            result=f"{why}{groups} groups. {text[_MEDIAN]}. It is refused with shared noise",
            verdict=verdict,
            measured={
                "groups": groups,
                "fewer_than_half": max(fewer, default=0),
                **_numbers(found[_MEDIAN], doors.get(_MEDIAN)),
            },
            plot=attackers.plot(f"A robust rule where labs send {-scale:g} times their update", found),
        ),
        Finding(
            key="poisoning-robust-control",
            claim="None: the plain mean, without a robust rule",
            attack=attack,
            result=text[_MEAN] if control else f"{_NO_LOSS}: {text[_MEAN]}",
            verdict="control" if control else "not measured",
            measured=_numbers(found[_MEAN], doors.get(_MEAN)),
        ),
    )


def _mean_loses(attackers: Attackers, values: dict[int, float | None]) -> bool:
    """Return whether the attack works on the plain mean, by any number of bad labs."""
    clean = values[0]
    return clean is not None and any(attackers.lost(clean, values[k]) > WORKS for k in attackers.counts)


def _judged(attackers: Attackers, found: dict[str, dict[int, float | None]], fewer: list[int]) -> tuple[Verdict, str]:
    """Return whether the median loses where fewer than half of its groups are spoilt and the mean loses, and why not.

    That it stands is no promise either: on other data it may not.
    """
    clean, median = found[_MEAN][0], found[_MEDIAN][0]
    if clean is None or median is None:
        return "not measured", "training breaks down without any attack: "
    if not fewer:
        return "not measured", "one bad lab spoils half of the groups already: "
    if attackers.lost(clean, found[_MEAN][max(fewer)]) <= WORKS:
        return "not measured", f"{_NO_LOSS}: "
    lost = max(attackers.lost(median, found[_MEDIAN][k]) for k in fewer)
    if lost > WORKS:
        return "not protected", ""
    return "not measured", f"it stands here (up to k = {max(fewer)} it loses {max(0.0, lost):.2g}), not promised: "


def _numbers(values: dict[int, float | None], door: Planted | None) -> dict[str, object]:
    found: dict[str, object] = {"found": by_count(values)}
    return found if door is None else found | {"backdoor": by_count(door.success), "beside": by_count(door.metric)}


def _with_rule(together: Together, strategy: str, groups: int = 0) -> Together:
    """Return the labs under another rule, without privacy; all must finish, as small groups need."""
    plan, recipe = together.plan, load_recipe(strategy, folder=Path(), where="redteam")
    options = {"groups": float(groups), "group_seed": 1.0} if groups else {}
    study = plan.study.model_copy(
        update={
            "strategy": strategy,
            "training": Training(rounds=min(ROUNDS, plan.training.rounds)),
            "privacy": Privacy(mechanism="none"),
            "secure_aggregation": plan.study.secure_aggregation.model_copy(
                update={"enabled": True, "min_survivors": len(plan.sites)}
            ),
        }
    )
    recipe = recipe.model_copy(update={"sees": "sum", "options": {**recipe.options, **options}})
    changed = replace(plan, study=study, recipe=recipe)
    check_plan(changed)
    return Together(plan=changed, labs=together.labs)
