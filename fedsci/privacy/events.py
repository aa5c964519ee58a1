"""What a mechanism did, as frozen data that an accountant can price.

Every plan states for which neighbouring data sets it holds: those that differ by adding or removing one unit,
a record unless it says otherwise. That relation is a type, so that an epsilon is never shown without it, and plans of
different units are never added up. Events are stored as JSON of our own, with a
version; kinds that are not known are refused, never skipped.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NoReturn

from fedsci.errors import InputError
from fedsci.privacy.poisson import check_sample_rate

FORMAT_VERSION: Final = 2
_BEFORE_HELD_OUT: Final = 1


class Neighbouring(Enum):
    """Which data sets must be hard to tell apart."""

    ADD_OR_REMOVE_ONE_RECORD = "add_or_remove_one_record"
    ADD_OR_REMOVE_ONE_GROUP = "add_or_remove_one_group"
    ADD_OR_REMOVE_ONE_SITE = "add_or_remove_one_site"


_UNITS: Final = {
    "record": Neighbouring.ADD_OR_REMOVE_ONE_RECORD,
    "group": Neighbouring.ADD_OR_REMOVE_ONE_GROUP,
    "site": Neighbouring.ADD_OR_REMOVE_ONE_SITE,
}


def neighbouring_of(unit: str) -> Neighbouring:
    """Return the relation for a unit of privacy: ``record``, ``group`` (all records that share a key) or ``site``.

    Raises:
        InputError: if there is no such unit.
    """
    if unit not in _UNITS:
        raise InputError(f"there is no unit of privacy {unit!r}", hint=f"use one of {', '.join(_UNITS)}")
    return _UNITS[unit]


def _check_noise(noise_multiplier: float) -> None:
    if not (math.isfinite(noise_multiplier) and noise_multiplier >= 0):
        raise InputError(f"noise multiplier {noise_multiplier!r} is not a finite number of at least 0")


@dataclass(frozen=True, kw_only=True)
class GaussianEvent:
    """A sum released with Gaussian noise.

    Attributes:
        noise_multiplier: standard deviation over L2 sensitivity; zero means no privacy at all.
    """

    noise_multiplier: float

    def __post_init__(self) -> None:
        _check_noise(self.noise_multiplier)


@dataclass(frozen=True, kw_only=True)
class PoissonGaussianEvent:
    """A Gaussian release over a secret Poisson sample of the records.

    Attributes:
        sample_rate: each record's probability of taking part, in (0, 1]; 1 is a plain Gaussian.
        noise_multiplier: standard deviation over L2 sensitivity.
    """

    sample_rate: float
    noise_multiplier: float

    def __post_init__(self) -> None:
        check_sample_rate(self.sample_rate)
        _check_noise(self.noise_multiplier)


@dataclass(frozen=True, kw_only=True)
class LaplaceEvent:
    """A number released with Laplace (or discrete Laplace) noise.

    Attributes:
        noise_multiplier: the scale b over the L1 sensitivity; epsilon is its inverse.
    """

    noise_multiplier: float

    def __post_init__(self) -> None:
        _check_noise(self.noise_multiplier)


Event = GaussianEvent | PoissonGaussianEvent | LaplaceEvent


@dataclass(frozen=True, kw_only=True)
class Composition:
    """The same event, ``count`` times over."""

    event: Event
    count: int

    def __post_init__(self) -> None:
        if not isinstance(self.event, GaussianEvent | PoissonGaussianEvent | LaplaceEvent):
            raise InputError(f"no price is known for {type(self.event).__name__}")
        if type(self.count) is not int or self.count < 1:
            raise InputError(f"an event must happen a whole number of times, not {self.count!r}")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All events of a study, in order, fixed before the first of them happens.

    A study trains on some records and measures its models on the others. Which side a record is on depends on that
    record alone, so each record pays for one side only (parallel composition): the costlier of the two.

    Attributes:
        events: what is released of records that are trained on; empty means nothing is, at no cost.
        held_out: what is released of records that are held out.
        neighbouring: which data sets this makes hard to tell apart.
    """

    events: tuple[Composition, ...]
    held_out: tuple[Composition, ...] = ()
    neighbouring: Neighbouring = Neighbouring.ADD_OR_REMOVE_ONE_RECORD


