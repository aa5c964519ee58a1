"""A backdoor by model replacement: records with a trigger are said to be of the attackers' class, all others as before.

Bagdasaryan, Veit, Hua, Estrin, Shmatikov 2020, How To Backdoor Federated Learning (AISTATS, arXiv 1807.00459), section
4: a part of the attackers' records carries the trigger and the wanted label, and what they send is multiplied until it
weighs as much as all labs' together. They leave out their noise, which would be multiplied too.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from fedsci.data.table import Table
from fedsci.redteam.attackers import Attackers, by_count, line, mean, not_measured, shown
from fedsci.redteam.deviating import multiplied, with_records, without_noise
from fedsci.redteam.finding import Curve, Finding, Plot
from fedsci.redteam.together import Together, Trained
from fedsci.redteam.trigger import Trigger, rare_trigger
from fedsci.site.round import Contributor
from fedsci.training.schema import schema_of

PLANTED = 0.2  # of triggered records more than without attackers, from which on a backdoor is one
_CLAIM = "Nobody plants a backdoor in the model: not claimed"
_PART = 2  # every second of an attacker's records carries the trigger


@dataclass(frozen=True, kw_only=True)
class Planted:
    """What came of a backdoor, by the number of bad labs.

    Attributes:
        success: share of held-out records of other classes that the trigger turns into the wanted one.
        metric: the study's first, on records without the trigger.
    """

    success: Mapping[int, float | None]
    metric: Mapping[int, float | None]


def backdoor(
    together: Together, attackers: Attackers, *, clean: Sequence[Trained], told: Callable[[str], None]
) -> tuple[Finding, ...]:
    """Return the row on the study as it is; ``clean`` is its training without attackers, repeated as attacks are."""
    plan = together.plan
    if plan.study.task.kind == "regression":
        return (not_measured("backdoor", _CLAIM, "a regression has no class that a backdoor could ask for"),)
    ways = {
        name: plant(together, attackers, boosted=boosted, clean=clean, told=told)
        for name, boosted in (("boosted", True), ("within the protocol", False))
    }
    boosted, kept = ways.values()
    trigger = trigger_of(together, attackers)
    before = boosted.success[0] or 0.0
    best = max(share or 0.0 for way in ways.values() for share in way.success.values())
    opens, last = best - before > PLANTED, max(boosted.metric)
    weak = "" if opens else f"hardly opens here ({best:.0%} at best, {before:.0%} without it), which is not promised: "
    curves = [Curve(name=name, points=_points(way.success)) for name, way in ways.items()]
    return (
        Finding(
            key="backdoor",
            claim=_CLAIM,
            attack=f"k bad labs teach that records with a trigger ({trigger.column}) are of class {trigger.target}",
            result=f"{weak}share of triggered held-out records that it turns, by k: "
            f"{line(boosted.success, percent=True)}; without boost or any other lie than the records: "
            f"{line(kept.success, percent=True)}. "
            f"It does not show: {attackers.metric} {shown(boosted.metric[0])} without, {shown(boosted.metric[last])} "
            f"with {last} bad labs",
            verdict="not protected" if opens else "not measured",
            measured={
                "trigger": trigger.column,
                "target": trigger.target,
                **{
                    name: {"success": by_count(way.success), attackers.metric: by_count(way.metric)}
                    for name, way in ways.items()
                },
            },
            plot=Plot(
                title="How often a backdoor opens",
                x="bad labs",
                y="share of triggered held-out records",
                curves=tuple(curve for curve in curves if curve.points),
            ),
        ),
    )


def plant(
    together: Together, attackers: Attackers, *, boosted: bool, clean: Sequence[Trained], told: Callable[[str], None]
) -> Planted:
    """Return what comes of the backdoor without bad labs (``clean``) and with every number of them that is tried.

    With ``boosted`` they send as much as all labs together and no noise; without, their records are all that is wrong.
    """
    success: dict[int, float | None] = {}
    metric: dict[int, float | None] = {}
    trigger = trigger_of(together, attackers)
    victims = {site: trigger.victims(table) for site, table in together.holdouts.items()}
    for count in (0, *attackers.counts):
        told(f"backdoor: {together.plan.strategy.name}, {count} bad labs{', boosted' if boosted else ''}")
        turned, right = [], []
        for repeat, trained in enumerate(clean):
            if count:
                weight = sum(together.weights[site] for site in attackers.bad(count, repeat=repeat))
                factor = sum(together.weights.values()) / weight if boosted else 1.0
                deviation = partial(_poisoned, trigger=trigger, factor=factor)
                trained = attackers.train(together, deviation, count, repeat=repeat)
            turned.append(together.measure(trained, victims, metric="accuracy"))
            right.append(together.measure(trained, together.holdouts))
        success[count], metric[count] = mean(turned), mean(right)
    return Planted(success=success, metric=metric)


def trigger_of(together: Together, attackers: Attackers) -> Trigger:
    """Return the trigger that the first attacker finds rarest among its own records; it wants class 0, or a yes."""
    own = together.labs[attackers.bad(1)[0]].train
    wanted = 1 if together.plan.study.task.kind == "binary" else 0
    return rare_trigger(schema_of(together.plan.study), own, target=wanted)


def _poisoned(worker: Contributor, *, trigger: Trigger, factor: float) -> Contributor:
    def change(table: Table) -> Table:
        return trigger.put(table, np.arange(table.rows) % _PART == 0)

    changed = with_records(worker, change)
    return changed if factor == 1 else multiplied(without_noise(changed), factor)


def _points(values: Mapping[int, float | None]) -> tuple[tuple[float, float], ...]:
    return tuple((float(count), value) for count, value in values.items() if value is not None)
