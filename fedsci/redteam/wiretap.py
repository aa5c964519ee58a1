"""A real run, read along: what passes between coordinator and labs, and beside it what the labs did not show.

Policies are opened, so that the same labs take part with their protection off; state is fresh, so that no budget is
spent.
"""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsci.config.plan import Plan
from fedsci.config.site import Policy, Site
from fedsci.config.study_file import StudyOnOneMachine
from fedsci.coordinator.decisions import Question
from fedsci.coordinator.progress import Progress, RoundResult
from fedsci.data.table import Table
from fedsci.errors import SiteFailed
from fedsci.names import SiteId
from fedsci.simulation.run import SimulatedRun
from fedsci.site.masking import SiteMasking
from fedsci.site.permit import Permit
from fedsci.site.round import contributor
from fedsci.site.service import SiteService
from fedsci.site.upload import ActiveRun, Upload
from fedsci.training.accountant import Cost
from fedsci.training.device import CPU
from fedsci.transport.link import SiteLink
from fedsci.transport.messages import Reply, Request

Key = tuple[SiteId, int]


@dataclass(kw_only=True)
class Heard:
    """A run's rounds, by lab and round.

    Attributes:
        received: the model that came with a round's request, by round.
        uploads: what a lab sent, as it passed over the line: ring elements, or floats where nothing masks them.
        hidden: what it was before it was masked: floats, or integers in steps of the noise. Nobody sees it.
        tables: the labs' training records. Nobody sees them.
        alike: all training records that a lab holds, also those that it leaves out.
        counts: the labs' public counts of them.
    """

    received: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    uploads: dict[Key, NDArray[Any]] = field(default_factory=dict)
    hidden: dict[Key, NDArray[Any]] = field(default_factory=dict)
    tables: dict[SiteId, Table] = field(default_factory=dict)
    alike: dict[SiteId, Table] = field(default_factory=dict)
    counts: dict[SiteId, int] = field(default_factory=dict)


@dataclass(kw_only=True)
class Wiretap(SiteLink):
    """The line, with somebody on it."""

    heard: Heard

    def ask(self, requests: Mapping[SiteId, Request]) -> dict[SiteId, Reply | SiteFailed]:
        """Send and return as ever, and note down the uploads of rounds."""
        replies = super().ask(requests)
        for site, request in requests.items():
            reply = replies[site]
            if request.action == "train" and isinstance(reply, Reply) and reply.vector is not None:
                number = request.integer("round")
                self.heard.uploads[site, number] = np.array(reply.vector)
                self.heard.received[number] = request.model()
        return replies


class WatchedLab(SiteService):
    """A lab that does as ever, over all its records or its first few, and lets it be seen what it masks.

    Args:
        site: its file.
        state: its state folder.
        heard: what is seen goes there.
        records: how many of its training records it uses; all if left out.
    """

    def __init__(self, site: Site, state: Path, *, heard: Heard, records: int | None = None) -> None:
        super().__init__(site, state)
        self._heard, self._few = heard, records

    def _activate(
        self,
        plan: Plan,
        policy: Policy,
        cost: Cost | None,
        masking: SiteMasking | None,
        content: str,
        permit: Permit,
    ) -> ActiveRun:
        active = super()._activate(plan, policy, cost, masking, content, permit)
        name = SiteId(self.site.site)
        self._heard.alike[name] = active.data.train
        if self._few is not None:
            table = active.data.train.where(np.arange(active.data.train.rows) < self._few)
            worker = contributor(
                plan, name, table, public_records=table.units, cost=cost, device=CPU, random_bytes=os.urandom
            )
            active = replace(active, data=replace(active.data, train=table, train_count=table.units), worker=worker)
        self._heard.tables[name], self._heard.counts[name] = active.data.train, active.data.train_count
        return active

    def _send(self, upload: Upload, contribution: Any, metrics: Any, fields: dict[str, Any]) -> Reply:
        if upload.request.action == "train":
            self._heard.hidden[SiteId(self.site.site), upload.request.integer("round")] = np.array(contribution)
        return super()._send(upload, contribution, metrics, fields)


class _Unseen:
    """Shows nothing, and is never asked to decide."""

    def phase(self, name: str) -> None: ...

    def round_finished(self, progress: Progress, result: RoundResult, epsilon: float | None) -> None: ...

    def waits(self, question: Question, roles: tuple[str, ...], folder: Path) -> None: ...

    def heard(self, text: str) -> None: ...


def read_along(study: StudyOnOneMachine, *, records: int | None = None) -> Heard:
    """Return what passed in a run of the study as its plan says; each lab has so many records, or all of its own.

    Raises:
        FedsciError: the run did not complete.
    """
    heard = Heard()

    def lab(site: Site, state: Path) -> SiteService:
        return WatchedLab(opened(site, study.plan), state, heard=heard, records=records)

    def tap(link: SiteLink) -> SiteLink:
        return Wiretap(heard=heard, **{each.name: getattr(link, each.name) for each in fields(SiteLink)})

    with tempfile.TemporaryDirectory(prefix="fedsci-redteam-") as folder:
        run = SimulatedRun(
            study=study, engine="local", state=None, out=Path(folder), display=_Unseen(), service=lab, tap=tap
        )
        run.run()
    return heard


def variant(study: StudyOnOneMachine, *, rounds: int, private: bool, masked: bool) -> StudyOnOneMachine:
    """Return the study with less protection, or fewer rounds at the same epsilon, and nothing that takes time besides.

    No audit log, no baselines, nobody who decides, metrics once at most.
    """
    asked = study.plan.study
    update: dict[str, Any] = {
        "training": asked.training.model_copy(update={"rounds": rounds}),
        "secure_aggregation": asked.secure_aggregation.model_copy(update={"enabled": masked}),
        "audit_log": asked.audit_log.model_copy(update={"enabled": False}),
        "evaluation": asked.evaluation.model_copy(update={"baselines": [], "every": rounds}),
        "personalise": type(asked.personalise)(),
        "checkpoints": [],
        "signers": {},
        "safety_critical": False,
    }
    if not private:  # all records of every lab are in, so that each has something to lose
        update["training"] = update["training"].model_copy(update={"sample_rate": 1.0})
        update["privacy"] = asked.privacy.model_copy(update={"mechanism": "none", "unit": "record", "group_by": None})
    return replace(study, plan=replace(study.plan, study=asked.model_copy(update=update)))


def opened(site: Site, plan: Plan) -> Site:
    """Return the site with a policy that lets the plan run, and a ledger of its own in its state folder."""
    policy = Policy(
        approval="auto",
        min_cohort=1,
        max_epsilon_per_study=1e6,
        strategies=[plan.recipe.name],
        models=[plan.study.model.name],
        mechanisms=["distributed", "local", "none"],
        unmasked_updates=True,
        unlogged_studies=True,
        min_colluding_sites=0,
    )
    return site.model_copy(
        update={"policy": policy, "ledger": None, "anchor": None, "officer": None, "state": None, "device": "cpu"}
    )
