"""Which plans are refused: unreadable ones, and combinations that cannot run or cannot be safe."""

import json
from collections.abc import Collection

from pydantic import ValidationError

from fedsci import names
from fedsci.config.plan import PLAN_VERSION, Plan
from fedsci.config.strategy import StrategyRecipe
from fedsci.config.study import EXACT_METRICS, METRICS, Study
from fedsci.errors import ConfigError, InputError, PolicyRefused
from fedsci.strategies import is_module
from fedsci.strategies.base import BufferedStrategy, MeanStrategy
from fedsci.strategies.fedbn import FedBN
from fedsci.strategies.one_exchange import OneExchange

MOST_PRIVATE_STEPS = 100_000


def plan_from_bytes(content: bytes, *, modules: Collection[str] | None = ()) -> Plan:
    """Return the plan that :meth:`Plan.to_bytes` wrote; checked like a file.

    Args:
        content: from anyone: nothing in it makes this process import a module that ``modules`` does not list.
        modules: paths of strategies' modules that may be imported here; None for a plan of this machine's own making.

    Raises:
        ConfigError: it is not a plan this version of fedsci understands.
        PolicyRefused: its strategy is a module that is not listed.
    """
    try:
        values = json.loads(content)
        if values.get("plan_version") != PLAN_VERSION:
            raise ConfigError(f"plan version {values.get('plan_version')!r} is not known", hint="update fedsci")
        study, order, sites = values["study"], values["feature_order"], values["sites"]
        if not isinstance(sites, list) or sites != sorted(sites):
            raise ConfigError("the plan cannot be read: its sites are not a sorted list of names")
        if sorted(order) != sorted(study["features"]):
            raise ConfigError("the plan's feature_order does not name its features", hint="update fedsci")
        study["features"] = {name: study["features"][name] for name in order}
        plan = Plan(
            study=Study.model_validate(study),
            recipe=StrategyRecipe.model_validate(values["strategy"]),
            sites=tuple(names.site_id(name) for name in sites),
        )
        name = plan.recipe.name
        if is_module(name) and modules is not None and name not in modules:
            message = f"the strategy's module {name!r} is not listed here"
            raise PolicyRefused(message, hint=f"whoever trusts it adds {name} to policy.strategies", public=message)
        check_plan(plan)
    except ConfigError:
        raise
    except InputError as error:
        raise ConfigError(f"the plan cannot be read: {error.message}", hint=error.hint) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ValidationError) as error:
        raise ConfigError(f"the plan cannot be read: {' '.join(str(error).split())}") from None
    return plan


def check_plan(plan: Plan) -> None:
    """Refuse combinations that cannot run or cannot be safe.

    Raises:
        ConfigError: names the keys that do not go together.
    """
    study = plan.study
    try:
        plan.to_bytes()
    except UnicodeEncodeError:
        raise ConfigError("a text of the study is not Unicode", hint="remove escapes like \\ud800") from None
    if len(set(plan.sites)) != len(plan.sites):
        raise ConfigError("a site is in the cohort twice", hint="every site file needs its own site name")
    if not plan.sites:
        raise ConfigError("the study has no sites", hint="list site files under sites, or name their folder")
    if plan.min_survivors > len(plan.sites):
        raise ConfigError(
            f"secure_aggregation.min_survivors is {plan.min_survivors}, but the study has {len(plan.sites)} sites",
            hint=f"use at most {len(plan.sites)}",
        )
    try:
        strategy = plan.strategy
    except ConfigError:
        raise
    except InputError as error:
        raise ConfigError(error.message, hint=error.hint) from None
    if strategy.sees != plan.recipe.sees:
        raise ConfigError(
            f"the recipe says that {plan.recipe.name} sees {plan.recipe.sees}, the algorithm sees {strategy.sees}",
            hint=f"write sees: {strategy.sees}",
        )
    if study.secure_aggregation.enabled and strategy.sees == "each":
        raise ConfigError(
            f"{plan.recipe.name} must see each site's update, and secure aggregation shows only their sum",
            hint="choose a strategy that works on sums (fedsci strategies), or secure_aggregation.enabled: false",
        )
    if strategy.site_work == "statistics":
        _check_statistics(plan)
    if study.model.normalised:
        _check_normalisation(plan)
    if isinstance(strategy, MeanStrategy) and strategy.optimiser.kind != plan.recipe.server_optimiser.kind:
        raise ConfigError(
            f"the recipe's server optimiser is {plan.recipe.server_optimiser.kind}, {plan.recipe.name} is another",
            hint=f"write server_optimiser: {{kind: {strategy.optimiser.kind}}}",
        )
    _check_sums(plan)
    _check_buffer(plan)
    _check_pace(plan)
    _check_checkpoints(plan)
    steps = plan.steps_per_round * plan.training.rounds
    if plan.private and steps > MOST_PRIVATE_STEPS:
        raise ConfigError(
            f"the study takes {steps} private steps at each site, the most is {MOST_PRIVATE_STEPS}",
            hint="lower training.rounds or training.local_epochs, or raise training.sample_rate",
        )
    if plan.private and set(plan.metrics) <= set(EXACT_METRICS):
        raise ConfigError(
            f"evaluation.metrics: {', '.join(plan.metrics)} cannot be measured with noise, as private studies may need",
            hint=f"list {METRICS[study.task.kind][0]} as well",
        )
    if study.privacy.mechanism == "distributed":
        _check_distributed(plan)


