"""One study over SuperLink: waits for its sites, runs it, and leaves a run folder, also for one that was cut short."""

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedsci.config.plan import Plan
from fedsci.coordinator import checkpoint
from fedsci.coordinator.admission import read_privacy
from fedsci.coordinator.permission import await_permission
from fedsci.coordinator.queue import Job, JobState
from fedsci.coordinator.run import RunRecord
from fedsci.coordinator.study import Progress, RoundResult, SignedRoster, run_study
from fedsci.errors import ConnectionFailed, FedsciError, RoundAborted
from fedsci.names import SiteId
from fedsci.registry.journal import Journal
from fedsci.registry.run_folder import RunFolder
from fedsci.transport.flower_coordinator import SuperlinkGrid, connect_grid, site_status
from fedsci.transport.link import SiteLink
from fedsci.transport.messages import Reply, Request

AWAY = "is not connected"
_SETTLE_S = 30.0  # how long sites may take to hear that a study is over, where it did not end by itself
_ASK_S = 60.0
_HELLO_S = 15.0
_MODEL_EVERY_S = 5.0
_POLL_S = 0.5


@dataclass(kw_only=True)
class DeployedRun:
    """Runs one study of the queue, in this process.

    Attributes:
        job: the study.
        fleet: SuperLink's folder.
        out: parent of the run folder.
        publish: called with the run folder before the study counts as over.
        roster: the consortium's newest, asked for when the study begins.
        stopping: says why the study must end now, or None.
        timeout_s: how long to wait for the slowest site in an exchange.
    """

    job: Job
    fleet: Path
    out: Path
    roster: Callable[[], SignedRoster]
    stopping: Callable[[], str | None]
    publish: Callable[[Path], None]
    timeout_s: float = 3600.0

    def __post_init__(self) -> None:
        self._journal = Journal(path=self.job.path / "log.jsonl")
        self._progress = Progress()
        self._state = JobState(run=self._progress.run)
        self._record: RunRecord | None = None
        self._link: SiteLink | None = None
        self._told = False
        self._model_written = time.monotonic()

    def run(self) -> None:
        """Run it to its end, whatever that is. Nothing is raised for a study that fails: its state says why."""
        plan = self.job.plan()
        status, error = "aborted", FedsciError("internal error")
        try:
            self._record = RunRecord.begin(plan, engine="flower", out=self.out, display=self, progress=self._progress)
            self._change(state="waiting", folder=str(self._record.folder.path.resolve()))
            self._record.write_plan()
            self._exchange(plan, self._record)
            self._record.write_model()
            status, reason = self._record.ending()
            error = RoundAborted(reason)
        except FedsciError as failure:
            error = failure
        except Exception as failure:
            error = FedsciError(f"internal error: {type(failure).__name__}: {failure}")
        finally:
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

    def _exchange(self, plan: Plan, record: RunRecord) -> None:
        self._check()
        self._await_connected(plan)
        with connect_grid(self.fleet) as grid:
            link = self._discover(plan, grid)
            record.link = link
            link.timeout_s = min(self.timeout_s, _ASK_S)  # who is away meanwhile is asked again
            await_permission(link, plan, patience_s=self.job.patience_s, tell=self._wait_for, pause=self._pause)
            link.timeout_s = self.timeout_s
            roster = self.roster() if plan.study.secure_aggregation.enabled else None
            self._change(state="running", waiting={})
            checkpoint.save(self.job.path, self._progress)  # from here on sites may charge something
            run_study(link, plan, self._progress, record, roster=roster)

    def _await_connected(self, plan: Plan) -> None:
        deadline = time.monotonic() + self.job.patience_s
        while True:
            status = site_status(self.fleet)
            away = {site: AWAY for site in plan.sites if status.get(site) != "online"}
            self._wait_for(away)
            if not away:
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
            self._link = link
            try:
                link.discover(plan.sites, wait_s=_HELLO_S)
            except ConnectionFailed:
                away = {site: AWAY for site in plan.sites if site not in link.discovered}
                if not away or time.monotonic() >= deadline:
                    raise
                self._wait_for(away)
                self._pause(_POLL_S)
            else:
                return link

    def phase(self, name: str) -> None:
        """Write down the phase; the display's part."""
        self._journal("phase", name=name)
        checkpoint.save(self.job.path, self._progress)

    def round_finished(self, progress: Progress, result: RoundResult, epsilon: float | None) -> None:
        """Write down the round, and now and then the model, for a coordinator that may die."""
        checkpoint.save(self.job.path, progress)
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
            seconds=result.seconds,
        )

    def _wait_for(self, waiting: Mapping[SiteId, str]) -> None:
        if dict(waiting) != dict(self._state.waiting):
            self._change(waiting=dict(waiting))
            self._journal("waiting", sites=dict(waiting))

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._check()
            time.sleep(0.1)

    def _check(self) -> None:
        """Raise if the study must end; once, so that sites can still be told."""
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
    if job.state.folder:
        folder = Path(job.state.folder)
        with contextlib.suppress(OSError):  # it holds the plan and nothing else
            (folder / "plan.yaml").unlink(missing_ok=True)
            folder.rmdir()
    job.write_state(JobState())


