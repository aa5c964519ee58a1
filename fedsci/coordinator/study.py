"""A study from its first question to the sites to the final model."""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedsci.config.plan import Plan
from fedsci.coordinator.evaluation import Measured, measure
from fedsci.coordinator.round import run_round
from fedsci.errors import FedsciError, InputError, SiteFailed
from fedsci.names import SiteId
from fedsci.training.learner import module_for
from fedsci.training.metrics import MetricSums
from fedsci.training.models import initial_vector
from fedsci.transport.link import SiteLink
from fedsci.transport.messages import Reply, Request


@dataclass(kw_only=True)
class Progress:
    """Everything known about a study so far; what a summary is made from, finished or not.

    Attributes:
        run: 32 hexadecimal digits; sites charge budgets to it.
        sites: what each site said of itself when it let the study in.
        rounds_completed: rounds applied to the model.
        model: after the last applied round, float32 ``(d,)``.
        federated: the last evaluation of the shared model.
        alone: per baseline label, each lab's own training; None where a lab does not show it.
        privacy: per site, epsilon of this study, of all studies, and the budget.
        dropped: sites that did not finish a round, and which.
        seconds: wall time by phase.
    """

    run: str = field(default_factory=lambda: secrets.token_hex(16))
    sites: dict[SiteId, Mapping[str, Any]] = field(default_factory=dict)
    rounds_completed: int = 0
    model: NDArray[np.float32] | None = None
    federated: Measured | None = None
    alone: dict[str, dict[SiteId, MetricSums | None]] = field(default_factory=dict)
    privacy: dict[SiteId, Mapping[str, Any]] = field(default_factory=dict)
    dropped: list[tuple[SiteId, int]] = field(default_factory=list)
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("training", "masking", "aggregation", "evaluation", "transport"), 0.0)
    )


@dataclass(frozen=True, kw_only=True)
class RoundResult:
    """One round, as it is shown and written down.

    Attributes:
        number: 1, 2, ...
        measured: the shared model after this round, or None where it was not evaluated.
        survivors: how many sites finished it.
        dropped: those that did not.
        seconds: wall time.
    """

    number: int
    measured: Measured | None
    survivors: int
    dropped: tuple[SiteId, ...]
    seconds: float


class Observer(Protocol):
    """Who watches a study: a run folder, a progress display."""

    def phase(self, name: str) -> None:
        """A phase began: ``preparing``, ``training``, ``baselines``, ``finishing``."""

    def round_finished(self, progress: Progress, result: RoundResult) -> None:
        """A round was applied."""


def run_study(link: SiteLink, plan: Plan, progress: Progress, observer: Observer) -> None:
    """Run the whole study, keeping ``progress`` up to date at every step.

    Whatever happens after a site has let the study in, sites are told that it is over, so that they settle
    what they reserved.

    Raises:
        SiteFailed: a site refused the study; its own exit code says why.
        RoundAborted: fewer than ``min_survivors`` sites finished a round.
    """
    observer.phase("preparing")
    link.discover(plan.sites)
    try:
        _prepare(link, plan, progress)
        _train(link, plan, progress, observer)
        if "local" in plan.study.evaluation.baselines:
            observer.phase("baselines")
            started = time.monotonic()
            progress.alone = _alone(link, plan, progress)
            progress.seconds["evaluation"] += time.monotonic() - started
    finally:
        observer.phase("finishing")
        _finish(link, progress)


def _prepare(link: SiteLink, plan: Plan, progress: Progress) -> None:
    fields = {"run": progress.run, "plan": plan.to_bytes().decode()}
    replies = link.ask({site: Request(action="prepare", fields=fields) for site in plan.sites})
    refused = [reply for reply in replies.values() if isinstance(reply, SiteFailed)]
    for site, reply in replies.items():
        if isinstance(reply, Reply):
            progress.sites[site] = reply.fields
            progress.privacy[site] = reply.fields["privacy"]
    if refused:
        raise refused[0]
    shapes = {site: (f["inputs"], f["parameters"], f["schema"]) for site, f in progress.sites.items()}
    if len(set(shapes.values())) != 1:
        first = shapes[plan.sites[0]]
        other = next(site for site, shape in shapes.items() if shape != first)
        raise InputError(
            f"{other} and {plan.sites[0]} read the study's schema differently",
            hint="are all sites on the same version of fedsci?",
        )


def _train(link: SiteLink, plan: Plan, progress: Progress, observer: Observer) -> None:
    observer.phase("training")
    first = progress.sites[plan.sites[0]]
    strategy = plan.strategy
    state = strategy.start(initial_vector(module_for(plan, inputs=int(first["inputs"])), seed=plan.study.seed))
    progress.model = state.model
    weights = {site: float(progress.sites[site]["records"]["train"]) for site in plan.sites}
    rounds, every = plan.training.rounds, plan.study.evaluation.every
    for number in range(1, rounds + 1):
        started = time.monotonic()
        outcome = run_round(link, plan, progress.run, number, state, weights)
        progress.dropped += [(site, number) for site in outcome.dropped]
        state = outcome.state
        progress.model, progress.rounds_completed = state.model, number
        progress.seconds["training"] += outcome.seconds_sites
        progress.seconds["aggregation"] += outcome.seconds_aggregation
        measured = None
        if number % every == 0 or number == rounds:
            began = time.monotonic()
            measured = measure(link, plan, progress.run, state.model)
            progress.seconds["evaluation"] += time.monotonic() - began
            progress.federated = measured
        observer.round_finished(
            progress,
            RoundResult(
                number=number,
                measured=measured,
                survivors=len(plan.sites) - len(outcome.dropped),
                dropped=outcome.dropped,
                seconds=time.monotonic() - started,
            ),
        )


def _alone(link: SiteLink, plan: Plan, progress: Progress) -> dict[str, dict[SiteId, MetricSums | None]]:
    replies = link.ask({site: Request(action="alone", fields={"run": progress.run}) for site in plan.sites})
    labels = ["local", "local_no_dp"] if plan.private else ["local"]
    alone: dict[str, dict[SiteId, MetricSums | None]] = {label: {} for label in labels}
    for site, reply in replies.items():
        shown = isinstance(reply, Reply) and not reply.fields.get("withheld", True)
        for label in labels:
            values = reply.fields["sums"][label] if shown and isinstance(reply, Reply) else None
            sums = None if values is None else MetricSums(kind=plan.study.task.kind, values=np.array(values))
            alone[label][site] = sums
    return alone


def _finish(link: SiteLink, progress: Progress) -> None:
    """Tell the sites that let the study in that it is over; a site that does not answer keeps its charge."""
    if not progress.sites:
        return
    try:
        replies = link.ask({site: Request(action="finish", fields={"run": progress.run}) for site in progress.sites})
    except (FedsciError, OSError):
        return
    for site, reply in replies.items():
        if isinstance(reply, Reply):
            progress.privacy[site] = reply.fields["privacy"]
