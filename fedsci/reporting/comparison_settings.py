"""A run's settings as one text a key, and the words that tell groups of runs apart."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from fedsci.config.plan import Plan
from fedsci.config.scaling import on_its_own
from fedsci.errors import FedsciError, InputError
from fedsci.reporting.evidence import plan_of
from fedsci.reporting.run_folder import RunFolder, mapping

#: Keys of the flattened plan that decide nothing about how a study is run.
_LEFT_OUT = ("study", "question", "seed", "task.", "dataset", "recipe.paper", "recipe.when", "recipe.cost")
NOT_SET = "not set"
#: What tells groups apart best, first to last; other keys come in the middle.
_TELLING = ("strategy", "privacy.epsilon", "privacy.mechanism", "model", "recipe", "training", "weather", "sites")


def settings_of(run: RunFolder) -> dict[str, str]:
    """Return the plan's keys with dots, the training numbers as they were used, and the weather's."""
    recipe = dict(mapping(run.plan, "strategy"))
    study = {**mapping(run.plan, "study"), "strategy": recipe.pop("name", None), "sites": run.plan.get("sites")}
    if not mapping(run.plan, "study"):
        raise InputError(f"{run.name}: plan.yaml names no study", hint="give a run folder that is complete")
    with contextlib.suppress(FedsciError):  # of another version's plan, what is written is compared
        plan = plan_of(run)
        study |= {"training": asdict(plan.training)} | _as_asked(plan)
    if mapping(study, "privacy").get("mechanism") == "none":  # its other numbers do nothing
        study["privacy"] = {"mechanism": "none", "epsilon": "∞"}
    recipe.pop("training", None)
    recipe.pop("private_learning_rate", None)
    found = dict(_flat(study)) | dict(_flat(recipe, "recipe."))
    found |= dict(_flat(mapping(run.summary, "weather"), "weather."))
    return {key: words for key, words in found.items() if not f"{key}.".startswith(tuple(map(_whole, _LEFT_OUT)))}


def _as_asked(plan: Plan) -> dict[str, object]:
    """Return what a study was before a pass measured its scaling: with all of its epsilon, without what was found."""
    own = on_its_own(plan).study.model_dump(mode="json", include={"features", "task", "privacy"})
    return own | {"scaled_by": None}


def _whole(key: str) -> str:
    return key if key.endswith(".") else f"{key}."


def _flat(values: Mapping[str, object], above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat({str(inner): item for inner, item in value.items()}, f"{above}{key}.")
        elif key != "seed":
            yield f"{above}{key}", _words(value)


def _words(value: object) -> str:
    """Return a setting for a reader.

    >>> [_words(value) for value in (None, True, 0.5, 30, "none", ["a", "b"], {})]
    ['not set', 'yes', '0.5', '30', 'none', 'a, b', 'not set']
    """
    if value is None or value in ({}, []):
        return NOT_SET
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.12g}"
    return ", ".join(map(_words, value)) if isinstance(value, list) else str(value)


def set_apart(differing: Mapping[str, Sequence[str]]) -> list[str]:
    """Return words for each group: the fewest settings that set all apart, three at most, the strategy first.

    >>> set_apart({"strategy": ["fedavg", "fedprox"], "training.learning_rate": ["0.1", "0.5"]})
    ['fedavg', 'fedprox']
    >>> set_apart({"privacy.epsilon": ["1", "3"]})
    ['epsilon 1', 'epsilon 3']
    """
    ranks = {prefix: rank for rank, prefix in enumerate(_TELLING)}
    order = sorted(differing, key=lambda key: ranks.get(key, ranks.get(key.partition(".")[0], len(ranks) // 2)))
    chosen: list[str] = []
    apart = 1
    for key in order:
        now = len(set(zip(*(differing[one] for one in [*chosen, key]), strict=True)))
        if now > apart and len(chosen) < 3:
            chosen.append(key)
            apart = now
    named = [[_setting(key, text) for text in differing[key]] for key in chosen]
    return [", ".join(parts) for parts in zip(*named, strict=True)]


def _setting(key: str, value: str) -> str:
    short = value if len(value) <= 24 else f"{value[:23]}…"
    return short if key == "strategy" else f"{key.removeprefix('recipe.').rpartition('.')[2]} {short}"
