"""What a study leaves behind, whatever engine runs it: a run folder that is readable at any moment."""

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fedsci.config.plan import Plan
from fedsci.coordinator.deciding import Deciding, may_release
from fedsci.coordinator.decisions import Question
from fedsci.coordinator.model_file import layout_for
from fedsci.coordinator.preparation import SignedRoster
from fedsci.coordinator.progress import Progress, RoundResult
from fedsci.coordinator.spread import spread_of
from fedsci.coordinator.study_log import StudyLog
from fedsci.coordinator.summary import SCALING, summarise
from fedsci.errors import FedsciError, InputError
from fedsci.registry.run_folder import RunFolder, create_run_folder
from fedsci.secagg import SigningKey
from fedsci.strategies.fedbn import FedBN
from fedsci.training.accountant import cost_of
from fedsci.training.learner import module_for
from fedsci.training.metrics import Metrics
from fedsci.training.models import normalisation_of
from fedsci.training.schema import schema_of
from fedsci.transport.link import SiteLink, Traffic

#: Files of a run folder that the audit log speaks of.
_LOGGED = ("plan.yaml", "metrics.jsonl", "summary.json", "model.safetensors", "model.json")


class Display(Protocol):
    """Shows a run while it goes on."""

    def phase(self, name: str) -> None:
        """A phase began."""

    def round_finished(self, progress: Progress, result: RoundResult, epsilon: float | None) -> None:
        """A round was applied, or abandoned; ``epsilon`` is the largest spent so far at any lab."""

    def waits(self, question: Question, roles: tuple[str, ...], folder: Path) -> None:
        """The run waits for decisions of these roles; none: it waits no more."""

    def heard(self, text: str) -> None:
        """A decision came, and counted or not."""


