"""Labs that train together in the open: the same contributions and strategy step as in a run, and no messages.

For attacks on what a study releases, which need the same study many times over other records.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedsci.config.plan import Plan
from fedsci.config.site import load_site
from fedsci.config.study_file import StudyOnOneMachine
from fedsci.data.table import Table, concatenate
from fedsci.names import SiteId
from fedsci.site.charging import dimension_of
from fedsci.site.dataset import SiteData, load_site_data
from fedsci.site.round import Contributor, contributor
from fedsci.strategies.base import Survivor, WeightedSum
from fedsci.training.accountant import Cost, cost_of
from fedsci.training.device import CPU
from fedsci.training.models import initial_vector

#: A multiplier of noise, for each record in a sum, that changes nothing: the privacy code without its noise.
QUIET = 1e-6


@dataclass(frozen=True, kw_only=True)
class OpenRound:
    """A round as it passes.

    Attributes:
        received: what labs were sent, float32.
        mean: the mean contribution, noise included, float32.
        each: every contribution, by its place; one where labs are taken together.
        model: the shared model after it, float32 ``(d,)``.
    """

    received: NDArray[np.float32]
    mean: NDArray[np.float32]
    each: Mapping[int, NDArray[np.float32]]
    model: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenCohort:
    """A study's labs over any records.

    Where sums over labs are sums over records, all records are one holder's, who adds the noise that counts: that of
    ``min_survivors - colluding_sites`` labs, all that is left to hide a record from who colludes with the others. The
    sum is then distributed as in a run.

    Attributes:
        plan: of the study; :meth:`Plan.without_privacy` takes the noise away.
        tables: each lab's training records.
        counts: each lab's public count of them: what noised sums are divided by.
    """

    plan: Plan
    tables: Sequence[Table]
    counts: Sequence[int]

    @cached_property
    def workers(self) -> Sequence[tuple[Contributor, float]]:
        """Who contributes, and their public shares in the mean."""
        total = sum(self.counts)
        if sums_over_records(self.plan):
            return [(worker_of(self.plan, concatenate(self.tables), records=total), 1.0)]
        names = [*self.plan.sites, *(f"lab-{n}" for n in range(len(self.plan.sites), len(self.tables)))]
        alike = self.plan.private and self.plan.study.privacy.unit == "site"
        return [
            (worker_of(self.plan, table, records=count, name=name), 1 / len(self.tables) if alike else count / total)
            for name, table, count in zip(names, self.tables, self.counts, strict=False)
        ]

    def rounds(self) -> Iterator[OpenRound]:
        """Yield the study's rounds, in which all labs take part.

        Raises:
            RoundAborted: the model diverged.
        """
        strategy, training = self.plan.strategy, self.plan.training
        module = self.workers[0][0].learner.module
        state = strategy.start(initial_vector(module, seed=self.plan.study.seed))
        memories: list[dict[str, NDArray[np.float32]]] = [{} for _ in self.workers]
        noise = math.hypot(*(weight * worker.noise() for worker, weight in self.workers))
        for number in range(1, training.rounds + 1):
            sent = strategy.sends(state)
            each = {
                place: _floats(worker, worker.contribution(sent, number, memory=memories[place]))
                for place, (worker, _) in enumerate(self.workers)
            }
            survivors = tuple(
                Survivor(position=place, weight=weight, steps=self.plan.local_steps(worker.learner.divisor))
                for place, (worker, weight) in enumerate(self.workers)
            )
            total = WeightedSum(
                vector=sum_of(each[one.position] * np.float32(one.weight) for one in survivors),
                weight=1.0,
                survivors=survivors,
                each=each,
                momentum=training.momentum,
                noise=noise if strategy.site_work != "local_update" else 0.0,
            )
            state = strategy.apply(state, total)
            yield OpenRound(received=sent, mean=total.mean(), each=each, model=state.model)

    def released(self) -> NDArray[np.float32]:
        """Return the model that the study releases, float32 ``(d,)``.

        Raises:
            RoundAborted: it diverged.
        """
        *_, last = self.rounds()
        return last.model


def labs_of(study: StudyOnOneMachine, plan: Plan | None = None) -> dict[SiteId, SiteData]:
    """Return every lab's records, under another plan if one is given; which are held out follows from the seed."""
    plan = plan or study.plan
    sites = zip(study.plan.sites, map(load_site, study.site_files), strict=True)
    return {name: load_site_data(plan, site, split_key=b"") for name, site in sites}


def untrainable(plan: Plan) -> str | None:
    """Return why a study cannot be trained in the open, or None."""
    if not plan.makes_model:
        return "the study makes no model"
    if plan.needs_clock is not None:
        return "who is in a round depends on how long labs take"
    if plan.awaits_scaling:
        return "the study's scaling is measured first, and is not known yet"
    return None


def sums_over_records(plan: Plan) -> bool:
    """Return whether a sum over labs is one over records, with noise of its own: then labs can be taken together."""
    strategy, privacy = plan.strategy, plan.study.privacy
    alone = plan.private and (privacy.mechanism == "local" or privacy.unit == "site")
    return strategy.site_work != "local_update" and strategy.plain and strategy.sees == "sum" and not alone


def worker_of(plan: Plan, table: Table, *, records: int, name: str = "lab", quiet: bool = False) -> Contributor:
    """Return a contributor over ``table`` that adds all noise itself; where whole labs are hidden, its share of it.

    With ``quiet`` it clips as the study says, takes all records and adds no noise that shows: what an attacker
    computes who has these records.
    """
    cost: Cost | None = None
    if plan.private:
        cost = cost_of(plan, dimension=dimension_of(plan), alone=plan.study.privacy.unit != "site")
        if quiet and cost.share is None:
            cost = replace(cost, noise_multiplier=QUIET * max(1, table.units), sample_rate=1.0)
    return contributor(plan, name, table, public_records=records, cost=cost, device=CPU, random_bytes=os.urandom)


def sum_of(vectors: Iterator[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the sum of vectors of one length, of which there is at least one."""
    total = next(vectors).copy()
    for vector in vectors:
        total += vector
    return total


def _floats(worker: Contributor, contribution: NDArray[np.float32] | NDArray[np.int64]) -> NDArray[np.float32]:
    share = worker.whole.share if worker.whole is not None else worker.share
    if contribution.dtype.kind == "i" and share is not None:
        return (contribution * share.gamma).astype(np.float32)
    return contribution.astype(np.float32, copy=False)
