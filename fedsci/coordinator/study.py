"""A study from its first question to the sites to the final model, also where a process before this one began it."""

import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedsci.config.checkpoints import roles_after, roles_before
from fedsci.config.plan import Plan
from fedsci.coordinator.admission import read_privacy
from fedsci.coordinator.aggregation import Aggregation, Ask, Collected
from fedsci.coordinator.alarms import Alarms, left_out_for_good
from fedsci.coordinator.buffers import EVERYBODY, Buffers, Opening
from fedsci.coordinator.clock import Clock, require_clock, steps_by_speed
from fedsci.coordinator.deciding import Deciding
from fedsci.coordinator.decisions import RELEASE, TRAINING, after_round
from fedsci.coordinator.evaluation import Measurement, Meter
from fedsci.coordinator.norm_check import Norm, NormCheck
from fedsci.coordinator.preparation import SignedRoster, admit, assemble, counts
from fedsci.coordinator.progress import Keeper, Progress, RoundResult, Suspended, Unkept
from fedsci.coordinator.round import run_round
from fedsci.coordinator.study_log import StudyLog
from fedsci.errors import FedsciError, InputError, ProtocolError, RoundAborted
from fedsci.names import SiteId
from fedsci.strategies.base import BufferedStrategy, StrategyState
from fedsci.training.learner import module_for
from fedsci.training.models import initial_vector
from fedsci.transport.link import SiteLink
from fedsci.transport.messages import Reply, Request


class Observer(Protocol):
    """Who watches a study: a run folder, a progress display."""

    def phase(self, name: str) -> None:
        """A phase began: ``preparing``, ``training``, ``baselines``, ``finishing``."""

    def round_finished(self, progress: Progress, result: RoundResult) -> None:
        """A round was applied, or abandoned; a process that goes on may say so again of what it did not see shown."""


def run_study(
    link: SiteLink,
    plan: Plan,
    progress: Progress,
    observer: Observer,
    *,
    roster: SignedRoster | None,
    keep: Keeper | None = None,
    admitted: Callable[[Progress], None] | None = None,
    log: StudyLog | None = None,
    deciding: Deciding | None = None,
    summed: Callable[[int, Collected], None] = lambda number, collected: None,
) -> None:
    """Run the whole study, or what is left of it, keeping ``progress`` up to date at every step.

    Whatever happens after a site has let the study in, sites are told that it is over, so that they settle
    what they reserved and erase their secrets.

    Args:
        progress: new, or as a process before this one kept it after all sites let the study in.
        roster: needed where the study is masked.
        keep: what is kept for the next process; nothing if left out.
        admitted: called once all sites have let the study in and nothing is computed; what it raises ends the study,
            and sites charge nothing.
        log: what the run is written down in; needed where the study is logged.
        deciding: needed where the plan has checkpoints: holds the study there until people have decided. Meanwhile
            nobody is asked for anything, and sites keep the study open.
        summed: told what each round's uploads came to, before anything is made of it.

    Raises:
        InputError: the plan's scaling is yet to be measured, there is no log, or nobody could decide at its
            checkpoints.
        PolicyRefused: somebody refused at a checkpoint.
        SiteFailed: a site refused the study; its own exit code says why.
        RoundAborted: fewer than ``min_survivors`` sites finished a round, or no honest sites have such sums, and
            nobody can find whose uploads they are.
        Suspended: this process ends; sites are told nothing.
    """
    if plan.awaits_scaling:
        raise InputError("the study's scaling is yet to be measured", hint="run the pass that measures it first")
    if plan.study.audit_log.enabled and log is None:
        raise InputError("a logged study needs a log")
    if plan.study.checkpoints and deciding is None:
        raise InputError("the study has checkpoints, and nobody would be asked here", hint="use fedsci run or submit")
    conduct = _Conduct(
        link=link,
        plan=plan,
        progress=progress,
        observer=observer,
        keep=keep or Unkept(),
        admitted=admitted,
        log=log if plan.study.audit_log.enabled else None,
        deciding=deciding,
        summed=summed,
    )
    try:
        conduct.run(roster)
    except Suspended:
        raise
    except BaseException:
        with contextlib.suppress(FedsciError):  # the first error is the one to show
            conduct.finish()
        raise
    conduct.finish()


