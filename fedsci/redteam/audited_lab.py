"""A lab under audit: the real service, with canaries among its records and an auditor who sees sums before noise.

Everything that a guarantee rests on is the code that labs run: sampling, clipping, noise, masking, ledger. Replaced
are only where clipped sums come from (canaries are added to them) and the objects that hand them on (they take notes).
"""

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsci.config.site import Site
from fedsci.errors import RoundAborted
from fedsci.names import SiteId
from fedsci.privacy.clipping import SLACK
from fedsci.redteam.audited_learner import AuditedLearner, Release, Retold
from fedsci.redteam.canaries import Canaries
from fedsci.redteam.notes import Measured, Notes, SiteRound, Step
from fedsci.site.round import Contributor, WholeSite
from fedsci.site.service import SiteService
from fedsci.site.upload import ActiveRun, Upload
from fedsci.training.evaluation import bounded_sums
from fedsci.transport.messages import Reply, Request


@dataclass(frozen=True, kw_only=True, eq=False)
class Auditor:
    """What the labs of one audit share.

    Attributes:
        notes: where they are written.
        canaries: of every site.
        columns: the coordinates that are looked at.
        absent: sites that are missing from every round: sums are to be private without them.
        restarts: rounds before which every site forgets what it holds in memory, as after a restart.
    """

    notes: Notes
    canaries: Mapping[SiteId, Canaries]
    columns: NDArray[np.int64]
    absent: frozenset[SiteId]
    restarts: frozenset[int]

    def lab(self, site: Site, state: Path) -> SiteService:
        """Return the service of one lab under audit."""
        return AuditedLab(site, state, self)


class AuditedLab(SiteService):
    """A site's service that keeps notes; its answers are the service's own."""

    def __init__(self, site: Site, state: Path, auditor: Auditor) -> None:
        if site.policy is not None:  # an audit's log proves nothing to anybody, and it releases nothing to be approved
            policy = site.policy.model_copy(update={"unlogged_studies": True, "approval": "auto"})
            site = site.model_copy(update={"policy": policy})
        super().__init__(site, state)
        self._auditor = auditor

    def handle(self, request: Request) -> Reply:
        """Answer as the service does; a site that is to be missing fails to train."""
        if request.action in ("train", "begin") and request.fields.get("round") in self._auditor.restarts:
            self._runs.clear()
        if request.action == "train" and self.site.site in self._auditor.absent:
            return self.failed(request, RoundAborted("missing, as the audit wants it", public="missing"))
        reply = super().handle(request)
        if request.action == "train" and reply.error is None:
            self._note_reply(request, reply)
        return reply

    def _note_reply(self, request: Request, reply: Reply) -> None:
        """Write down whether a reply holds more than an upload does, and what of the upload masks should hide."""
        hidden, highest = "slot" in request.fields, None
        extra = set(reply.fields) - ({"header", "advert", "envelopes"} if hidden else {"metrics"})
        if hidden and reply.vector is not None and reply.vector.dtype.kind == "u":
            bits, kind = 8 * reply.vector.dtype.itemsize, reply.vector.dtype
            highest = (reply.vector[: len(self._auditor.columns)] >> np.array(bits - 8, kind)).astype(np.uint8)
        site, number = SiteId(self.site.site), request.integer("round")
        self._auditor.notes.replied(site, number, extra=", ".join(sorted(extra)), masked=highest)

    def _measure(self, active: ActiveRun, upload: Upload, *args: Any, **rest: Any) -> Any:
        notes, site = self._auditor.notes, SiteId(self.site.site)
        before = len(notes.measurements(site))
        told = super()._measure(active, upload, *args, **rest)
        if active.cost is not None and not active.policy.exact_evaluation and upload.evaluate is not None:
            noised, (sums, exact) = notes.measurements(site)[before:], told
            if exact is not None or any(sent is not None and not _is_noised(sent, noised) for sent in sums):
                notes.left_exactly(f"exact metrics of {site}")
        return told

    def _activate(self, *args: Any) -> ActiveRun:
        active = super()._activate(*args)
        if active.cost is None:
            return active
        site, auditor = SiteId(self.site.site), self._auditor
        worker = _audited(active.worker, site, auditor)
        return _AuditedRun(**_fields(active) | {"worker": worker, "notes": auditor.notes})


@dataclass(frozen=True, kw_only=True, eq=False)
class _AuditedRun(ActiveRun):
    notes: Notes

    def measure_noised(self, model: NDArray[np.float32], *, smallest: int) -> NDArray[np.int64]:
        released = super().measure_noised(model, smallest=smallest)
        if self.cost is not None and self.cost.metric_noise is not None:
            weight, device = smallest / self.data.holdout_count, self.worker.learner.device
            exact = bounded_sums(self.plan, model, self.data.holdout, site_weight=weight, device=device)
            step, one = self.cost.metric_noise.share.gamma, np.zeros(self.data.holdout.rows, np.bool_)
            one[:1] = True
            part = bounded_sums(self.plan, model, self.data.holdout.where(one), site_weight=1.0, device=device)
            found = Measured(
                exact=exact, released=released.astype(np.float64) * step, longest=float(np.linalg.norm(part))
            )
            self.notes.measured(SiteId(self.worker.name), found)
        return released


