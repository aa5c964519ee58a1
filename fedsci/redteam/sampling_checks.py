"""Direct checks of who is in a step: each unit once at most, and by a coin of its own.

Amplification by sampling is proven for Poisson samples alone. Batches of one size, shuffled batches and a record
that comes twice look much the same in a model, and cost several times the epsilon.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fedsci.redteam.notes import Step

_MANY: Final = 50.0  # records, from which on a count's law is taken for normal
_FEW: Final = 3.0  # sampled records, below which chi-square's law is not that of their counts
_DRAWS: Final = 50_000


@dataclass(frozen=True, kw_only=True)
class SamplingCheck:
    """What the samples of all steps of all sites say.

    Attributes:
        steps: how many were looked at.
        rate: how often a unit was in one.
        twice: how often a unit was in one step more than once.
        chance: the smallest p-value of the tests, times their number: of the rate, of how much the sizes of samples
            vary, and of how often a unit is in two steps that follow each other.
        odd: the test that gave it, in words.
    """

    steps: int
    rate: float
    twice: int
    chance: float
    odd: str


def check_sampling(sites: Sequence[Sequence[Step]], *, sample_rate: float) -> SamplingCheck:
    """Return what is known of each site's steps, in their order.

    At rate 1 every unit is to be in every step: nothing is left to chance.
    """
    steps = [step for site in sites for step in site]
    twice = sum(len(step.drawn) - len(np.unique(step.drawn)) for step in steps)
    units, taken = sum(step.units for step in steps), sum(len(np.unique(step.drawn)) for step in steps)
    rate = taken / units if units else 0.0
    if sample_rate == 1:
        chance = 1.0 if taken == units else 0.0
        return SamplingCheck(steps=len(steps), rate=rate, twice=twice, chance=chance, odd="how often a record is in")
    inside = [np.stack([_members(step) for step in site]) for site in sites if site]
    tests = {
        "how often a record is in": _two_sided(stats.binom(units, sample_rate), taken),
        "how much the sizes of samples vary": _sizes(steps, sample_rate),
        "how often a record is in two steps that follow each other": _overlaps(inside, sample_rate),
        "whether two sites or steps draw the same sample": _equal(inside, sample_rate),
        "how often one and the same record is in": _each(inside, sample_rate),
    }
    odd = min(tests, key=lambda name: tests[name])
    return SamplingCheck(steps=len(steps), rate=rate, twice=twice, chance=min(1.0, len(tests) * tests[odd]), odd=odd)


def _members(step: Step) -> NDArray[np.bool_]:
    found = np.zeros(step.units, np.bool_)
    found[step.drawn] = True
    return found


def _sizes(steps: Sequence[Step], rate: float) -> float:
    units = np.array([step.units for step in steps if step.units])
    sizes = np.array([len(np.unique(step.drawn)) for step in steps if step.units])
    spread = _spread(sizes, units, rate)
    if len(units) == 0 or units.min() * rate * (1 - rate) > _FEW:
        return _two_sided(stats.chi2(len(units)), spread)
    rng = np.random.default_rng(len(units))  # samples too small for chi-square's law: their own is drawn
    drawn = np.array([_spread(rng.binomial(units, rate), units, rate) for _ in range(_DRAWS)])
    below, above = (drawn <= spread).sum(), (drawn >= spread).sum()
    return min(1.0, 2 * float(min(below, above) + 1) / (_DRAWS + 1))


def _spread(sizes: NDArray[np.int64], units: NDArray[np.int64], rate: float) -> float:
    return float(np.sum((sizes - units * rate) ** 2 / (units * rate * (1 - rate))))


def _each(inside: Sequence[NDArray[np.bool_]], rate: float) -> float:
    """Of single records, and of records at the same place of all sites."""
    units, common = (
        sum(members.shape[1] for members in inside),
        min((members.shape[1] for members in inside), default=0),
    )
    tests = [units * _rarest(members, rate) for members in inside]
    if common:
        tests.append(common * _rarest(np.concatenate([members[:, :common] for members in inside]), rate))
    return min(1.0, 2 * min(tests, default=1.0))


def _rarest(members: NDArray[np.bool_], rate: float) -> float:
    """Return the smallest two-sided chance of how often a column is true."""
    counts, law = members.sum(axis=0), stats.binom(len(members), rate)
    return float(2 * np.minimum(law.cdf(counts), law.sf(counts - 1)).min(initial=0.5))


def _overlaps(inside: Sequence[NDArray[np.bool_]], rate: float) -> float:
    """Of pairs (t, t + 1): their number is a sum of q^2 chances, of which neighbours share a step."""
    found, mean, variance = 0.0, 0.0, 0.0
    for members in inside:
        steps, units = members.shape
        found += float((members[1:] & members[:-1]).sum())
        mean += units * (steps - 1) * rate**2
        variance += units * ((steps - 1) * (rate**2 - rate**4) + 2 * max(0, steps - 2) * (rate**3 - rate**4))
    if variance == 0:
        return 1.0
    if mean < _MANY:  # so few that they hardly depend on each other
        return _two_sided(stats.poisson(mean), found)
    return float(2 * stats.norm.sf(abs(found - mean) / math.sqrt(variance)))


def _equal(inside: Sequence[NDArray[np.bool_]], rate: float) -> float:
    """Chance of a sample that comes twice, over the units that all sites have."""
    common = min((members.shape[1] for members in inside), default=0)
    samples = [row[:common].tobytes() for members in inside for row in members]
    if len(set(samples)) == len(samples):
        return 1.0
    alike = (rate**2 + (1 - rate) ** 2) ** common
    return min(1.0, len(samples) * (len(samples) - 1) / 2 * alike)


def _two_sided(law: "stats.rv_frozen", value: float) -> float:
    return min(1.0, 2 * float(min(law.cdf(value), law.sf(value - 1e-9))))
