"""FedAvg: sites train locally, the coordinator averages their updates by record count.

McMahan, Moore, Ramage, Hampson, Aguera y Arcas 2017, Communication-Efficient Learning of Deep Networks
from Decentralized Data (AISTATS), algorithm 1. The mean update is taken as a direction by the server
optimiser (Reddi et al. 2021); with ``sgd``, learning rate 1 and no momentum it is FedAvg itself.
"""

from dataclasses import dataclass, field

from fedsci.strategies.base import MeanStrategy
from fedsci.strategies.server_optimiser import ServerOptimiser


@dataclass(frozen=True, kw_only=True)
class FedAvg(MeanStrategy):
    """Weighted mean of local updates; works on sums."""

    name: str = field(default="fedavg", init=False)


def build(*, optimiser: ServerOptimiser) -> FedAvg:
    """Return the strategy with this server optimiser."""
    return FedAvg(optimiser=optimiser)
