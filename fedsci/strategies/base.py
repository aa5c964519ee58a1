"""What every strategy is: what a site does in a round, and how the sum of contributions becomes the next model.

Both halves of an algorithm stand in one module. A site's half turns local training into a contribution; the
coordinator's half turns (state, sum of contributions) into the next state.
"""

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedsci.errors import InputError, RoundAborted
from fedsci.strategies.server_optimiser import OptimiserState, ServerOptimiser, step

Sees = Literal["sum", "each"]
SiteWork = Literal["local_update", "gradient", "statistics"]
Vector = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class StrategyState:
    """The shared model and what the strategy remembers, after ``round`` rounds.

    Attributes:
        round: rounds applied so far.
        model: float32, shape ``(d,)``.
        optimiser: the server optimiser's memory.
        memory: what else the strategy remembers, float32 vectors by name.
    """

    round: int
    model: Vector
    optimiser: OptimiserState
    memory: Mapping[str, Vector] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Survivor:
    """A site whose contribution is in a sum; everything here is public.

    Attributes:
        position: among the study's sites in the order of their names: 0, 1, ...
        weight: its share in the sum.
        steps: local steps it took in the round; 1 for gradients.
    """

    position: int
    weight: float
    steps: int


@dataclass(frozen=True, kw_only=True)
class WeightedSum:
    """The sum of the survivors' contributions, each times its public weight.

    Attributes:
        vector: shape ``(k,)``: sum over survivors of ``weight * contribution``; k is ``Strategy.width`` of the model.
        weight: sum of the survivors' weights, > 0. Weights are public (record counts of the
            data-set records), so dividing by them costs no privacy.
        survivors: who is in it.
        each: the survivors' contributions by position, not weighted; only for strategies that see each.
        momentum: of local training; public.
        noise: standard deviation of the noise in each number of ``vector``, where a round is one noised sum, else 0.
    """

    vector: Vector
    weight: float
    survivors: tuple[Survivor, ...] = ()
    each: Mapping[int, Vector] | None = None
    momentum: float = 0.0
    noise: float = 0.0

    def mean(self) -> Vector:
        """Return the weighted mean of the contributions.

        Raises:
            RoundAborted: if the weight is not positive or the sum holds NaN or infinity (a model
                that has diverged, or a site that sent garbage).
        """
        if not self.weight > 0:
            raise RoundAborted("the cohort's total weight is not positive")
        return finite((self.vector / np.float32(self.weight)).astype(np.float32, copy=False))


def finite(vector: Vector) -> Vector:
    """Return ``vector`` if all of it is finite.

    Raises:
        RoundAborted: it is not.
    """
    if not np.isfinite(vector).all():
        raise RoundAborted(
            "the aggregated update holds NaN or infinity",
            hint="lower training.learning_rate, or look for a site with broken data",
        )
    return vector


class SiteRound(Protocol):
    """One round at a site, as the site's half of a strategy sees it.

    Attributes:
        received: what the coordinator sent: ``Strategy.sends`` of its state, float32.
        size: the model's parameters, d.
        number: the round, 1, 2, ...
        position: of this site among the study's, in the order of their names.
        steps: local steps in this round; public, from the record count, or as the round says.
        learning_rate, momentum: of local training.
        memory: vectors this site keeps for the study from round to round, by name; they never leave it. Changes are
            stored durably before the contribution leaves.
    """

    @property
    def received(self) -> Vector: ...  # noqa: D102

    @property
    def size(self) -> int: ...  # noqa: D102

    @property
    def number(self) -> int: ...  # noqa: D102

    @property
    def position(self) -> int: ...  # noqa: D102

    @property
    def steps(self) -> int: ...  # noqa: D102

    @property
    def learning_rate(self) -> float: ...  # noqa: D102

    @property
    def momentum(self) -> float: ...  # noqa: D102

    @property
    def memory(self) -> MutableMapping[str, Vector]: ...  # noqa: D102

    def update(self, model: Vector, *, proximal: float = 0.0, correction: Vector | None = None) -> Vector:
        """Return new minus old weights after local training, private where the study is; float32 ``(d,)``.

        Args:
            model: where training starts, ``(d,)``.
            proximal: mu of a term ``mu / 2 * |w - model|^2`` added to every step's loss.
            correction: added to every step's gradient, ``(d,)``.
        """
        ...

    def gradient(self, model: Vector) -> Vector:
        """Return minus the mean gradient at ``model``, private where the study is; float32 ``(d,)``."""
        ...

    def statistics(self) -> Vector:
        """Return the mean of the records' clipped statistics, private where the study is; float32 ``(k,)``.

        Raises:
            InputError: the strategy has none.
        """
        ...


