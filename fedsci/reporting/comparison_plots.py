"""Small plots for a comparison: a thick line a group, thin ones for its runs, readable on a telephone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedsci.reporting.page import esc
from fedsci.reporting.plots import LEAST, margin_of, nice_ticks, within

_WIDTH, _HEIGHT = 440.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 30.0, 28.0, 44.0
_STYLES = 6
_LETTER_HEIGHT = 14.0

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Series:
    """One group's line.

    Attributes:
        letter: stands at the line's end.
        style: a class of the style sheet.
        points: the mean of the runs, in rising order.
        runs: each run's own, where there are several.
    """

    letter: str
    style: str
    points: Points
    runs: Sequence[Points]


def style_of(number: int) -> str:
    """Return the class of the group with this number; they repeat, and the letters do not."""
    return f"c{number % _STYLES}"


def swatch(style: str) -> str:
    """Return a short piece of a group's line, for the key."""
    line = f'<line class="line {style}" x1="1" x2="33" y1="5" y2="5"/>'
    return f'<svg viewBox="0 0 34 10" aria-hidden="true">{line}</svg>'


def small_plot(series: Sequence[Series], *, metric: str, across: str) -> str:
    """Return the plot, or empty text where there is nothing to draw."""
    series = [replace(each, points=within(each.points), runs=[within(run) for run in each.runs]) for each in series]
    everything = [point for each in series for line in (each.points, *each.runs) for point in line]
    if not everything:
        return ""
    xs, ys = [x for x, _ in everything], [y for _, y in everything]
    first, last = min(xs), max(xs)
    margin = margin_of(min(ys), max(ys))
    low, high = min(ys) - margin, max(ys) + margin
    edge, floor = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def x_of(value: float) -> float:
        return (_LEFT + edge) / 2 if last - first < LEAST else _LEFT + (value - first) / (last - first) * (edge - _LEFT)

    def y_of(value: float) -> float:
        return floor - (value - low) / (high - low) * (floor - _TOP)

    parts = [f'<text class="soft" x="0" y="14">{esc(metric)}</text>']
    for tick in nice_ticks(low, high):
        y = y_of(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{edge}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{tick:.6g}</text>')
    for tick in nice_ticks(first, last, 7):
        parts.append(_centred("tick", x_of(tick), floor + 18, f"{tick:g}"))
    parts.append(_centred("soft", (_LEFT + edge) / 2, _HEIGHT - 6, esc(across)))

    def line(style: str, points: Points) -> str:
        path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in points)
        return f'<polyline class="{style}" points="{path}"/>'

    for each in series:
        parts += [line(f"line run {each.style}", run) for run in each.runs]
    for each in series:
        parts.append(line(f"line {each.style}", each.points))
    ends = [(*each.points[-1], each) for each in series if each.points]
    taken: list[tuple[float, float]] = []
    for x, y, each in sorted(ends, key=lambda end: -end[1]):
        at, place = x_of(x), y_of(y)
        near = [other for where, other in taken if abs(where - at) < _LETTER_HEIGHT]
        beside = max([place, *(other + _LETTER_HEIGHT for other in near)])
        taken.append((at, beside))
        parts.append(f'<circle class="{each.style}" cx="{at:.1f}" cy="{place:.1f}" r="3.5"/>')
        parts.append(f'<text class="end {each.style}" x="{at + 7:.1f}" y="{beside + 4:.1f}">{esc(each.letter)}</text>')
    title = esc(f"{metric} over {across}")
    return (
        f'<svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" aria-label="{title}"><title>{title}</title>\n'
        + "\n".join(parts)
        + "\n</svg>"
    )


def scaled(largest: float) -> tuple[float, str]:
    """Return what bytes are divided by for an axis, and the unit's name.

    >>> scaled(1500), scaled(2_500_000)
    ((1000.0, 'kB'), (1000000.0, 'MB'))
    """
    power = min(max(0, int(math.log10(max(largest, 1.0)) // 3)), 4)
    return 1000.0**power, ("bytes", "kB", "MB", "GB", "TB")[power]


def _centred(style: str, x: float, y: float, words: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{words}</text>'
