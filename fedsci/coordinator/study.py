"""A study from its first question to the sites to the final model."""

import contextlib
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedsci.config.plan import Plan
from fedsci.coordinator.admission import Admission, read_admission, read_privacy
from fedsci.coordinator.aggregation import Aggregation, Ask, Collected, PlainAggregation
from fedsci.coordinator.evaluation import Measurement, Meter
from fedsci.coordinator.masked import MaskedAggregation
from fedsci.coordinator.round import run_round
from fedsci.errors import FedsciError, InputError, SiteFailed
from fedsci.names import SiteId
from fedsci.secagg import Roster, open_roster
from fedsci.training.accountant import cost_of
from fedsci.training.learner import module_for
from fedsci.training.models import initial_vector
from fedsci.training.sums import step_of
from fedsci.transport.binding import pack
from fedsci.transport.link import SiteLink
from fedsci.transport.messages import Reply, Request


@dataclass(frozen=True, kw_only=True)
class SignedRoster:
    """The consortium's roster as sites get it, and the key that signed it.

    Attributes:
        content: the signed bytes.
        consortium_key: the public key pinned at every site.
    """

    content: bytes
    consortium_key: bytes

    def open(self) -> Roster:
        """Return the roster, its signature checked."""
        return open_roster(self.content, consortium_key=self.consortium_key)