def _check_statistics(plan: Plan) -> None:
    """Refuse a study of many rounds, or of a norm that statistics are not made for, where there is one exchange."""
    name, privacy = plan.recipe.name, plan.study.privacy
    if not isinstance(plan.strategy, OneExchange):
        raise ConfigError(
            f"{name} sums statistics, and is not built on fedsci.strategies.one_exchange.OneExchange",
            hint="make its class one of OneExchange's",
        )
    if plan.training.rounds != 1:
        raise ConfigError(
            f"{name} sums statistics in one exchange, and training.rounds is {plan.training.rounds}",
            hint="set training.rounds: 1, or leave it out; or choose a strategy that trains (fedsci strategies)",
        )
    numbers = [*plan.study.features.items(), (plan.study.task.target, plan.study.task)]
    scaled = [name for name, part in numbers if getattr(part, "mean", None) is not None]
    if scaled or plan.study.scaling == "federated":
        raise ConfigError(
            f"{name} takes numbers as their bounds scale them, and "
            + (f"{scaled[0]} has a mean and a deviation" if scaled else "features.scaling is federated"),
            hint="remove them and use features.scaling: bounds; or choose a strategy that trains (fedsci strategies)",
        )
    if privacy.clipping_norm != 1:
        raise ConfigError(
            f"{name} scales a record's statistics to norm 1, and privacy.clipping_norm is {privacy.clipping_norm:g}",
            hint="set privacy.clipping_norm: 1.0, or leave it out",
        )
    if not plan.makes_model and plan.study.personalise.method != "none":
        raise ConfigError(
            f"personalise: {plan.study.personalise.method} adapts a shared model, and {name} makes none",
            hint="set personalise: none, or leave it out",
        )


def _check_normalisation(plan: Plan) -> None:
    """Refuse batch normalisation where it cannot be private, or where its running statistics would not be means."""
    strategy, training = plan.strategy, plan.training
    if plan.private:
        raise ConfigError(
            f"model.normalisation: batch mixes records, and privacy.mechanism: {plan.study.privacy.mechanism} needs "
            "each on its own",
            hint="set model.normalisation: none, or privacy.mechanism: none (no privacy)",
        )
    if not plan.makes_model or isinstance(strategy, FedBN):
        averages = True
    elif isinstance(strategy, BufferedStrategy):  # changes to older models can add up to a variance below zero
        averages = False
    elif strategy.plain and strategy.site_work == "local_update" and isinstance(strategy, MeanStrategy):
        step = strategy.optimiser
        averages = step.kind == "sgd" and step.momentum == 0 and step.learning_rate <= 1
    else:
        averages = False
    if not averages:
        raise ConfigError(
            f"model.normalisation: batch has running statistics, which must be averaged, and {plan.recipe.name} does "
            "something else with them",
            hint="use strategy: fedavg, fedprox or fedbn, or model.normalisation: none",
        )
    if training.batch_size < 2:
        raise ConfigError(
            "training.batch_size is 1, and model.normalisation: batch takes a variance over each batch",
            hint="set training.batch_size to 2 or more; 16 or 32 is usual",
        )


