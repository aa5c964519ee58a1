"""What a plan costs a site in privacy: its noise, its events, its epsilon.

Neighbouring relation: add or remove one record. Every site computes this from the plan itself; nothing a
coordinator says about cost is used.
"""

from dataclasses import dataclass
from functools import lru_cache

from fedsci.config.plan import Plan
from fedsci.privacy.calibration import calibrate_noise_multiplier, charged_plan, epsilon_of
from fedsci.privacy.events import Plan as EventPlan


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A study's price at one site.

    Attributes:
        noise_multiplier: z; noise of deviation z * C in every step.
        steps_per_round: noised releases in a round.
        sample_rate: Poisson rate of records in a step.
        dimension: numbers in a release.
        delta: of the study.
    """

    noise_multiplier: float
    steps_per_round: int
    sample_rate: float
    dimension: int
    delta: float

    def events(self, rounds: int) -> EventPlan:
        """Return what ``rounds`` rounds release; the charged multiplier pays for the rounding grid."""
        if rounds == 0:
            return EventPlan(events=())
        return charged_plan(
            noise_multiplier=self.noise_multiplier,
            sample_rate=self.sample_rate,
            steps=self.steps_per_round * rounds,
            dimension=self.dimension,
        )

    def epsilon(self, rounds: int) -> float:
        """Return epsilon after ``rounds`` rounds at the study's delta, by PLD."""
        return _epsilon(self, rounds)


@lru_cache(maxsize=4096)
def _epsilon(cost: Cost, rounds: int) -> float:
    if rounds == 0:
        return 0.0
    return epsilon_of(
        noise_multiplier=cost.noise_multiplier,
        delta=cost.delta,
        sample_rate=cost.sample_rate,
        steps=cost.steps_per_round * rounds,
        dimension=cost.dimension,
    )


def cost_of(plan: Plan, *, dimension: int) -> Cost:
    """Return the price of a private plan, with noise just large enough for the study's epsilon.

    Args:
        plan: a plan whose mechanism is not ``none``.
        dimension: the model's number of parameters.

    Raises:
        InputError: no noise reaches the study's epsilon (see calibration).
    """
    privacy, training = plan.study.privacy, plan.training
    if privacy.epsilon is None:
        raise ValueError("a plan without privacy has no cost")
    steps = plan.steps_per_round * training.rounds
    return Cost(
        noise_multiplier=_noise(privacy.epsilon, privacy.delta, training.sample_rate, steps, dimension),
        steps_per_round=plan.steps_per_round,
        sample_rate=training.sample_rate,
        dimension=dimension,
        delta=privacy.delta,
    )


@lru_cache(maxsize=64)
def _noise(epsilon: float, delta: float, sample_rate: float, steps: int, dimension: int) -> float:
    return calibrate_noise_multiplier(
        epsilon=epsilon, delta=delta, sample_rate=sample_rate, steps=steps, dimension=dimension
    )
