"""One study on one machine, from the plan to the run folder."""

import contextlib
import threading
import time
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, Literal, Protocol

from fedsci.config.site import load_site
from fedsci.config.study_file import StudyOnOneMachine
from fedsci.coordinator.evaluation import Measured
from fedsci.coordinator.study import Progress, RoundResult, run_study
from fedsci.coordinator.summary import summarise
from fedsci.errors import FedsciError, InputError, SiteFailed
from fedsci.names import SiteId
from fedsci.registry.run_folder import RunFolder, create_run_folder
from fedsci.simulation.consortium import SimulatedConsortium
from fedsci.simulation.labs import Labs
from fedsci.simulation.pooled import alone_baseline, pooled_baselines
from fedsci.site.dataset import schema_of
from fedsci.training.accountant import cost_of
from fedsci.training.learner import module_for
from fedsci.training.metrics import Metrics, MetricSums
from fedsci.training.models import layout_of
from fedsci.transport.coordinator_app import build_coordinator_app, run_in_process, run_on_ray
from fedsci.transport.link import SiteLink, Traffic
from fedsci.transport.site_app import build_site_app

Engine = Literal["local", "ray"]


class Display(Protocol):
    """Shows a run while it goes on."""

    def phase(self, name: str) -> None:
        """A phase began."""

    def round_finished(self, progress: Progress, result: RoundResult, epsilon: float | None) -> None:
        """A round was applied; ``epsilon`` is the largest spent so far at any lab."""


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
    """

    study: StudyOnOneMachine
    engine: Engine
    state: Path | None
    out: Path
    display: Display
    serialise: bool = False
    timeout_s: float = 3600.0
    progress: Progress = field(default_factory=Progress)
    folder: RunFolder | None = None
    _link: SiteLink | None = None
    _consortium: SimulatedConsortium | None = None
    _failure: BaseException | None = None

    def run(self) -> dict[str, Any]:
        """Return the summary of the completed run.

        Raises:
            FedsciError: the run did not complete; the folder says so.
            KeyboardInterrupt: it was interrupted; the folder says so.
        """
        plan = self.study.plan
        started = time.monotonic()
        self.folder = create_run_folder(self.out, study=plan.study.study, plan_digest=plan.digest)
        state = self.state if self.state is not None else self.folder.path / "state"
        labs = Labs(self.study.site_files, plan.sites, state.resolve())
        pooled: dict[str, Metrics | None] = {}
        status, reason = "aborted", "stopped before it began"
        try:
            self.folder.write_plan(plan.to_json() | {"digest": plan.digest})
            labs.make_states()
            self._consortium = SimulatedConsortium(state)
            labs.enrol(self._consortium.public)
            self._exchange(labs)
            if "local" in plan.study.evaluation.baselines and plan.private and plan.study.privacy.unit != "site":
                self._add_alone(alone_baseline(plan, self.study.site_files, labs.split_key))
            if "pooled" in plan.study.evaluation.baselines:
                self.display.phase("pooled")
                began = time.monotonic()
                pooled |= pooled_baselines(plan, self.study.site_files, labs.split_key)
                self.progress.seconds["evaluation"] += time.monotonic() - began
            self._write_model()
            status, reason = _ending(plan.training.rounds, self.progress)
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
            summary = self._summary(status, reason or None, time.monotonic() - started, pooled)
            labs.forget(self.progress.run)
            if status != "aborted":
                self.folder.write_json("summary.json", summary)
            else:
                self._save_what_there_is(summary)
        return summary

    def _add_alone(self, sums: dict[SiteId, MetricSums]) -> None:
        """Add labs that would not say what they reach alone; one by one only those that show their own metrics."""
        known = self.progress.alone.get("local")
        if not sums or not isinstance(known, Measured):
            return
        shown = {
            site.site for site in map(load_site, self.study.site_files) if site.policy and site.policy.show_own_metrics
        }
        own = {site: found for site, found in sums.items() if site in shown}
        total = reduce(add, sums.values(), known.total)
        self.progress.alone["local"] = Measured(plan=known.plan, total=total, own={**known.own, **own})

    def _exchange(self, labs: Labs) -> None:
        plan = self.study.plan
        server = build_coordinator_app(self._run_study, timeout_s=self.timeout_s)
        client = build_site_app(labs.handler)
        if self.engine == "ray":
            run_on_ray(server, client, nodes=len(plan.sites))
        else:
            run_in_process(server, client, nodes=len(plan.sites), serialise=self.serialise)
        if self._failure is not None:
            raise self._failure

    def _run_study(self, link: SiteLink) -> None:
        self._link = link
        try:
            plan, roster = self.study.plan, None
            keys = link.discover(plan.sites)
            if plan.study.secure_aggregation.enabled and self._consortium is not None:
                roster = self._consortium.roster(plan, keys)
            run_study(link, plan, self.progress, self, roster=roster)
        except BaseException as error:
            if threading.current_thread() is threading.main_thread() and not isinstance(error, FedsciError):
                raise
            self._failure = error  # engines differ in what they do with an exception; none gets to see it

    def phase(self, name: str) -> None:
        """Pass on what the coordinator does."""
        self.display.phase(name)

    def round_finished(self, progress: Progress, result: RoundResult) -> None:
        """Write a line of ``metrics.jsonl`` and show it."""
        epsilon = self._epsilon_so_far(result.number)
        measured = result.measured
        line = {
            "round": result.number,
            "metrics": measured.pooled() if measured else None,
            "mean_site": measured.mean_site() if measured else None,
            "sites": result.survivors,
            "dropped": list(result.dropped),
            "epsilon": None if epsilon is None else {"max": epsilon},
            "seconds": round(result.seconds, 6),
        }
        if self.folder is not None:
            self.folder.append_metrics(line)
        self.display.round_finished(progress, result, epsilon)

    def _epsilon_so_far(self, rounds: int) -> float | None:
        plan = self.study.plan
        if not plan.private:
            return None
        parameters = next(iter(self.progress.sites.values())).parameters
        return cost_of(plan, dimension=parameters).epsilon(rounds, self.progress.measurements)

    def _write_model(self) -> None:
        plan, model = self.study.plan, self.progress.model
        if self.folder is None or model is None:
            return
        inputs = next(iter(self.progress.sites.values())).inputs
        about = {
            "study": plan.study.study,
            "plan_digest": plan.digest,
            "rounds_completed": self.progress.rounds_completed,
            "model": plan.study.model.model_dump(mode="json"),
            "inputs": list(schema_of(plan.study).encoded_names),
        }
        self.folder.write_model(model, layout_of(module_for(plan, inputs=inputs)), about)

    def _summary(
        self, status: str, reason: str | None, seconds: float, pooled: dict[str, Metrics | None]
    ) -> dict[str, Any]:
        traffic = self._link.traffic if self._link is not None else Traffic()
        if self._link is not None:
            self.progress.seconds["transport"] = self._link.seconds_codec
        return summarise(
            self.study.plan,
            self.progress,
            engine=self.engine,
            status=status,
            reason=reason,
            seconds_total=seconds,
            traffic=(traffic.up, traffic.down),
            pooled=pooled,
        )

    def _save_what_there_is(self, summary: dict[str, Any]) -> None:
        """Leave a readable folder after a failure; a failure to do so must not hide the first one."""
        if self.folder is None:
            return
        with contextlib.suppress(InputError):
            self.folder.write_json("summary.json", summary)
            if self.progress.rounds_completed:
                self._write_model()


def _ending(planned: int, progress: Progress) -> tuple[str, str]:
    """Return status and reason of a run that came to its end, which budgets may have put before the plan's."""
    short = progress.short_of_budget
    if not short:
        return "completed", ""
    sites = ", ".join(short[:3]) + (f" and {len(short) - 3} more" if len(short) > 3 else "")
    return "stopped_by_budget", f"the privacy budget of {sites} pays for {progress.rounds_allowed} of {planned} rounds"


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
