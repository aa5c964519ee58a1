"""One study on one machine, from the plan to the run folder."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from operator import add
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from fedsci.config.scaling import pass_before
from fedsci.config.site import load_site
from fedsci.config.study_file import StudyOnOneMachine
from fedsci.config.weather import Weather
from fedsci.coordinator.aggregation import Collected
from fedsci.coordinator.clock import refuse_without_clock
from fedsci.coordinator.evaluation import Measured
from fedsci.coordinator.progress import Progress
from fedsci.coordinator.run import Display, RunRecord
from fedsci.coordinator.scaling import Measuring, after_pass, require_room
from fedsci.coordinator.study import run_study
from fedsci.errors import FedsciError, RoundAborted, SiteFailed
from fedsci.names import SiteId
from fedsci.registry.run_folder import RunFolder
from fedsci.secagg import SigningKey
from fedsci.simulation.consortium import SimulatedConsortium
from fedsci.simulation.labs import Labs, Service
from fedsci.simulation.pooled import alone_baseline, personalised_baseline, pooled_baselines
from fedsci.simulation.scaling import require_both
from fedsci.simulation.weather import WeatherLink
from fedsci.site.service import SiteService
from fedsci.training.metrics import MetricSums
from fedsci.transport.coordinator_app import build_coordinator_app, run_in_process, run_on_ray
from fedsci.transport.link import SiteLink
from fedsci.transport.site_app import build_site_app

Engine = Literal["local", "ray"]


@dataclass(kw_only=True)
class SimulatedRun:
    """Runs a study and leaves a readable run folder whatever happens.

    Attributes:
        study: plan and site files.
        engine: ``local`` (threads) or ``ray``.
        state: parent of the labs' state folders.
        out: parent of the run folder.
        display: shows progress.
        serialise: send every message of the local engine through Flower's wire format.
        timeout_s: how long to wait for the slowest lab in an exchange.
        weather: what the labs' machines and lines are like; without it they are all there, and rounds take no
            virtual time.
        admitted: as for :func:`run_study`.
        service: what a lab is. A red team's labs may record, deviate or lie; everything else is this same run.
        tap: the line between coordinator and labs; a red team's shows what passes over it.
        summed: as for :func:`run_study`.
    """

    study: StudyOnOneMachine
    engine: Engine
    state: Path | None
    out: Path
    display: Display
    serialise: bool = False
    timeout_s: float = 3600.0
    weather: Weather | None = None
    admitted: Callable[[Progress], None] | None = None
    service: Service = SiteService
    tap: Callable[[SiteLink], SiteLink] = lambda link: link
    summed: Callable[[int, Collected], None] = lambda number, collected: None
    progress: Progress = field(default_factory=Progress)
    folder: RunFolder | None = None
    _record: RunRecord | None = None
    _consortium: SimulatedConsortium | None = None
    _failure: BaseException | None = None
    _interrupted: threading.Event = field(default_factory=threading.Event)

    @property
    def signer(self) -> SigningKey | None:
        """The key of the labs' coordinator, once there is one: it signs what the run leaves."""
        return None if self._consortium is None else self._consortium.log_key

    def run(self) -> dict[str, Any]:
        """Return the summary of the completed run.

        Raises:
            FedsciError: the run did not complete; the folder says so.
            KeyboardInterrupt: it was interrupted; the folder says so.
        """
        first = self._measure_scaling() if self.study.plan.awaits_scaling else None
        plan = self.study.plan
        if self.weather is None:
            refuse_without_clock(plan)
        record = RunRecord.begin(plan, engine=self.engine, out=self.out, display=self.display, progress=self.progress)
        self._record, self.folder = record, record.folder
        state = self.state if self.state is not None else self.folder.path / "state"
        labs = Labs(self.study.site_files, plan.sites, state.resolve(), self.service)
        status, reason = "aborted", "stopped before it began"
        try:
            if first is not None:
                record.add_scaling(first)
                if self.state is None:  # both draw on the same budgets
                    (first / "state").rename(state)
            record.write_plan()
            labs.make_states()
            self._consortium = SimulatedConsortium(state, plan.study.secure_aggregation.crypto_profile)
            labs.enrol(self._consortium.public)
            self._exchange(labs)
            self._ask_silent_labs(labs)
            if "pooled" in plan.study.evaluation.baselines and plan.makes_model:
                self.display.phase("pooled")
                began = time.monotonic()
                record.pooled |= pooled_baselines(plan, self.study.site_files, labs.split_key)
                self.progress.seconds["evaluation"] += time.monotonic() - began
            record.write_model()
            status, reason = record.ending()
        except SiteFailed as failure:
            error = _with_details(failure, labs, self.progress.run)
            reason = error.message
            raise error from None
        except FedsciError as error:
            reason = error.message
            raise
        except KeyboardInterrupt:
            reason = "interrupted"
            raise
        except BaseException as error:
            reason = f"internal error: {type(error).__name__}"
            raise
        finally:
            labs.forget(self.progress.run)
            summary = record.close(status, reason)
        return summary

    def _measure_scaling(self) -> Path:
        """Run the pass that measures the scaling, go on with the study that it makes, and return the pass's folder.

        Raises:
            FedsciError: some lab would refuse the pass or, after it, the study: then nothing is charged. Or the pass
                did not complete.
        """
        asked = self.study.plan
        first = pass_before(asked)
        require_both(first, asked, self.study.site_files, self.state)
        measuring = replace(
            self,
            study=replace(self.study, plan=first),
            progress=Progress(),
            display=Measuring(self.display),
            admitted=partial(require_room, asked, first),
        )
        try:
            summary = measuring.run()
        finally:
            self.folder = measuring.folder
        if measuring.folder is None:
            raise RoundAborted(f"the pass that measures the scaling was {summary['status']}")
        self.study = replace(self.study, plan=after_pass(asked, first, measuring.progress))
        return measuring.folder.path

    def _ask_silent_labs(self, labs: Labs) -> None:
        """Add what labs of a private study would not say of their own models, since nobody charged for it."""
        plan, files, model = self.study.plan, self.study.site_files, self.progress.model
        if plan.private and "local" in plan.lab_models and plan.study.privacy.unit != "site":
            self._add("local", alone_baseline(plan, files, labs.split_key))
        if plan.private and "personalised" in plan.lab_models and model is not None:
            self._add("personalised", personalised_baseline(plan, files, labs.split_key, model))

    def _add(self, label: str, sums: dict[SiteId, MetricSums]) -> None:
        """Add labs to what is known of a label; one by one only those that show their own metrics."""
        known = self.progress.alone.get(label)
        if not sums or not isinstance(known, Measured):
            return
        shown = {
            site.site for site in map(load_site, self.study.site_files) if site.policy and site.policy.show_own_metrics
        }
        own = {site: found for site, found in sums.items() if site in shown}
        total = reduce(add, sums.values(), known.total)
        self.progress.alone[label] = Measured(plan=known.plan, total=total, own={**known.own, **own})

    def _exchange(self, labs: Labs) -> None:
        plan = self.study.plan
        server = build_coordinator_app(self._run_study, timeout_s=self.timeout_s)
        client = build_site_app(labs.handler)
        if self.engine == "ray":
            with _noting_signals(self._interrupted):
                run_on_ray(server, client, nodes=len(plan.sites))
        else:
            run_in_process(server, client, nodes=len(plan.sites), serialise=self.serialise)
        if self._failure is not None:
            raise self._failure

    def _pause(self, seconds: float) -> None:
        """Wait. Ctrl-C ends it: also on Ray, where the study's thread hears of no signal."""
        if self._interrupted.wait(seconds):
            raise KeyboardInterrupt

    def _run_study(self, link: SiteLink) -> None:
        try:
            plan, roster, record = self.study.plan, None, self._record
            if record is None:
                return
            if self.weather is not None:
                link = WeatherLink(grid=link.grid, timeout_s=link.timeout_s, plan=plan, weather=self.weather)
                record.weather = self.weather.model_dump(mode="json", exclude_none=True)
            record.link = link = self.tap(link)
            keys = link.discover(plan.sites)
            if plan.study.secure_aggregation.enabled and self._consortium is not None:
                roster = self._consortium.roster(plan, keys)
            log = None if self._consortium is None else record.log(self._consortium.log_key, roster)
            run_study(
                link,
                plan,
                self.progress,
                record,
                roster=roster,
                admitted=self.admitted,
                deciding=record.deciding(self._pause),
                log=log,
                summed=self.summed,
            )
        except BaseException as error:
            if threading.current_thread() is threading.main_thread() and not isinstance(error, FedsciError):
                raise
            self._failure = error  # engines differ in what they do with an exception; none gets to see it


@contextlib.contextmanager
def _noting_signals(noted: threading.Event) -> Iterator[None]:
    """Set ``noted`` when a signal asks the process to end, besides what the signal does anyway."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:
        noted.set()
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
        else:
            raise KeyboardInterrupt

    for number in before:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _with_details(failure: SiteFailed, labs: Labs, run: str) -> FedsciError:
    """Return the error as the lab itself saw it: its log is on this machine, and the labs are simulated."""
    entry = labs.log_of(SiteId(failure.site)).last_error(run)
    if entry is None:
        return failure
    message = str(entry.get("message", failure.message))
    detailed = SiteFailed(failure.site, {"message": message, "code": failure.site_code, "exit_code": failure.exit_code})
    detailed.message = message if message.startswith(failure.site) else f"{failure.site}: {message}"
    detailed.hint = str(entry.get("hint") or failure.hint)
    return detailed
