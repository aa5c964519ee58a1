"""What a comparison says: the table of results, and the sentences above it."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedsci.reporting.comparison import Comparison, Group, Point, Run, Spread
from fedsci.reporting.page import epsilon_words
from fedsci.reporting.running import duration_words, size_words
from fedsci.reporting.verdict import Worth

_ABSENT = "–"
_CLEARLY = 1.05  # costs closer than this are not worth a sentence
_FEW = 2  # runs whose deviation is hardly known
_WORTH_A_WORD = 0.002  # smaller deviations than this share of the mean are not
_SCORES = (
    ("Joint, mean over labs", "federated_mean_site"),
    ("Joint, all test records", "federated"),
    ("Alone, mean over labs", "local_mean_site"),
    ("Alone without privacy, mean over labs", "local_no_dp_mean_site"),
    ("Personalised, mean over labs", "personalised_mean_site"),
    ("Pooled, no privacy", "pooled"),
    ("Pooled, same privacy", "pooled_dp"),
)

Words = Callable[[float], str]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        label: what it counts.
        cells: a text a group.
        spreads: the numbers behind them; None where a group has none.
    """

    label: str
    cells: tuple[str, ...]
    spreads: tuple[Spread | None, ...]


@dataclass(frozen=True, kw_only=True)
class Reached:
    """The first round after which a group's mean curve is at the level, and what it had cost by then."""

    group: Group
    point: Point | None


def result_rows(comparison: Comparison) -> list[Row]:
    """Return the table's lines; a line that no group can fill is left out."""
    score = comparison.measure.format
    rows = [_row(comparison, label, _mean_named(key), score, noise=key) for label, key in _SCORES]
    rows += [
        _row(comparison, "Privacy spent, ε, the most at any lab", lambda run: run.epsilon, epsilon_words),
        _row(comparison, "Rounds", lambda run: run.facts.rounds_completed, _plain),
        _row(comparison, "Times a lab was missing in a round", lambda run: len(run.facts.dropped), _plain),
        _row(comparison, "Sent by the labs", lambda run: run.facts.bytes_up, size_words),
        _row(comparison, "Sent to the labs", lambda run: run.facts.bytes_down, size_words),
        _row(comparison, "Virtual hours of the rounds", lambda run: run.facts.virtual_hours, _hours),
        _row(comparison, "Measured time of the rounds", round_seconds, duration_words),
    ]
    level, reached = reaching(comparison)
    if level is not None:
        name = f"To reach {score(level)}"
        rows += [
            _reaching_row(f"{name}: rounds", reached, lambda point: point.round, _plain),
            _reaching_row(f"{name}: sent", reached, lambda point: point.size_bytes, size_words),
            _reaching_row(f"{name}: virtual hours", reached, lambda point: point.virtual_hours, _hours),
        ]
    return [row for row in rows if any(row.spreads)]


def sentences(comparison: Comparison) -> list[str]:
    """Return which run is better on what, the deciding metric first, and whether chance could have done it."""
    return [*_winner(comparison), *_time_to_level(comparison), *_costs(comparison)]


def reaching(comparison: Comparison) -> tuple[float | None, list[Reached]]:
    """Return the level that all groups' curves reach in the end, and where each first has it."""
    ends = [group.points[-1].value for group in comparison.groups if group.points]
    if len(ends) < len(comparison.groups) or all(len(group.points) < 2 for group in comparison.groups):
        return None, []
    higher = comparison.measure.higher_is_better
    level = min(ends) if higher else max(ends)
    found = []
    for group in comparison.groups:
        first = next((p for p in group.points if (p.value >= level if higher else p.value <= level)), None)
        found.append(Reached(group=group, point=first))
    return level, found


def round_seconds(run: Run) -> float | None:
    """Return the measured time of a run's rounds, in seconds."""
    seconds = [each.seconds for each in run.facts.rounds if each.seconds is not None]
    return sum(seconds) if seconds else None


