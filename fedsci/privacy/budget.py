"""What a data set may still spend, by a rule that holds when studies are chosen from earlier results.

Researchers plan the next study after seeing the last one. Composition theorems for plans fixed in advance do
not cover that: stopping when a PLD epsilon reaches the budget is not known to be valid, nor is taking the best
Renyi order afterwards. An **RDP filter at one fixed order** is: if the Renyi divergences at order a, each
fixed when its study starts, sum to at most B on every path, all studies together are (a, B)-RDP (Feldman and
Zrnic, 2021, arXiv 2008.11193; Lecuyer, 2021, arXiv 2103.01379), hence (epsilon, delta)-DP with

    epsilon = B + log((a - 1) / a) - (log delta + log a) / (a - 1)

(Balle et al., AISTATS 2020; Canonne, Kamath and Steinke, 2020, proposition 12). The order is frozen with
epsilon and delta when a data set is registered: the integer in 2..256 that leaves the largest B / a, which is
what counts for Gaussian noise, whose divergence at order a is a / (2 z^2) a release.

The price of adaptivity: the filter may refuse a study whose plan, had everything been fixed in advance, has a
PLD epsilon well below what is left. That is expected. At epsilon 3 it admits about 44 studies of a kind of
which PLD would admit 51. Show both numbers, labelled: enforced, and fixed-in-advance.

Neighbouring relation: add or remove one record.
"""

import math
from dataclasses import dataclass
from typing import Final

from fedsci.errors import BudgetRefused, InputError
from fedsci.privacy.accounting import check_delta, rdp_curve
from fedsci.privacy.events import Neighbouring, Plan

ORDERS: Final = range(2, 257)
SAMPLER_SHARE: Final = 1e-6
"""The part of delta kept for noise that is not quite exact: at delta 1e-5, for 10^11 coordinates at epsilon 8."""
_ROUNDING: Final = 1 + 1e-12
_FLOAT_ERROR: Final = 1e-15
"""What the float64 evaluation of one sampled release's Renyi divergence may fall short by; 2.3e-16 was seen."""
_LARGEST_EXPONENT: Final = 700.0


def _conversion(order: int, delta: float) -> float:
    """Return what converting RDP at ``order`` to epsilon at ``delta`` adds; it may be below zero."""
    kept = delta * (1 - SAMPLER_SHARE)
    return math.log((order - 1) / order) - (math.log(kept) + math.log(order)) / (order - 1)


@dataclass(frozen=True, kw_only=True)
class BudgetPolicy:
    """The lifetime budget of one data set, frozen when it is registered.

    Attributes:
        epsilon: what all studies together may cost, adaptively chosen or not.
        delta: at this delta; no more than one over the number of records.
        order: the one Renyi order at which every study is charged.
        rdp_capacity: the sum of charges at that order that just reaches ``epsilon``; zero where the order
            cannot show so small an epsilon: nothing is admitted.
        neighbouring: what epsilon refers to.
    """

    epsilon: float
    delta: float
    order: int
    rdp_capacity: float
    neighbouring: Neighbouring = Neighbouring.ADD_OR_REMOVE_ONE_RECORD

    def __post_init__(self) -> None:
        if not (self.epsilon > 0 and math.isfinite(self.epsilon)):
            raise InputError(f"epsilon {self.epsilon!r} is not a positive number")
        check_delta(self.delta)
        if self.order not in ORDERS:
            raise InputError(f"Renyi order {self.order!r} is not in {ORDERS[0]}..{ORDERS[-1]}")
        allowed = max(0.0, self.epsilon - _conversion(self.order, self.delta))
        if not (0 < self.rdp_capacity <= allowed * _ROUNDING or self.rdp_capacity == allowed == 0):
            raise InputError(f"capacity {self.rdp_capacity!r} does not keep epsilon {self.epsilon!r}")


def budget_policy(
    *, epsilon: float, delta: float, neighbouring: Neighbouring = Neighbouring.ADD_OR_REMOVE_ONE_RECORD
) -> BudgetPolicy:
    """Return the policy that admits the most Gaussian releases within ``epsilon`` at ``delta``.

    Raises:
        InputError: if epsilon is not positive, delta not in (0, 1), or no order has any capacity.
    """
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise InputError(f"epsilon {epsilon!r} is not a positive number")
    check_delta(delta)
    order = max(ORDERS, key=lambda candidate: (epsilon - _conversion(candidate, delta)) / candidate)
    capacity = epsilon - _conversion(order, delta)
    if capacity <= 0:
        raise InputError(
            f"epsilon {epsilon:g} at delta {delta:g} is too small to enforce", hint="raise epsilon or delta"
        )
    return BudgetPolicy(epsilon=epsilon, delta=delta, order=order, rdp_capacity=capacity, neighbouring=neighbouring)


