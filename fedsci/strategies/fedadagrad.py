"""FedAdagrad: FedAvg's mean update, with Adagrad at the coordinator.

Reddi et al. 2021, Adaptive Federated Optimization (ICLR), algorithm 2. Squared updates add up, so steps only shrink.
"""

from dataclasses import dataclass, field, replace

from fedsci.strategies.base import MeanStrategy
from fedsci.strategies.server_optimiser import ServerOptimiser


@dataclass(frozen=True, kw_only=True)
class FedAdagrad(MeanStrategy):
    """Weighted mean of local updates, taken as a direction by Adagrad; works on sums."""

    name: str = field(default="fedadagrad", init=False)


def build(*, optimiser: ServerOptimiser) -> FedAdagrad:
    """Return the strategy with this server optimiser's numbers; its kind is always ``adagrad``."""
    return FedAdagrad(optimiser=replace(optimiser, kind="adagrad"))
