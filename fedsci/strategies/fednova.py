"""FedNova: sites that take more local steps do not pull the model further.

Wang, Liu, Liang, Joshi, Poor 2020, Tackling the Objective Inconsistency Problem in Heterogeneous Federated
Optimization (NeurIPS), equations 6 and 8. A site divides its update by the L1 norm of a_i: the gradients that its
steps, with their momentum, add up to. The coordinator multiplies the weighted mean by tau_eff = sum p_i |a_i|, which it
works out from public record counts and the plan. Where all sites take the same steps it is FedAvg.

Steps may also be uneven by choice (``training.pace: by_speed``), so that slow sites finish when fast ones do. Under
privacy every site takes the same number of steps, so FedNova has nothing to mend there.
"""

from dataclasses import dataclass, field

import numpy as np

from fedsci.strategies.base import MeanStrategy, SiteRound, StrategyState, Vector, WeightedSum, finite
from fedsci.strategies.local_steps import step_mass
from fedsci.strategies.server_optimiser import ServerOptimiser


@dataclass(frozen=True, kw_only=True)
class FedNova(MeanStrategy):
    """Weighted mean of updates for each local step, times the mean number of steps; works on sums."""

    name: str = field(default="fednova", init=False)
    plain: bool = field(default=False, init=False)
    uneven_steps: bool = field(default=True, init=False)

    def contribute(self, work: SiteRound) -> Vector:
        """Return the update over what its steps add up to."""
        return work.update(work.received) / np.float32(step_mass(work.steps, work.momentum))

    def stretch(self, *, steps: int, momentum: float, learning_rate: float) -> float | None:
        """Return one over what the steps add up to."""
        return 1 / step_mass(steps, momentum)

    def apply(self, state: StrategyState, total: WeightedSum) -> StrategyState:
        """Return the state after moving along tau_eff times the mean contribution.

        Raises:
            RoundAborted: see :meth:`WeightedSum.mean`.
        """
        mean = total.mean()
        masses = sum(one.weight * step_mass(one.steps, total.momentum) for one in total.survivors)
        return self.move(state, finite(mean * np.float32(masses / total.weight)))


def build(*, optimiser: ServerOptimiser) -> FedNova:
    """Return the strategy with this server optimiser."""
    return FedNova(optimiser=optimiser)
