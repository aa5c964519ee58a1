"""Runs of one question side by side: which belong together, what sets them apart, and their numbers.

Runs whose plans differ in nothing but the seed are one group, with a mean and a spread.
"""

import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path

from fedsci.errors import InputError
from fedsci.reporting.comparison_settings import NOT_SET, set_apart, settings_of
from fedsci.reporting.facts import RunFacts, facts_of
from fedsci.reporting.run_folder import mapping, read_run_folder, text
from fedsci.reporting.verdict import Measure

#: What decides which records a model is tested on.
_TEST_RECORDS = ("sites", "evaluation.holdout", "missing", "privacy.group_by")
_SETTLED = frozenset({"completed", "stopped_by_budget"})


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A number over the runs of a group.

    Attributes:
        mean: over the runs that have it.
        deviation: the sample's standard deviation; None for one run.
        runs: how many have it.
    """

    mean: float
    deviation: float | None
    runs: int


@dataclass(frozen=True, kw_only=True)
class Point:
    """A model after a round.

    Attributes:
        round: its number.
        value: the deciding metric.
        size_bytes, virtual_hours, hours: spent by then in rounds, up and down; None where the run does not say.
    """

    round: int
    value: float
    size_bytes: float | None
    virtual_hours: float | None
    hours: float | None


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run, as far as a comparison needs it.

    Attributes:
        folder: where it lies.
        facts: what it says.
        settings: its plan and weather, one text a key, without seeds.
        study: the study in its plan.
        mean_site: its curve is a mean over the labs, else over all records.
    """

    folder: Path
    facts: RunFacts
    settings: Mapping[str, str]
    study: Mapping[str, object]
    mean_site: bool = True

    @property
    def settled(self) -> bool:
        """Whether the run came to its end, so that its numbers are a result."""
        return self.facts.status in _SETTLED

    @property
    def epsilon(self) -> float | None:
        """The most that any lab spent; infinite without a guarantee."""
        return max((lab.epsilon_study for lab in self.facts.labs if lab.epsilon_study is not None), default=None)

    @property
    def decider(self) -> str:
        """Which of the means decides."""
        return "federated_mean_site" if self.mean_site else "federated"

    @cached_property
    def points(self) -> list[Point]:
        """The measured rounds; what they had cost by then counts rounds that were not measured too."""
        rounds = sorted(self.facts.rounds, key=lambda each: each.number)
        sizes = _running([each.size_bytes for each in rounds])
        virtuals = _running([each.virtual_seconds for each in rounds])
        times = _running([each.seconds for each in rounds])
        found = []
        for each, size, virtual, seconds in zip(rounds, sizes, virtuals, times, strict=True):
            value = each.mean_site if self.mean_site else each.joint
            if value is not None:
                found.append(
                    Point(
                        round=each.number,
                        value=value,
                        size_bytes=size,
                        virtual_hours=None if virtual is None else virtual / 3600,
                        hours=None if seconds is None else seconds / 3600,
                    )
                )
        return found


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs that differ in their seeds alone.

    Attributes:
        letter: A, B, ...
        words: what sets it apart from the others.
        runs: sorted by seed.
    """

    letter: str
    words: str
    runs: tuple[Run, ...]

    @property
    def settled(self) -> list[Run]:
        """The runs whose numbers are results."""
        return [run for run in self.runs if run.settled]

    @property
    def seeds(self) -> list[str]:
        """The seeds, in order."""
        return [run.facts.seed for run in self.runs]

    def spread(self, pick: Callable[[Run], float | None]) -> Spread | None:
        """Return a number over the settled runs, or None if none has it."""
        values = [value for run in self.settled if (value := pick(run)) is not None]
        if not values:
            return None
        mean = statistics.fmean(values) if all(map(math.isfinite, values)) else max(values)
        several = len(values) > 1 and math.isfinite(mean)
        return Spread(mean=mean, deviation=statistics.stdev(values) if several else None, runs=len(values))

    @cached_property
    def points(self) -> list[Point]:
        """The mean over the settled runs, of rounds that all of them measured."""
        by_round = [{point.round: point for point in run.points} for run in self.settled]
        shared = set.intersection(*map(set, by_round)) if by_round else set()
        return [_mean_point([points[number] for points in by_round]) for number in sorted(shared)]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything that the page and the terminal show.

    Attributes:
        question: what all runs ask.
        measure: what decides.
        groups: in the order in which their first runs were given.
        differing: settings that are not the same everywhere: key, and each group's text.
        mean_site: the deciding number is the mean over the labs, else over all records.
        cautions: what makes the numbers less comparable than they look.
    """

    question: str
    measure: Measure
    groups: tuple[Group, ...]
    differing: Mapping[str, tuple[str, ...]]
    mean_site: bool
    cautions: tuple[str, ...]

    @property
    def virtual(self) -> bool:
        """Whether all groups have virtual time."""
        return all(any(run.facts.virtual_hours is not None for run in group.settled) for group in self.groups)