def _winner(comparison: Comparison) -> list[str]:
    measure = comparison.measure
    over = "the mean over the labs" if comparison.mean_site else "all test records"
    known = [(group, spread) for group in comparison.groups if (spread := group.spread(_decider)) is not None]
    if not known:
        return [f"No run has a result in {measure.label}."]
    known.sort(key=lambda pair: -pair[1].mean if measure.higher_is_better else pair[1].mean)
    (best, first), *others = known
    if not others:
        several = "" if first.deviation is None else f" ± {measure.format(first.deviation)} over {first.runs} runs"
        return [f"{_named(best)} reaches {measure.label} {measure.format(first.mean)}{several}, in {over}."]
    second, next_best = others[0]
    rest = "; then " + ", ".join(f"{group.letter} {measure.format(s.mean)}" for group, s in others[1:])
    ranking = (
        f"In {measure.label} ({over}), {_named(best)} reaches {measure.format(first.mean)} and {_named(second)} "
        f"{measure.format(next_best.mean)}{rest if others[1:] else ''}."
    )
    if first.mean == next_best.mean:
        return [ranking, f"{best.letter} and {second.letter} are equal."]
    return [ranking, *_told_apart(comparison, best, first, second, next_best)]


def _told_apart(comparison: Comparison, best: Group, first: Spread, second: Group, other: Spread) -> list[str]:
    """Return whether the gap is larger than chance makes it: seed by seed where both have the same seeds."""
    measure = comparison.measure
    gap = abs(first.mean - other.mean)
    gains = _gains(comparison, best, second)
    ahead = ""
    if gains:
        spread, kind = statistics.stdev(gains), "its spread from seed to seed"
        ahead = f" {best.letter} is ahead in {sum(gain > 0 for gain in gains)} of {len(gains)} seeds."
    elif first.deviation is not None and other.deviation is not None:
        spread, kind = math.hypot(first.deviation, other.deviation), "the spread between single runs"
    else:
        spread, kind = _noise(best, second), "the privacy noise of the measurement"
    opening = f"The difference between {best.letter} and {second.letter}, {measure.format(gap)},"
    if not spread and not gains:
        found = [
            f"{opening} may be chance: there are not several runs of each (run more seeds: --set seed=N).",
        ]
    elif gap > spread:
        found = [f"{opening} is larger than {kind} ({measure.format(spread)}).{ahead}"]
    else:
        found = [f"{opening} is no larger than {kind} ({measure.format(spread)}): the runs do not settle it.{ahead}"]
    if (gains or first.deviation is not None) and min(first.runs, other.runs) == _FEW:
        found.append("Two runs say little of how far chance goes.")
    if measure.compare(first.mean, other.mean) is Worth.AS_WELL:
        found.append("It is so small that either will do.")
    return found


def _gains(comparison: Comparison, best: Group, second: Group) -> list[float]:
    """Return by how much the first is better, seed by seed; nothing unless both have the same seeds, once each."""
    ours, theirs = (
        {run.facts.seed: value for run in group.settled if (value := _decider(run)) is not None}
        for group in (best, second)
    )
    complete = len(ours) == len(best.settled) and len(theirs) == len(second.settled)
    if not complete or set(ours) != set(theirs) or len(ours) < 2:
        return []
    sign = 1 if comparison.measure.higher_is_better else -1
    return [sign * (ours[seed] - theirs[seed]) for seed in sorted(ours)]


def _noise(best: Group, second: Group) -> float:
    """Return the privacy noise of the difference of two single runs, 0 where there is none or it is not known."""
    both = [run.facts.noise.get(run.decider, 0.0) for group in (best, second) for run in group.settled[:1]]
    return math.hypot(*both)


