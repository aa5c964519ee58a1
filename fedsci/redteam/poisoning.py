"""Labs that poison the model: how much a few of them spoil, whether they can plant a backdoor, what stands against it.

fedsci does not claim that a sum is right (docs/threat-model.md, "What is not protected"): what a masked upload holds
is seen by nobody. So these rows say how well it works, and what limits it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from fedsci.config.masking import grid_for
from fedsci.config.study import MulticlassTask, Study
from fedsci.config.study_file import StudyOnOneMachine
from fedsci.data.table import Table
from fedsci.errors import FedsciError
from fedsci.redteam.attackers import LOST, Attackers, by_count, line, mean, not_measured, shown
from fedsci.redteam.backdoor import backdoor
from fedsci.redteam.cohort import untrainable
from fedsci.redteam.deviating import Deviation, multiplied, turned_round, with_records
from fedsci.redteam.finding import Finding, words_for
from fedsci.redteam.real_run import run_for_real, short
from fedsci.redteam.robust_rules import robust_rules
from fedsci.redteam.together import Together, Trained
from fedsci.training.sums import step_of

SCALE = 5.0  # by which attackers turn their contribution round
REPEATS = 2  # of every attack on the study itself, with other attackers and other noise
REAL_ROUNDS = 5
_CLAIM = "The sum is right although labs lie: not claimed"


def poisoning(
    study: StudyOnOneMachine, *, seed: int, told: Callable[[str], None] = lambda text: None
) -> tuple[Finding, ...]:
    """Return what labs that poison come to: on the study as it is, and against a robust rule over groups of labs."""
    together = Together.of(study)
    why = untrainable(together.plan) or (None if len(together.plan.sites) > 2 else "of two labs nobody is a minority")
    if why is not None:
        return (not_measured("poisoning", _CLAIM, why),)
    attackers = Attackers.of(together, seed)
    told("poisoning: nobody")
    clean = [together.train() for _ in range(REPEATS)]
    return (
        *_untargeted(study, together, attackers, clean, told),
        *backdoor(together, attackers, clean=clean, told=told),
        *robust_rules(together, attackers, scale=SCALE, told=told),
    )


@dataclass(frozen=True, kw_only=True)
class _Spoilt:
    """The study's metric, and the mean norm of a round's mean contribution."""

    value: float | None
    norm: float

    @classmethod
    def of(cls, together: Together, runs: Sequence[Trained]) -> "_Spoilt":
        norms = [float(np.mean(run.norms)) for run in runs if run.norms]
        value = mean([together.measure(run, together.holdouts) for run in runs])
        return cls(value=value, norm=float(np.mean(norms)) if norms else 0.0)


def _untargeted(
    study: StudyOnOneMachine,
    together: Together,
    attackers: Attackers,
    honest: Sequence[Trained],
    told: Callable[[str], None],
) -> tuple[Finding, ...]:
    clean = _Spoilt.of(together, honest)
    if clean.value is None:
        return (not_measured("poisoning", _CLAIM, "training breaks down without any attack"),)
    ways: dict[str, Deviation] = {
        "wrong labels": partial(with_records, change=partial(_mislabelled, study=together.plan.study)),
        "turned round, of an honest norm": turned_round,
        f"times {-SCALE:g}": partial(multiplied, factor=-SCALE),
    }
    found: dict[str, dict[int, _Spoilt]] = {name: {} for name in ways}
    for name, deviation in ways.items():
        for count in attackers.counts:
            told(f"poisoning: {name}, {count} bad labs")
            runs = [attackers.train(together, deviation, count, repeat=repeat) for repeat in range(REPEATS)]
            found[name][count] = _Spoilt.of(together, runs)
    values = {name: {count: one.value for count, one in each.items()} for name, each in found.items()}
    worst = max(attackers.lost(clean.value, value) for each in values.values() for value in each.values())
    loudest = found[f"times {-SCALE:g}"][max(attackers.counts)].norm / clean.norm if clean.norm else 0.0
    weak = "" if worst > LOST else f"hardly works here (it takes {worst:.2g} at most), which is not promised: "
    told("poisoning: a real run")
    real, limit = _for_real(study, together, attackers), _limit(together)
    return (
        Finding(
            key="poisoning",
            claim=_CLAIM,
            attack="k bad labs train on wrong labels, or send the opposite of what they should: as long as an honest "
            f"upload may be, or {-SCALE:g} times it",
            result=f"{weak}{attackers.metric} {shown(clean.value)} without them, by k: "
            + "; ".join(f"{name} {line(each)}" for name, each in values.items())
            + f". The sum's norm grows {loudest:.1f}-fold at most. {real.pop('text')}. {limit.pop('text')}",
            verdict="not protected" if worst > LOST else "not measured",
            measured={
                "metric": attackers.metric,
                "clean": clean.value,
                "norm_clean": clean.norm,
                "found": {name: by_count(each) for name, each in values.items()},
                "norms": {name: by_count({k: one.norm for k, one in each.items()}) for name, each in found.items()},
                "real_run": real,
                **limit,
            },
            plot=attackers.plot(
                f"What bad labs leave of {attackers.metric}",
                {name: {0: clean.value, **each} for name, each in values.items()},
            ),
        ),
    )


def _for_real(study: StudyOnOneMachine, together: Together, attackers: Attackers) -> dict[str, Any]:
    """Return what the middle number of bad labs comes to in a real run, and in the same training without messages."""
    count, plan = attackers.counts[len(attackers.counts) // 2], short(together.plan, rounds=REAL_ROUNDS)
    bad = dict.fromkeys(attackers.bad(count), partial(multiplied, factor=-SCALE))
    beside = Together(plan=plan, labs=together.labs)
    expected = beside.measure(beside.train(bad), beside.holdouts)
    try:
        summary = run_for_real(study, plan, bad).summary
    except FedsciError as error:
        return {"text": f"A real run ended: {words_for(error)}", "error": words_for(error)}
    value = (summary["metrics"].get("federated") or {}).get(attackers.metric)
    dropped = len(summary["secure_aggregation"]["dropped"])
    alarms = {"alarms": len(summary["alarms"])} if "alarms" in summary else {}
    return {
        "text": f"In a real run of {plan.training.rounds} rounds with {count} of them {shown(value)} "
        f"(without messages, on another split: {shown(expected)}), and {dropped} uploads were refused"
        + "".join(f", {count} rounds raised an alarm" for count in alarms.values()),
        "rounds": plan.training.rounds,
        "bad": count,
        "value": value,
        "without_messages": expected,
        "dropped": dropped,
        **alarms,
    }


def _limit(together: Together) -> dict[str, Any]:
    """Return what bounds one lab's upload, beside what an honest one could send at most."""
    plan, cost = together.plan, together.cost
    if not plan.study.secure_aggregation.enabled:
        return {"text": "The coordinator sees each upload, and nothing limits it", "upload_limit": None}
    limit = grid_for(plan).site_bound * step_of(plan, cost)
    if cost is None or cost.share is None:
        return {"text": f"The grid limits a number of a weighted upload to {limit:.3g}", "upload_limit": limit}
    records = 1 if plan.study.privacy.unit == "site" else max(lab.train_count for lab in together.labs.values())
    honest = plan.study.privacy.clipping_norm * records
    return {
        "text": f"The grid limits a number of an upload to {limit:.3g} where the largest lab's honest sum has norm "
        f"{honest:.3g} at most, so it limits nothing; clipping binds only labs whose records alone are wrong",
        "upload_limit": limit,
        "honest_norm": honest,
    }


def _mislabelled(table: Table, *, study: Study) -> Table:
    """Return the records with every label wrong: the next class, the other one, or the number mirrored."""
    if isinstance(study.task, MulticlassTask):
        return replace(table, target=(table.target + 1) % len(study.task.classes))
    return replace(table, target=1 - table.target if study.task.kind == "binary" else -table.target)
