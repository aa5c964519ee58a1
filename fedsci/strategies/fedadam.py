"""FedAdam: FedAvg's mean update, with Adam at the coordinator.

Reddi, Charles, Zaheer, Garrett, Rush, Konecny, Kumar, McMahan 2021, Adaptive Federated Optimization (ICLR),
algorithm 2. No bias correction, as there.
"""

from dataclasses import dataclass, field, replace

from fedsci.strategies.base import MeanStrategy
from fedsci.strategies.server_optimiser import ServerOptimiser


@dataclass(frozen=True, kw_only=True)
class FedAdam(MeanStrategy):
    """Weighted mean of local updates, taken as a direction by Adam; works on sums."""

    name: str = field(default="fedadam", init=False)


def build(*, optimiser: ServerOptimiser) -> FedAdam:
    """Return the strategy with this server optimiser's numbers; its kind is always ``adam``."""
    return FedAdam(optimiser=replace(optimiser, kind="adam"))
