"""One round: the model out, the sum of contributions in, and the strategy's step."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from fedsci.config.plan import Plan
from fedsci.coordinator.aggregation import Aggregation, Ask, Collected
from fedsci.errors import RoundAborted
from fedsci.strategies.base import StrategyState, WeightedSum
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
    fields: dict[str, object],
    tables: Sequence[MetricTable],
) -> RoundOutcome:
    """Return the outcome of round ``number``; ``tables`` of metrics of the model that is sent out come back too.

    Raises:
        RoundAborted: fewer than ``min_survivors`` sites finished, or the model diverged.
    """
    ask = Ask(
        action="train",
        slot=number - 1,
        fields=fields | {"round": number},
        model=state.model,
        dimension=state.model.size,
        tables=tables,
    )
    try:
        collected = aggregation.collect(ask)
        began = time.monotonic()
        total = WeightedSum(vector=collected.contribution, weight=collected.weight)
        next_state = plan.strategy.apply(state, total)
    except RoundAborted as error:
        error.message = f"round {number}: {error.message}"
        raise
    return RoundOutcome(state=next_state, collected=collected, seconds_strategy=time.monotonic() - began)