class Strategy(Protocol):
    """One federated algorithm. Implementations are frozen and hold public hyper-parameters only.

    Attributes:
        name: its name everywhere (module, recipe, test).
        sees: ``sum``: works on sums, so under secure aggregation; ``each``: must see single updates.
        site_work: what a site computes in a round: ``local_update`` (new minus old weights after local
            training), ``gradient`` (minus the mean gradient at the shared model) or ``statistics`` (of records, in one
            exchange: :mod:`fedsci.strategies.one_exchange`).
        plain: a contribution is that and nothing else, so that noise can be shared out between sites.
        keeps: vectors that a site keeps from round to round, each of the model's size at most.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def sees(self) -> Sees: ...  # noqa: D102

    @property
    def site_work(self) -> SiteWork: ...  # noqa: D102

    @property
    def plain(self) -> bool: ...  # noqa: D102

    @property
    def keeps(self) -> int: ...  # noqa: D102

    def start(self, model: Vector) -> StrategyState:
        """Return the state before the first round."""
        ...

    def sends(self, state: StrategyState) -> Vector:
        """Return what sites get in a round, float32 ``(s,)``."""
        ...

    def sent(self, size: int) -> int:
        """Return s: how many numbers sites get, for a model of ``size`` parameters."""
        ...

    def width(self, size: int) -> int:
        """Return k: how many numbers a contribution has, for a model of ``size`` parameters."""
        ...

    def smallest_sum(self, *, sites: int, survivors: int) -> int:
        """Return the fewest sites that any sum which a round opens may stand for.

        Args:
            sites: in the study.
            survivors: the fewest that finish a round.

        Raises:
            InputError: the strategy cannot work with so few.
        """
        ...

    def contribute(self, work: SiteRound) -> Vector:
        """Return a site's contribution to a round, float32 ``(k,)``; the site's half."""
        ...

    def site_model(self, model: Vector, memory: Mapping[str, Vector]) -> Vector:
        """Return the model that a site measures and uses, float32 ``(d,)``.

        Args:
            model: the shared one, ``(d,)``.
            memory: what the site keeps; see :class:`SiteRound`.
        """
        ...

    def apply(self, state: StrategyState, total: WeightedSum) -> StrategyState:
        """Return the state after one more round; the coordinator's half.

        Raises:
            RoundAborted: the sum is not finite.
        """
        ...


@runtime_checkable
class BufferedStrategy(Strategy, Protocol):
    """A strategy whose rounds are buffers: each sums whoever has finished, while others train on older models.

    Attributes:
        buffer: contributions that a buffer waits for; 0: as many as must finish a round.
        together: fewest sites of a buffer that trained on any one model.
    """

    @property
    def buffer(self) -> int: ...  # noqa: D102

    @property
    def together(self) -> int: ...  # noqa: D102

    def age(self, contribution: Vector, staleness: int) -> Vector:
        """Return what a site sends of a contribution that was made ``staleness`` models ago; the site's half."""
        ...


@dataclass(frozen=True, kw_only=True)
class MeanStrategy:
    """The weighted mean of plain contributions, taken as a direction by a server optimiser.

    Others build on it: they change what a site contributes, or how the direction comes from the sum.

    Attributes:
        uneven_steps: sites that take more steps than others, by choice, do not move the optimum.
    """

    optimiser: ServerOptimiser
    sees: Sees = field(default="sum", init=False)
    site_work: SiteWork = field(default="local_update", init=False)
    plain: bool = field(default=True, init=False)
    keeps: int = field(default=0, init=False)
    uneven_steps: bool = field(default=False, init=False)

    def start(self, model: Vector) -> StrategyState:
        """Return the state before the first round: the given model, nothing remembered."""
        if model.ndim != 1:
            raise InputError(f"a model is one flat vector, not of shape {model.shape}")
        return StrategyState(
            round=0, model=model.astype(np.float32, copy=False), optimiser=OptimiserState.zeros(model.size)
        )

    def sends(self, state: StrategyState) -> Vector:
        """Return the model."""
        return state.model

    def sent(self, size: int) -> int:
        """Return the model's size."""
        return size

    def width(self, size: int) -> int:
        """Return the model's size."""
        return size

    def smallest_sum(self, *, sites: int, survivors: int) -> int:
        """Return the fewest survivors: there is one sum, over all of them."""
        return survivors

    def contribute(self, work: SiteRound) -> Vector:
        """Return the local update, or minus the gradient, as it is."""
        return work.gradient(work.received) if self.site_work == "gradient" else work.update(work.received)

    def stretch(self, *, steps: int, momentum: float, learning_rate: float) -> float | None:
        """Return by what factor a contribution is longer, at most, than what local training alone makes of a site.

        It holds for the part that comes of the data and for that of the noise, so that the length of a sum has a
        public bound. None: no such factor is known; so it is where a strategy contributes something of its own.
        """
        return 1.0 if type(self).contribute is MeanStrategy.contribute else None

    def site_model(self, model: Vector, memory: Mapping[str, Vector]) -> Vector:
        """Return the shared model."""
        return model

    def apply(self, state: StrategyState, total: WeightedSum) -> StrategyState:
        """Return the state after moving along the mean contribution.

        Raises:
            RoundAborted: see :meth:`WeightedSum.mean`.
        """
        return self.move(state, total.mean())

    def move(self, state: StrategyState, direction: Vector, **memory: Vector) -> StrategyState:
        """Return the state one step of the server optimiser along ``direction``, with changes to the memory."""
        model, optimiser = step(self.optimiser, state.optimiser, state.model, direction)
        return StrategyState(round=state.round + 1, model=model, optimiser=optimiser, memory={**state.memory, **memory})
