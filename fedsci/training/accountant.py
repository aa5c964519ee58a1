"""What a plan costs a site in privacy: its noise, its events, its epsilon.

Neighbouring relation: add or remove one record. Every site computes this from the plan itself; nothing a
coordinator says about cost is used.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from fedsci.config.plan import Plan
from fedsci.errors import InputError
from fedsci.privacy import accounting, local_noise, rounding_noise
from fedsci.privacy.calibration import (
    calibrate_charged_noise,
    calibrate_noise_multiplier,
    epsilon_with_distance,
    gaussian_plan,
)
from fedsci.privacy.events import Composition
from fedsci.privacy.events import Plan as EventPlan

#: Deviation of one site's share of noise, in grid steps.
SHARE_DEVIATION = 8.0


@dataclass(frozen=True, kw_only=True)
class Share:
    """One site's share of the noise of a sum.

    Attributes:
        gamma: the grid step, in units of clipped gradients.
        deviation: of the share, in grid steps.
        sites: whose noise is counted on: ``min_survivors`` less ``colluding_sites``.
    """

    gamma: float
    deviation: float
    sites: int


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A study's price at one site.

    Attributes:
        noise_multiplier: z; the noise that counts has deviation z * C in every step.
        share: this site's share of it under the distributed mechanism; None where it adds all of it itself.
        charged: the multiplier of the Gaussian event that is charged: z less what the grid costs.
        distance: total variation of one release from that event, after post-processing.
        steps_per_round: noised releases in a round.
        sample_rate: Poisson rate of records in a step.
        delta: of the study.
    """

    noise_multiplier: float
    share: Share | None
    charged: float
    distance: float
    steps_per_round: int
    sample_rate: float
    delta: float

    def events(self, rounds: int) -> EventPlan:
        """Return what ``rounds`` rounds release, as it is charged."""
        if rounds == 0:
            return EventPlan(events=())
        steps = self.steps_per_round * rounds
        return gaussian_plan(noise_multiplier=self.charged, sample_rate=self.sample_rate, steps=steps)

    def epsilon(self, rounds: int) -> float:
        """Return epsilon after ``rounds`` rounds at the study's delta, by PLD."""
        return _epsilon(self, rounds)

    def epsilon_at(self, rounds: int, *, delta: float) -> float:
        """Return epsilon after ``rounds`` rounds at the stricter of the study's delta and ``delta``, by PLD."""
        return replace(self, delta=min(self.delta, delta)).epsilon(rounds)

    def delta_at(self, rounds: int, *, epsilon: float) -> float:
        """Return delta at ``epsilon`` after ``rounds`` rounds: the whole curve, not the one point of the study."""
        distance = self.steps_per_round * rounds * self.distance * (1 + math.exp(min(epsilon, 700.0)))
        return min(1.0, accounting.delta(self.events(rounds), epsilon=epsilon) + distance)

    def epsilon_of_rows(self, rounds: int, rows: int) -> float | None:
        """Return epsilon for adding or removing ``rows`` records of one person together, by PLD.

        That many records move a sum ``rows`` times as far. Known here for full batches only, else None.
        """
        if self.sample_rate < 1 or rounds == 0:
            return None
        return replace(self, charged=self.charged / rows).epsilon(rounds)


@lru_cache(maxsize=4096)
def _epsilon(cost: Cost, rounds: int) -> float:
    if rounds == 0:
        return 0.0
    distance = cost.steps_per_round * rounds * cost.distance
    return epsilon_with_distance(cost.events(rounds), delta=cost.delta, distance=distance)


