"""One round: the model out, the sum of contributions in, and the strategy's step."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedsci.config.plan import Plan
from fedsci.coordinator.aggregation import Aggregation, Ask, Collected
from fedsci.errors import RoundAborted
from fedsci.strategies.base import StrategyState, Survivor, WeightedSum
from fedsci.training.accountant import Cost, noise_of_sum
from fedsci.training.sums import MetricTable


@dataclass(frozen=True, kw_only=True)
class RoundOutcome:
    """What a round led to.

    Attributes:
        state: the strategy's next state.
        collected: the sums, with the metrics of the model that was sent out.
        seconds_strategy: the strategy's step.
    """

    state: StrategyState
    collected: Collected
    seconds_strategy: float


def run_round(
    aggregation: Aggregation,
    plan: Plan,
    number: int,
    state: StrategyState,
    *,
    fields: Mapping[str, Any],
    tables: Sequence[MetricTable],
    cost: Cost | None = None,
) -> RoundOutcome:
    """Return the outcome of round ``number``; ``tables`` of metrics of the model that is sent out come back too.

    ``fields`` hold every site's public record counts under ``records``; ``cost`` is the price of a private plan.

    Raises:
        RoundAborted: fewer than ``min_survivors`` sites finished, or the model diverged.
    """
    strategy = plan.strategy
    ask = Ask(
        action="train",
        slot=number - 1,
        fields={**fields, "round": number},
        model=strategy.sends(state),
        dimension=strategy.width(state.model.size),
        tables=tables,
    )
    try:
        collected = aggregation.collect(ask)
        began = time.monotonic()
        next_state = strategy.apply(state, _total(aggregation, plan, collected, fields["records"], cost))
    except RoundAborted as error:
        error.message = f"round {number}: {error.message}"
        raise
    return RoundOutcome(state=next_state, collected=collected, seconds_strategy=time.monotonic() - began)


def _total(
    aggregation: Aggregation,
    plan: Plan,
    collected: Collected,
    records: Mapping[str, Sequence[int]],
    cost: Cost | None,
) -> WeightedSum:
    positions = {site: position for position, site in enumerate(plan.sites)}
    noise = 0.0
    if plan.strategy.site_work != "local_update":
        contributions = [(aggregation.weights[site], records[site][0]) for site in collected.survivors]
        noise = noise_of_sum(cost, clipping_norm=plan.study.privacy.clipping_norm, contributions=contributions)
    return WeightedSum(
        vector=collected.contribution,
        weight=collected.weight,
        survivors=tuple(
            Survivor(
                position=positions[site], weight=aggregation.weights[site], steps=plan.local_steps(records[site][0])
            )
            for site in collected.survivors
        ),
        each=None if collected.each is None else {positions[site]: found for site, found in collected.each.items()},
        momentum=plan.training.momentum,
        noise=noise,
    )
