"""Was this record trained on? The likelihood-ratio attack on the released model, against what the epsilon allows.

LiRA of Carlini et al. 2022, arXiv 2112.03570, online: models are trained on random halves of all labs' records by the
study's own recipe, and for every record its confidence under a model is about normal, with one mean where the record
was in and another where it was not. Every model is attacked in turn with all others as shadow models, so that a few
dozen give tens of thousands of decisions. Which records are in is drawn one by one: then what the study promises for
any others holds for the mixture of them, and no test finds more of the members at a rate of false alarms alpha than
``e^epsilon alpha + delta`` (Kairouz et al. 2015), or than its noise allows (:func:`fedsci.privacy.meaning.detection`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsci.config.plan import Plan
from fedsci.config.study_file import StudyOnOneMachine
from fedsci.data.table import Table, concatenate
from fedsci.errors import RoundAborted
from fedsci.privacy.meaning import detection
from fedsci.redteam.cohort import OpenCohort, labs_of, untrainable
from fedsci.redteam.finding import Curve, Finding, Plot, Verdict
from fedsci.redteam.scores import Measured, auc, mean_interval, roc, threshold_for
from fedsci.site.charging import dimension_of
from fedsci.training.accountant import Cost, cost_of
from fedsci.training.confidence import confidences

MODELS = 64
FEW = 200
#: Rates of false alarms at which detections are counted, where at least ten false alarms are.
RATES = (0.01, 0.001)
#: The area under the ROC from which on an attack counts as one that works.
WORKS = 0.55
_CLAIM = "Whether one record was trained on can be told from the released model no better than epsilon allows"


@dataclass(frozen=True, kw_only=True, eq=False)
class Shadows:
    """Models trained on random halves, and how sure each is of every record.

    Attributes:
        confidence: float64 ``(models, records)``.
        member: whether the model trained on the record, bool ``(models, units)``.
        groups: of each record the unit it belongs to, int64 ``(records,)``.
    """

    confidence: NDArray[np.float64]
    member: NDArray[np.bool_]
    groups: NDArray[np.int64]

    def ratios(self) -> NDArray[np.float64]:
        """Return the log likelihood ratio of every unit under every model, float64 ``(models, units)``.

        From all models but that one. A record's variance is taken to be the same in and out: with a few dozen models
        two are worse known than they differ.
        """
        models, units = self.member.shape
        found = np.zeros((models, units))
        inside = self.member[:, self.groups]
        for target in range(models):
            others = np.arange(models) != target
            values, within = self.confidence[others], inside[others]
            means, squares = [], np.zeros(len(self.groups))
            for chosen in (within, ~within):
                mean = (values * chosen).sum(0) / np.maximum(chosen.sum(0), 1)
                squares += (np.square(values - mean) * chosen).sum(0)
                means.append(mean)
            variance = np.maximum(squares / max(len(values) - 2, 1), 1e-12)
            each = (np.square(self.confidence[target] - means[1]) - np.square(self.confidence[target] - means[0])) / 2
            both = within.any(0) & ~within.all(0)  # of a record that was always in, or never, nothing is known
            np.add.at(found[target], self.groups, np.where(both, each / variance, 0.0))
        return found


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the attack reached over all models.

    Attributes:
        area: under the ROC, mean over the models that were attacked.
        at: by rate of false alarms, the share of members that was found; the same mean.
        line: the ROC, see :func:`fedsci.redteam.scores.roc`.
        decisions: how many there were.
    """

    area: Measured
    at: dict[float, Measured]
    line: tuple[tuple[float, float], ...]
    decisions: int

    @property
    def works(self) -> bool:
        """Whether it tells members from others at all."""
        return self.area.low > WORKS

    def passing(self, bound: Callable[[float], float]) -> list[float]:
        """Return the rates of false alarms at which more members are found than the bound allows, beyond chance."""
        return [rate for rate, found in self.at.items() if found.low > bound(rate)]

    def to_json(self) -> dict[str, Any]:
        """Return it for ``Finding.measured``."""
        at = {f"tpr_at_fpr_{rate:g}": found.to_json() for rate, found in self.at.items()}
        return {"auc": self.area.to_json(), "decisions": self.decisions} | at

    def __str__(self) -> str:
        found = "".join(
            f", {of.percent()} of the members found at {_share(rate)} false alarms" for rate, of in self.at.items()
        )
        return f"AUC {self.area}{found}"


