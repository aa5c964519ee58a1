"""FedBuff: a step of the shared model for every buffer of contributions, without waiting for slow sites.

Nguyen, Malik, Zhan, Yousefpour, Rabbat, Malek, Huba 2022, Federated Learning with Buffered Asynchronous Aggregation
(AISTATS), algorithm 1. A site trains on the model it got last; a buffer of K contributions becomes one step along
``1/K sum s(tau_i) * update_i``, where tau_i is how many models have come since the one that site i trained on, and
``s(tau) = 1 / sqrt(1 + tau)``. The divisor is K, not the sum of the s: a buffer of old contributions is a smaller step.
Here sites count by their public records, as everywhere, so K is the sum of those in the buffer.

A coordinator that sees only a masked sum cannot weight what is in it. So the site itself applies s before it masks:
tau is public, and every site of the buffer is told the same (docs/protocol.md, section 9).

Beside the paper there is one rule more: of any model, a buffer holds the contributions of ``together`` sites or more,
or of none. A coordinator that cheats could else hand all but one site a model on which nothing is learned, and the sum
over all would be the update of that one (Pasquini et al. 2022, Eluding Secure Aggregation via Model Inconsistency).
"""

from dataclasses import dataclass, field

import numpy as np

from fedsci.errors import InputError
from fedsci.strategies.base import MeanStrategy, Vector
from fedsci.strategies.server_optimiser import ServerOptimiser

_MOST_SITES = 10**6


@dataclass(frozen=True, kw_only=True)
class FedBuff(MeanStrategy):
    """Mean of contributions weighted down by their age; works on sums.

    Not plain: a weight below 1 would shrink a site's share of noise as well, and shares are sized to be added whole.

    Attributes:
        buffer: contributions that a buffer waits for; 0: the study's ``min_survivors``.
        together: fewest sites of a buffer that trained on any one model, >= 1; masked studies need more.
    """

    buffer: int
    together: int
    name: str = field(default="fedbuff", init=False)
    plain: bool = field(default=False, init=False)
    keeps: int = field(default=1, init=False)  # the contribution that waits

    def smallest_sum(self, *, sites: int, survivors: int) -> int:
        """Return how many sites trained on any one model, at least: a sum of theirs is what cheating may show.

        Raises:
            InputError: a buffer may hold fewer than that.
        """
        if self.together > survivors:
            raise InputError(
                f"fedbuff: {self.together} sites of a buffer must have one model, and it may hold {survivors}",
                hint=f"together: {survivors} or fewer",
            )
        return self.together

    def age(self, contribution: Vector, staleness: int) -> Vector:
        """Return the contribution times ``1 / sqrt(1 + staleness)``: as it is if the model is the current one."""
        return contribution * np.float32(staleness_weight(staleness))


def staleness_weight(staleness: int) -> float:
    """Return s: what a contribution counts that was trained on the model before ``staleness`` others.

    Raises:
        InputError: it is negative.

    >>> staleness_weight(0), staleness_weight(3)
    (1.0, 0.5)
    """
    if staleness < 0:
        raise InputError(f"no contribution is {staleness} models old")
    return float((1 + staleness) ** -0.5)


def build(*, optimiser: ServerOptimiser, buffer: float = 0, together: float = 3) -> FedBuff:
    """Return the strategy with this server optimiser.

    Raises:
        InputError: an option is no whole number of sites.
    """
    if not 0 <= buffer <= _MOST_SITES or buffer != int(buffer):
        raise InputError(f"fedbuff: buffer {buffer:g} is no number of sites", hint="a whole number; 0: min_survivors")
    if not 1 <= together <= _MOST_SITES or together != int(together):
        raise InputError(f"fedbuff: together {together:g} is no number of sites", hint="a whole number; 3 is usual")
    return FedBuff(optimiser=optimiser, buffer=int(buffer), together=int(together))