def budget_policy_at(
    order: int,
    *,
    epsilon: float,
    delta: float,
    neighbouring: Neighbouring = Neighbouring.ADD_OR_REMOVE_ONE_RECORD,
) -> BudgetPolicy:
    """Return the policy of another epsilon or delta at an order that was frozen before.

    An epsilon that the order cannot show admits nothing. Raised after results were seen, the ceiling that counts
    for everything released is the highest there ever was.

    Raises:
        InputError: if epsilon is not positive, delta not in (0, 1), or the order unknown.
    """
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise InputError(f"epsilon {epsilon!r} is not a positive number")
    check_delta(delta)
    if order not in ORDERS:
        raise InputError(f"Renyi order {order!r} is not in {ORDERS[0]}..{ORDERS[-1]}")
    capacity = max(0.0, epsilon - _conversion(order, delta))
    return BudgetPolicy(epsilon=epsilon, delta=delta, order=order, rdp_capacity=capacity, neighbouring=neighbouring)


def distance_capacity(policy: BudgetPolicy) -> float:
    """Return how far all noise together may be, in total variation, from what is charged.

    Releases within t of (epsilon, delta)-DP ones are (epsilon, delta + t (1 + e^epsilon))-DP, for adding or
    removing one record; :data:`SAMPLER_SHARE` of delta pays for that.
    """
    return SAMPLER_SHARE * policy.delta / (1 + math.exp(min(policy.epsilon, _LARGEST_EXPONENT)))


def charge_cost(plan: Plan, policy: BudgetPolicy) -> float:
    """Return the plan's cost in the policy's unit: Renyi divergence at its order, rounded up.

    Zero for an empty plan, infinite if any event has no noise.

    Raises:
        InputError: the plan is for another unit than the budget.
    """
    if plan.neighbouring is not policy.neighbouring:
        raise InputError(f"{plan.neighbouring.value} cannot be charged to a budget for {policy.neighbouring.value}")
    releases = max(sum(part.count for part in side) for side in (plan.events, plan.held_out))
    return float(rdp_curve(plan, (policy.order,))[0]) * _ROUNDING + releases * _FLOAT_ERROR


def admits(policy: BudgetPolicy, spent_rdp: float, cost: float) -> bool:
    """Return whether a study of this cost still fits; an infinite cost never does.

    Raises:
        InputError: if ``spent_rdp`` or ``cost`` is negative or NaN: a ledger that says so cannot be trusted.
    """
    if not (spent_rdp >= 0 and cost >= 0):
        raise InputError(f"a privacy charge cannot be negative: spent {spent_rdp!r}, cost {cost!r}")
    return spent_rdp + cost <= policy.rdp_capacity


def too_much(
    policy: BudgetPolicy, spent_rdp: float, cost: float, *, site: str, dataset: str, rounds: str = ""
) -> BudgetRefused:
    """Return the refusal of a charge that does not fit; ledger and plan say the same.

    Args:
        policy, spent_rdp, cost: as for :func:`admits`.
        site, dataset: whose budget.
        rounds: `` for even one round``, where fewer were tried.
    """
    now, after = epsilon_enforced(policy, spent_rdp), epsilon_enforced(policy, spent_rdp + cost)
    return BudgetRefused(
        f"{site}: epsilon {after:.2f} would pass the budget of {policy.epsilon:.2f} for {dataset}{rounds} "
        f"(spent {now:.2f}, left {max(0.0, policy.epsilon - now):.2f}, this study alone "
        f"{epsilon_enforced(policy, cost):.2f}, at delta {policy.delta:g}; all as enforced, for studies chosen one "
        "after the other: more than the study's own epsilon, and together less than their sum)",
        hint=f"lower privacy.epsilon{'' if rounds else ' or the number of rounds'} (fedsci privacy plan STUDY says "
        "what would fit), or ask the privacy officer: fedsci privacy budget SITE shows what used it, fedsci privacy "
        f"set SITE {dataset} changes it",
        public=f"the budget for {dataset} does not allow this study",
    )


def epsilon_enforced(policy: BudgetPolicy, spent_rdp: float) -> float:
    """Return the epsilon, at the policy's delta, that everything spent so far is known to keep.

    Zero when nothing is spent; the first charge, however small, then shows the price of the conversion.
    Holds for studies chosen adaptively, for adding or removing one record.

    Raises:
        InputError: if ``spent_rdp`` is negative or NaN.
    """
    if not spent_rdp >= 0:
        raise InputError(f"a privacy charge cannot be negative: spent {spent_rdp!r}")
    return max(0.0, spent_rdp + _conversion(policy.order, policy.delta)) if spent_rdp else 0.0


def remaining(policy: BudgetPolicy, spent_rdp: float) -> float:
    """Return how much Renyi divergence at the policy's order is left to charge; never below zero.

    Raises:
        InputError: if ``spent_rdp`` is negative or NaN.
    """
    if not spent_rdp >= 0:
        raise InputError(f"a privacy charge cannot be negative: spent {spent_rdp!r}")
    return max(0.0, policy.rdp_capacity - spent_rdp)
