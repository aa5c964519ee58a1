"""How long a round's sum can be if its sites are honest: from the plan, its price, who is in it and public counts.

| mechanism, unit | a site's part of the sum | B, the data's bound | noise |
|---|---|---|---|
| distributed, record or group | clipped vectors that were sampled | C most_sampled(sum of n_i) | every site's share |
| distributed, site | one clipped update | C sites | likewise |
| local, gradients, statistics | clipped sum / (q n_i), times w_i | C / q max(w_i / n_i) most_sampled(..) | likewise |
| local, local training | eta sum_j c_j gradients, times w_i | the same with c_j | eta sqrt(sum_j c_j^2) of it |
| none, statistics | clipped sum / (q n_i), times w_i | as for local | none |
| none, masked | any update | the grid's bound in every number | none |
| none, in the clear | any update | none is known | none |

n_i are the public counts of training units, w_i the weights, q the sample rate, eta the learning rate of local training
and c_j how often its gradient j enters the update (:func:`fedsci.strategies.local_steps.step_mass` is their sum).
The maths is in :mod:`fedsci.privacy.sum_norm`.
"""

import math
from collections.abc import Sequence
from typing import Final

from fedsci.config.masking import grid_for
from fedsci.config.plan import Plan
from fedsci.privacy.sum_norm import NormBound, bound_sum, most_sampled
from fedsci.strategies.base import MeanStrategy
from fedsci.training.accountant import Cost, noise_of_sum

#: Relative: clipping has more than this to spare, sums and norms in floating point take less.
_SLACK: Final = 1e-5
#: Of local training, whose update is a difference of weights in float32.
_SLACK_OF_UPDATES: Final = 1e-3


def bound_of_sum(
    plan: Plan, cost: Cost | None, *, parameters: int, contributions: Sequence[tuple[float, int]]
) -> NormBound | None:
    """Return between which norms an honest round's sum lies, in the units of ``Collected.contribution``.

    Args:
        plan: the study's.
        cost: its price; None without privacy.
        parameters: the model's size.
        contributions: of each survivor: its weight in the sum, and its public count of training units.

    Returns:
        None where nothing public bounds what a site may contribute.
    """
    if cost is not None and cost.share is not None:
        return _shared(plan, cost, parameters=parameters, contributions=contributions)
    strategy, training = plan.strategy, plan.training
    width, masked = strategy.width(parameters), plan.study.secure_aggregation.enabled
    stretch = None
    if isinstance(strategy, MeanStrategy):
        steps = plan.local_steps(max(records for _, records in contributions))
        stretch = strategy.stretch(steps=steps, momentum=training.momentum, learning_rate=training.learning_rate)
    clipped = cost is not None or strategy.site_work == "statistics"
    if stretch is None or not clipped:
        if not masked:
            return None
        largest = len(contributions) * grid_for(plan).bound * math.sqrt(width)
        return bound_sum(data=largest, noise=0.0, dimension=width, fresh=True, full=False, slack=_SLACK)
    moves = _moves(plan)
    norm, rate = plan.study.privacy.clipping_norm, training.sample_rate
    units = sum(records for _, records in contributions)
    most = max(weight / records for weight, records in contributions) * norm / rate * stretch
    trials, whole = units * len(moves), units * sum(moves) / max(moves)  # in steps of the longest move
    data = most * max(moves) * min(whole, most_sampled(trials, min(float(trials), rate * whole)))
    noise = noise_of_sum(cost, clipping_norm=norm, contributions=contributions) * stretch * math.hypot(*moves)
    rounding = len(contributions) * grid_for(plan).error_bound * math.sqrt(width) if masked else 0.0
    local = strategy.site_work == "local_update"
    return bound_sum(
        data=data,
        noise=noise,
        # of a strategy's blocks every number carries some sites' noise: the squares add up to those of one block
        dimension=plan.release_size(parameters) if noise else 0,
        fresh=len(moves) == 1,
        full=False,  # the grid of the masks may clip it
        slack=_SLACK_OF_UPDATES if local else _SLACK,
        rounding=rounding,
    )


def _shared(plan: Plan, cost: Cost, *, parameters: int, contributions: Sequence[tuple[float, int]]) -> NormBound:
    """Return the bound where sites share the noise of one sum."""
    if plan.study.privacy.unit == "site":
        units = float(len(contributions))
    else:
        records = sum(records for _, records in contributions)
        units = most_sampled(records, cost.sample_rate * records)
    return bound_sum(
        data=plan.study.privacy.clipping_norm * units,
        noise=noise_of_sum(cost, clipping_norm=plan.study.privacy.clipping_norm, contributions=contributions),
        dimension=plan.release_size(parameters),
        fresh=True,
        full=True,
        slack=_SLACK,
    )


def _moves(plan: Plan) -> list[float]:
    """Return how often each of a round's noised gradients enters what a site contributes, the first one first."""
    if plan.strategy.site_work != "local_update":
        return [1.0]
    training, steps = plan.training, plan.steps_per_round
    rho = training.momentum
    return [training.learning_rate * (1 - rho ** (steps - j)) / (1 - rho) for j in range(steps)]
