"""Labs that do not do what the plan asks: the lie is in what they compute, everything else is the real site.

A deviating lab passes its own gate, charges its own ledger and masks as all do. What it masks is its own affair:
nobody sees it, and no privacy of others rests on it being honest, but for its share of the noise.
"""

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsci.config.masking import grid_for
from fedsci.config.site import Site
from fedsci.data.table import Table
from fedsci.errors import InputError
from fedsci.names import SiteId
from fedsci.privacy.clipping import clip_rows
from fedsci.secagg import Quantisation
from fedsci.site.round import Contributor, WholeSite
from fedsci.site.service import SiteService
from fedsci.site.upload import ActiveRun
from fedsci.training.accountant import Share
from fedsci.training.models import load_vector
from fedsci.training.private import PrivateLearner

Contribution = NDArray[np.float32] | NDArray[np.int64]
Deviation = Callable[[Contributor], Contributor]
"""Makes a lab's dishonest self of its honest one."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One round, as a lab is asked for it.

    Attributes:
        honest: what the lab would compute with, if it were honest.
        received: what the coordinator sent, float32.
        number: the round, 1, 2, ...
        memory: what the strategy keeps at this lab.
        steps: of local training; None: the plan's.
    """

    honest: Contributor
    received: NDArray[np.float32]
    number: int
    memory: MutableMapping[str, NDArray[np.float32]]
    steps: int | None

    def honestly(self) -> Contribution:
        """Return what an honest lab would send."""
        return self.honest.contribution(self.received, self.number, memory=self.memory, steps=self.steps)


@dataclass(frozen=True, kw_only=True, eq=False)
class Deviating(Contributor):
    """A contributor that sends what ``act`` says instead of what it was asked for.

    Attributes:
        honest: its honest self.
        act: one round's contribution, of the width and type that an honest one has.
    """

    honest: Contributor
    act: Callable[[Asked], Contribution]

    def contribution(
        self,
        received: NDArray[np.float32],
        round_number: int,
        *,
        memory: MutableMapping[str, NDArray[np.float32]],
        steps: int | None = None,
    ) -> Contribution:
        """Return the lie."""
        asked = Asked(honest=self.honest, received=received, number=round_number, memory=memory, steps=steps)
        return self.act(asked)


def deviating(worker: Contributor, act: Callable[[Asked], Contribution]) -> Deviating:
    """Return the lab that sends what ``act`` says."""
    same = {field.name: getattr(worker, field.name) for field in fields(Contributor)}
    return Deviating(**same, honest=worker, act=act)


def multiplied(worker: Contributor, factor: float) -> Deviating:
    """Return the lab that sends ``factor`` times its contribution, as far as the grid's bound for one lab goes."""
    bound = grid_for(worker.plan).site_bound

    def act(asked: Asked) -> Contribution:
        honest = asked.honestly()
        if honest.dtype.kind != "i":
            return (np.float32(factor) * honest).astype(np.float32)
        return np.clip(np.rint(factor * honest.astype(np.float64)), -bound, bound).astype(np.int64)

    return deviating(worker, act)


def turned_round(worker: Contributor) -> Deviating:
    """Return the lab that sends minus its contribution, made as long as an honest one could be at most.

    That is the sum of as many gradients of the clipping norm as it has records, and noise: what passes a proof of the
    norm. Minus its contribution as it is, where noise is not shared out.
    """
    share = worker.share if worker.whole is None else worker.whole.share
    if share is None:
        return multiplied(worker, -1.0)
    units = 1.0 if worker.whole is not None else worker.plan.training.sample_rate * worker.learner.divisor
    clipped = worker.plan.study.privacy.clipping_norm * units / share.gamma

    def act(asked: Asked) -> Contribution:
        honest = asked.honestly().astype(np.float64)
        longest = clipped + share.deviation * honest.size**0.5
        lie: NDArray[np.float64] = np.rint(-honest * (longest / max(1.0, float(np.linalg.norm(honest)))))
        return lie.astype(np.int64)

    return deviating(worker, act)


