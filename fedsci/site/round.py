"""What a site computes in one round, and the same computation for a lab that trains alone."""

import hashlib
from collections.abc import MutableMapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedsci.config.masking import grid_for
from fedsci.config.plan import Plan
from fedsci.data.table import Table
from fedsci.errors import InputError
from fedsci.names import SiteId
from fedsci.privacy.clipping import clip_rows
from fedsci.privacy.randomness import KeyStream, RandomBytes
from fedsci.secagg import Quantisation
from fedsci.strategies.base import Survivor, WeightedSum
from fedsci.training.accountant import Cost, Share
from fedsci.training.device import Device
from fedsci.training.learner import Learner, Pull
from fedsci.training.models import initial_vector, layout_of
from fedsci.training.noise_share import with_share
from fedsci.training.private import PrivateLearner


@dataclass(frozen=True, kw_only=True, eq=False)
class Contributor:
    """Computes a site's contribution to a round.

    Attributes:
        plan: what was asked.
        name: the site's name; separates the shuffles of sites in studies without privacy.
        learner: model and training records.
        private: the same under differential privacy, or None where the mechanism is ``none``.
        share: this site's share of the noise under the distributed mechanism, else None.
        whole: hides the site as a whole, where that is what the study protects, else None.
    """

    plan: Plan
    name: str
    learner: Learner
    private: PrivateLearner | None
    share: Share | None
    whole: "WholeSite | None" = None

    @cached_property
    def parameters(self) -> int:
        """The model's size, d."""
        return layout_of(self.learner.module).size

    def contribution(
        self,
        received: NDArray[np.float32],
        round_number: int,
        *,
        memory: MutableMapping[str, NDArray[np.float32]],
        steps: int | None = None,
    ) -> NDArray[np.float32] | NDArray[np.int64]:
        """Return what the strategy makes of local training, float32 ``(k,)``.

        Under the distributed mechanism: minus the clipped gradient sum, or the sum of clipped statistics, in steps of
        the share's grid, int64, which only its sum over sites makes private. Where whole sites are protected: the
        clipped update, likewise.

        Without privacy it is the same for the same seed, bit for bit; with privacy its sampling and noise
        come from the operating system and never repeat.

        Args:
            received: what the coordinator sent, float32.
            round_number: 1, 2, ...
            memory: what the strategy keeps at this site from round to round; changed in place.
            steps: of local training without privacy, at most the plan's; the plan's if left out.
        """
        if self.private is not None and self.share is not None:
            if self.plan.strategy.site_work == "statistics":
                return self.private.noised_statistics_share(self.share, grid_for(self.plan))
            return self.private.noised_share(received, self.share, grid_for(self.plan))
        steps = self.plan.local_steps(self.learner.divisor) if steps is None else steps
        work = Work(contributor=self, received=received, number=round_number, memory=memory, steps=steps)
        contribution = self.plan.strategy.contribute(work)
        return contribution if self.whole is None else self.whole.hide(contribution)

    def local_update(
        self, model: NDArray[np.float32], round_number: int, pull: Pull | None, *, steps: int
    ) -> NDArray[np.float32]:
        """Return new minus old weights after a round's local training, float32 ``(d,)``.

        ``steps`` are the most it takes, where the plan lets a round say so.
        """
        training = self.plan.training
        if self.private is not None:
            return self.private.private_update(
                model,
                steps=self.plan.steps_per_round,
                learning_rate=training.learning_rate,
                momentum=training.momentum,
                pull=pull,
            )
        return self.learner.local_update(
            model,
            epochs=training.local_epochs,
            most_steps=steps if self.plan.by_speed else None,
            batch_size=training.batch_size,
            learning_rate=training.learning_rate,
            momentum=training.momentum,
            rng=self._shuffles(round_number),
            pull=pull,
        )

    def gradient(self, model: NDArray[np.float32], round_number: int) -> NDArray[np.float32]:
        """Return the mean gradient at ``model``, float32 ``(d,)``."""
        if self.private is not None:
            return self.private.noisy_mean_gradient(model)
        rate = self.plan.training.sample_rate
        return self.learner.mean_gradient(model, sample_rate=rate, rng=self._shuffles(round_number))

    def statistics(self, round_number: int) -> NDArray[np.float32]:
        """Return the mean of the records' clipped statistics, float32 ``(k,)``."""
        if self.private is not None:
            return self.private.noisy_mean_statistics()
        return self.learner.mean_statistics(
            clipping_norm=self.plan.study.privacy.clipping_norm,
            sample_rate=self.plan.training.sample_rate,
            rng=self._shuffles(round_number),
        )

    def noise(self) -> float:
        """Return the standard deviation of the noise in each number of a private gradient or of statistics; or 0."""
        if self.private is None:
            return 0.0
        summed = self.private.noise_multiplier * self.private.clipping_norm
        return summed / (self.private.sample_rate * self.learner.divisor)

    def _shuffles(self, round_number: int) -> np.random.Generator:
        text = f"fedsci shuffles|{self.plan.study.seed}|{self.name}|{round_number}"
        return np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")))


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """One round at this site, for the site's half of a strategy; see :class:`fedsci.strategies.base.SiteRound`."""

    contributor: Contributor
    received: NDArray[np.float32]
    number: int
    memory: MutableMapping[str, NDArray[np.float32]]
    steps: int

    @property
    def size(self) -> int:
        """The model's parameters."""
        return self.contributor.parameters

    @property
    def position(self) -> int:
        """This site's, among the study's in the order of their names; 0 for a lab that is none of them."""
        sites = self.contributor.plan.sites
        return sites.index(SiteId(self.contributor.name)) if self.contributor.name in sites else 0

    @property
    def learning_rate(self) -> float:
        """Of local training."""
        return self.contributor.plan.training.learning_rate

    @property
    def momentum(self) -> float:
        """Of local training."""
        return self.contributor.plan.training.momentum

    def update(
        self, model: NDArray[np.float32], *, proximal: float = 0.0, correction: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Return new minus old weights after local training, float32 ``(d,)``."""
        pulled = proximal != 0 or correction is not None
        pull = Pull(start=model, proximal=proximal, correction=correction) if pulled else None
        return self.contributor.local_update(model, self.number, pull, steps=self.steps)

    def gradient(self, model: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return minus the mean gradient at ``model``, float32 ``(d,)``."""
        return -self.contributor.gradient(model, self.number)

    def statistics(self) -> NDArray[np.float32]:
        """Return the mean of the records' clipped statistics, private where the study is; float32 ``(k,)``."""
        return self.contributor.statistics(self.number)


@dataclass(frozen=True, kw_only=True, eq=False)
class WholeSite:
    """Hides a site among the others: its update is clipped as a whole and carries a share of noise.

    Neighbouring relation: one site contributes its update, or nothing (McMahan et al. 2018, with the site as the user).
    """

    clipping_norm: float
    share: Share
    grid: Quantisation
    keystream: KeyStream

    def hide(self, update: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the update, of L2 norm at most C, with this site's share of noise; int64 ``(d,)`` grid steps."""
        clipped = clip_rows(update[None], self.clipping_norm)[0]
        return with_share(clipped, self.share, self.grid, keystream=self.keystream)


def contributor(
    plan: Plan,
    name: str,
    table: Table,
    *,
    cost: Cost | None,
    device: Device,
    random_bytes: RandomBytes,
    public_records: int | None = None,
) -> Contributor:
    """Return a contributor over ``table``; with ``cost`` it is private, else not."""
    plan = plan if cost is not None else plan.without_privacy()
    if plan.study.model.normalised and table.rows < 2:
        raise InputError(
            f"batch normalisation needs two training records, and there are {table.rows}",
            hint="the study can set model.normalisation: none",
        )
    learner = Learner(plan=plan, table=table, device=device, public_records=public_records)
    private = share = whole = None
    if cost is not None and cost.share is not None and plan.study.privacy.unit == "site":
        whole = WholeSite(
            clipping_norm=plan.study.privacy.clipping_norm,
            share=cost.share,
            grid=grid_for(plan),
            keystream=KeyStream(random_bytes),
        )
    elif cost is not None:
        share = cost.share
        private = PrivateLearner(
            learner=learner,
            clipping_norm=plan.study.privacy.clipping_norm,
            noise_multiplier=cost.noise_multiplier,
            sample_rate=cost.sample_rate,
            random_bytes=random_bytes,
        )
        # by the public count: a plan chooses how many fit, so whether the usable rows do would tell of gaps, for free
        records = max(table.units, learner.divisor)
        if records > private.most_units:
            raise InputError(
                f"{records} training records are more than {private.most_units}: their sum may be too inexact",
                hint="split the data set between two sites, or use fewer of its records",
            )
    return Contributor(plan=plan, name=name, learner=learner, private=private, share=share, whole=whole)


def train_alone(worker: Contributor) -> NDArray[np.float32]:
    """Return the model after the study's rounds with this one contributor: a lab that does not join.

    Same model, strategy, rounds and budget as the federation. Over the concatenated tables of all labs it
    is the pooled baseline. The model is for comparison and is not released.
    """
    if worker.share is not None or worker.whole is not None:
        raise InputError("a lab that trains alone adds all noise itself")
    strategy = worker.plan.strategy
    state = strategy.start(initial_vector(worker.learner.module, seed=worker.plan.study.seed))
    memory: dict[str, NDArray[np.float32]] = {}
    for number in range(1, worker.plan.training.rounds + 1):
        received, steps = strategy.sends(state), worker.plan.local_steps(worker.learner.divisor)
        work = Work(contributor=worker, received=received, number=number, memory=memory, steps=steps)
        step = worker.contribution(received, number, memory=memory).astype(np.float32, copy=False)
        alone = Survivor(position=work.position, weight=1.0, steps=steps)
        total = WeightedSum(
            vector=step,
            weight=1.0,
            survivors=(alone,),
            each={work.position: step},
            momentum=work.momentum,
            noise=0.0 if strategy.site_work == "local_update" else worker.noise(),
        )
        state = strategy.apply(state, total)
    return strategy.site_model(state.model, memory)
