"""SCAFFOLD: every local step is corrected by how this site's gradient differs from everybody's.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh 2020, SCAFFOLD: Stochastic Controlled Averaging for Federated
Learning (ICML), algorithm 1 with option II. A site keeps its control c_i, the mean gradient of its last round, and
never shows it; the coordinator keeps c, and sends model and c. In a round a site steps along g - c_i + c and then has

    c_i' = c_i - c + (model - w) / (K * learning rate)

where K is what its steps add up to (with momentum more than their number). Means are weighted by record counts, so
that c is the weighted mean of the c_i.

Sites that do not finish. What a site sends is c_i' - c, its new control against the c *that it was sent*, and the
coordinator adds the survivors' weighted sum of it to c. With all sites finishing this is the paper's rule exactly,
because c is then the weighted mean of the c_i. A site that is missing counts as if its control were c. The paper adds
c_i' - c_i instead, which never recovers where a site has stored c_i' but its upload is lost (a dead line, a round the
coordinator gave up): a site cannot know. Here nothing is left of such a loss after the next round that the site
finishes, and a site that stays away fades from c, as it does from the model.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from fedsci.strategies.base import MeanStrategy, SiteRound, StrategyState, Vector, WeightedSum, finite
from fedsci.strategies.local_steps import step_mass
from fedsci.strategies.server_optimiser import ServerOptimiser


@dataclass(frozen=True, kw_only=True)
class Scaffold(MeanStrategy):
    """Weighted mean of corrected updates, beside that of changes of control; works on sums."""

    name: str = field(default="scaffold", init=False)
    plain: bool = field(default=False, init=False)
    keeps: int = field(default=1, init=False)

    def start(self, model: Vector) -> StrategyState:
        """Return the state before the first round: no control yet."""
        state = super().start(model)
        return replace(state, memory={"control": np.zeros_like(state.model)})

    def sends(self, state: StrategyState) -> Vector:
        """Return the model, then the control."""
        return np.concatenate([state.model, state.memory["control"]])

    def sent(self, size: int) -> int:
        """Return twice the model's size."""
        return 2 * size

    def width(self, size: int) -> int:
        """Return twice the model's size."""
        return 2 * size

    def contribute(self, work: SiteRound) -> Vector:
        """Return the corrected update, then the site's new control less the one that was sent."""
        model, control = work.received[: work.size], work.received[work.size :]
        own = work.memory.get("control", np.zeros_like(control))
        update = work.update(model, correction=control - own)
        reach = np.float32(work.learning_rate * step_mass(work.steps, work.momentum))
        work.memory["control"] = new = own - control - update / reach
        return np.concatenate([update, new - control])

    def apply(self, state: StrategyState, total: WeightedSum) -> StrategyState:
        """Return the state after moving along the mean update; the control takes the survivors' changes.

        ``total.weight`` is the survivors' share of all weights: changes are not divided by it, so that a missing site
        counts as one whose control is c.

        Raises:
            RoundAborted: see :meth:`WeightedSum.mean`.
        """
        size, mean = state.model.size, total.mean()
        control = finite(state.memory["control"] + total.vector[size:])
        return self.move(state, mean[:size], control=control)


def build(*, optimiser: ServerOptimiser) -> Scaffold:
    """Return the strategy with this server optimiser."""
    return Scaffold(optimiser=optimiser)