def _is_noised(sent: NDArray[Any], noised: list[Measured]) -> bool:
    """Return whether what is sent of a holdout is what was noised: whole steps, and as many numbers."""
    return bool(noised) and sent.dtype.kind == "i" and sent.shape == noised[-1].released.shape


@dataclass(frozen=True, kw_only=True, eq=False)
class _AuditedContributor(Contributor):
    """Writes down what left, and whether it follows from what was released inside."""

    site: SiteId
    auditor: Auditor

    def contribution(
        self,
        received: NDArray[np.float32],
        round_number: int,
        *,
        memory: MutableMapping[str, NDArray[np.float32]],
        steps: int | None = None,
    ) -> NDArray[np.float32] | NDArray[np.int64]:
        remembered = {name: memory[name].copy() for name in memory}
        self._take()
        sent = super().contribution(received, round_number, memory=memory, steps=steps)
        releases, columns = self._take(), self.auditor.columns
        done = SiteRound(
            steps=[release.step for release in releases],
            sent=sent[columns].astype(np.float64) if sent.size > columns[-1] else None,
            follows=bool(releases) and self._follows(sent, releases, received, round_number, remembered, steps),
        )
        if isinstance(self.private, AuditedLearner) and round_number in self.auditor.restarts | {1}:
            done.longest, done.apart = self.private.clipping(received[: self.parameters])
        self.auditor.notes.round(self.site, round_number, done)
        return sent

    def _take(self) -> list[Release]:
        if isinstance(self.private, AuditedLearner):
            return self.private.book.take()
        if isinstance(self.whole, _AuditedWhole):
            taken = list(self.whole.releases)
            self.whole.releases.clear()
            return taken
        return []

    def _follows(
        self,
        sent: NDArray[Any],
        releases: list[Release],
        received: NDArray[np.float32],
        number: int,
        memory: MutableMapping[str, NDArray[np.float32]],
        steps: int | None,
    ) -> bool:
        """Return whether the site's half of the strategy makes ``sent`` of the releases alone."""
        if self.private is None:  # a whole site's update is released once
            return len(releases) == 1 and np.array_equal(releases[0].whole, sent)
        known = {f.name: getattr(self.private, f.name) for f in fields(self.private) if f.name in _LEARNER}
        bare = self.private.bare if isinstance(self.private, AuditedLearner) else self.private
        no_record = replace(bare.learner, table=bare.learner.table.where(np.zeros(bare.learner.records, np.bool_)))
        left = [release.whole for release in releases]
        teller = Retold(**known | {"learner": no_record, "releases": left})
        worker = Contributor(
            plan=self.plan, name=self.name, learner=no_record, private=teller, share=self.share, whole=None
        )
        try:
            again = worker.contribution(received, number, memory=memory, steps=steps)
        except IndexError:  # it wants more than was released
            return False
        return not left and np.array_equal(again, sent)


_LEARNER = ("clipping_norm", "noise_multiplier", "sample_rate", "random_bytes")


@dataclass(frozen=True, kw_only=True, eq=False)
class _AuditedWhole(WholeSite):
    """Writes down the clipped update of a whole site, and what was released of it."""

    columns: NDArray[np.int64]
    releases: list[Release]

    def hide(self, update: NDArray[np.float32]) -> NDArray[np.int64]:
        released = super().hide(update)
        norm = float(np.linalg.norm(update.astype(np.float64)))
        bound = self.clipping_norm * (1 - SLACK)
        clipped = update.astype(np.float64) * (min(1.0, bound / norm) if norm > 0 else 1.0)  # the auditor's own
        none = np.zeros(len(self.columns))
        step = Step(
            drawn=np.zeros(1, np.int64),
            units=1,
            data=clipped[self.columns],
            canaries=none,
            released=released[self.columns].astype(np.float64) * self.share.gamma,
        )
        self.releases.append(Release(step=step, whole=released))
        return released


def _audited(worker: Contributor, site: SiteId, auditor: Auditor) -> Contributor:
    """Return the same contributor with canaries and notes."""
    private, whole = worker.private, worker.whole
    if private is not None:
        canaries = auditor.canaries[site]
        private = AuditedLearner(**_fields(private), bare=private, canaries=canaries, columns=auditor.columns)
    if whole is not None:
        whole = _AuditedWhole(**_fields(whole), columns=auditor.columns, releases=[])
    changed = _fields(worker) | {"private": private, "whole": whole}
    return _AuditedContributor(**changed, site=site, auditor=auditor)


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}
