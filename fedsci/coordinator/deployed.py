"""One study over SuperLink: waits for its sites, runs it or what is left of it, and leaves a run folder."""

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from fedsci.config.plan import Plan
from fedsci.config.plan_checks import plan_from_bytes
from fedsci.config.scaling import pass_before
from fedsci.coordinator.checkpoint import Checkpoint
from fedsci.coordinator.decisions import Question, in_words
from fedsci.coordinator.permission import await_turn
from fedsci.coordinator.preparation import SignedRoster
from fedsci.coordinator.progress import Progress, RoundResult, Suspended
from fedsci.coordinator.queue import Job, JobState, damaged
from fedsci.coordinator.run import RunRecord
from fedsci.coordinator.scaling import after_pass, require_room, require_rules
from fedsci.coordinator.study import abandon_rounds, run_study, settle, show_pending
from fedsci.coordinator.turns import AWAY, Turns
from fedsci.errors import ConfigError, ConnectionFailed, FedsciError, RoundAborted
from fedsci.identity.files import replace_private
from fedsci.registry.journal import Journal
from fedsci.secagg import SigningKey
from fedsci.transport.flower_coordinator import SuperlinkGrid, connect_grid
from fedsci.transport.link import SiteLink

_AWAY_S = 60.0  # how long a study that is taken up waits for all of its sites
_SETTLE_S = 30.0  # how long sites may take to hear that a study is over, where it did not end by itself
_ASK_S = 60.0
_HELLO_S = 15.0
_MODEL_EVERY_S = 5.0
_POLL_S = 0.5
_SCALING, _SCALED = "scaling", "scaled.json"