def one_after_another(plans: Iterable[Plan]) -> Plan:
    """Return one plan that costs a record at least what all ``plans`` together cost it.

    One plan is itself. A record may be held out in one study and trained on in the next, so several have no held-out
    side. Where every event is an unsampled Gaussian, the side with less noise in all dominates the other (both are one
    Gaussian release, and more noise is post-processing); elsewhere both sides are counted.

    Raises:
        InputError: the plans are for different units.
    """
    several = tuple(plans)
    if len(several) == 1:
        return several[0]
    events: list[Composition] = []
    relations = {plan.neighbouring for plan in several} or {Neighbouring.ADD_OR_REMOVE_ONE_RECORD}
    if len(relations) > 1:
        raise InputError("the costs of studies for different units of privacy cannot be added up")
    for plan in several:
        train, held_out = gaussian_precision(plan.events), gaussian_precision(plan.held_out)
        if train is None or held_out is None:
            events += [*plan.events, *plan.held_out]
        else:
            events += plan.held_out if held_out > train else plan.events
    return Plan(events=tuple(events), neighbouring=relations.pop())


def gaussian_precision(parts: tuple[Composition, ...]) -> float | None:
    """Return the sum of 1 / noise_multiplier^2, which is that of one equivalent Gaussian release; None if not all are.

    Infinite if one has no noise.
    """
    total = 0.0
    for part in parts:
        if not isinstance(part.event, GaussianEvent):
            return None
        noise = part.event.noise_multiplier
        total += part.count / noise**2 if noise else math.inf
    return total


_KINDS: Final[dict[str, tuple[type[Any], frozenset[str]]]] = {
    "gaussian": (GaussianEvent, frozenset({"noise_multiplier"})),
    "poisson_gaussian": (PoissonGaussianEvent, frozenset({"sample_rate", "noise_multiplier"})),
    "laplace": (LaplaceEvent, frozenset({"noise_multiplier"})),
}
_NAMES: Final = {kind: name for name, (kind, _) in _KINDS.items()}


def to_json(plan: Plan) -> str:
    """Return the plan as one line of JSON; equal plans give equal text."""
    document = {
        "version": FORMAT_VERSION,
        "neighbouring": plan.neighbouring.value,
        "events": _listed(plan.events),
        "held_out": _listed(plan.held_out),
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _listed(parts: tuple[Composition, ...]) -> list[dict[str, Any]]:
    return [
        {"kind": _NAMES[type(part.event)], "count": part.count}
        | {field: float(getattr(part.event, field)) for field in _KINDS[_NAMES[type(part.event)]][1]}
        for part in parts
    ]


def from_json(text: str) -> Plan:
    """Return the plan that :func:`to_json` wrote, in this version or the one before (without a held-out side).

    Raises:
        InputError: if the text is not such a plan: another version or relation, an unknown kind, a missing,
            unknown or repeated key, or a value out of range.
    """
    try:
        document = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InputError("the privacy events are not JSON") from error
    version = document.get("version") if isinstance(document, dict) else None
    keys = {"version", "neighbouring", "events"} | ({"held_out"} if version != _BEFORE_HELD_OUT else set())
    if isinstance(document, dict) and (type(version) is not int or version not in (_BEFORE_HELD_OUT, FORMAT_VERSION)):
        raise InputError(
            f"privacy events of version {version!r}", hint=f"this fedsci reads versions up to {FORMAT_VERSION}"
        )
    _check_keys(document, frozenset(keys), "privacy events")
    if document["neighbouring"] not in [relation.value for relation in Neighbouring]:
        raise InputError(f"privacy events for the neighbouring relation {document['neighbouring']!r}")
    sides = [document["events"], document.get("held_out", [])]
    if not all(isinstance(side, list) for side in sides):
        raise InputError("the privacy events are not a list")
    events, held_out = (tuple(_composition(item) for item in side) for side in sides)
    return Plan(events=events, held_out=held_out, neighbouring=Neighbouring(document["neighbouring"]))


def _composition(item: object) -> Composition:
    kind = item.get("kind") if isinstance(item, dict) else None
    if not isinstance(item, dict) or not isinstance(kind, str) or kind not in _KINDS:
        raise InputError(f"unknown kind of privacy event {kind!r}", hint="it may come from a newer fedsci")
    event, fields = _KINDS[kind]
    _check_keys(item, fields | {"kind", "count"}, f"a {kind} event")
    values = {field: item[field] for field in fields}
    if any(type(value) not in (int, float) for value in values.values()):
        raise InputError(f"a {kind} event has a parameter that is not a number")
    try:
        parameters = {field: float(value) for field, value in values.items()}
    except OverflowError as error:
        raise InputError(f"a {kind} event has a parameter out of range") from error
    return Composition(event=event(**parameters), count=item["count"])


def _check_keys(document: object, expected: frozenset[str], what: str) -> None:
    if not isinstance(document, Mapping):
        raise InputError(f"{what}: expected an object")
    wrong = set(document) ^ expected
    if wrong:
        raise InputError(f"{what}: missing or unknown key {min(wrong)!r}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("repeated key")
    return result


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