def compare_runs(folders: Sequence[Path]) -> Comparison:
    """Return the runs in these folders side by side.

    Raises:
        InputError: fewer than two, one twice, a file is damaged or missing, or the runs do not answer one question by
            one metric.
    """
    if len(folders) < 2:
        raise InputError("one run alone cannot be compared", hint="give two run folders or more")
    seen: dict[Path, Path] = {}
    for folder in folders:
        if folder.resolve() in seen:
            raise InputError(f"{folder} is given twice", hint="name every run folder once")
        seen[folder.resolve()] = folder
    runs = [_read(folder) for folder in folders]
    measures = _require_comparable(runs)
    mean_site = all("federated_mean_site" in run.facts.means for run in runs if run.settled)
    runs = [replace(run, mean_site=mean_site) for run in runs]
    groups, differing = _grouped(runs)
    return Comparison(
        question=runs[0].facts.question,
        measure=measures,
        groups=groups,
        differing=differing,
        mean_site=mean_site,
        cautions=tuple(_cautions(groups, differing)),
    )


def _read(folder: Path) -> Run:
    run = read_run_folder(folder)
    if run.notes:
        raise InputError(
            f"{folder}: {run.notes[0].rstrip('.')}",
            hint="a run that is still going has no summary.json yet; leave this one out, or run it again",
        )
    return Run(folder=folder, facts=facts_of(run), settings=settings_of(run), study=mapping(run.plan, "study"))


def _require_comparable(runs: Sequence[Run]) -> Measure:
    """Return the metric that decides in all runs.

    Raises:
        InputError: they ask for different things; says which, and what the first and the odd one have.
    """
    asked = [_asked(run) for run in runs]
    for run, other in zip(runs[1:], asked[1:], strict=True):
        for what, value in asked[0].items():
            if other[what] != value:
                raise InputError(
                    f"not comparable: the {what} of {runs[0].folder.name} is {value}, "
                    f"of {run.folder.name} {other[what]}",
                    hint="compare runs that answer one question by one metric",
                )
    measure = runs[0].facts.measure
    if measure is None:
        raise InputError(f"{runs[0].folder}: summary.json names no deciding metric", hint="run the study again")
    return measure


def _asked(run: Run) -> dict[str, str]:
    return {
        "question": repr(run.facts.question or run.facts.study),
        "data set": repr(text(run.study.get("dataset"))),
        "task": json.dumps(mapping(run.study, "task"), sort_keys=True),
        "deciding metric": run.facts.measure.name if run.facts.measure else "not named",
    }


def _grouped(runs: Sequence[Run]) -> tuple[tuple[Group, ...], dict[str, tuple[str, ...]]]:
    alike: dict[str, list[Run]] = {}
    for run in runs:
        alike.setdefault(json.dumps(run.settings, sort_keys=True), []).append(run)
    found = list(alike.values())
    keys = dict.fromkeys(key for members in found for key in members[0].settings)
    differing = {}
    for key in keys:
        texts = tuple(members[0].settings.get(key, NOT_SET) for members in found)
        set_somewhere = {text for text in texts if text != NOT_SET}
        if len(set(texts)) > 1 and not (key.startswith("privacy.") and len(set_somewhere) == 1):
            differing[key] = texts
    if "strategy" in differing:  # its name says what its recipe holds
        differing = {key: texts for key, texts in differing.items() if not key.startswith("recipe.")}
    words = set_apart(differing)
    groups = tuple(
        Group(
            letter=_letter(number),
            words=words[number] if words else members[0].facts.strategy or members[0].facts.study,
            runs=tuple(sorted(members, key=lambda run: (len(run.facts.seed), run.facts.seed))),
        )
        for number, members in enumerate(found)
    )
    return groups, differing


def _letter(number: int) -> str:
    """Return A, B, ..., Z, A1, B1, ..."""
    return chr(ord("A") + number % 26) + (str(number // 26) if number >= 26 else "")


def _cautions(groups: Sequence[Group], differing: Mapping[str, object]) -> Iterator[str]:
    others = [key for key in differing if key in _TEST_RECORDS or key.startswith("features.")]
    if others:
        yield f"The models were not tested on the same records: {', '.join(others)} differ."
    if len({tuple(group.seeds) for group in groups}) > 1:
        yield "The seeds are not the same everywhere, and another seed holds out other records for testing."
    if any(key.startswith("weather.") for key in differing):
        yield "The simulated weather is not the same everywhere."
    for group in groups:
        lost = [run for run in group.runs if not run.settled]
        if lost:
            why = f" ({lost[0].facts.reason})" if lost[0].facts.reason else ""
            yield f"{len(lost)} of {len(group.runs)} runs of {group.letter} did not come to an end{why}."
    if any(run.facts.noised for group in groups for run in group.settled):
        yield "Metrics of the joint model carry privacy noise where not every lab lets exact ones leave."


def _running(values: Sequence[float | None]) -> list[float | None]:
    """Return running sums, or Nones if one value is missing."""
    known = [value for value in values if value is not None]
    return list(accumulate(known)) if len(known) == len(values) else [None] * len(values)


def _mean_point(points: Sequence[Point]) -> Point:
    def mean(pick: Callable[[Point], float | None]) -> float | None:
        values = [value for point in points if (value := pick(point)) is not None]
        return statistics.fmean(values) if len(values) == len(points) else None

    return Point(
        round=points[0].round,
        value=statistics.fmean(point.value for point in points),
        size_bytes=mean(lambda point: point.size_bytes),
        virtual_hours=mean(lambda point: point.virtual_hours),
        hours=mean(lambda point: point.hours),
    )
