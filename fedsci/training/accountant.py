"""What a plan costs a site in privacy: its noise, its events, its epsilon.

Neighbouring relation: add or remove one unit, which is a record unless the study says otherwise. Every site computes
this from the plan itself; nothing a coordinator says about cost is used.

A study measures its models on records it does not train on, so measuring costs no record that training costs, and
is paid for out of the same epsilon: noise on the metrics is chosen so that a held-out record pays no more than one
that is trained on.
"""

import math
from collections.abc import Mapping, Sequence
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
from fedsci.privacy.events import Composition, GaussianEvent, Neighbouring, neighbouring_of
from fedsci.privacy.events import Plan as EventPlan
from fedsci.training.noised_metrics import sensitivity, sums_of

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
class MetricNoise:
    """The noise of metrics measured on held-out records.

    Attributes:
        share: this site's share of it; all of it under the local mechanism.
        charged: the multiplier of the Gaussian event that one measurement is charged as.
        distance: total variation of one measurement from that event, after post-processing.
        measurements: how many the study makes.
    """

    share: Share
    charged: float
    distance: float
    measurements: int


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A study's price at one site; every epsilon is for adding or removing one record.

    Attributes:
        noise_multiplier: z; the noise that counts has deviation z * C in every step.
        share: this site's share of it under the distributed mechanism; None where it adds all of it itself.
        charged: the multiplier of the Gaussian event that is charged: z less what the grid costs.
        distance: total variation of one release from that event, after post-processing.
        steps_per_round: noised releases in a round.
        sample_rate: Poisson rate of records in a step.
        delta: of the study.
        metric_noise: of measurements on held-out records; None where there are none.
        neighbouring: what is protected.
    """

    noise_multiplier: float
    share: Share | None
    charged: float
    distance: float
    steps_per_round: int
    sample_rate: float
    delta: float
    metric_noise: MetricNoise | None = None
    neighbouring: Neighbouring = Neighbouring.ADD_OR_REMOVE_ONE_RECORD

    @property
    def measurements(self) -> int:
        """How many noised measurements the study makes."""
        return self.metric_noise.measurements if self.metric_noise else 0

    def events(self, rounds: int, measurements: int = 0) -> EventPlan:
        """Return what so many rounds and measurements release, as it is charged.

        Raises:
            InputError: measurements of a study that has none.
        """
        train: tuple[Composition, ...] = ()
        held_out: tuple[Composition, ...] = ()
        if rounds:
            steps = self.steps_per_round * rounds
            train = gaussian_plan(noise_multiplier=self.charged, sample_rate=self.sample_rate, steps=steps).events
        if measurements:
            if self.metric_noise is None:
                raise InputError("a study without noised metrics measures none")
            event = GaussianEvent(noise_multiplier=self.metric_noise.charged)
            held_out = (Composition(event=event, count=measurements),)
        return EventPlan(events=train, held_out=held_out, neighbouring=self.neighbouring)

    def total_variation(self, rounds: int, measurements: int = 0) -> float:
        """Return how far all that is released is from those events, at most, for any one record."""
        held_out = measurements * self.metric_noise.distance if self.metric_noise else 0.0
        return max(self.steps_per_round * rounds * self.distance, held_out)

    def epsilon(self, rounds: int, measurements: int = 0) -> float:
        """Return epsilon after so many rounds and measurements at the study's delta, by PLD."""
        return _epsilon(self, rounds, measurements)

    def epsilon_at(self, rounds: int, *, delta: float) -> float:
        """Return epsilon of so many rounds and all measurements at the stricter of the study's delta and ``delta``."""
        return replace(self, delta=min(self.delta, delta)).epsilon(rounds, self.measurements)

    def delta_at(self, rounds: int, *, epsilon: float) -> float:
        """Return delta at ``epsilon`` after ``rounds`` rounds: the whole curve, not the one point of the study.

        For a unit that is trained on; one that is held out pays no more at the study's delta.
        """
        return delta_of_all([(self, rounds)], epsilon=epsilon)

    def epsilon_of_rows(self, rounds: int, rows: int) -> float | None:
        """Return epsilon for adding or removing ``rows`` records of one person together, by PLD.

        That many records move a sum ``rows`` times as far. Known here for full batches only, else None.
        """
        if self.sample_rate < 1 or rounds == 0:
            return None
        return replace(self, charged=self.charged / rows).epsilon(rounds)


def delta_of_all(parts: Sequence[tuple[Cost, int]], *, epsilon: float) -> float:
    """Return delta at ``epsilon`` of several studies of the same units, each with its rounds, together, by PLD.

    For a unit that is trained on in all of them.
    """
    events = tuple(event for cost, rounds in parts for event in cost.events(rounds).events)
    distance = sum(cost.total_variation(rounds) for cost, rounds in parts) * (1 + math.exp(min(epsilon, 700.0)))
    together = EventPlan(events=events, neighbouring=parts[0][0].neighbouring)
    return min(1.0, accounting.delta(together, epsilon=epsilon) + distance)


@lru_cache(maxsize=4096)
def _epsilon(cost: Cost, rounds: int, measurements: int) -> float:
    if rounds == 0 and measurements == 0:
        return 0.0
    distance = cost.total_variation(rounds, measurements)
    return epsilon_with_distance(cost.events(rounds, measurements), delta=cost.delta, distance=distance)


