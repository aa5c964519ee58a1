"""FedProx: FedAvg with a spring that holds local training near the shared model.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith 2020, Federated Optimization in Heterogeneous Networks (MLSys),
algorithm 2: every local step's loss has ``mu / 2 * |w - model|^2`` added. With mu 0 it is FedAvg.
"""

import math
from dataclasses import dataclass, field

from fedsci.errors import InputError
from fedsci.strategies.base import MeanStrategy, SiteRound, Vector
from fedsci.strategies.server_optimiser import ServerOptimiser


@dataclass(frozen=True, kw_only=True)
class FedProx(MeanStrategy):
    """Weighted mean of local updates that were held back; works on sums.

    Attributes:
        mu: strength of the spring, >= 0. Steps are stable while learning_rate * mu < 2.
    """

    mu: float
    name: str = field(default="fedprox", init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.mu < math.inf:
            raise InputError(f"fedprox: mu {self.mu} is not a number >= 0", hint="0.001 to 1 is usual")

    def contribute(self, work: SiteRound) -> Vector:
        """Return the update of local training with the proximal term."""
        return work.update(work.received, proximal=self.mu)

    def stretch(self, *, steps: int, momentum: float, learning_rate: float) -> float | None:
        """Return 1 where every step's gradient only fades: it is multiplied by ``1 - learning_rate * mu`` a step."""
        return 1.0 if momentum == 0 and learning_rate * self.mu <= 1 else None


def build(*, optimiser: ServerOptimiser, mu: float = 0.01) -> FedProx:
    """Return the strategy with this server optimiser."""
    return FedProx(optimiser=optimiser, mu=mu)