@dataclass(kw_only=True)
class Progress:
    """Everything known about a study so far; what a summary is made from, finished or not.

    Attributes:
        run: 32 hexadecimal digits; sites charge budgets to it.
        sites: what each site said of itself when it let the study in.
        rounds_allowed: how many rounds every site pays for; 0 until the sites have said.
        short_of_budget: the sites that pay for no more than that, where it is less than the plan's rounds.
        rounds_completed: rounds applied to the model.
        model: after the last applied round, float32 ``(d,)``.
        federated: the last evaluation of the shared model.
        measurements: noised measurements of it that sites were asked for.
        alone: per baseline label, the labs' own training.
        privacy: per site, what it states of its spending; of a site not in ``settled``, what it stated at the start.
        settled: sites that closed their charge at the end; the others keep that of the whole plan.
        dropped: sites that did not finish a round, and which.
        seconds: wall time by phase.
    """

    run: str = field(default_factory=lambda: secrets.token_hex(16))
    sites: dict[SiteId, Admission] = field(default_factory=dict)
    rounds_allowed: int = 0
    short_of_budget: tuple[SiteId, ...] = ()
    rounds_completed: int = 0
    model: NDArray[np.float32] | None = None
    federated: Measurement | None = None
    measurements: int = 0
    alone: dict[str, Measurement] = field(default_factory=dict)
    privacy: dict[SiteId, Mapping[str, Any]] = field(default_factory=dict)
    settled: set[SiteId] = field(default_factory=set)
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
        seconds: wall time; None where it was not kept.
    """

    number: int
    measured: Measurement | None
    survivors: int
    dropped: tuple[SiteId, ...]
    seconds: float | None


class Observer(Protocol):
    """Who watches a study: a run folder, a progress display."""

    def phase(self, name: str) -> None:
        """A phase began: ``preparing``, ``training``, ``baselines``, ``finishing``."""

    def round_finished(self, progress: Progress, result: RoundResult) -> None:
        """A round was applied."""


def run_study(
    link: SiteLink, plan: Plan, progress: Progress, observer: Observer, *, roster: SignedRoster | None
) -> None:
    """Run the whole study, keeping ``progress`` up to date at every step.

    Whatever happens after a site has let the study in, sites are told that it is over, so that they settle
    what they reserved and erase their secrets.

    Args:
        roster: needed where the study is masked.

    Raises:
        SiteFailed: a site refused the study; its own exit code says why.
        RoundAborted: fewer than ``min_survivors`` sites finished a round.
    """
    observer.phase("preparing")
    try:
        aggregation, meter = _prepare(link, plan, progress, roster)
        _train(aggregation, meter, plan, progress, observer)
        if "local" in plan.study.evaluation.baselines:
            observer.phase("baselines")
            started = time.monotonic()
            _alone(aggregation, meter.exact, plan, progress)
            progress.seconds["evaluation"] += time.monotonic() - started
    finally:
        observer.phase("finishing")
        _finish(link, progress)


def _prepare(link: SiteLink, plan: Plan, progress: Progress, roster: SignedRoster | None) -> tuple[Aggregation, Meter]:
    fields: dict[str, Any] = {"run": progress.run, "plan": plan.to_bytes().decode()}
    masked = plan.study.secure_aggregation.enabled
    if masked:
        if roster is None:
            raise InputError("a masked study needs a signed roster")
        fields |= {"roster": pack(roster.content), "setup_batch": 0}
    replies = link.ask({site: Request(action="prepare", fields=fields) for site in plan.sites})
    refused = [reply for reply in replies.values() if isinstance(reply, SiteFailed)]
    for site, reply in replies.items():
        if isinstance(reply, Reply):
            progress.sites[site] = read_admission(site, reply.fields)
            progress.privacy[site] = progress.sites[site].privacy
    if refused:
        raise refused[0]
    shapes = {site: (said.inputs, said.parameters, said.schema) for site, said in progress.sites.items()}
    if len(set(shapes.values())) != 1:
        first = shapes[plan.sites[0]]
        other = next(site for site, shape in shapes.items() if shape != first)
        raise InputError(
            f"{other} and {plan.sites[0]} read the study's schema differently",
            hint="are all sites on the same version of fedsci?",
        )
    planned = plan.training.rounds
    progress.rounds_allowed = min(planned, *(said.rounds_allowed for said in progress.sites.values()))
    if progress.rounds_allowed < planned:
        progress.short_of_budget = tuple(
            site for site, said in progress.sites.items() if said.rounds_allowed == progress.rounds_allowed
        )
    counts = _counts(progress)
    records = sum(train for train, _ in counts.values())
    weights = {SiteId(site): train / records for site, (train, _) in counts.items()}
    cost = cost_of(plan, dimension=progress.sites[plan.sites[0]].parameters) if plan.private else None
    if cost is not None and cost.share is not None:
        # gradients are summed as they are; their mean is over the public expected number of records
        weights = {SiteId(site): cost.sample_rate * train for site, (train, _) in counts.items()}
        if plan.study.privacy.unit == "site":
            weights = dict.fromkeys(weights, 1.0)  # a site counts as a site, whatever its size
    noised = plan.private and not all(said.exact_evaluation for said in progress.sites.values())
    holdouts = {SiteId(site): holdout for site, (_, holdout) in counts.items()}
    needed = cost.measurements if cost is not None else 0
    paid = all(said.measurements_allowed >= needed for said in progress.sites.values())
    meter = Meter(plan=plan, cost=cost, holdouts=holdouts, noised=noised, paid=paid)
    if meter.evaluate is not None:
        _ = meter.table  # refuses holdouts whose sums do not fit, before anything is computed
    if not masked or roster is None:
        return PlainAggregation(link=link, plan=plan, weights=weights), meter
    aggregation = MaskedAggregation(
        link=link,
        plan=plan,
        run=progress.run,
        roster=roster.open(),
        weights=weights,
        slots=progress.rounds_allowed + 2,
        step=step_of(plan, cost),
    )
    aggregation.begin({site: said.advert for site, said in progress.sites.items()})
    return aggregation, meter


def _counts(progress: Progress) -> dict[str, list[int]]:
    """Training and holdout records of every site: public, and the same in every request."""
    return {site: [said.train, said.holdout] for site, said in progress.sites.items()}


def _train(aggregation: Aggregation, meter: Meter, plan: Plan, progress: Progress, observer: Observer) -> None:
    """Run the rounds. A round brings back the metrics of the model it started from: those of the round before."""
    observer.phase("training")
    inputs = progress.sites[plan.sites[0]].inputs
    state = plan.strategy.start(initial_vector(module_for(plan, inputs=inputs), seed=plan.study.seed))
    progress.model = state.model
    fields: dict[str, object] = {"run": progress.run, "records": _counts(progress)}
    pending: RoundResult | None = None
    rounds = progress.rounds_allowed
    try:
        for number in range(1, rounds + 1):
            started = time.monotonic()
            wanted = meter.measures_after(number - 1)
            tables = [meter.table] if wanted else []
            progress.measurements += wanted and meter.noised
            asked = fields | ({"evaluate": meter.evaluate} if wanted else {})
            outcome = run_round(aggregation, plan, number, state, fields=asked, tables=tables)
            state, collected = outcome.state, outcome.collected
            _note(progress, number, collected)
            progress.seconds["aggregation"] += outcome.seconds_strategy
            progress.seconds["training"] += collected.seconds_sites
            progress.model, progress.rounds_completed = state.model, number
            if pending is not None:
                measured = meter.read(collected, "federated") if wanted else None
                progress.federated = measured or progress.federated
                observer.round_finished(progress, replace(pending, measured=measured))
            pending = RoundResult(
                number=number,
                measured=None,
                survivors=len(plan.sites) - len(collected.dropped),
                dropped=tuple(collected.dropped),
                seconds=time.monotonic() - started,
            )
        if meter.evaluate is None:
            return
        started = time.monotonic()
        progress.measurements += meter.noised
        asked = fields | {"evaluate": meter.evaluate, "rounds": rounds}
        ask = Ask(action="evaluate", slot=rounds, fields=asked, model=state.model, dimension=0, tables=[meter.table])
        progress.federated = meter.read(aggregation.collect(ask), "federated")
        progress.seconds["evaluation"] += time.monotonic() - started
    finally:
        if pending is not None:
            last = progress.federated if progress.rounds_completed == rounds else None
            observer.round_finished(progress, replace(pending, measured=last))


def _alone(aggregation: Aggregation, meter: Meter, plan: Plan, progress: Progress) -> None:
    labels = ["local", "local_no_dp"] if plan.private else ["local"]
    rounds = progress.rounds_allowed
    fields = {"run": progress.run, "records": _counts(progress), "evaluate": meter.evaluate, "rounds": rounds}
    tables = [meter.table] * len(labels)
    collected = aggregation.collect(
        Ask(action="alone", slot=rounds + 1, fields=fields, model=None, dimension=0, tables=tables)
    )
    for at, label in enumerate(labels):
        progress.alone[label] = meter.read(collected, label, table=at)


def _note(progress: Progress, number: int, collected: Collected) -> None:
    progress.dropped += [(site, number) for site in collected.dropped]
    progress.seconds["masking"] += collected.seconds_masking
    progress.seconds["aggregation"] += collected.seconds_aggregation


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
            with contextlib.suppress(AttributeError, ValueError):
                progress.privacy[site] = read_privacy(reply.fields.get("privacy"))
                progress.settled.add(site)
