"""A study's training without its messages: the labs' real contributions, grid and strategy, summed in the open.

Masks cancel exactly, so the sum is the one that a masked run opens, and a round costs a tenth of it. For attacks on
what becomes of the model, by labs that are told apart; those on messages need the run itself, and those that train the
same study a hundred times over other records take labs together (:mod:`fedsci.redteam.cohort`).
"""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from fedsci.config.masking import grid_for
from fedsci.config.plan import Plan
from fedsci.config.study_file import StudyOnOneMachine
from fedsci.data.table import Table
from fedsci.errors import RoundAborted
from fedsci.names import SiteId
from fedsci.redteam.cohort import labs_of
from fedsci.redteam.deviating import Contribution, Deviation
from fedsci.site.charging import cost_for
from fedsci.site.dataset import SiteData
from fedsci.site.round import Contributor, contributor, train_alone
from fedsci.strategies.base import Survivor, WeightedSum, finite
from fedsci.training.accountant import Cost, noise_of_sum
from fedsci.training.device import CPU
from fedsci.training.evaluation import evaluate
from fedsci.training.metrics import finish, half_range
from fedsci.training.models import initial_vector
from fedsci.training.sums import SumEncoding, step_of


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a study's training came to.

    Attributes:
        model: the shared model, float32 ``(d,)``; None where training broke down, which ends a study.
        memories: what the strategy kept at each lab, for models with a part that stays there.
        norms: of every round's mean contribution, L2, in the strategy's units.
    """

    model: NDArray[np.float32] | None
    memories: Mapping[SiteId, Mapping[str, NDArray[np.float32]]]
    norms: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Together:
    """All labs of a study, in one process.

    Attributes:
        plan: what they were asked.
        labs: every lab's records.
    """

    plan: Plan
    labs: Mapping[SiteId, SiteData]

    @classmethod
    def of(cls, study: StudyOnOneMachine, plan: Plan | None = None) -> "Together":
        """Return the study's labs, with another plan over the same records if one is given."""
        plan = plan or bounded(study)
        return cls(plan=plan, labs=labs_of(study, plan))

    @property
    def cost(self) -> Cost | None:
        """The study's price; None without privacy."""
        return cost_for(self.plan)

    @cached_property
    def honest(self) -> Mapping[SiteId, Contributor]:
        """Every lab as it should be."""
        return {
            site: contributor(
                self.plan,
                site,
                lab.train,
                public_records=lab.train_count,
                cost=self.cost,
                device=CPU,
                random_bytes=os.urandom,
            )
            for site, lab in self.labs.items()
        }

    @cached_property
    def weights(self) -> Mapping[SiteId, float]:
        """Each lab's public share in a sum, as the coordinator has it."""
        cost, counts = self.cost, {site: lab.train_count for site, lab in self.labs.items()}
        if cost is None or cost.share is None:
            return {site: count / sum(counts.values()) for site, count in counts.items()}
        if self.plan.study.privacy.unit == "site":
            return dict.fromkeys(counts, 1.0)
        return {site: cost.sample_rate * count for site, count in counts.items()}

    def train(self, bad: Mapping[SiteId, Deviation] | None = None) -> Trained:
        """Return the model after the study's rounds, in which these labs deviate and all take part."""
        workers = dict(self.honest)
        for site, deviation in (bad or {}).items():
            workers[site] = deviation(workers[site])
        strategy = self.plan.strategy
        module = next(iter(workers.values())).learner.module
        state = strategy.start(initial_vector(module, seed=self.plan.study.seed))
        memories: dict[SiteId, dict[str, NDArray[np.float32]]] = {site: {} for site in workers}
        norms: list[float] = []
        for number in range(1, self.plan.training.rounds + 1):
            sent = strategy.sends(state)
            try:
                each = {
                    site: worker.contribution(sent, number, memory=memories[site]) for site, worker in workers.items()
                }
                total = self._sum(each)
                norms.append(float(np.linalg.norm(total.vector.astype(np.float64))) / total.weight)
                state = strategy.apply(state, total)
                finite(state.model)
            except RoundAborted:
                return Trained(model=None, memories=memories, norms=tuple(norms))
        return Trained(model=state.model, memories=memories, norms=tuple(norms))

    def measure(self, trained: Trained, records: Mapping[SiteId, Table], *, metric: str | None = None) -> float | None:
        """Return a metric of the model on these labs' records, the study's first if none is named.

        None if there is no model, or the metric is not defined on these records.
        """
        if trained.model is None:
            return None
        sums = []
        for site, table in records.items():
            model = self.plan.strategy.site_model(trained.model, trained.memories[site])
            sums.append(evaluate(self.plan, model, table, device=CPU))
        return finish(reduce(add, sums), half_range=half_range(self.plan.study)).get(metric or self.plan.metrics[0])

    def alone(self, sites: Collection[SiteId]) -> float | None:
        """Return the study's first metric of what these labs reach alone, on their own holdouts.

        Without privacy: nothing of it leaves the lab. None where a lab's training breaks down.
        """
        sums = []
        for site in sites:
            lab = self.labs[site]
            worker = contributor(self.plan, site, lab.train, cost=None, device=CPU, random_bytes=os.urandom)
            try:
                sums.append(evaluate(self.plan, train_alone(worker), lab.holdout, device=CPU))
            except RoundAborted:
                return None
        return finish(reduce(add, sums), half_range=half_range(self.plan.study)).get(self.plan.metrics[0])

    @property
    def holdouts(self) -> Mapping[SiteId, Table]:
        """Every lab's held-out records."""
        return {site: lab.holdout for site, lab in self.labs.items()}

    def _sum(self, each: Mapping[SiteId, Contribution]) -> WeightedSum:
        """Return the sum that the coordinator would open of these contributions."""
        plan, weights, size = self.plan, self.weights, next(iter(each.values())).size
        vector = np.zeros(size, np.float32)
        if plan.study.secure_aggregation.enabled:
            encoding = SumEncoding(grid=grid_for(plan), dimension=size, tables=[], step=step_of(plan, self.cost))
            ring = encoding.grid.ring
            total = ring.zeros(size)
            for site, contribution in each.items():
                weight = 1.0 if contribution.dtype.kind == "i" else weights[site]  # integers are not weighted
                ring.accumulate(total, encoding.encode(contribution, [], weight=weight)[0])
            vector = encoding.decode(ring.to_signed(total))[0]
        else:
            for site, contribution in each.items():
                vector += (contribution * np.float32(weights[site])).astype(np.float32)
        noise = 0.0
        if plan.strategy.site_work != "local_update":
            counts = [(weights[site], self.labs[site].train_count) for site in each]
            noise = noise_of_sum(self.cost, clipping_norm=plan.study.privacy.clipping_norm, contributions=counts)
        places = {site: place for place, site in enumerate(plan.sites)}
        seen = {places[site]: found.astype(np.float32) for site, found in each.items()}
        return WeightedSum(
            vector=vector,
            weight=sum(weights[site] for site in each),
            survivors=tuple(
                Survivor(
                    position=places[site],
                    weight=weights[site],
                    steps=plan.local_steps(self.labs[site].train_count),
                )
                for site in each
            ),
            each=seen if plan.strategy.sees == "each" else None,
            momentum=plan.training.momentum,
            noise=noise,
        )


def bounded(study: StudyOnOneMachine) -> Plan:
    """Return the study's plan; one that would measure its scaling first is scaled by its public bounds instead."""
    plan = study.plan
    if not plan.awaits_scaling:
        return plan
    return replace(plan, study=plan.study.model_copy(update={"scaling": "bounds"}))