def end_cut_short(
    job: Job,
    fleet: Path,
    *,
    patience_s: float,
    check: Callable[[], None],
    publish: Callable[[Path], None],
) -> None:
    """End a study that was going on when the coordinator's process died: its sites settle, its folder says so.

    The round that was under way is given up; what sites charged for it stays charged. A site that cannot be reached
    keeps the charge of the whole study.
    """
    plan, state, journal = job.plan(), job.state, Journal(path=job.path / "log.jsonl")
    progress = checkpoint.restore(job.path)
    if progress is not None:
        with contextlib.suppress(FedsciError):
            _settle(plan, progress, fleet, patience_s=patience_s, check=check)
    progress = progress or Progress()
    done, planned = progress.rounds_completed, plan.training.rounds
    reason = f"the coordinator was restarted after round {done} of {planned}; a study is not taken up again"
    folder = Path(state.folder) if state.folder else None
    if folder is not None and folder.is_dir():
        record = RunRecord(
            plan=plan, engine="flower", folder=RunFolder(path=folder), display=_Unseen(), progress=progress
        )
        record.write_plan()
        _complete_metrics(record)
        record.close("aborted", reason)
        publish(folder)
    job.write_state(
        replace(state, state="aborted", waiting={}, rounds=done, reason=reason, hint="submit it again", exit_code=5)
    )
    journal("ended", status="aborted", reason=reason, settled=sorted(progress.settled))


def _complete_metrics(record: RunRecord) -> None:
    """Add the lines of rounds that were applied and not written down yet: a round's metrics come with the next."""
    path = record.folder.path / "metrics.jsonl"
    written = len(path.read_bytes().splitlines()) if path.exists() else 0
    for number in range(written + 1, record.progress.rounds_completed + 1):
        dropped = tuple(site for site, at in record.progress.dropped if at == number)
        survivors = len(record.plan.sites) - len(dropped)
        record.round_finished(
            record.progress,
            RoundResult(number=number, measured=None, survivors=survivors, dropped=dropped, seconds=None),
        )


def _settle(plan: Plan, progress: Progress, fleet: Path, *, patience_s: float, check: Callable[[], None]) -> None:
    """Tell the sites that the run is over, those that are not known to have let it in, too."""
    with connect_grid(fleet) as grid:
        link = SiteLink(grid=grid, timeout_s=_SETTLE_S, registered=grid.nodes, check=check)
        with contextlib.suppress(ConnectionFailed):  # who does not come back is not told
            link.discover(plan.sites, wait_s=patience_s)
        finish = Request(action="finish", fields={"run": progress.run})
        replies = link.ask(dict.fromkeys(link.discovered, finish))
    for site, reply in replies.items():
        if isinstance(reply, Reply):
            with contextlib.suppress(AttributeError, ValueError):
                progress.privacy[site] = read_privacy(reply.fields.get("privacy"))
                progress.settled.add(site)


class _Unseen:
    def phase(self, name: str) -> None: ...

    def round_finished(self, progress: Progress, result: RoundResult, epsilon: float | None) -> None: ...