def _time_to_level(comparison: Comparison) -> list[str]:
    level, reached = reaching(comparison)
    if level is None or len(reached) < 2:
        return []
    parts = []
    for each in reached:
        if each.point is None:
            return []
        what = [f"{each.point.round} round{'s' if each.point.round > 1 else ''}"]
        what += [size_words(each.point.size_bytes)] if each.point.size_bytes is not None else []
        if comparison.virtual and each.point.virtual_hours is not None:
            what.append(f"{duration_words(each.point.virtual_hours * 3600)} of virtual time")
        parts.append(f"{each.group.letter} after {', '.join(what)}")
    return [f"{comparison.measure.label[0].upper()}{comparison.measure.label[1:]} {comparison.measure.format(level)} "
            f"is reached by {'; by '.join(parts)}."]  # fmt: skip


def _costs(comparison: Comparison) -> list[str]:
    found = []
    for opening, pick, words in (
        ("Least is sent by", _sent, size_words),
        ("Least virtual time is taken by", _virtual_seconds if comparison.virtual else _nothing, duration_words),
        ("Least privacy is spent by", lambda run: run.epsilon, _guarantee),
    ):
        known = [(spread.mean, group) for group in comparison.groups if (spread := group.spread(pick)) is not None]
        known.sort(key=lambda pair: pair[0])
        if len(known) > 1 and known[-1][0] > known[0][0] * _CLEARLY:
            (least, cheapest), (most, dearest) = known[0], known[-1]
            found.append(f"{opening} {cheapest.letter}, {words(least)}; most by {dearest.letter}, {words(most)}.")
    return found


def _row(
    comparison: Comparison, label: str, pick: Callable[[Run], float | None], words: Words, *, noise: str = ""
) -> Row:
    spreads = tuple(group.spread(pick) for group in comparison.groups)
    cells = tuple(
        _cell(spread, words) + (_beside(group, noise, words) if spread is not None else "")
        for group, spread in zip(comparison.groups, spreads, strict=True)
    )
    return Row(label=label, cells=cells, spreads=spreads)


def _reaching_row(label: str, reached: Sequence[Reached], pick: Callable[[Point], float | None], words: Words) -> Row:
    values = [None if each.point is None else pick(each.point) for each in reached]
    spreads = tuple(None if value is None else Spread(mean=value, deviation=None, runs=1) for value in values)
    return Row(label=label, cells=tuple(_cell(spread, words) for spread in spreads), spreads=spreads)


def _cell(spread: Spread | None, words: Words) -> str:
    if spread is None:
        return _ABSENT
    shown = spread.deviation is not None and spread.deviation > abs(spread.mean) * _WORTH_A_WORD
    return words(spread.mean) + (f" ± {words(float(f'{spread.deviation:.2g}'))}" if shown else "")


def _beside(group: Group, key: str, words: Words) -> str:
    """Return the noise of a single noised run."""
    known = [run.facts.noise[key] for run in group.settled if key in run.facts.noise]
    return f" (noise ± {words(known[0])})" if len(known) == len(group.settled) == 1 else ""


def _mean_named(key: str) -> Callable[[Run], float | None]:
    return lambda run: run.facts.means.get(key)


def _decider(run: Run) -> float | None:
    return run.facts.means.get(run.decider)


def _sent(run: Run) -> float | None:
    up, down = run.facts.bytes_up, run.facts.bytes_down
    return None if up is None or down is None else up + down


def _virtual_seconds(run: Run) -> float | None:
    return None if run.facts.virtual_hours is None else run.facts.virtual_hours * 3600


def _nothing(_: Run) -> float | None:
    return None


def _named(group: Group) -> str:
    return f"{group.letter} ({group.words})"


def _plain(value: float) -> str:
    return f"{value:,.4g}" if value < 10_000 else f"{value:,.0f}"


def _guarantee(value: float) -> str:
    return "without any guarantee" if math.isinf(value) else f"ε {epsilon_words(value)}"


def _hours(value: float) -> str:
    return f"{value:.3g}"
