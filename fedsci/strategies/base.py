"""What every strategy is: a rule that turns (state, sum of the sites' contributions) into the next state."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fedsci.errors import InputError, RoundAborted
from fedsci.strategies.server_optimiser import OptimiserState, ServerOptimiser, step

Sees = Literal["sum", "each"]
SiteWork = Literal["local_update", "gradient"]


@dataclass(frozen=True, kw_only=True)
class StrategyState:
    """The shared model and what the strategy remembers, after ``round`` rounds.

    Attributes:
        round: rounds applied so far.
        model: float32, shape ``(d,)``.
        optimiser: the server optimiser's memory.
    """

    round: int
    model: NDArray[np.float32]
    optimiser: OptimiserState


@dataclass(frozen=True, kw_only=True)
class WeightedSum:
    """The sum of the survivors' contributions, each times its public weight.

    Attributes:
        vector: shape ``(d,)``: sum over survivors of ``weight * contribution``.
        weight: sum of the survivors' weights, > 0. Weights are public (record counts of the
            data-set records), so dividing by them costs no privacy.
    """

    vector: NDArray[np.float32]
    weight: float

    def mean(self) -> NDArray[np.float32]:
        """Return the weighted mean of the contributions.

        Raises:
            RoundAborted: if the weight is not positive or the sum holds NaN or infinity (a model
                that has diverged, or a site that sent garbage).
        """
        if not self.weight > 0:
            raise RoundAborted("the cohort's total weight is not positive")
        mean = (self.vector / np.float32(self.weight)).astype(np.float32, copy=False)
        if not np.isfinite(mean).all():
            raise RoundAborted(
                "the aggregated update holds NaN or infinity",
                hint="lower training.learning_rate, or look for a site with broken data",
            )
        return mean


class Strategy(Protocol):
    """One federated algorithm. Implementations are frozen and hold public hyper-parameters only.

    Attributes:
        name: its name everywhere (module, recipe, test).
        sees: ``sum``: works on sums, so under secure aggregation; ``each``: must see single updates.
        site_work: what a site computes in a round: ``local_update`` (new minus old weights after local
            training) or ``gradient`` (minus the mean gradient at the shared model).
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def sees(self) -> Sees: ...  # noqa: D102

    @property
    def site_work(self) -> SiteWork: ...  # noqa: D102

    def start(self, model: NDArray[np.float32]) -> StrategyState:
        """Return the state before the first round."""
        ...

    def apply(self, state: StrategyState, total: WeightedSum) -> StrategyState:
        """Return the state after one more round."""
        ...


@dataclass(frozen=True, kw_only=True)
class MeanStrategy:
    """The weighted mean of the contributions, taken as a direction by a server optimiser."""

    optimiser: ServerOptimiser

    def start(self, model: NDArray[np.float32]) -> StrategyState:
        """Return the state before the first round: the given model, nothing remembered."""
        if model.ndim != 1:
            raise InputError(f"a model is one flat vector, not of shape {model.shape}")
        return StrategyState(
            round=0, model=model.astype(np.float32, copy=False), optimiser=OptimiserState.zeros(model.size)
        )

    def apply(self, state: StrategyState, total: WeightedSum) -> StrategyState:
        """Return the state after moving along the mean contribution.

        Raises:
            RoundAborted: see :meth:`WeightedSum.mean`.
        """
        model, optimiser = step(self.optimiser, state.optimiser, state.model, total.mean())
        return StrategyState(round=state.round + 1, model=model, optimiser=optimiser)