def with_records(worker: Contributor, change: Callable[[Table], Table]) -> Contributor:
    """Return the lab as it would be with other training records; it follows the protocol to the letter."""
    learner = replace(worker.learner, table=change(worker.learner.table))
    private = None if worker.private is None else replace(worker.private, learner=learner)
    return replace(worker, learner=learner, private=private)


def without_noise(worker: Contributor) -> Contributor:
    """Return the lab that leaves out its noise, and clips all the same where noise is shared out.

    Where each lab adds all noise itself, it does not clip either.
    """
    if worker.share is None and worker.whole is None:
        return replace(worker, private=None)
    return opened(worker, [], noised=False)


def opened(worker: Contributor, totals: list[NDArray[np.float64]], *, noised: bool) -> Contributor:
    """Return the lab that also tells what it sums in each round, before noise: appended to ``totals``, ``(d,)``.

    With ``noised`` it adds its share of noise, as it should.

    Raises:
        InputError: noise is not shared out.
    """
    if worker.whole is not None:
        same = {field.name: getattr(worker.whole, field.name) for field in fields(WholeSite)}
        return replace(worker, whole=_OpenedSite(**same, totals=totals, noised=noised))
    if worker.private is None or worker.share is None:
        raise InputError("the study's noise is not shared out")
    same = {field.name: getattr(worker.private, field.name) for field in fields(PrivateLearner)}
    return replace(worker, private=_OpenedLearner(**same, totals=totals, noised=noised))


@dataclass(frozen=True, kw_only=True, eq=False)
class _OpenedLearner(PrivateLearner):
    totals: list[NDArray[np.float64]]
    noised: bool

    def noised_share(self, vector: NDArray[np.float32], share: Share, grid: Quantisation) -> NDArray[np.int64]:
        if self.noised:
            return super().noised_share(vector, share, grid)
        load_vector(self.learner.module, vector)
        return _steps(-self._sampled_sum(), share)

    def noised_statistics_share(self, share: Share, grid: Quantisation) -> NDArray[np.int64]:
        if self.noised:
            return super().noised_statistics_share(share, grid)
        return _steps(self._sampled_statistics(), share)

    def _sampled_sum(self) -> NDArray[np.float64]:
        total = super()._sampled_sum()
        self.totals.append(-total)  # what is sent is minus the gradient
        return total

    def _sampled_statistics(self) -> NDArray[np.float64]:
        total = super()._sampled_statistics()
        self.totals.append(total)
        return total


@dataclass(frozen=True, kw_only=True, eq=False)
class _OpenedSite(WholeSite):
    totals: list[NDArray[np.float64]]
    noised: bool

    def hide(self, update: NDArray[np.float32]) -> NDArray[np.int64]:
        clipped = clip_rows(update[None], self.clipping_norm)[0]
        self.totals.append(clipped)
        return super().hide(update) if self.noised else _steps(clipped, self.share)


def _steps(total: NDArray[np.float64], share: Share) -> NDArray[np.int64]:
    return np.rint(total / share.gamma).astype(np.int64)


class DeviatingSite(SiteService):
    """A real site whose contributions are not what the plan asks for.

    Args:
        site, state: as for a site.
        deviation: what it does instead.
    """

    def __init__(self, site: Site, state: Path, deviation: Deviation) -> None:
        super().__init__(site, state)
        self._deviation = deviation

    def _activate(self, *given: Any) -> ActiveRun:
        active = super()._activate(*given)
        return replace(active, worker=self._deviation(active.worker))


def services(bad: Mapping[SiteId, Deviation]) -> Callable[[Site, Path], SiteService]:
    """Return what makes a simulated run's labs: these deviate, the others are real sites.

    All of them say yes to any study, also without an audit log, which takes time and sees no lie.
    """

    def make(site: Site, state: Path) -> SiteService:
        if site.policy is not None:
            willing = site.policy.model_copy(update={"unlogged_studies": True, "approval": "auto"})
            site = site.model_copy(update={"policy": willing})
        deviation = bad.get(SiteId(site.site))
        return SiteService(site, state) if deviation is None else DeviatingSite(site, state, deviation)

    return make