def _check_sums(plan: Plan) -> None:
    """Refuse a strategy that cannot work with so few sites, or whose masked sums could be a single site's update."""
    try:
        smallest = plan.smallest_sum
    except ConfigError:
        raise
    except InputError as error:
        raise ConfigError(error.message, hint=error.hint) from None
    if plan.study.secure_aggregation.enabled and smallest < min(2, plan.min_survivors):
        if plan.buffer is not None:
            raise ConfigError(
                f"a masked buffer in which {smallest} site trained on a model of its own may show its update to a "
                "coordinator that cheats with the others' models",
                hint="raise the recipe's together to 2 or more",
            )
        missing = len(plan.sites) - plan.min_survivors
        raise ConfigError(
            f"with {missing} of {len(plan.sites)} sites missing, a sum that {plan.recipe.name} opens may stand for "
            f"{max(smallest, 0)} of them: one site's update, or none",
            hint="lower the recipe's groups, or raise secure_aggregation.min_survivors",
        )


def _check_buffer(plan: Plan) -> None:
    """Refuse a buffer that could not be opened, or could never be full."""
    buffer, least, most = plan.buffer, plan.min_survivors, len(plan.sites)
    if buffer is not None and not least <= buffer <= most:
        raise ConfigError(
            f"{plan.recipe.name}: a buffer of {buffer} is not between min_survivors, {least}, and the {most} sites",
            hint=f"options: {{buffer: {least}}}, or leave it out; a sum of fewer than min_survivors is never opened",
        )


def _check_checkpoints(plan: Plan) -> None:
    """Refuse a checkpoint that the study would never reach."""
    rounds = plan.training.rounds
    for checkpoint in plan.study.checkpoints:
        if checkpoint.every_rounds is not None and checkpoint.every_rounds > rounds:
            raise ConfigError(
                f"checkpoints: {checkpoint.when} would never ask {', '.join(checkpoint.who)}: "
                f"the study has {rounds} round{'s' if rounds > 1 else ''}",
                hint=f"use at most {rounds}, or before: release",
            )


def _check_pace(plan: Plan) -> None:
    """Refuse steps by speed where they would move the optimum, or make the price of a round a matter of speed."""
    strategy = plan.strategy
    if not plan.by_speed:
        return
    if not (isinstance(strategy, MeanStrategy) and strategy.uneven_steps):
        raise ConfigError(
            f"training.pace: by_speed lets fast sites take more steps, and {strategy.name} would follow them",
            hint="use strategy: fednova, which divides updates by their steps, or training.pace: even",
        )
    if plan.private:
        raise ConfigError(
            "training.pace: by_speed goes with privacy.mechanism: none only: each private step is charged, and the "
            "plan must say beforehand how many there are",
            hint="use training.pace: even",
        )


def _check_distributed(plan: Plan) -> None:
    """Refuse a distributed mechanism whose noise would not add up to the guarantee."""
    study, strategy = plan.study, plan.strategy
    if not study.secure_aggregation.enabled:
        raise ConfigError(
            "privacy.mechanism: distributed needs secure aggregation: a site's share of noise alone protects nobody",
            hint="leave secure_aggregation.enabled at true, or use privacy.mechanism: local",
        )
    if study.privacy.unit == "site" and plan.training.sample_rate != 1:
        raise ConfigError(
            f"training.sample_rate is {plan.training.sample_rate:g}, and sampling records protects no whole site",
            hint="set training.sample_rate: 1.0, or privacy.unit: record",
        )
    if strategy.site_work == "local_update" and study.privacy.unit != "site":
        raise ConfigError(
            f"privacy.mechanism: distributed works on one gradient a round, and {strategy.name} trains locally",
            hint="use strategy: dp_fedsgd, or privacy.mechanism: local",
        )
    if not strategy.plain:
        raise ConfigError(
            f"privacy.mechanism: distributed shares the noise of plain contributions, and {strategy.name} sends others",
            hint="use strategy: dp_fedsgd, or privacy.mechanism: local",
        )
    colluding = study.privacy.colluding_sites
    if plan.min_survivors - colluding < 2:
        raise ConfigError(
            f"with {plan.min_survivors} survivors and {colluding} colluding sites, fewer than 2 sites' noise counts",
            hint="raise secure_aggregation.min_survivors, lower privacy.colluding_sites, or use mechanism: local",
        )
