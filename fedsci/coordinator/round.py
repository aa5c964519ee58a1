"""One round: the model out, the sum of contributions in, and the strategy's step."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedsci.config.plan import Plan
from fedsci.coordinator.aggregation import Aggregation, Ask, Collected
from fedsci.coordinator.buffers import EVERYBODY, Opening
from fedsci.coordinator.norm_check import Norm, NormCheck
from fedsci.errors import RoundAborted
from fedsci.strategies.base import StrategyState, Survivor, WeightedSum
from fedsci.training.accountant import Cost, noise_of_sum
from fedsci.training.sums import MetricTable


@dataclass(frozen=True, kw_only=True)
class RoundOutcome:
    """What a round led to.

    Attributes:
        state: the strategy's next state; the one before where the sum cannot be honest sites': nothing of it is used.
        collected: the sums, with the metrics of the model that was sent out.
        seconds_strategy: the strategy's step.
        norm: of the sum of contributions; None where nobody checks it.
    """

    state: StrategyState
    collected: Collected
    seconds_strategy: float
    norm: Norm | None = None


def run_round(
    aggregation: Aggregation,
    plan: Plan,
    number: int,
    state: StrategyState,
    *,
    fields: Mapping[str, Any],
    tables: Sequence[MetricTable],
    opening: Opening = EVERYBODY,
    cost: Cost | None = None,
    check: NormCheck | None = None,
    earlier: Sequence[float] = (),
) -> RoundOutcome:
    """Return the outcome of round ``number``; ``tables`` of metrics of the model that is sent out come back too.

    ``fields`` hold every site's public record counts under ``records``, and the steps that each takes under ``steps``,
    where the plan lets a round say so; what ``opening`` says of it is added to them. A buffer's sites have their
    models: the current one goes along only where it is to be measured. ``cost`` is the price of a private plan.
    ``check`` judges the sum, beside the levels of ``earlier`` ones.

    Raises:
        RoundAborted: fewer than ``min_survivors`` sites finished, or the model diverged.
    """
    strategy, fields = plan.strategy, {**fields, **opening.fields}
    ask = Ask(
        action="train",
        slot=number - 1,
        fields={**fields, "round": number},
        model=strategy.sends(state) if plan.buffer is None or tables else None,
        dimension=strategy.width(state.model.size),
        tables=tables,
        absent=opening.absent,
        broken=opening.broken,
    )
    try:
        collected = aggregation.collect(ask)
        began = time.monotonic()
        norm = None if check is None else check.judge(collected.contribution, collected.survivors, earlier)
        next_state = state
        if norm is None or norm.alarm is None:
            next_state = strategy.apply(state, _total(aggregation, plan, collected, fields, cost))
    except RoundAborted as error:
        error.message = f"round {number}: {error.message}"
        raise
    seconds = time.monotonic() - began
    return RoundOutcome(state=next_state, collected=collected, seconds_strategy=seconds, norm=norm)


def _total(
    aggregation: Aggregation, plan: Plan, collected: Collected, fields: Mapping[str, Any], cost: Cost | None
) -> WeightedSum:
    positions = {site: position for position, site in enumerate(plan.sites)}
    records: Mapping[str, Sequence[int]] = fields["records"]
    steps: Mapping[str, int] = fields.get("steps") or {
        site: plan.local_steps(records[site][0]) for site in collected.survivors
    }
    noise = 0.0
    if plan.strategy.site_work != "local_update":
        contributions = [(aggregation.weights[site], records[site][0]) for site in collected.survivors]
        noise = noise_of_sum(cost, clipping_norm=plan.study.privacy.clipping_norm, contributions=contributions)
    return WeightedSum(
        vector=collected.contribution,
        weight=collected.weight,
        survivors=tuple(
            Survivor(position=positions[site], weight=aggregation.weights[site], steps=steps[site])
            for site in collected.survivors
        ),
        each=None if collected.each is None else {positions[site]: found for site, found in collected.each.items()},
        momentum=plan.training.momentum,
        noise=noise,
    )