def cost_of(plan: Plan, *, dimension: int, alone: bool = False) -> Cost:
    """Return the price of a private plan, with noise just large enough for the study's epsilon.

    Args:
        plan: a plan whose mechanism is not ``none``.
        dimension: the model's number of parameters.
        alone: one data holder that adds all noise itself, whatever the plan's mechanism: for baselines.

    Raises:
        InputError: no noise reaches the study's epsilon (see calibration).
    """
    privacy, training = plan.study.privacy, plan.training
    if privacy.epsilon is None:
        raise InputError("a plan without privacy has no cost")
    steps = plan.steps_per_round * training.rounds
    wanted = (privacy.epsilon, privacy.delta, training.sample_rate, steps, dimension)
    if alone or privacy.mechanism == "local":
        noise = _local_noise(*wanted)
        share, charged = None, local_noise.charged_noise_multiplier(dimension, noise)
        distance = local_noise.release_distance(dimension)
    else:
        sites = plan.min_survivors - privacy.colluding_sites
        share, noise, charged, distance = _shared_noise(*wanted, privacy.clipping_norm, sites)
    return Cost(
        noise_multiplier=noise,
        share=share,
        charged=charged,
        distance=distance,
        steps_per_round=plan.steps_per_round,
        sample_rate=training.sample_rate,
        delta=privacy.delta,
    )


def epsilon_against(plan: Plan, cost: Cost, *, dimension: int, survivors: Mapping[int, int], colluding: int) -> float:
    """Return what the study's sums tell somebody who can subtract the noise of ``colluding`` sites, by PLD.

    0 is an outsider, or a coordinator alone; 1 is another site, which knows its own noise. The noise of
    ``survivors - colluding`` sites is left. Where every site adds all its noise itself, colluding changes nothing.
    If masking were broken, one site's sum would be seen with its own share alone: ``survivors={1: rounds}``.

    Args:
        plan: a private plan.
        cost: its price (:func:`cost_of`).
        dimension: the model's number of parameters.
        survivors: how many sites' noise was in the sum -> in how many rounds.
        colluding: whose noise is known and does not count.

    Returns:
        epsilon at the study's delta, adding or removing one record; infinite where no noise is left.
    """
    if cost.share is None:
        return cost.epsilon(sum(survivors.values()))
    parts: list[Composition] = []
    distance = 0.0
    for sites, rounds in sorted(survivors.items()):
        if not rounds:
            continue
        if sites <= colluding:
            return math.inf
        sizes = (dimension, cost.share.deviation, sites - colluding)
        noise = _share_noise(cost.share.gamma, plan.study.privacy.clipping_norm, *sizes)
        steps = cost.steps_per_round * rounds
        parts += gaussian_plan(noise_multiplier=noise, sample_rate=cost.sample_rate, steps=steps).events
        distance += steps * rounding_noise.release_distance(dimension=dimension, deviation=sizes[1], sites=sizes[2])
    if not parts:
        return 0.0
    return epsilon_with_distance(EventPlan(events=tuple(parts)), delta=cost.delta, distance=distance)


def _share_noise(gamma: float, clipping_norm: float, dimension: int, deviation: float, sites: int) -> float:
    return rounding_noise.charged_noise_multiplier(
        gamma=gamma, clipping_norm=clipping_norm, dimension=dimension, deviation=deviation, sites=sites
    )


@lru_cache(maxsize=64)
def _local_noise(epsilon: float, delta: float, sample_rate: float, steps: int, dimension: int) -> float:
    return calibrate_noise_multiplier(
        epsilon=epsilon, delta=delta, sample_rate=sample_rate, steps=steps, dimension=dimension
    )


@lru_cache(maxsize=64)
def _shared_noise(
    epsilon: float, delta: float, sample_rate: float, steps: int, dimension: int, clipping_norm: float, sites: int
) -> tuple[Share, float, float, float]:
    """Return a site's share, the multiplier of the counted noise, the charged one, and the distance of a release."""
    deviation = SHARE_DEVIATION
    distance = rounding_noise.release_distance(dimension=dimension, deviation=deviation, sites=sites)
    charged = calibrate_charged_noise(
        epsilon=epsilon, delta=delta, sample_rate=sample_rate, steps=steps, distance=distance
    )
    gamma = rounding_noise.grid_step(
        noise_multiplier=charged, clipping_norm=clipping_norm, dimension=dimension, deviation=deviation, sites=sites
    )
    event = _share_noise(gamma, clipping_norm, dimension, deviation, sites)
    counted = deviation * gamma * sites**0.5 / clipping_norm
    return Share(gamma=gamma, deviation=deviation, sites=sites), counted, event, distance
