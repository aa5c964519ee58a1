"""FedYogi: FedAvg's mean update, with Yogi at the coordinator.

Reddi et al. 2021, Adaptive Federated Optimization (ICLR), algorithm 2. The second moment moves by a fixed share of
the squared update towards it, so that one large round does not shrink the steps of many after it.
"""

from dataclasses import dataclass, field, replace

from fedsci.strategies.base import MeanStrategy
from fedsci.strategies.server_optimiser import ServerOptimiser


@dataclass(frozen=True, kw_only=True)
class FedYogi(MeanStrategy):
    """Weighted mean of local updates, taken as a direction by Yogi; works on sums."""

    name: str = field(default="fedyogi", init=False)


def build(*, optimiser: ServerOptimiser) -> FedYogi:
    """Return the strategy with this server optimiser's numbers; its kind is always ``yogi``."""
    return FedYogi(optimiser=replace(optimiser, kind="yogi"))