@dataclass(kw_only=True)
class DeployedRun:
    """Runs one study of the queue, in this process; one that is in state ``running`` is taken up where it stands.

    Taken up after its sites let it in: a round that was under way is given up, and stays charged. Before: sites settle
    what they reserved, and the study begins anew.

    A study whose scaling is to be measured is two, one after the other: a pass with a run folder of its own, and the
    study that it makes, which is kept as soon as there is one, so that nobody measures and pays twice.

    Attributes:
        job: the study.
        fleet: SuperLink's folder.
        out: parent of the run folder.
        publish: called with the run folder before the study counts as over.
        roster: the consortium's newest, asked for when the study begins.
        log_key: signs the audit log.
        stopping: says why the study must end now, or None.
        suspending: says whether this process must end now; the study goes on in the next.
        turns: when it has its sites for itself; whoever runs this gives them back, and holds those of one taken up.
        timeout_s: how long to wait for the slowest site in an exchange.
    """

    job: Job
    fleet: Path
    out: Path
    roster: Callable[[], SignedRoster]
    log_key: SigningKey
    stopping: Callable[[], str | None]
    suspending: Callable[[], bool]
    turns: Turns
    publish: Callable[[Path], None]
    timeout_s: float = 3600.0

    def __post_init__(self) -> None:
        self._journal = Journal(path=self.job.path / "log.jsonl")
        self._checkpoint = Checkpoint(self.job.path)
        self._progress = Progress()
        self._state = JobState(run=self._progress.run)
        self._record: RunRecord | None = None
        self._link: SiteLink | None = None
        self._told = False
        self._measured: Path | None = None
        self._model_written = time.monotonic()

    def run(self) -> None:
        """Run it to its end, whatever that is. Nothing is raised for a study that fails: its state says why."""
        plan = self.job.plan()
        status, error = "aborted", FedsciError("internal error")
        try:
            if plan.awaits_scaling:
                plan = self._scaled(plan)
            if self.job.state.state == "running":
                self._take_up(plan)
            else:
                self._begin(plan)
            status, reason = self._record.ending() if self._record is not None else (status, "")
            error = RoundAborted(reason)
        except Suspended:
            self._journal("suspended", rounds=self._progress.rounds_completed)
            return
        except FedsciError as failure:
            error = failure
        except Exception as failure:
            error = FedsciError(f"internal error: {type(failure).__name__}: {failure}")
        if self._record is not None:
            self._record.close(status, error.message)
            self.publish(self._record.folder.path)
        completed = status != "aborted"
        self._change(
            state=status,
            waiting={},
            rounds=self._progress.rounds_completed,
            reason=error.message,
            hint="" if completed else error.hint,
            exit_code=0 if completed else error.exit_code,
        )
        self._journal("ended", status=status, reason=error.message)
        clear(self.job)

    def _scaled(self, asked: Plan) -> Plan:
        """Return the study scaled by what its pass measured: now, or before this process was there."""
        found = kept_scaling(self.job)
        if found is None:
            first = pass_before(asked)
            (self.job.path / _SCALING).mkdir(mode=0o700, exist_ok=True)
            self._checkpoint = Checkpoint(self.job.path / _SCALING)
            if self.job.state.state == "running":
                self._take_up(first, asked=asked)
            else:
                self._begin(first, asked=asked)
            record = self._record
            if record is None:
                raise RoundAborted("the pass that measures the scaling has no record")
            found = after_pass(asked, first, self._progress), record.folder.path.resolve()
            record.close(*record.ending())
            keep_scaling(self.job, *found)
            self._journal("scaled", plan=found[0].digest, folder=str(found[1]))
            self._record, self._link, self._progress = None, None, Progress()
            self._change(state="waiting", waiting={}, rounds=0, run=self._progress.run, folder="")
            self._checkpoint = Checkpoint(self.job.path)
        plan, self._measured = found
        return plan

    def _begin(self, plan: Plan, *, asked: Plan | None = None) -> None:
        """Run a study from its beginning; ``asked`` is what it measures the scaling for, where it does that."""
        record = RunRecord.begin(plan, engine="flower", out=self.out, display=self, progress=self._progress)
        self._record = record
        self._change(state="waiting", folder=str(record.folder.path.resolve()))
        record.write_plan()
        self._add_scaling(record)
        self._check()
        self._await_connected(plan)
        with connect_grid(self.fleet) as grid:
            link = self._discover(plan, grid)
            record.link = link
            link.timeout_s = min(self.timeout_s, _ASK_S)  # who is away meanwhile is asked again
            if asked is not None:
                require_rules(link, asked, plan)
            await_turn(
                link,
                plan,
                self.job.claim,
                self.turns,
                patience_s=self.job.patience_s,
                tell=self._wait_for,
                pause=self._pause,
            )
            link.timeout_s = self.timeout_s
            roster = self.roster() if plan.study.secure_aggregation.enabled else None
            if roster is not None:
                self._checkpoint.save_roster(roster.content)
            self._checkpoint.save(self._progress)
            self._change(state="running", waiting={})  # from here on sites may charge something
            run_study(
                link,
                plan,
                self._progress,
                record,
                roster=roster,
                keep=self._checkpoint,
                admitted=None if asked is None else partial(require_room, asked, plan),
                log=record.log(self.log_key, roster),
                deciding=record.deciding(self._pause),
            )
        record.write_model()

    def _add_scaling(self, record: RunRecord) -> None:
        if self._measured is not None:
            record.add_scaling(self._measured)

    def _take_up(self, plan: Plan, *, asked: Plan | None = None) -> None:
        kept, self._state = self._checkpoint.restore(plan), self.job.state
        if kept is None or set(kept.sites) != set(plan.sites):
            self._give_up(plan, kept)
            self.turns.give_back(self.job.claim)
            begin_again(self.job)
            self._state = JobState(run=self._progress.run)
            self._begin(plan, asked=asked)
            return
        self._progress = kept
        folder = Path(self._state.folder)
        record = RunRecord.reopen(plan, engine="flower", folder=folder, display=self, progress=kept)
        self._record = record
        self._add_scaling(record)
        self._journal("taken-up", rounds=kept.rounds_completed, asked=kept.asked)
        try:
            self._check()
            self._await_connected(plan, enough_after_s=_AWAY_S)
        except FedsciError:
            abandon_rounds(kept, record)
            show_pending(kept, record, None)
            self._give_up(plan, kept)
            raise
        with connect_grid(self.fleet) as grid:
            link = self._link = record.link = self._known_link(plan, grid)
            self._wait_for({})
            roster, content = (
                self.roster() if plan.study.secure_aggregation.enabled else None,
                self._checkpoint.roster(),
            )
            if roster is not None and content is not None:
                roster = replace(roster, content=content)
            run_study(
                link,
                plan,
                kept,
                record,
                roster=roster,
                keep=self._checkpoint,
                deciding=record.deciding(self._pause),
                log=record.log(self.log_key, roster),
            )
        record.write_model()

    def _known_link(self, plan: Plan, grid: SuperlinkGrid) -> SiteLink:
        """Return a link to all sites of a study; one that is still away then is missing from a round, as ever.

        A SuperLink that was just started takes sites for connected that have yet to come back.
        """
        deadline = time.monotonic() + _AWAY_S
        while True:
            link = SiteLink(grid=grid, timeout_s=self.timeout_s, registered=grid.nodes, check=self._check)
            with contextlib.suppress(ConnectionFailed):
                link.discover(plan.sites, wait_s=_HELLO_S)
            away = {site: AWAY for site in plan.sites if site not in link.discovered}
            if not away or time.monotonic() >= deadline:
                link.assume(plan.sites)
                return link
            self._wait_for(away)
            self._pause(_POLL_S)

    def _give_up(self, plan: Plan, kept: Progress | None) -> None:
        """Tell sites that a run which this process will not go on with is over; one that is away keeps its charge."""
        if kept is None:
            return
        self._journal("given-up", run=kept.run)
        with contextlib.suppress(FedsciError), connect_grid(self.fleet) as grid:
            link = self._known_link(plan, grid)
            link.timeout_s = _SETTLE_S
            settle(link, kept, plan.sites)

    def _await_connected(self, plan: Plan, *, enough_after_s: float | None = None) -> None:
        """Wait until all sites are connected, or, from ``enough_after_s`` on, as many as a round needs."""
        began = time.monotonic()
        deadline = time.monotonic() + self.job.patience_s
        while True:
            away = self.turns.away(self.job.claim)
            self._wait_for(away)
            waited = enough_after_s is not None and time.monotonic() - began >= enough_after_s
            if not away or (waited and len(plan.sites) - len(away) >= plan.min_survivors):
                return
            if time.monotonic() >= deadline:
                raise ConnectionFailed(
                    f"{', '.join(away)} did not connect within {self.job.patience_s:g} s",
                    hint="is the site's process running? fedsci site status says what is wrong",
                )
            self._pause(_POLL_S)

    def _discover(self, plan: Plan, grid: SuperlinkGrid) -> SiteLink:
        """Return a link over which every site has answered; SuperLink may take a while to notice that one is gone."""
        deadline = time.monotonic() + self.job.patience_s
        while True:
            link = SiteLink(grid=grid, timeout_s=self.timeout_s, registered=grid.nodes, check=self._check)
            self._link, busy = link, self.turns.busy(self.job.claim)
            try:
                link.discover(plan.sites, wait_s=_HELLO_S)
            except ConnectionFailed:
                away = {site: busy.get(site, AWAY) for site in plan.sites if site not in link.discovered}
                if not away or (away.keys() - busy.keys() and time.monotonic() >= deadline):
                    raise
                self._wait_for(away)
                self._pause(_POLL_S)
            else:
                return link

    def phase(self, name: str) -> None:
        """Write down the phase; the display's part."""
        self._journal("phase", name=name)

    def round_finished(self, progress: Progress, result: RoundResult, epsilon: float | None) -> None:
        """Write down the round, and now and then the model, for a coordinator that may die."""
        if self._record is not None and time.monotonic() - self._model_written > _MODEL_EVERY_S:
            self._record.write_model()
            self._model_written = time.monotonic()
        self._change(rounds=result.number)
        self._journal(
            "round",
            number=result.number,
            metrics=result.measured.pooled() if result.measured else None,
            epsilon=epsilon,
            dropped=list(result.dropped),
            abandoned=result.abandoned,
            norm=None if result.norm is None else result.norm.to_json(),
            seconds=result.seconds,
        )

    def waits(self, question: Question, roles: tuple[str, ...], folder: Path) -> None:
        """Write down for whose decision the study waits; for nobody's, when it goes on."""
        self._change(rounds=question.rounds)
        point = question.point
        why = f"must decide {in_words(point.checkpoint)}: fedsci decide {self.job.number}"
        self._wait_for(dict.fromkeys(roles, why))
        if roles:
            about = {"rounds": question.rounds, "metrics": question.metrics, "epsilon": question.epsilon}
            self._journal("checkpoint", name=point.checkpoint, roles=roles, model=point.model, **about)

    def heard(self, text: str) -> None:
        """Write down what became of a decision."""
        self._journal("decision", message=text)

    def _wait_for(self, waiting: Mapping[Any, str]) -> None:
        if dict(waiting) != dict(self._state.waiting):
            self._change(waiting=dict(waiting))
            self._journal("waiting", sites=dict(waiting))

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._check()
            time.sleep(0.1)

    def _check(self) -> None:
        """Raise if the study must end, once, so that sites can still be told; or if this process must."""
        if self.suspending():
            raise Suspended
        why = None if self._told else self.stopping()
        if why is not None:
            self._told = True
            if self._link is not None:
                self._link.timeout_s = min(self._link.timeout_s, _SETTLE_S)
            raise RoundAborted(why)

    def _change(self, **values: Any) -> None:
        self._state = replace(self._state, **values)
        self.job.write_state(self._state)