def settle(
    link: SiteLink,
    progress: Progress,
    sites: Iterable[SiteId],
    *,
    good: Callable[[Progress, SiteId, Reply], bool] = lambda progress, site, reply: True,
) -> dict[SiteId, str]:
    """Tell sites that a study is over, and note what they charged; one that gives no ``good`` answer keeps its charge.

    Returns what they signed about that.
    """
    finish, spends = Request(action="finish", fields={"run": progress.run}), dict[SiteId, str]()
    try:
        replies = link.ask(dict.fromkeys(sites, finish))
    except (FedsciError, OSError):
        return spends
    for site, reply in replies.items():
        if isinstance(reply, Reply):
            with contextlib.suppress(ValueError):
                told = read_privacy(reply.fields.get("privacy"))
                if good(progress, site, reply):
                    progress.privacy[site] = told
                    progress.settled.add(site)
                    spends[site] = str(reply.fields.get("spend", ""))
    return spends


def abandon_rounds(
    progress: Progress, observer: Observer, *, logged: Callable[[int], None] = lambda number: None
) -> None:
    """Give up a round that was asked for when the process before this one ended; what it cost stays charged.

    Rounds that were given up before that are shown again, since that process may have ended before it showed the last.
    """
    for number in progress.abandoned:
        if progress.pending is not None and progress.pending.number < number:
            show_pending(progress, observer, None)
        observer.round_finished(progress, _given_up(progress, number))
    applied = progress.pending.number if progress.pending is not None else 0
    last = max([applied, *progress.abandoned])
    for number in range(last + 1, min(progress.asked, progress.rounds_allowed) + 1):
        show_pending(progress, observer, None)
        progress.abandoned.append(number)
        logged(number)
        observer.round_finished(progress, _given_up(progress, number))


def _given_up(progress: Progress, number: int) -> RoundResult:
    """Return a round of which nothing was applied."""
    summed, norm = progress.impossible.get(number, (0, None))
    return RoundResult(
        number=number, measured=None, survivors=summed, dropped=(), seconds=None, abandoned=True, norm=norm
    )


def show_pending(progress: Progress, observer: Observer, measured: Measurement | None) -> None:
    """Show the last applied round, with what was measured after it; once."""
    pending, progress.pending = progress.pending, None
    if pending is not None:
        observer.round_finished(progress, replace(pending, measured=measured))


