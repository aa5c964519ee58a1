"""The plan: study, recipe and cohort fused into one frozen thing whose digest is the study's identity."""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from fedsci import names
from fedsci.config.strategy import StrategyRecipe
from fedsci.config.study import METRICS, Study
from fedsci.config.study_shape import shape_of
from fedsci.config.training import Training
from fedsci.strategies import Strategy, build_strategy
from fedsci.strategies.base import BufferedStrategy
from fedsci.strategies.fedbn import FedBN
from fedsci.strategies.one_exchange import OneExchange
from fedsci.strategies.server_optimiser import ServerOptimiser

PLAN_VERSION = 1

_FALLBACK = Training(
    rounds=30,
    sample_rate=1.0,
    learning_rate=0.1,
    momentum=0.0,
    local_epochs=1,
    batch_size=32,
    round_deadline_s=3600.0,
    pace="even",
)


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """Every number of training, resolved: no defaults are left to anyone's taste."""

    rounds: int
    sample_rate: float
    learning_rate: float
    momentum: float
    local_epochs: int
    batch_size: int
    round_deadline_s: float
    pace: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a coordinator asks of sites; public, frozen, the same bytes everywhere.

    Attributes:
        study: the study as written, without the paths of site files.
        recipe: the strategy recipe as written.
        sites: the cohort's names, sorted.
    """

    study: Study
    recipe: StrategyRecipe
    sites: tuple[names.SiteId, ...]

    @cached_property
    def training(self) -> Hyperparameters:
        """The resolved training numbers: the study's, else the recipe's, else fedsci's.

        Where training is private and the study gives no learning rate, the recipe's ``private_learning_rate`` does.
        """
        merged = _FALLBACK.model_dump()
        for layer in (self.recipe.training, self.study.training):
            merged.update({key: value for key, value in layer.model_dump().items() if value is not None})
        rule, epsilon = self.recipe.private_learning_rate, self.study.privacy.epsilon
        if rule is not None and self.private and epsilon is not None and self.study.training.learning_rate is None:
            merged["learning_rate"] = rule.at(epsilon)
        return Hyperparameters(**merged)

    @cached_property
    def strategy(self) -> Strategy:
        """The strategy with its server optimiser.

        Strategies that move along gradients take the study's learning rate and momentum, others the
        recipe's own (1 and 0 where it says nothing). Strategies of one exchange know the study's shape, and FedBN
        which numbers of the model are its normalisation's.

        Raises:
            InputError: such a strategy is not for this study.
        """
        spec = self.recipe.server_optimiser
        options = self.recipe.options
        gradient = (
            build_strategy(self.recipe.name, optimiser=ServerOptimiser(), options=options).site_work == "gradient"
        )
        rate = self.training.learning_rate if gradient else 1.0
        momentum = self.training.momentum if gradient else 0.0
        strategy = build_strategy(
            self.recipe.name,
            optimiser=spec.optimiser(learning_rate=rate, momentum=momentum),
            options=options,
        )
        if isinstance(strategy, FedBN):
            return strategy.for_model(self.study.model.normalised)
        return strategy.for_study(shape_of(self.study)) if isinstance(strategy, OneExchange) else strategy

    def release_size(self, parameters: int) -> int:
        """Return how many numbers one noised release has: the model's, or those of a strategy's own statistics.

        Args:
            parameters: of the model.
        """
        strategy = self.strategy
        return strategy.width(parameters) if strategy.site_work == "statistics" else parameters

    @property
    def steps_per_round(self) -> int:
        """Noised releases of a site in a round: 1 of gradients, statistics, whole sites; else epochs / sample_rate."""
        if self.strategy.site_work != "local_update" or self.study.privacy.unit == "site":
            return 1
        return max(1, round(self.training.local_epochs / self.training.sample_rate))

    @property
    def buffer(self) -> int | None:
        """Contributions that a buffer waits for: the recipe's, else ``min_survivors``; None without buffers."""
        strategy = self.strategy
        if not isinstance(strategy, BufferedStrategy):
            return None
        return strategy.buffer or self.min_survivors

    @property
    def by_speed(self) -> bool:
        """Whether sites take as many local steps as their speed allows."""
        return self.training.pace == "by_speed"

    @property
    def needs_clock(self) -> str | None:
        """What of the plan works only where it is known how long sites take, in words; None if nothing does."""
        if self.buffer is not None:
            return f"{self.recipe.name} sums whoever has finished while others still train"
        return "training.pace: by_speed gives each site steps by its speed" if self.by_speed else None

    def local_steps(self, records: int) -> int:
        """Steps of local training of a site with this many training records in one round; 1 where it does none.

        The most it may take, where ``training.pace`` is ``by_speed``.
        """
        if self.strategy.site_work != "local_update":
            return 1
        if self.private and self.study.privacy.unit != "site":
            return self.steps_per_round
        size = self.training.batch_size
        joined = self.study.model.normalised and records > size and records % size == 1  # see Learner.local_update
        return self.training.local_epochs * (records // size if joined else -(-records // size))

    @property
    def min_survivors(self) -> int:
        """Sites that must finish a round: as the study says, else a two-thirds majority."""
        chosen = self.study.secure_aggregation.min_survivors
        return chosen if chosen is not None else default_survivors(len(self.sites))

    @property
    def smallest_sum(self) -> int:
        """The fewest sites that any sum which a round opens may stand for: the survivors, or those of one group.

        Of a buffer: the fewest that trained on one model, since whoever hands out the models could void all others'.

        Raises:
            InputError: the strategy cannot work with so few.
        """
        return self.strategy.smallest_sum(sites=len(self.sites), survivors=self.min_survivors)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics to report; the first decides."""
        return tuple(self.study.evaluation.metrics) or METRICS[self.study.task.kind]

    @property
    def measured_rounds(self) -> tuple[int, ...]:
        """The rounds after which noised metrics may be measured; the last one always."""
        rounds, every = self.training.rounds, self.study.evaluation.every
        return (*(range(every, rounds, every) if every is not None else ()), rounds)

    @property
    def makes_model(self) -> bool:
        """Whether a model comes of the study, which can be measured and compared; else a vector of statistics."""
        strategy = self.strategy
        return strategy.makes_model if isinstance(strategy, OneExchange) else True

    @property
    def private(self) -> bool:
        """Whether training carries a differential-privacy guarantee."""
        return self.study.privacy.mechanism != "none"

    @property
    def lab_models(self) -> tuple[str, ...]:
        """The models that each lab has for itself and is compared with, in the order in which labs answer.

        ``local``: trained on its own records only; ``local_no_dp``: the same without the study's privacy;
        ``personalised``: the shared model adapted to its own records, without privacy.
        """
        if not self.makes_model:
            return ()
        local = "local" in self.study.evaluation.baselines
        return (
            *(("local",) if local else ()),
            *(("local_no_dp",) if local and self.private else ()),
            *(("personalised",) if self.study.personalise.method != "none" else ()),
        )

    @property
    def awaits_scaling(self) -> bool:
        """Whether numbers that scale the study are yet to be measured, so that it cannot run as it is."""
        return self.study.scaling == "federated" and self.study.scaled_by is None

    @property
    def whole_privacy(self) -> tuple[float | None, float]:
        """Epsilon and delta of the study together with what measured its scaling, by basic composition."""
        privacy, by = self.study.privacy, self.study.scaled_by
        if by is None or by.epsilon is None or by.delta is None or privacy.epsilon is None:
            return privacy.epsilon, privacy.delta
        return privacy.epsilon + by.epsilon, privacy.delta + by.delta

    def without_privacy(self) -> "Plan":
        """Return the plan of a baseline that trains without privacy: the numbers the recipe has for that."""
        privacy = self.study.privacy.model_copy(update={"mechanism": "none"})
        return replace(self, study=self.study.model_copy(update={"privacy": privacy}))

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON-ready values."""
        return {
            "plan_version": PLAN_VERSION,
            "study": self.study.model_dump(mode="json", exclude={"sites"}),
            # the order is that of the model's inputs, and keys of JSON objects have none
            "feature_order": list(self.study.features),
            "strategy": self.recipe.model_dump(mode="json"),
            "sites": list(self.sites),
        }

    def to_bytes(self) -> bytes:
        """Return the canonical bytes: JSON, sorted keys, no spaces, UTF-8."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
        return text.encode()

    @cached_property
    def digest(self) -> names.Digest:
        """SHA-256 of :meth:`to_bytes`."""
        return names.digest(self.to_bytes())


def default_survivors(sites: int) -> int:
    """Return floor(2n/3) + 1, at most n: 12 of 17, 3 of 4, 2 of 2."""
    return min(sites, 2 * sites // 3 + 1)
