"""DP-FedSGD: one gradient a round, per-record clipping and noise at the sites, the optimiser at the coordinator.

FedSGD of McMahan et al. 2017 with the per-record clipping and Gaussian noise of Abadi et al. 2016 (Deep
Learning with Differential Privacy, CCS). Only sums of clipped gradients leave a site, so this is the
algorithm whose noise can be shared out between sites. Momentum at the coordinator is post-processing.
"""

from dataclasses import dataclass, field

from fedsci.strategies.base import MeanStrategy, SiteWork
from fedsci.strategies.server_optimiser import ServerOptimiser


@dataclass(frozen=True, kw_only=True)
class DpFedSgd(MeanStrategy):
    """Weighted mean of (clipped, noised) gradients; works on sums."""

    name: str = field(default="dp_fedsgd", init=False)
    site_work: SiteWork = field(default="gradient", init=False)


def build(*, optimiser: ServerOptimiser) -> DpFedSgd:
    """Return the strategy with this server optimiser."""
    return DpFedSgd(optimiser=optimiser)
