"""What is left of each lab's privacy budget, round by round, and how many more studies like this one fit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedsci.reporting.facts import LabFacts, RunFacts


@dataclass(frozen=True, kw_only=True)
class Burndown:
    """One lab's budget over a study, in epsilon as its ledger enforces it.

    Attributes:
        site: the lab.
        budget: its ceiling for the data set's whole life.
        points: ``(round, epsilon left)`` from before the first round to the last that was charged.
        projected: ``(round, epsilon left)`` at the plan's end, where the charge of the whole plan stays; else None.
        more: how many more studies like this one fit into what is left; None where that cannot be told.
    """

    site: str
    budget: float
    points: Sequence[tuple[float, float]]
    projected: tuple[float, float] | None
    more: int | None

    @property
    def left(self) -> float:
        """What is left when all that is charged is spent."""
        return self.points[-1][1] if self.projected is None else self.projected[1]


def burndown_of(facts: RunFacts, lab: LabFacts) -> Burndown | None:
    """Return a lab's burn-down, or None where it has no budget or its ledger's figures are not all known.

    A ledger adds up Renyi divergence at one order, which grows evenly with the rounds; epsilon is that plus what the
    conversion costs, which is paid with the first charge.
    """
    budget, total, before = lab.epsilon_budget, lab.epsilon_enforced, lab.epsilon_before
    rdp, spent, rounds = lab.rdp_study, lab.rdp_total, lab.rounds_charged
    figures = (budget, total, before, rdp, spent)
    if rounds is None or any(value is None or math.isinf(value) for value in figures):
        return None
    budget, total, before, rdp, spent = (value or 0.0 for value in figures)
    conversion = total - spent
    points = [(0.0, budget - before)]
    for number in range(1, rounds + 1):
        charged = spent - rdp * (rounds - number) / rounds
        points.append((float(number), budget - max(0.0, charged + conversion)))
    done = min(rounds, facts.rounds_completed or 0)
    projected = None
    if lab.settled is False and done < rounds:
        projected, points = points[-1], points[: done + 1]
    more = math.floor((budget - total) / rdp + 1e-9) if rdp > 0 else None
    return Burndown(
        site=lab.site,
        budget=budget,
        points=points,
        projected=projected,
        more=None if more is None else max(more, 0),
    )


@dataclass(frozen=True, kw_only=True)
class StudySpend:
    """The study's own epsilon over its rounds: the most at any lab, by the study's accountant.

    Attributes:
        points: ``(round, epsilon so far)``.
        ceiling: what the plan's noise was sized for; None where not stated.
        projected: ``(round, epsilon)`` where a study that still runs is going to end; None for one that ended.
    """

    points: Sequence[tuple[float, float]]
    ceiling: float | None
    projected: tuple[float, float] | None


def study_spend(facts: RunFacts) -> StudySpend | None:
    """Return the study's epsilon by round, or None for a run without a finite one."""
    points = sorted(
        (float(each.number), each.epsilon_max)
        for each in facts.rounds
        if each.epsilon_max is not None and math.isfinite(each.epsilon_max)
    )
    if not points or not facts.private:
        return None
    planned, ceiling = facts.rounds_planned, facts.epsilon_planned
    projected = None
    if facts.status == "unfinished" and planned and ceiling is not None and points[-1][0] < planned:
        projected = (float(planned), ceiling)
    return StudySpend(points=points, ceiling=ceiling, projected=projected)
