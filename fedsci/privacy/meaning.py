"""What an (epsilon, delta) means for one record, as the success of the best attacker there can be.

The attacker knows every record but one, sees everything the study released, and must say whether that one record
was in. Differential privacy *is* a bound on this test (Wasserman and Zhou, 2010; Kairouz, Oh and Viswanath, ICML
2015; Dong, Roth and Su, "Gaussian differential privacy", 2022). Neighbouring data sets differ by one record, added
or removed. The bounds hold whatever the attacker computes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fedsci.errors import InputError

Profile = Callable[[float], float]
"""delta at an epsilon of at least 0: everything there is to know about a mechanism."""
FALSE_ALARMS: Final = 0.01
_LARGEST_EPSILON: Final = 60.0
_SEARCH_STEPS: Final = 60


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """How well the best attacker does; every number is an upper bound.

    Attributes:
        promised_guess: how often a guess "in or out" is right, when both were equally likely before, by epsilon
            and delta alone; 0.5 is a coin.
        best_guess: the same by everything that is known about the noise: never more.
        detected: how often a record that is in is found, by an attacker who cries wolf in 1 % of the cases where
            it is not; 0.01 is a coin.
    """

    promised_guess: float
    best_guess: float
    detected: float


def meaning_of(*, epsilon: float, delta: float, profile: Profile) -> Meaning:
    """Return what the study's one point (epsilon, delta) promises, and what its whole ``profile`` does."""
    promised = right_guess(epsilon=epsilon, delta=delta)
    return Meaning(
        promised_guess=promised,
        best_guess=min(promised, (1 + profile(0.0)) / 2),
        detected=min(
            detection(profile, false_alarms=FALSE_ALARMS),
            detection(lambda at: delta if at >= epsilon else 1.0, false_alarms=FALSE_ALARMS, hints=(epsilon,)),
        ),
    )


def right_guess(*, epsilon: float, delta: float = 0.0) -> float:
    """Return how often the best guess is right, for a record that was in with probability one half.

    (e^epsilon + delta) / (1 + e^epsilon), which randomised response reaches.

    >>> round(right_guess(epsilon=0.0), 3), round(right_guess(epsilon=2.0, delta=1e-5), 3)
    (0.5, 0.881)

    Raises:
        InputError: if epsilon is negative or NaN, or delta not in [0, 1].
    """
    if not (epsilon >= 0 and 0 <= delta <= 1):
        raise InputError(f"no guarantee has epsilon {epsilon!r} and delta {delta!r}")
    shrink = math.exp(-epsilon)  # infinite epsilon: always right
    return (1 + delta * shrink) / (1 + shrink)


def detection(profile: Profile, *, false_alarms: float, hints: tuple[float, ...] = ()) -> float:
    """Return the most that any test detects, of records that are in, at this rate of false alarms.

    At every epsilon e, ``e^e * alarms + delta(e)`` and ``1 - e^-e (1 - delta(e) - alarms)`` are bounds; the least
    is returned. For Gaussian noise it is the best there is: Phi(mu + Phi^-1(alarms)).

    Args:
        profile: delta at an epsilon of at least 0.
        false_alarms: how often a record that is not in is called in, in [0, 1].
        hints: values of epsilon to try besides.

    Raises:
        InputError: if ``false_alarms`` is not in [0, 1].
    """
    if not 0 <= false_alarms <= 1:
        raise InputError(f"a rate of false alarms is between 0 and 1, not {false_alarms!r}")

    def few(at: float) -> float:
        return math.exp(at) * false_alarms + profile(at)

    def many(at: float) -> float:
        return 1 - math.exp(-at) * (1 - profile(at) - false_alarms)

    tried = [bound(at) for bound in (few, many) for at in (*hints, _lowest(bound)) if at < _LARGEST_EPSILON]
    return min(1.0, *tried)


def _lowest(bound: Callable[[float], float]) -> float:
    """Return about where a bound is lowest; wherever it is, the bound there holds."""
    low, high = 0.0, _LARGEST_EPSILON / 2
    for _ in range(_SEARCH_STEPS):
        third = (high - low) / 3
        if bound(low + third) <= bound(high - third):
            high -= third
        else:
            low += third
    return low


def plain_words(meaning: Meaning, *, epsilon: float, delta: float, unit: str = "record") -> tuple[str, ...]:
    """Return what the numbers mean for one unit of privacy, in sentences without formulae."""
    return (
        f"Suppose somebody knows every other {unit} and must guess whether one {unit} was used, as likely as not. "
        f"Whatever they compute from what is released, they are right at most {percent(meaning.promised_guess)} of "
        f"the time (a coin is right 50 %): that is epsilon {epsilon:.3g} at delta {delta:g}.",
        f"The noise of this plan allows less: at most {percent(meaning.best_guess)}. And who may accuse wrongly in "
        f"only 1 % of cases finds at most {percent(meaning.detected)} of the {unit}s that were used.",
        f"Delta is counted in these figures: with a chance of at most one in {1 / delta:,.0f} something that tells "
        f"more than epsilon allows may come out.",
    )


def percent(share: float) -> str:
    """Return a bound in per cent, rounded up.

    >>> percent(0.50001)
    '50.1 %'
    """
    return f"{math.ceil(share * 1000 - 1e-9) / 10:.1f} %"