@dataclass(kw_only=True)
class _Conduct:
    link: SiteLink
    plan: Plan
    progress: Progress
    observer: Observer
    keep: Keeper
    admitted: Callable[[Progress], None] | None
    log: StudyLog | None
    deciding: Deciding | None
    summed: Callable[[int, Collected], None]
    measured_after: int | None = None

    def run(self, roster: SignedRoster | None) -> None:
        plan, progress = self.plan, self.progress
        require_clock(self.link, plan)
        self.observer.phase("preparing")
        self.link.round_deadline_s = self.plan.training.round_deadline_s
        if not progress.sites:
            admit(self.link, plan, progress, roster, log=self.log)
            if self.admitted is not None:
                self.admitted(progress)
        self.keep.save(progress)
        aggregation, meter = assemble(self.link, plan, progress, roster, self.keep)
        if progress.state is None:
            inputs = progress.sites[plan.sites[0]].inputs
            progress.state = plan.strategy.start(initial_vector(module_for(plan, inputs=inputs), seed=plan.study.seed))
        if self.log is not None:
            self.log.open(self.link, progress, *self._models(progress.state))
        self.observer.phase("training")
        try:
            abandon_rounds(progress, self.observer, logged=self._log_abandoned)
            self._witnessed()
            self._train(aggregation, meter)
            self._evaluate(aggregation, meter)
        except Suspended:
            raise  # the pending round's line is written when its metrics are there
        except BaseException:
            self._show(None)
            raise
        self._show(progress.federated if "evaluate" in progress.answers else None)
        if plan.lab_models:
            self.observer.phase("baselines")
            self._alone(aggregation, meter.exact)
        self._decide(RELEASE, roles_before(plan.study.checkpoints, "release"))

    def finish(self) -> None:
        """Tell the sites that let the study in that it is over."""
        self.observer.phase("finishing")
        if not self.progress.sites:
            return
        if self.log is None:
            settle(self.link, self.progress, self.progress.sites)
        else:
            spends = settle(self.link, self.progress, self.progress.sites, good=self.log.good_spend)
            self.log.finish(self.progress, spends)

    def _models(self, state: StrategyState) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the model and what sites are sent of it."""
        return state.model, self.plan.strategy.sends(state)

    def _log_abandoned(self, number: int) -> None:
        if self.log is not None and self.progress.state is not None:
            self.log.round(number, None, *self._models(self.progress.state))

    def _witnessed(self) -> None:
        if self.log is not None:
            self.log.witness()

    def _train(self, aggregation: Aggregation, meter: Meter) -> None:
        """Run the rounds. A round brings back the metrics of the model it started from: those of the round before."""
        plan, progress, state = self.plan, self.progress, self.progress.state
        if state is None:
            return
        opener, alarms = self._opener(), self._alarms(aggregation, meter)
        self._decide(TRAINING, roles_before(plan.study.checkpoints, "training"))
        for number in range(progress.asked + 1, progress.rounds_allowed + 1):
            self._decide_after(number - 1)
            started, before = time.monotonic(), self._spent()
            left_out = alarms.left_out()
            wanted = meter.measures_after(number - 1) and (meter.noised or not alarms.repeats(number))
            if wanted and not meter.noised:
                progress.exact_after = number - 1
            self._asking(number, measured=wanted and meter.noised)
            opening = opener(number, state, aggregation)
            try:
                outcome = run_round(
                    aggregation,
                    plan,
                    number,
                    state,
                    fields=self._fields() | ({"evaluate": meter.evaluate} if wanted else {}),
                    tables=[meter.table] if wanted else [],
                    opening=replace(opening, absent={**opening.absent, **left_out}),
                    cost=meter.cost,
                    check=alarms.check,
                    earlier=progress.levels,
                )
            except RoundAborted as error:
                if not alarms.tried(left_out) or isinstance(error, ProtocolError):
                    raise
                alarms.fell_short()  # with those that it left out there would have been enough
                self._give_up(number)
                continue
            collected, norm = outcome.collected, outcome.norm
            self.summed(number, collected)
            progress.seconds["aggregation"] += outcome.seconds_strategy
            progress.seconds["training"] += collected.seconds_sites
            progress.seconds["masking"] += collected.seconds_masking
            measured = meter.read(collected, "federated") if wanted else None
            if measured is not None:
                progress.federated, self.measured_after = measured, number - 1
            self._show(measured)
            metrics = measured.pooled() if measured is not None else None
            if norm is not None:
                alarms.heed(number, collected.survivors, norm, left_out)
            if norm is not None and norm.alarm is not None:
                progress.impossible[number] = len(collected.survivors), norm
                self._give_up(number, norm=norm, collected=collected)
                alarms.require_private(number, norm, collected.survivors)
                continue
            self._note(number, collected)
            progress.state = state = outcome.state
            up, down, virtual = (now - then for now, then in zip(self._spent(), before, strict=True))
            progress.pending = RoundResult(
                number=number,
                measured=None,
                survivors=len(collected.survivors),
                dropped=tuple(collected.dropped),
                seconds=time.monotonic() - started,
                traffic=(int(up), int(down)),
                virtual_seconds=None if self.link.virtual_seconds is None else virtual,
                norm=norm,
            )
            if self.log is not None:
                self.log.round(number, collected, *self._models(state), metrics=metrics, norm=norm)
            self.keep.save_state(progress)
            self._witnessed()
        alarms.require_any()
        self._decide_after(progress.rounds_allowed)

    def _alarms(self, aggregation: Aggregation, meter: Meter) -> Alarms:
        progress = self.progress
        check = NormCheck(
            plan=self.plan,
            cost=meter.cost,
            parameters=progress.sites[self.plan.sites[0]].parameters,
            weights=aggregation.weights,
            records={site: said.train for site, said in progress.sites.items()},
        )
        return Alarms(plan=self.plan, progress=progress, check=check)

    def _give_up(self, number: int, *, norm: Norm | None = None, collected: Collected | None = None) -> None:
        """Apply nothing of a round that was asked for; what it cost stays charged."""
        progress = self.progress
        self._show(None)
        progress.abandoned.append(number)
        if self.log is not None and progress.state is not None:
            self.log.round(number, collected, *self._models(progress.state), norm=norm)
        self.keep.save(progress)
        self.observer.round_finished(progress, _given_up(progress, number))
        self._witnessed()

    def _decide_after(self, rounds: int) -> None:
        """Wait for decisions that are due once so many rounds are over."""
        for number, roles in roles_after(self.plan.study.checkpoints, rounds).items():
            self._decide(after_round(number), roles)

    def _decide(self, checkpoint: str, roles: tuple[str, ...]) -> None:
        """Return when these roles have approved, and that is logged; a refusal is logged, too."""
        if not roles or self.deciding is None:
            return
        try:
            after = self.measured_after
            self.deciding.require(checkpoint, roles, self.progress, self.keep, measured_after=after)
        finally:
            self._log_decisions()
        self._witnessed()

    def _log_decisions(self) -> None:
        if self.log is not None:
            for envelope in self.progress.decisions:
                self.log.keep("decision", envelope.decode())

    def _opener(self) -> Callable[[int, StrategyState, Aggregation], Opening]:
        """Return what says who is in a round, and how much each does: all alike, unless the plan needs a clock."""
        plan, link, strategy = self.plan, self.link, self.plan.strategy
        if isinstance(link, Clock) and isinstance(strategy, BufferedStrategy):
            run, records = self.progress.run, counts(self.progress)
            buffers = Buffers(link=link, clock=link, plan=plan, strategy=strategy, run=run, records=records)
            return lambda number, state, aggregation: buffers.open(
                number, strategy.sends(state), aggregation.members(number - 1)
            )
        if isinstance(link, Clock) and plan.by_speed:
            clock: Clock = link
            return lambda number, state, aggregation: Opening(
                fields={"steps": steps_by_speed(plan, counts(self.progress), clock)}
            )
        return lambda number, state, aggregation: EVERYBODY

    def _spent(self) -> tuple[float, float, float]:
        """Return bytes up, bytes down and virtual seconds so far."""
        return self.link.traffic.up, self.link.traffic.down, self.link.virtual_seconds or 0.0

    def _show(self, measured: Measurement | None) -> None:
        show_pending(self.progress, self.observer, measured)

    def _evaluate(self, aggregation: Aggregation, meter: Meter) -> None:
        if meter.evaluate is None or self.progress.state is None:
            return
        rounds, model = self.progress.rounds_allowed, self.progress.state.model
        if not meter.noised and rounds in self.progress.impossible and self.progress.exact_after >= self._last_applied:
            return  # the last round measured this very model; another cohort's sums beside its would show one site's
        fields = self._fields() | {"evaluate": meter.evaluate, "rounds": rounds}
        ask = Ask(
            action="evaluate",
            slot=rounds,
            fields=fields,
            model=model,
            dimension=0,
            tables=[meter.table],
            absent=left_out_for_good(self.progress),
        )
        collected = self._ask_once(aggregation, ask, measured=meter.noised)
        if collected is not None:
            self.progress.federated = meter.read(collected, "federated")
            self.measured_after = self.progress.rounds_completed

    def _alone(self, aggregation: Aggregation, meter: Meter) -> None:
        labels, state = self.plan.lab_models, self.progress.state
        if state is None:
            return
        rounds = self.progress.rounds_allowed
        fields = self._fields() | {"evaluate": meter.evaluate, "rounds": rounds}
        tables = [meter.table] * len(labels)
        model = state.model if "personalised" in labels else None
        ask = Ask(
            action="alone",
            slot=rounds + 1,
            fields=fields,
            model=model,
            dimension=0,
            tables=tables,
            absent=left_out_for_good(self.progress),
        )
        collected = self._ask_once(aggregation, ask)
        if collected is not None:
            for at, label in enumerate(labels):
                self.progress.alone[label] = meter.read(collected, label, table=at)

    @property
    def _last_applied(self) -> int:
        asked = range(1, self.progress.rounds_allowed + 1)
        return max((number for number in asked if number not in self.progress.abandoned), default=0)

    def _ask_once(self, aggregation: Aggregation, ask: Ask, *, measured: bool = False) -> Collected | None:
        """Return what comes back, or came back already; None if a process before this one asked and lost it."""
        progress, started = self.progress, time.monotonic()
        if progress.asked <= ask.slot:
            self._asking(ask.slot + 1, measured=measured)
            progress.answers[ask.action] = aggregation.collect(ask)
            progress.seconds["evaluation"] += time.monotonic() - started
            self.keep.save(progress)
        return progress.answers.get(ask.action)

    def _asking(self, slots: int, *, measured: bool) -> None:
        """Write down that a slot is used before anybody is asked."""
        self.progress.asked = slots
        self.progress.measurements += measured
        self.keep.save(self.progress)

    def _fields(self) -> dict[str, Any]:
        return {"run": self.progress.run, "records": counts(self.progress)}

    def _note(self, number: int, collected: Collected) -> None:
        self.progress.dropped += [(site, number) for site in collected.dropped]
        for site, why in collected.dropped.items():
            self.progress.reasons[site, number] = why.removeprefix(f"{site}: ")
        self.progress.seconds["aggregation"] += collected.seconds_aggregation