def cost_of(plan: Plan, *, dimension: int, alone: bool = False) -> Cost:
    """Return the price of a private plan, with noise just large enough for the study's epsilon.

    Args:
        plan: a plan whose mechanism is not ``none``.
        dimension: the model's number of parameters; what is released may have another (:meth:`Plan.release_size`).
        alone: one data holder that adds all noise itself, whatever the plan's mechanism: for baselines.

    Raises:
        InputError: no noise reaches the study's epsilon (see calibration).
    """
    privacy, training = plan.study.privacy, plan.training
    if privacy.epsilon is None:
        raise InputError("a plan without privacy has no cost")
    steps, dimension = plan.steps_per_round * training.rounds, plan.release_size(dimension)
    wanted = (privacy.epsilon, privacy.delta, training.sample_rate, steps, dimension)
    if alone or privacy.mechanism == "local":
        noise = _local_noise(*wanted)
        share, charged = None, local_noise.charged_noise_multiplier(dimension, noise)
        distance = local_noise.release_distance(dimension)
    else:
        sites = plan.min_survivors - privacy.colluding_sites
        share, noise, charged, distance = _shared_noise(*wanted, privacy.clipping_norm, sites)
    metric_noise = None
    if not alone and privacy.unit != "site" and plan.makes_model:  # a whole site is on no one side of a split
        metric_noise = _metric_noise(
            epsilon=privacy.epsilon,
            delta=privacy.delta,
            dominated=charged / steps**0.5 if training.sample_rate == 1 else None,
            measurements=len(plan.measured_rounds),
            sensitivity=sensitivity(plan),
            dimension=len(sums_of(plan)),
            sites=share.sites if share else 1,
        )
    return Cost(
        noise_multiplier=noise,
        share=share,
        charged=charged,
        distance=distance,
        steps_per_round=plan.steps_per_round,
        sample_rate=training.sample_rate,
        delta=privacy.delta,
        metric_noise=metric_noise,
        neighbouring=neighbouring_of(privacy.unit),
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
    distance, dimension = 0.0, plan.release_size(dimension)
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


def noise_of_sum(cost: Cost | None, *, clipping_norm: float, contributions: Sequence[tuple[float, int]]) -> float:
    """Return the standard deviation of the noise in each number of a sum of gradients, or of statistics.

    Args:
        cost: of the plan; None without privacy.
        clipping_norm: C.
        contributions: of each survivor: its weight in the sum, and its public count of training records.
    """
    if cost is None:
        return 0.0
    if cost.share is not None:
        return cost.share.deviation * cost.share.gamma * math.sqrt(len(contributions))
    each = cost.noise_multiplier * clipping_norm / cost.sample_rate
    return each * math.hypot(*(weight / records for weight, records in contributions))


def _share_noise(gamma: float, clipping_norm: float, dimension: int, deviation: float, sites: int) -> float:
    return rounding_noise.charged_noise_multiplier(
        gamma=gamma, clipping_norm=clipping_norm, dimension=dimension, deviation=deviation, sites=sites
    )


@lru_cache(maxsize=64)
def _metric_noise(
    *,
    epsilon: float,
    delta: float,
    dominated: float | None,
    measurements: int,
    sensitivity: float,
    dimension: int,
    sites: int,
) -> MetricNoise:
    """Return noise with which a held-out record pays no more than the study's epsilon.

    Raises:
        InputError: so much noise that truncating to its grid would raise the sensitivity.

    ``dominated`` is the multiplier of the one Gaussian that training is worth, where it is worth one: a little more
    noise than that, and no accountant finds a held-out record to pay more.
    """
    deviation = SHARE_DEVIATION
    distance = rounding_noise.release_distance(dimension=dimension, deviation=deviation, sites=sites)
    if dominated is None:
        wanted = calibrate_charged_noise(
            epsilon=epsilon, delta=delta, sample_rate=1.0, steps=measurements, distance=distance
        )
    else:
        wanted = dominated * measurements**0.5 * (1 + 1e-9)
    try:
        gamma = rounding_noise.grid_step(
            noise_multiplier=wanted, clipping_norm=sensitivity, dimension=dimension, deviation=deviation, sites=sites
        )
    except InputError:
        raise InputError(
            f"{measurements} noised measurements within epsilon {epsilon:g} need more noise than there is a grid for",
            hint="measure less often (evaluation.every), or raise privacy.epsilon",
        ) from None
    charged = rounding_noise.charged_noise_multiplier(
        gamma=gamma, clipping_norm=sensitivity, dimension=dimension, deviation=deviation, sites=sites
    )
    share = Share(gamma=gamma, deviation=deviation, sites=sites)
    return MetricNoise(share=share, charged=charged, distance=distance, measurements=measurements)


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


def noise_over_update(plan: Plan, *, dimension: int) -> float | None:
    """Return the norm of a round's noise over that of the largest mean update, where whole sites are protected.

    With all sites present. Above 1 even an update on which all sites agree drowns. None for other units.
    """
    if not plan.private or plan.study.privacy.unit != "site":
        return None
    share, sites = cost_of(plan, dimension=dimension).share, len(plan.sites)
    if share is None:
        return None
    noise = share.deviation * share.gamma * math.sqrt(sites * plan.release_size(dimension))
    return noise / (sites * plan.study.privacy.clipping_norm)