def begin_again(job: Job) -> None:
    """Put a study back into the queue that was waiting for sites when the coordinator's process died.

    Nothing was charged for it yet, and what operators decided lies at their sites.
    """
    folder = Path(job.state.folder)
    if job.state.folder and not (folder / "summary.json").exists():  # else it is a pass that has run
        with contextlib.suppress(OSError):  # it holds the plan and nothing else
            (folder / "plan.yaml").unlink(missing_ok=True)
            folder.rmdir()
    clear(job)
    job.write_state(JobState())


def clear(job: Job) -> None:
    """Forget how far a study came, and its pass; not what the pass measured."""
    for folder in (job.path, job.path / _SCALING):
        Checkpoint(folder).clear()


def keep_scaling(job: Job, plan: Plan, folder: Path) -> None:
    """Keep, durably, the study that a pass made and the pass's run folder."""
    values = {"plan": plan.to_bytes().decode(), "folder": str(folder)}
    replace_private(job.path / _SCALED, json.dumps(values).encode())


def kept_scaling(job: Job) -> tuple[Plan, Path] | None:
    """Return the study that a pass made and the pass's run folder, or None where nothing was measured yet.

    Raises:
        InputError: what was kept of it is damaged.
    """
    try:
        values = json.loads((job.path / _SCALED).read_bytes())
        return plan_from_bytes(values["plan"].encode(), modules=None), Path(values["folder"])
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, ConfigError):
        raise damaged(job.path / _SCALED) from None
