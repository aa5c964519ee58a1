"""A study whose scaling is measured becomes two: a pass that measures, and the study itself with what it found.

Both are plans of their own, with an admission and a charge of their own at every site. The study's epsilon and delta
are split between them by basic composition: (e1, d1) and (e2, d2) are (e1 + e2, d1 + d2) together, however the second
depends on what the first released (Dwork and Roth 2014, theorem B.1).
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedsci.config.plan import Plan
from fedsci.config.plan_checks import check_plan
from fedsci.config.strategy import load_recipe
from fedsci.config.study import (
    Evaluation,
    NumericColumn,
    Personalise,
    Privacy,
    RegressionTask,
    ScaledBy,
    Study,
)
from fedsci.config.training import Training
from fedsci.errors import ConfigError

#: The strategy of the pass; a site runs it only if its policy lists it.
MEASURES = "feature_statistics"
_SUFFIX = ".scaling"
_LONGEST_NAME = 64


def pass_before(plan: Plan) -> Plan:
    """Return the study that measures what scales ``plan``: same sites, records, columns, unit, mechanism and masks.

    With a privacy mechanism it costs ``privacy.scaling_share`` of epsilon and of delta.

    Raises:
        ConfigError: the statistics cannot be measured this way.
    """
    study = plan.study
    if study.privacy.unit == "site" and plan.private:  # one lab's mean would be noised as a whole, to no use
        raise ConfigError(
            "statistics of columns are sums over records, and privacy.unit: site hides whole sites",
            hint="use features.scaling: bounds with public means and deviations, or privacy.unit: record",
        )
    update: dict[str, Any] = {
        "study": study.study[: _LONGEST_NAME - len(_SUFFIX)].rstrip("._-") + _SUFFIX,
        "question": f"What scales the columns of {study.study}?",
        "scaling": "bounds",
        "strategy": MEASURES,
        "training": Training(rounds=1),
        "evaluation": Evaluation(holdout=study.evaluation.holdout, baselines=[]),
        "personalise": Personalise(),
        "privacy": _part(study.privacy, study.privacy.scaling_share).model_copy(update={"clipping_norm": 1.0}),
        # it uses data and releases numbers of its own, in one round
        "checkpoints": [checkpoint for checkpoint in study.checkpoints if checkpoint.before is not None],
    }
    bare = _with_moments(study, dict.fromkeys([*study.features, study.task.target], (None, None)))
    recipe = load_recipe(MEASURES, folder=Path(), where="features.scaling")
    first = Plan(study=bare.model_copy(update=update), recipe=recipe, sites=plan.sites)
    check_plan(first)
    return first


def scaled(plan: Plan, first: Plan, moments: Mapping[str, tuple[float, float]]) -> Plan:
    """Return the study itself, scaled by what ``first`` measured, with what is left of epsilon and delta.

    Args:
        plan: as it was asked for.
        first: its pass.
        moments: mean and deviation of each number that has none, in its own units.
    """
    study, cost = plan.study, first.study.privacy
    by = ScaledBy(
        plan=first.digest,
        columns=list(study.unmeasured),
        epsilon=cost.epsilon if first.private else None,
        delta=cost.delta if first.private else None,
    )
    measured = _with_moments(study, {name: moments[name] for name in study.unmeasured})
    privacy = _part(study.privacy, 1 - study.privacy.scaling_share)
    return replace(plan, study=measured.model_copy(update={"scaled_by": by, "privacy": privacy}))


def by_the_bounds(plan: Plan) -> dict[str, tuple[float, float]]:
    """Return means and deviations that stand for measured ones before there are any; costs do not depend on them."""
    numbers = [*plan.study.features.items(), (plan.study.task.target, plan.study.task)]
    return {
        name: (part.min / 2 + part.max / 2, part.max / 2 - part.min / 2)
        for name, part in numbers
        if isinstance(part, NumericColumn | RegressionTask)
    }


def on_its_own(plan: Plan) -> Plan:
    """Return the study as somebody could run it who measures nothing with others: scaled by bounds, all of epsilon."""
    by = plan.study.scaled_by
    if by is None:
        return plan
    epsilon, delta = plan.whole_privacy
    privacy = plan.study.privacy.model_copy(update={"epsilon": epsilon, "delta": delta})
    bare = _with_moments(plan.study, dict.fromkeys(by.columns, (None, None)))
    update = {"scaling": "bounds", "scaled_by": None, "privacy": privacy}
    return replace(plan, study=bare.model_copy(update=update))


def scaled_by_own(plan: Plan, moments: Mapping[str, tuple[float, float]]) -> Plan:
    """Return :func:`on_its_own`, scaled by these means and deviations where a pass measured some."""
    by, own = plan.study.scaled_by, on_its_own(plan)
    if by is None:
        return plan
    return replace(own, study=_with_moments(own.study, {name: moments[name] for name in by.columns if name in moments}))


def _part(privacy: Privacy, share: float) -> Privacy:
    """Return the guarantee with its share of epsilon and delta."""
    if privacy.mechanism == "none" or privacy.epsilon is None:
        return privacy
    return privacy.model_copy(update={"epsilon": privacy.epsilon * share, "delta": privacy.delta * share})


def _with_moments(study: Study, moments: Mapping[str, tuple[float | None, float | None]]) -> Study:
    """Return the study with other means and deviations where ``moments`` names a number."""

    def changed(name: str, part: Any) -> Any:
        if name not in moments or not isinstance(part, NumericColumn | RegressionTask):
            return part
        mean, deviation = moments[name]
        return part.model_copy(update={"mean": mean, "deviation": deviation})

    features = {name: changed(name, column) for name, column in study.features.items()}
    return study.model_copy(update={"features": features, "task": changed(study.task.target, study.task)})
