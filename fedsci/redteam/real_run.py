"""A study run for real with labs that deviate: gates, ledgers, noise, masks, coordinator; budgets of its own.

Only what an attack does not look at is left out: audit log, baselines, checkpoints.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsci.config.plan import Plan
from fedsci.config.study import AuditLogging, Personalise
from fedsci.config.study_file import StudyOnOneMachine
from fedsci.coordinator.decisions import Question
from fedsci.coordinator.progress import Progress, RoundResult
from fedsci.errors import SiteFailed
from fedsci.names import SiteId
from fedsci.redteam.deviating import Deviation, services
from fedsci.simulation.run import SimulatedRun
from fedsci.transport.link import SiteLink
from fedsci.transport.messages import Reply, Request


@dataclass(frozen=True, kw_only=True)
class RealRun:
    """What a run left.

    Attributes:
        summary: as in ``summary.json``.
        models: what the coordinator sent to train on, by round, and what it sent to be measured at the end, which
            stands after the last round; float32 ``(s,)``.
    """

    summary: Mapping[str, Any]
    models: tuple[NDArray[np.float32], ...]


def short(plan: Plan, *, rounds: int) -> Plan:
    """Return the plan with at most so many rounds, and nothing beside training and the last evaluation."""
    study = plan.study
    rounds = min(rounds, plan.training.rounds)
    update = {
        "training": study.training.model_copy(update={"rounds": rounds}),
        "evaluation": study.evaluation.model_copy(update={"baselines": [], "every": rounds}),
        "audit_log": AuditLogging(enabled=False),
        "personalise": Personalise(),
        "checkpoints": [],
        "signers": {},
        "safety_critical": False,
    }
    return replace(plan, study=study.model_copy(update=update))


def run_for_real(study: StudyOnOneMachine, plan: Plan, bad: Mapping[SiteId, Deviation]) -> RealRun:
    """Return what came of a plan over the study's labs, some of which deviate.

    Raises:
        FedsciError: the run did not complete: labs refused, or too few finished a round.
    """
    models: dict[int, NDArray[np.float32]] = {}

    def tap(link: SiteLink) -> SiteLink:
        return _Listening(grid=link.grid, timeout_s=link.timeout_s, models=models)

    with tempfile.TemporaryDirectory(prefix="fedsci-redteam-") as folder:
        run = SimulatedRun(
            study=replace(study, plan=plan),
            engine="local",
            state=None,
            out=Path(folder),
            display=_Nowhere(),
            service=services(bad),
            tap=tap,
        )
        summary = run.run()
    return RealRun(summary=summary, models=tuple(models[number] for number in sorted(models)))


@dataclass(kw_only=True)
class _Listening(SiteLink):
    """Keeps the models that pass."""

    models: dict[int, NDArray[np.float32]] = field(default_factory=dict)

    def ask(self, requests: Mapping[SiteId, Request]) -> dict[SiteId, Reply | SiteFailed]:
        for request in requests.values():
            if request.action == "train" and request.vector is not None:
                self.models[request.integer("round")] = request.model()
            elif request.action == "evaluate" and request.vector is not None:
                self.models[request.integer("rounds") + 1] = request.model()
        return super().ask(requests)


class _Nowhere:
    """Shows nothing."""

    def phase(self, name: str) -> None: ...

    def round_finished(self, progress: Progress, result: RoundResult, epsilon: float | None) -> None: ...

    def waits(self, question: Question, roles: tuple[str, ...], folder: Path) -> None: ...

    def heard(self, text: str) -> None: ...
