"""One round: the model out, the contributions in, their weighted sum to the strategy."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedsci.config.plan import Plan
from fedsci.errors import RoundAborted, SiteFailed
from fedsci.names import SiteId
from fedsci.strategies.base import StrategyState, WeightedSum
from fedsci.transport.link import SiteLink
from fedsci.transport.messages import Request

_DIVERGED = "training diverged; lower training.learning_rate"
_SEE_LOGS = "the model up to the last finished round is kept; see the sites' own logs"


@dataclass(frozen=True, kw_only=True)
class RoundOutcome:
    """What a round led to.

    Attributes:
        state: the strategy's next state.
        dropped: sites of the cohort that did not finish.
        seconds_sites: wall time until the last reply.
        seconds_aggregation: adding up and the strategy's step.
    """

    state: StrategyState
    dropped: tuple[SiteId, ...]
    seconds_sites: float
    seconds_aggregation: float


def run_round(
    link: SiteLink, plan: Plan, run: str, number: int, state: StrategyState, weights: Mapping[SiteId, float]
) -> RoundOutcome:
    """Return the outcome of round ``number``.

    Sums run over sites in the order of their names, so that they are the same bit for bit whoever was
    fastest. A reply of another length, or with NaN or infinity, counts as a dropped site.

    Raises:
        RoundAborted: fewer than ``min_survivors`` sites finished.
    """
    started = time.monotonic()
    fields = {"run": run, "round": number}
    request = Request(action="train", fields=fields, vector=state.model)
    replies = link.ask(dict.fromkeys(plan.sites, request))
    answered = time.monotonic()
    total, weight = np.zeros_like(state.model), 0.0
    scratch = np.empty_like(state.model)
    failures: dict[SiteId, SiteFailed] = {}
    diverged = 0
    for site, reply in replies.items():
        if isinstance(reply, SiteFailed):
            failures[site] = reply
            continue
        vector = reply.vector
        if vector is None or vector.dtype != np.float32 or vector.shape != state.model.shape:
            failures[site] = _unusable(site, "its update does not fit the model")
            continue
        with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is looked at next
            np.multiply(vector, np.float32(weights[site]), out=scratch)
            whole = scratch.sum(dtype=np.float64)
        if not np.isfinite(whole):
            failures[site] = _unusable(site, "its update holds NaN or infinity")
            diverged += 1
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            total += scratch
        weight += weights[site]
    if len(plan.sites) - len(failures) < plan.min_survivors:
        raise _too_few(plan, number, failures, hint=_DIVERGED if diverged == len(failures) else _SEE_LOGS)
    with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is looked at next
        next_state = plan.strategy.apply(state, WeightedSum(vector=total, weight=weight))
    if not np.isfinite(next_state.model).all():
        raise RoundAborted(f"round {number}: the model now holds NaN or infinity", hint=_DIVERGED)
    return RoundOutcome(
        state=next_state,
        dropped=tuple(failures),
        seconds_sites=answered - started,
        seconds_aggregation=time.monotonic() - answered,
    )


def _unusable(site: SiteId, message: str) -> SiteFailed:
    return SiteFailed(site, {"message": message, "code": "update", "exit_code": 5})


def _too_few(plan: Plan, number: int, failures: Mapping[SiteId, SiteFailed], *, hint: str) -> RoundAborted:
    reasons = "; ".join(str(failure) for failure in failures.values())
    left = len(plan.sites) - len(failures)
    return RoundAborted(
        f"round {number}: only {left} of {len(plan.sites)} sites finished, {plan.min_survivors} are needed ({reasons})",
        hint=hint,
    )
