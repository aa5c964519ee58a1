"""FedAvgM: FedAvg's mean update, with momentum at the coordinator.

Hsu, Qi, Brown 2019, Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification,
section 4.3: v = beta * v + mean update, w = w + rate * v.
"""

from dataclasses import dataclass, field, replace

from fedsci.strategies.base import MeanStrategy
from fedsci.strategies.server_optimiser import ServerOptimiser


@dataclass(frozen=True, kw_only=True)
class FedAvgM(MeanStrategy):
    """Weighted mean of local updates, taken as a direction by SGD with momentum; works on sums."""

    name: str = field(default="fedavgm", init=False)


def build(*, optimiser: ServerOptimiser) -> FedAvgM:
    """Return the strategy with this server optimiser's numbers; its kind is always ``sgd``."""
    return FedAvgM(optimiser=replace(optimiser, kind="sgd"))
