"""One run of a study under audit: through gates, ledgers, masks and coordinator, on ledgers of its own."""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedsci.config.plan import Plan
from fedsci.config.study_file import StudyOnOneMachine
from fedsci.coordinator.aggregation import Collected
from fedsci.coordinator.decisions import Question
from fedsci.coordinator.progress import Progress, RoundResult
from fedsci.errors import InputError, RoundAborted
from fedsci.names import SiteId
from fedsci.redteam.audited_lab import Auditor
from fedsci.redteam.canaries import Canaries, columns_of, plant
from fedsci.redteam.notes import Notes
from fedsci.simulation.run import SimulatedRun
from fedsci.strategies.base import BufferedStrategy
from fedsci.training.accountant import Cost, cost_of
from fedsci.training.learner import module_for
from fedsci.training.models import layout_of
from fedsci.training.schema import schema_of

_MOST_NUMBERS: Final = 20_000_000  # that are kept of a run


@dataclass(frozen=True, kw_only=True, eq=False)
class AuditedRun:
    """A finished run, as its auditor saw it.

    Attributes:
        plan: what was run.
        cost: the study's price, as its sites reckon it.
        notes: what happened at the sites.
        canaries: of each site.
        columns: the coordinates that were looked at.
        sums: round -> what the coordinator got of these coordinates, in the contribution's units.
        survivors: round -> whose contributions are in it.
        weights: each site's public share in a sum of contributions that carry their own noise.
        honest: sites whose noise is counted on; what the others add is known to the adversary.
        summary: as the run wrote it.
    """

    plan: Plan
    cost: Cost
    notes: Notes
    canaries: Mapping[SiteId, Canaries]
    columns: NDArray[np.int64]
    sums: Mapping[int, NDArray[np.float64]]
    survivors: Mapping[int, tuple[SiteId, ...]]
    weights: Mapping[SiteId, float]
    honest: tuple[SiteId, ...]
    summary: Mapping[str, Any]

    @property
    def rounds(self) -> int:
        """How many were applied."""
        return len(self.sums)

    @property
    def shared(self) -> bool:
        """Whether noise is shared out between sites; else every site's own release is to be private."""
        return self.cost.share is not None

    @property
    def epsilon(self) -> float:
        """The least that the study, or the ledger of any site that took part, says was charged.

        For adding or removing one record, or what else the study protects.
        """
        study = self.plan.study.privacy.epsilon
        by_site = self.summary["privacy"]["by_site"]
        spent = [by_site[site]["epsilon_spent_study"] for site in self.honest]
        return float(min(value for value in [study, *spent] if value is not None))


def plan_of_audit(study: StudyOnOneMachine) -> StudyOnOneMachine:
    """Return the study without what tells nothing of its privacy and takes time.

    Raises:
        InputError: there is no epsilon to audit, or rounds that are not sums of what is trained in them.
    """
    plan = study.plan
    if not plan.private:
        raise InputError(
            "the study promises no epsilon (privacy.mechanism: none): there is nothing to audit",
            hint="fedsci redteam attacks what else it claims",
        )
    if isinstance(plan.strategy, BufferedStrategy) or plan.by_speed:
        raise InputError(
            f"{plan.strategy.name}: rounds that need a clock cannot be audited", hint="audit it with strategy=fedavg"
        )
    if plan.awaits_scaling:
        raise InputError(
            "a scaling that is measured first is a study of its own",
            hint="audit the study with --set preprocessing=..., or with bounds in its features",
        )
    evaluation = plan.study.evaluation.model_copy(update={"baselines": []})
    changes: dict[str, Any] = {"evaluation": evaluation, "checkpoints": []}
    changes["audit_log"] = plan.study.audit_log.model_copy(update={"enabled": False})
    return replace(study, plan=replace(plan, study=plan.study.model_copy(update=changes)))


def audited_run(
    study: StudyOnOneMachine, rng: np.random.Generator, *, told: Callable[[str], None] = lambda text: None
) -> AuditedRun:
    """Run the study once, under audit.

    Under shared noise as few sites survive as may, and as many of them collude as the study counts on: the noise of
    all others is what its epsilon rests on. Half-way every site loses what it holds in memory.

    Args:
        study: see :func:`plan_of_audit`.
        rng: tosses the canaries' coins; no guarantee rests on it.
        told: hears how far it is.

    A run that its coordinator ends since no honest labs have such sums is looked at as far as it came.

    Raises:
        FedsciError: the run did not complete.
    """
    plan = study.plan
    dimension = layout_of(module_for(plan, inputs=schema_of(plan.study).width)).size
    cost, width = cost_of(plan, dimension=dimension), plan.release_size(dimension)
    absent, colluding, honest = _roles(plan, cost, rng)
    releases = len(honest) * plan.training.rounds * plan.steps_per_round
    columns = columns_of(width, rng, most=_MOST_NUMBERS // releases)
    canaries = plant(honest, columns, rng, each=cost.share is None)
    nothing = plant((*absent, *colluding), columns[:0], rng, each=True)
    notes = Notes()
    auditor = Auditor(
        notes=notes,
        canaries={**canaries, **nothing},
        columns=columns,
        absent=frozenset(absent),
        restarts=frozenset({plan.training.rounds // 2 + 1} - {1}),
    )
    sums: dict[int, NDArray[np.float64]] = {}
    survivors: dict[int, tuple[SiteId, ...]] = {}

    def summed(number: int, collected: Collected) -> None:
        sums[number], survivors[number] = collected.contribution[columns].astype(np.float64), collected.survivors
        told(f"round {number} of {plan.training.rounds}")

    with tempfile.TemporaryDirectory(prefix="fedsci-audit-") as folder:
        run = SimulatedRun(
            study=study,
            engine="local",
            state=Path(folder) / "state",
            out=Path(folder),
            display=Unseen(),
            service=auditor.lab,
            summed=summed,
        )
        try:
            summary = run.run()
        except RoundAborted:
            if not sums or run.folder is None:
                raise
            told("the run was ended for its sums: they are looked at all the same")
            summary = json.loads((run.folder.path / "summary.json").read_bytes())
    records = {site: said.train for site, said in run.progress.sites.items()}
    return AuditedRun(
        plan=plan,
        cost=cost,
        notes=notes,
        canaries=canaries,
        columns=columns,
        sums=sums,
        survivors=survivors,
        weights={site: count / sum(records.values()) for site, count in records.items()},
        honest=honest,
        summary=summary,
    )


def _roles(
    plan: Plan, cost: Cost, rng: np.random.Generator
) -> tuple[tuple[SiteId, ...], tuple[SiteId, ...], tuple[SiteId, ...]]:
    """Return who is missing, who colludes, and whose noise is left: the fewest that the study counts on, by lot."""
    if cost.share is None:
        return (), (), plan.sites
    survivors, colluding = plan.min_survivors, plan.study.privacy.colluding_sites
    drawn = [plan.sites[at] for at in rng.permutation(len(plan.sites))]
    ends = (len(drawn), survivors, survivors - colluding, 0)
    absent, colluders, honest = (tuple(sorted(drawn[low:high])) for high, low in pairwise(ends))
    return absent, colluders, honest


class Unseen:
    """Shows nothing of a run."""

    def phase(self, name: str) -> None:
        """A phase began."""

    def round_finished(self, progress: Progress, result: RoundResult, epsilon: float | None) -> None:
        """A round is over."""

    def waits(self, question: Question, roles: tuple[str, ...], folder: Path) -> None:
        """Nobody is asked in an audit."""

    def heard(self, text: str) -> None:
        """Nobody answers, either."""