@dataclass(kw_only=True)
class RunRecord:
    """Watches a study, and writes its run folder.

    Attributes:
        plan: what is run.
        engine: ``local``, ``ray`` or ``flower``.
        folder: where it is written.
        display: shows progress.
        progress: how far the study is.
        link: to the sites, once there is one; its traffic is counted.
        pooled: metrics of baselines on pooled data, where labs are simulated.
        weather: what the simulated labs' machines and lines were like, if the simulation said.
        scaling: the summary of the pass that measured the study's scaling, if there was one.
        scaling_folder: its run folder, which becomes a part of this one when the run is closed.
    """

    plan: Plan
    engine: str
    folder: RunFolder
    display: Display
    progress: Progress = field(default_factory=Progress)
    link: SiteLink | None = None
    pooled: dict[str, Metrics | None] = field(default_factory=dict)
    weather: dict[str, Any] | None = None
    scaling: dict[str, Any] | None = None
    scaling_folder: Path | None = None
    _began: float = field(default_factory=time.monotonic)
    _written: set[int] = field(default_factory=set)
    _log: StudyLog | None = None

    @classmethod
    def begin(cls, plan: Plan, *, engine: str, out: Path, display: Display, progress: Progress) -> "RunRecord":
        """Make the run folder in ``out``.

        Raises:
            InputError: it cannot be made.
        """
        folder = create_run_folder(out, study=plan.study.study, plan_digest=plan.digest)
        return cls(plan=plan, engine=engine, folder=folder, display=display, progress=progress)

    @classmethod
    def reopen(cls, plan: Plan, *, engine: str, folder: Path, display: Display, progress: Progress) -> "RunRecord":
        """Go on with the run folder of a process that ended; a line that it left half written is dropped."""
        record = cls(plan=plan, engine=engine, folder=RunFolder(path=folder), display=display, progress=progress)
        record._written = record.folder.settle_metrics()
        plan_file = folder / "plan.yaml"
        if plan_file.exists():
            record._began -= max(0.0, time.time() - plan_file.stat().st_mtime)  # since the run began
        else:
            record.write_plan()
        return record

    def add_scaling(self, folder: Path) -> None:
        """Take what measured the scaling for a part of this run, and its folder, when the run is closed.

        Until then the pass is a run like any other, so that it is found whatever happens to this one.

        Raises:
            InputError: there is no such run.
        """
        try:
            self.scaling = json.loads((folder / "summary.json").read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{folder} holds no run that measured a scaling: {error}") from None
        self.scaling_folder = folder

    def log(self, key: SigningKey, roster: SignedRoster | None) -> StudyLog | None:
        """Return the run's audit log, if the study is logged."""
        if not self.plan.study.audit_log.enabled:
            return None
        signed, signer = (b"", b"") if roster is None else (roster.content, roster.consortium_key)
        self._log = StudyLog(folder=self.folder, plan=self.plan, key=key, roster=signed, consortium=signer)
        return self._log

    def write_plan(self) -> None:
        """Write ``plan.yaml``."""
        self.folder.write_plan(self.plan.to_json() | {"digest": self.plan.digest})

    def phase(self, name: str) -> None:
        """Pass on what the coordinator does."""
        self.display.phase(name)

    def round_finished(self, progress: Progress, result: RoundResult) -> None:
        """Write a line of ``metrics.jsonl`` and show it; once for every round."""
        if result.number in self._written:
            return
        self._written.add(result.number)
        epsilon = self._epsilon_so_far(result.number)
        measured, traffic, virtual = result.measured, result.traffic, result.virtual_seconds
        self.folder.append_metrics(
            {
                "round": result.number,
                "metrics": measured.pooled() if measured else None,
                "mean_site": measured.mean_site() if measured else None,
                "spread": spread_of(measured, self.plan),
                "sites": result.survivors,
                "dropped": list(result.dropped),
                "epsilon": None if epsilon is None else {"max": epsilon},
                "seconds": None if result.seconds is None else round(result.seconds, 6),
                "traffic_bytes": None if traffic is None else {"up": traffic[0], "down": traffic[1]},
                "norm": None if result.norm is None else result.norm.to_json(),
            }
            | ({"abandoned": True} if result.abandoned else {})
            | ({} if virtual is None else {"virtual_seconds": round(virtual, 6)})
        )
        self.display.round_finished(progress, result, epsilon)

    def deciding(self, pause: Callable[[float], None] = time.sleep) -> Deciding:
        """Return what holds the run at its checkpoints; ``pause`` waits so many seconds, and may end the wait."""
        return Deciding(
            plan=self.plan, folder=self.folder.path, shows=self.display, epsilon=self._epsilon_so_far, pause=pause
        )

    def write_model(self) -> None:
        """Write the model of the last applied round, or the statistics in its place, if there is one to be released.

        Where people decide on the release, there is none before they have agreed to this very model.
        """
        plan, model = self.plan, self.progress.model
        if model is None or not may_release(plan, self.progress):
            return
        about = {
            "study": plan.study.study,
            "plan_digest": plan.digest,
            "rounds_completed": self.progress.rounds_completed,
            "model": plan.study.model.model_dump(mode="json"),
            "inputs": list(schema_of(plan.study).encoded_names),
        }
        if not plan.makes_model:
            about["model"] = None
        elif isinstance(plan.strategy, FedBN):  # what the file holds of these is where all labs began
            inputs = next(iter(self.progress.sites.values())).inputs
            about["kept_at_labs"] = list(normalisation_of(module_for(plan, inputs=inputs)))
        self.folder.write_model(model, layout_for(plan, self.progress), about)

    def ending(self) -> tuple[str, str]:
        """Return status and reason of a study that came to its end, which budgets may have put before the plan's."""
        planned, short = self.plan.training.rounds, self.progress.short_of_budget
        if not short:
            return "completed", ""
        sites = ", ".join(short[:3]) + (f" and {len(short) - 3} more" if len(short) > 3 else "")
        allowed = self.progress.rounds_allowed
        return "stopped_by_budget", f"the privacy budget of {sites} pays for {allowed} of {planned} rounds"

    def close(self, status: str, reason: str) -> dict[str, Any]:
        """Write ``summary.json`` and return it.

        After a failure also the model, and a failure to write does not hide the first one.
        """
        if self.scaling_folder is not None:
            with contextlib.suppress(InputError):
                self.folder.adopt(self.scaling_folder, SCALING)
        traffic = self.link.traffic if self.link is not None else Traffic()
        if self.link is not None:
            self.progress.seconds["transport"] = self.link.seconds_codec
        summary = summarise(
            self.plan,
            self.progress,
            engine=self.engine,
            status=status,
            reason=reason or None,
            seconds_total=time.monotonic() - self._began,
            traffic=(traffic.up, traffic.down),
            pooled=self.pooled,
            scaling=self.scaling,
        )
        if self.link is not None and self.link.virtual_seconds is not None:
            summary |= {"virtual_hours": round(self.link.virtual_seconds / 3600, 9), "weather": self.weather}
        if status != "aborted":
            self.folder.write_json("summary.json", summary)
            self._close_log()
            return summary
        with contextlib.suppress(InputError):
            self.folder.write_json("summary.json", summary)
            if self.progress.rounds_completed:
                self.write_model()
        with contextlib.suppress(FedsciError):
            self._close_log()
        return summary

    def _close_log(self) -> None:
        """Log what the run leaves: no byte of it may change any more."""
        if self._log is not None:
            self._log.close(self.folder.contents(_LOGGED))

    def _epsilon_so_far(self, rounds: int) -> float | None:
        if not self.plan.private:
            return None
        parameters = next(iter(self.progress.sites.values())).parameters
        own = cost_of(self.plan, dimension=parameters).epsilon(rounds, self.progress.measurements) if rounds else 0.0
        if self.scaling is None:
            return own
        return own + max(float(said["epsilon_spent_study"]) for said in self.scaling["privacy"]["by_site"].values())
