"""Does one lab hold an unusual share of some class? Property inference on what the coordinator sees.

Ateniese et al. 2015 (IJSN 10), and for federated learning Melis et al. 2019, arXiv 1805.04049. Privacy of records does
not promise to hide this: it is told by many records at once. What hides it is that the coordinator sees sums over labs
whose records it does not know, and noise made for single records, as far as that goes; both are measured here.

A sum of gradients is about the sum over classes of how many records are of each, times the mean gradient of one. Who
has records of the same kind, as anyone may, computes those means at every model that was sent out, and so counts the
classes in a sum by least squares, over all rounds together; how many records there are at all is public. Labs' records
are drawn anew for every cohort.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsci.config.study_file import StudyOnOneMachine
from fedsci.data.table import Table, concatenate
from fedsci.errors import RoundAborted
from fedsci.privacy.meaning import right_guess
from fedsci.redteam.cohort import OpenCohort, sums_over_records, untrainable, worker_of
from fedsci.redteam.finding import Curve, Finding, Plot, Verdict
from fedsci.redteam.scores import Measured, auc_interval, share_interval
from fedsci.redteam.world import FEWEST, Means, World
from fedsci.site.round import Contributor

COHORTS = 60
ROUNDS = 10
_WORKS = 0.75
_NOT_PROMISED = "None: what many of a lab's records have in common is not what privacy of single records hides"
_CLAIMS = {
    "property-control": "None: an update in the open tells what its lab's records have in common",
    "property-sum": "None: masks hide a lab among the others, as far as nobody knows what those hold",
    "property": _NOT_PROMISED,
    "property-known-others": _NOT_PROMISED,
}
_ATTACKS = {
    "property-control": "one lab's first update, without mask and noise",
    "property-sum": "the opened sums of all labs, without noise",
    "property": "the opened sums of all labs, with the study's noise",
    "property-known-others": "the same, by who knows all records of the other labs and subtracts them",
}


class Count:
    """How many records of a kind are in sums, by least squares over all that were added.

    Args:
        means: of the same plan.
        records: how many there are of all kinds, which is public; None where sums do not go by records.
    """

    def __init__(self, means: Means, records: int | None) -> None:
        self._means, self._records = means, records
        self._square, self._right = np.zeros(()), np.zeros(())

    def add(self, total: NDArray[np.floating[Any]], means: NDArray[np.float64]) -> None:
        """Add a sum of contributions, and the mean contribution of each kind at the same model."""
        self._square = self._square + means.T @ means
        self._right = self._right + means.T @ total

    def result(self) -> float:
        """Return how many there are."""
        inverse = np.linalg.pinv(self._square, rcond=1e-9)
        counts = inverse @ self._right
        if self._records is not None:  # the least squares of those counts that add up
            way = inverse.sum(1)
            counts = counts - way * (counts.sum() - self._records) / way.sum()
        return float(counts[self._means.place])


@dataclass(frozen=True, kw_only=True)
class Told:
    """The attack on many cohorts.

    Attributes:
        shares: the attacker's estimate of the kind's share of the lab's records, one a cohort.
        truth: the share.
        unusual: whether the lab was an unusual one.
    """

    shares: NDArray[np.float64]
    truth: NDArray[np.float64]
    unusual: NDArray[np.bool_]

    @property
    def area(self) -> Measured:
        """The area under the ROC."""
        return auc_interval(self.shares[self.unusual], self.shares[~self.unusual])

    @property
    def right(self) -> Measured:
        """How often it is right whether the lab is unusual, half of them being so; 0.5 is a coin."""
        said = self.shares > np.median(self.shares)
        return share_interval(int((said == self.unusual).sum()), len(said))

    @property
    def error(self) -> float:
        """The root of the mean squared error of the estimated shares."""
        return float(np.sqrt(np.square(self.shares - self.truth).mean()))

    def to_json(self) -> dict[str, Any]:
        """Return it for ``Finding.measured``."""
        measured = {"auc": self.area.to_json(), "right": self.right.to_json(), "share_rmse": self.error}
        return measured | {"cohorts": len(self.shares)}

    def __str__(self) -> str:
        return (
            f"right in {self.right.percent()} of {len(self.shares)} cohorts, AUC {self.area}; "
            f"estimates the share to {100 * self.error:.3g} points (root mean square)"
        )


def property_inference(
    study: StudyOnOneMachine,
    *,
    seed: int,
    told: Callable[[str], None] = lambda text: None,
    cohorts: int = COHORTS,
    most_rounds: int = ROUNDS,
) -> tuple[Finding, ...]:
    """Return how well the attack tells an unusual lab: in the open, in the sum, with noise, and all else being known.

    Args:
        study: its plan and labs.
        seed: of the cohorts' records.
        told: hears how far it is.
        cohorts: how many are drawn, half of them with an unusual lab.
        most_rounds: of the study; fewer than it has come with less noise, so that the epsilon is the same.
    """
    plan, rng = study.plan, np.random.default_rng(seed)
    reason = untrainable(plan)
    if reason is None and not plan.strategy.plain:
        reason = f"what labs send under {plan.recipe.name} is not a plain update"
    if reason is not None:
        return (_unmeasured(reason),)
    rounds = min(most_rounds, plan.training.rounds)
    training = plan.study.training.model_copy(update={"rounds": rounds})
    plan = replace(plan, study=plan.study.model_copy(update={"training": training}))
    world = World.of(replace(study, plan=plan), rng)
    if world is None:
        return (_unmeasured(f"labs cannot be drawn: of some kind there are fewer than about {2 * FEWEST} records"),)
    unusual = rng.permutation(np.arange(cohorts) % 2 == 0)
    shares, truth = dict[str, list[float]](), list[float]()
    try:
        for number, one in enumerate(unusual, 1):
            told(f"property: cohort {number} of {cohorts}")
            tables = world.draw(unusual=bool(one), rng=rng)
            truth.append(float((world.kinds_of(tables[world.victim]) == world.kind).mean()))
            for key, count in counted(world, tables).items():
                shares.setdefault(key, []).append(count / world.sizes[world.victim])
    except RoundAborted as error:
        return (_unmeasured(f"a model diverged: {error.message}"),)
    return findings(
        world,
        {key: Told(shares=np.array(each), truth=np.array(truth), unusual=unusual) for key, each in shares.items()},
    )


def counted(world: World, tables: Sequence[Table]) -> dict[str, float]:
    """Return the attacker's count of the lab's records of the kind, by what the attacker sees.

    Where it is a sum over labs, what is usual at the others is taken off.
    """
    plan, victim, sizes = world.plan, world.victim, world.sizes
    bare, size, every = plan.without_privacy(), sizes[victim], sum(sizes)
    others = world.usual * (every - size)
    alone, in_sum = Count(world.bare_means, size), Count(world.bare_means, every)
    for number, passed in enumerate(OpenCohort(plan=bare, tables=tables, counts=sizes).rounds(), 1):
        means = world.bare_means.at(passed.received, number)
        in_sum.add(passed.mean * float(every), means)
        if number == 1:
            own = worker_of(bare, tables[victim], records=size).contribution(passed.received, number, memory={})
            alone.add(own * float(size), means)
    found = {"property-control": alone.result(), "property-sum": in_sum.result() - others}
    if not plan.private:
        return found
    masked, by_records = plan.study.secure_aggregation.enabled, plan.study.privacy.unit != "site"
    known = _quiet_others(world, tables) if masked and by_records else []
    seen = Count(world.means, (every if masked else size) if by_records else None)
    rest = Count(world.means, size)
    for number, passed in enumerate(OpenCohort(plan=plan, tables=tables, counts=sizes).rounds(), 1):
        means = world.means.at(passed.received, number)
        if not masked:
            seen.add(passed.each[victim] * float(size), means)
            continue
        total = passed.mean.astype(np.float64) * (every if by_records else len(sizes) * size)
        seen.add(total, means)
        if known:
            sent = [worker.contribution(passed.received, number, memory={}) * float(many) for worker, many in known]
            rest.add(total - np.sum(sent, 0), means)
    if not by_records:  # every lab counts alike, as if all had as many records as this one
        others = world.usual * size * (len(sizes) - 1)
    found["property"] = seen.result() - (others if masked else 0.0)
    return found | ({"property-known-others": rest.result()} if known else {})


def _quiet_others(world: World, tables: Sequence[Table]) -> list[tuple[Contributor, int]]:
    """Return what the other labs contribute without noise, and their records; all as one where that is the same."""
    labs = [at for at in range(len(tables)) if at != world.victim]
    parts = [labs] if sums_over_records(world.plan) else [[at] for at in labs]
    sizes = [sum(world.sizes[at] for at in part) for part in parts]
    return [
        (worker_of(world.plan, concatenate([tables[at] for at in part]), records=size, quiet=True), size)
        for part, size in zip(parts, sizes, strict=True)
    ]


def findings(world: World, found: Mapping[str, Told]) -> tuple[Finding, ...]:
    """Return a finding for each view."""
    control, rows = found["property-control"].area.low > _WORKS, []
    privacy, size = world.plan.study.privacy, world.sizes[world.victim]
    for key, told in found.items():
        claim, works = _CLAIMS[key], told.area.low > 0.5
        verdict: Verdict = "not protected" if works else "not measured"
        result = f"{told}" if works else f"no better than a coin here, which is not promised: {told}"
        if key == "property-control":
            verdict = "control" if control else "not measured"
            result = f"{told}" if control else f"hardly works even in the open: {told}"
        elif key == "property" and world.plan.private and privacy.unit == "site":
            bound = most_right(epsilon=privacy.epsilon or math.inf, delta=privacy.delta)
            claim = "What a lab's records have in common is hidden, as epsilon says for whole labs"
            verdict = "broken" if told.right.low > bound else "holds" if control else "not measured"
            result = f"{told}; epsilon allows any attacker to be right in {100 * bound:.1f} %"
        elif not control:
            verdict, result = "not measured", f"the attack hardly works even in the open: {told}"
        view = _ATTACKS[key]
        if key == "property" and not world.plan.study.secure_aggregation.enabled:
            view = "one lab's updates of all rounds, with the study's noise"
        attack = (
            f"the coordinator tells whether {world.unusual:.0%} or {world.usual:.0%} of one lab's {size} records are "
            f"{world.kind_in_words}, from {view}"
        )
        plot = _plot(world, found) if key == ("property" if "property" in found else "property-sum") else None
        rows.append(
            Finding(
                key=key,
                claim=claim,
                attack=attack,
                result=result,
                verdict=verdict,
                measured=told.to_json() | {"usual": world.usual, "unusual": world.unusual, "records": size},
                plot=plot,
            )
        )
    return tuple(rows)


def most_right(*, epsilon: float, delta: float) -> float:
    """Return how often anybody is right about two kinds of a lab, as likely as each other, where labs are protected.

    One lab in place of another is one removed and one added: twice epsilon, and delta times ``1 + e^epsilon``.
    """
    return right_guess(epsilon=2 * epsilon, delta=min(1.0, delta * (1 + math.exp(min(epsilon, 700.0)))))


def _plot(world: World, found: Mapping[str, Told]) -> Plot:
    names = {
        "property-control": "update in the open",
        "property-sum": "sum without noise",
        "property": "as the study is",
        "property-known-others": "as it is, all other records known",
    }
    clouds = [
        Curve(name=names[key], points=tuple(zip(told.truth.tolist(), told.shares.tolist(), strict=True)))
        for key, told in found.items()
    ]
    return Plot(
        title="What the coordinator makes of one lab's records",
        x=f"share of its records that are {world.kind_in_words}",
        y="the attacker's estimate of it",
        curves=(*clouds, Curve(name="the truth", points=((0.0, 0.0), (1.0, 1.0)))),
    )


def _unmeasured(reason: str) -> Finding:
    attack = "the coordinator counts kinds of records in what it sees"
    return Finding(key="property", claim=_NOT_PROMISED, attack=attack, result=reason, verdict="not measured")