def outcome(ratios: NDArray[np.float64], member: NDArray[np.bool_]) -> Outcome:
    """Return how well the ratios tell who was in; intervals take each attacked model for one trial."""
    out = ratios[~member]
    areas = [auc(row[inside], row[~inside]) for row, inside in zip(ratios, member, strict=True)]
    at = {}
    for rate in RATES:
        if rate * len(out) >= 10:
            threshold = threshold_for(out, false_alarms=rate)
            caught = [float((row[inside] > threshold).mean()) for row, inside in zip(ratios, member, strict=True)]
            at[rate] = mean_interval(caught)
    return Outcome(area=mean_interval(areas), at=at, line=roc(ratios[member], out), decisions=ratios.size)


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """Records to train on, and how.

    Attributes:
        plan: of the study.
        tables: of each lab.
        counts: each lab's public count of them.
    """

    plan: Plan
    tables: Sequence[Table]
    counts: Sequence[int]

    @property
    def records(self) -> int:
        """Of all labs."""
        return sum(table.rows for table in self.tables)

    def shadows(self, plan: Plan, *, models: int, rng: np.random.Generator, told: Callable[[str], None]) -> Shadows:
        """Return models of ``plan``, each on about half of the records; groups of records are in or out as a whole.

        Noise comes from the operating system, as in the study; ``rng`` decides who is in.

        Raises:
            RoundAborted: a model diverged.
        """
        first, groups = 0, []
        for table in self.tables:
            groups.append(first + (np.arange(table.rows) if table.groups is None else table.groups))
            first += table.units
        everything, halves = concatenate(self.tables), [max(1, count // 2) for count in self.counts]
        member = rng.random((models, first)) < 0.5
        confidence = np.zeros((models, everything.rows))
        for number in range(models):
            told(f"shadow model {number + 1} of {models}")
            kept = [table.where(member[number][of]) for table, of in zip(self.tables, groups, strict=True)]
            model = OpenCohort(plan=plan, tables=kept, counts=halves).released()
            confidence[number] = confidences(plan, model, everything)
        return Shadows(confidence=confidence, member=member, groups=np.concatenate(groups))

    def attacked(self, plan: Plan, *, models: int, rng: np.random.Generator, told: Callable[[str], None]) -> Outcome:
        """Return what the attack reaches on models of ``plan``.

        Raises:
            RoundAborted: a model diverged.
        """
        made = self.shadows(plan, models=models, rng=rng, told=told)
        return outcome(made.ratios(), made.member)

    def some(self, records: int, rng: np.random.Generator) -> "Setting":
        """Return about so many records, the same share of every lab's units and at least two; nobody holds the rest."""
        share, tables = records / self.records, []
        for table in self.tables:
            chosen = np.zeros(table.units, np.bool_)
            chosen[rng.permutation(table.units)[: max(2, round(share * table.units))]] = True
            tables.append(table.where(chosen if table.groups is None else chosen[table.groups]))
        return Setting(plan=self.plan, tables=tables, counts=[table.units for table in tables])


def membership(
    study: StudyOnOneMachine,
    *,
    seed: int,
    told: Callable[[str], None] = lambda text: None,
    models: int = MODELS,
    few: int = FEW,
) -> tuple[Finding, ...]:
    """Return what the attack finds on the study and on the same without privacy, with all records and with few.

    A model of many records hardly remembers one. With few it does, unless noise hides it: there the attack has teeth.

    Args:
        study: its plan and labs.
        seed: of the attacker's choices.
        told: hears how far it is.
        models: how many are trained for each of the four.
        few: how many records the second pair has.
    """
    plan = study.plan
    reason = untrainable(plan)
    if reason is None and plan.private and plan.study.privacy.unit == "site":
        reason = "the study hides whole labs, and this attack is on the records of all labs together"
    if reason is not None:
        words = _words(models, "")
        return (Finding(key="membership", claim=_CLAIM, attack=words, result=reason, verdict="not measured"),)
    rng, labs = np.random.default_rng(seed), labs_of(study)
    every = Setting(
        plan=plan, tables=[lab.train for lab in labs.values()], counts=[lab.train_count for lab in labs.values()]
    )
    found = _pair("membership", every, "", models=models, rng=rng, told=told)
    if few < every.records:
        some = every.some(few, rng)
        found += _pair("membership-few", some, f" on {some.records} records", models=models, rng=rng, told=told)
    return found


def _pair(
    key: str, setting: Setting, where: str, *, models: int, rng: np.random.Generator, told: Callable[[str], None]
) -> tuple[Finding, ...]:
    """Return the findings with the study's privacy, where it has any, and without."""
    plan, outcomes = setting.plan, list[Outcome]()
    bare = plan.without_privacy()
    for name, which in (("", plan), (" without privacy", bare)) if plan.private else (("", bare),):
        hears = partial(_telling, told, f"membership{where}{name}")
        try:
            outcomes.append(setting.attacked(which, models=models, rng=rng, told=hears))
        except RoundAborted as error:
            result = f"a model{name} diverged: {error.message}"
            words = _words(models, where)
            return (Finding(key=key, claim=_CLAIM, attack=words, result=result, verdict="not measured"),)
    if not plan.private:
        return (_bare(key, outcomes[0], _words(models, where), "not protected"),)
    control = _bare(f"{key}-control", outcomes[1], _words(models, f"{where}, the privacy taken away"), "control")
    return (protected(key, plan, *outcomes, attack=_words(models, where)), control)


def protected(key: str, plan: Plan, found: Outcome, control: Outcome, *, attack: str) -> Finding:
    """Return the finding on a private study: judged by what its guarantee allows, and its noise, whichever is less."""
    privacy = plan.study.privacy
    epsilon, delta = privacy.epsilon or math.inf, privacy.delta
    cost = cost_of(plan, dimension=dimension_of(plan), alone=True)

    def allowed(rate: float) -> float:
        return min(1.0, math.exp(min(epsilon, 700.0)) * rate + delta)

    def bound(rate: float) -> float:
        profile = partial(_delta_at, cost, plan.training.rounds)
        return min(allowed(rate), detection(profile, false_alarms=rate, hints=(epsilon,)))

    passed = found.passing(bound)
    verdict: Verdict = "broken" if passed else "holds" if control.works else "not measured"
    result = f"{found}; without privacy {control}"
    if passed:
        result = f"more members are found than epsilon {epsilon:g} allows: {result}"
    elif not control.works:
        result = f"the attack hardly works without protection either, so it shows little: {result}"
    else:
        rates = ", ".join(f"{_share(bound(rate))} at {_share(rate)}" for rate in found.at)
        result += f"; the noise allows any attacker {rates}" if rates else ""
    bounds = {f"bounds_at_fpr_{rate:g}": {"epsilon_delta": allowed(rate), "noise": bound(rate)} for rate in found.at}
    ends = [x for x, _ in found.line] or [-1.0, 0.0]
    most = tuple((x, math.log10(allowed(10**x))) for x in ends)
    lines = (
        Curve(name="the study", points=found.line),
        Curve(name="without privacy", points=control.line),
        Curve(name=f"most that epsilon {epsilon:g} allows", points=most),
        Curve(name="a coin", points=((min(ends), min(ends)), (0.0, 0.0))),
    )
    plot = Plot(
        title="Members found by the likelihood-ratio attack",
        x="false alarms, log10 of the share of non-members",
        y="found, log10 of the share of members",
        curves=lines,
    )
    measured = found.to_json() | bounds | {"epsilon": epsilon, "delta": delta, "control": control.to_json()}
    measured |= {"control_passes_the_bound": bool(control.passing(bound))}
    return Finding(key=key, claim=_CLAIM, attack=attack, result=result, verdict=verdict, measured=measured, plot=plot)


def _bare(key: str, found: Outcome, attack: str, verdict: Verdict) -> Finding:
    if not found.works:
        verdict = "not measured"
    result = str(found) if found.works else f"hardly works on this study, even without protection: {found}"
    claim = "None: without noise the released model may tell who was trained on"
    return Finding(key=key, claim=claim, attack=attack, result=result, verdict=verdict, measured=found.to_json())


def _share(rate: float) -> str:
    return f"{100 * rate:.2g} %"


def _words(models: int, where: str) -> str:
    return f"LiRA{where}, by anyone with the released model, the recipe and data like it: {models - 1} shadow models"


def _telling(told: Callable[[str], None], where: str, text: str) -> None:
    told(f"{where}: {text}")


def _delta_at(cost: Cost, rounds: int, epsilon: float) -> float:
    return cost.delta_at(rounds, epsilon=epsilon)
