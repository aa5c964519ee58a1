"""Plots as plain SVG text, drawn with the page's own colours, so they follow light, dark and print."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedsci.reporting.page import epsilon_words, esc

_WIDTH = 900.0
_LABEL_HEIGHT = 17.0
_LOG_FROM_RATIO = 20.0
#: Spans below the one are none, and numbers beyond the other are not drawn: floats have no room for their ratios.
LEAST, MOST = 1e-300, 1e300


@dataclass(frozen=True, kw_only=True)
class Line:
    """A level that does not change over the rounds; ``style`` is a class of the style sheet."""

    label: str
    style: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A value per round, as ``(round, value)`` pairs, in rising order of the rounds (or of what else runs across)."""

    label: str
    style: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Spend:
    """One site's privacy; infinity and None are drawn as words, not bars."""

    site: str
    study: float | None
    total: float | None
    budget: float | None


def within(points: Sequence[tuple[float, ...]]) -> list[Any]:
    """Return the points that can be drawn.

    >>> within([(0.0, 1.0), (1.0, 1e308), (2.0, float("nan"))])
    [(0.0, 1.0)]
    """
    return [point for point in points if all(abs(number) <= MOST for number in point)]


def nice_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return round numbers between ``low`` and ``high``, about ``wanted`` of them.

    >>> nice_ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    span = high - low
    if not (math.isfinite(span) and span > LEAST):
        return [low]
    rough = span / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999), 10 * power)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def rounds_plot(
    curves: Sequence[Curve],
    lines: Sequence[Line],
    *,
    metric: str,
    across: str = "round",
    band: Sequence[tuple[float, float, float]] = (),
) -> str:
    """Return the metric per round against level lines; an error over a wide range gets a log scale.

    ``across`` names what runs across where it is not rounds; it may then be any number. ``band``: a lowest and a
    highest value per round, as ``(round, lowest, highest)`` in rising order, drawn behind the curves.
    """
    left, right, top, bottom, height = 62.0, 250.0, 30.0, 44.0, 400.0
    curves = [replace(curve, points=within(curve.points)) for curve in curves]
    lines, band = [line for line in lines if abs(line.value) <= MOST], within(band)
    values = [value for curve in curves for _, value in curve.points] + [line.value for line in lines]
    values += [value for _, *ends in band for value in ends]
    numbers = [number for curve in curves for number, _ in curve.points] + [number for number, *_ in band]
    if not values or not numbers:
        return ""
    logarithmic = min(values) > LEAST and max(values) / min(values) > _LOG_FROM_RATIO
    y_of, ticks = _scale(values, top, height - bottom, logarithmic)
    first, last = min(numbers), max(numbers)
    edge = _WIDTH - right

    def x_of(number: float) -> float:
        return edge if last - first < LEAST else left + (number - first) / (last - first) * (edge - left)

    parts = [f'<text class="soft" x="0" y="14">{esc(metric)}{" (log scale)" if logarithmic else ""}</text>']
    for tick in ticks:
        y = y_of(tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{edge}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:.6g}</text>')
    for tick in _round_ticks(first, last) if across == "round" else nice_ticks(first, last, 8):
        parts.append(_centred("tick", x_of(tick), height - bottom + 18, f"{tick:g}"))
    parts.append(_centred("soft", (left + edge) / 2, height - 6, esc(across)))
    if len(band) == 1:
        x, low, high = x_of(band[0][0]), y_of(band[0][1]), y_of(band[0][2])
        parts.append(f'<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
        parts += [
            f'<line class="whisker" x1="{x - 6:.1f}" x2="{x + 6:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>' for y in (low, high)
        ]
    elif band:
        edges = [(number, high) for number, _, high in band] + [(number, low) for number, low, _ in reversed(band)]
        points = " ".join(f"{x_of(number):.1f},{y_of(value):.1f}" for number, value in edges)
        parts.append(f'<polygon class="band" points="{points}"/>')
    labels: list[tuple[float, str, str, float]] = []
    for line in lines:
        y = y_of(line.value)
        parts.append(f'<line class="line {line.style}" x1="{left}" x2="{edge}" y1="{y:.1f}" y2="{y:.1f}"/>')
        labels.append((y, line.style, line.label, edge))
    for curve in curves:
        if not curve.points:
            continue
        path = " ".join(f"{x_of(number):.1f},{y_of(value):.1f}" for number, value in curve.points)
        x, y = x_of(curve.points[-1][0]), y_of(curve.points[-1][1])
        parts.append(f'<polyline class="line {curve.style}" points="{path}"/>')
        parts.append(f'<circle class="joint" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>')
        labels.append((y, curve.style, curve.label, x))
    parts += _labels(labels, edge, top, height - bottom)
    return svg(height, f"{metric} per {across}", parts)


def spend_plot(spends: Sequence[Spend]) -> str:
    """Return a bar per site: epsilon spent in this study, spent before, and left of the budget."""
    finite = [
        value
        for spend in spends
        for value in (spend.study, spend.total, spend.budget)
        if value is not None and math.isfinite(value)
    ]
    if not finite or not LEAST < max(finite) <= MOST:
        return ""
    left, edge, top, step = 150.0, _WIDTH - 190.0, 34.0, 24.0
    scale = (edge - left) / max(finite)
    height = top + step * len(spends) + 30
    parts = _spend_legend(left)
    for tick in nice_ticks(0.0, max(finite)):
        x = left + tick * scale
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{height - 26}"/>')
        parts.append(_centred("tick", x, height - 10, f"ε = {tick:g}"))
    for index, spend in enumerate(spends):
        parts += _spend_bar(spend, left, top + index * step, scale)
    return svg(height, "Epsilon spent by each lab against its budget", parts)


def _spend_legend(x: float) -> list[str]:
    parts = []
    for style, label in (
        ("spent", "this study"),
        ("before", "earlier studies"),
        ("left", "left of the budget"),
    ):
        parts.append(f'<rect class="{style}" x="{x}" y="4" width="14" height="12" rx="2"/>')
        parts.append(f'<text x="{x + 20}" y="15">{label}</text>')
        x += 40 + 7.2 * len(label)
    return parts


def _spend_bar(spend: Spend, left: float, y: float, scale: float) -> list[str]:
    def bar(style: str, start: float, end: float) -> str:
        width = max(end - start, 0.0) * scale
        x = left + start * scale
        return f'<rect class="{style}" x="{x:.1f}" y="{y + 4:.1f}" width="{width:.1f}" height="15" rx="2"/>'

    parts = [
        f'<text x="{left - 10}" y="{y + 16:.1f}" text-anchor="end">'
        f"<title>{esc(spend.site)}</title>{esc(_shorten(spend.site, 18))}</text>"
    ]
    total = spend.total if spend.total is not None else spend.study
    if spend.budget is not None and math.isfinite(spend.budget):
        parts.append(bar("left", 0.0, spend.budget))
    known = [value for value in (spend.study, total) if value is not None]
    if known and all(map(math.isfinite, known)):
        study, total = spend.study or 0.0, total or 0.0
        before = max(total - study, 0.0)
        parts += [bar("before", 0.0, before), bar("spent", before, before + study)]
    end = max([value for value in (*known, spend.budget) if value is not None and math.isfinite(value)], default=0)
    parts.append(f'<text x="{left + end * scale + 8:.1f}" y="{y + 16:.1f}">{_spend_words(spend, known)}</text>')
    return parts


def _spend_words(spend: Spend, known: Sequence[float]) -> str:
    if any(map(math.isinf, known)):
        return "no guarantee (ε infinite)"
    spent = epsilon_words(max(known)) if known else "not known"
    if spend.budget is None or math.isinf(spend.budget):
        return f"{spent}, no budget known"
    return f"{spent} of {epsilon_words(spend.budget)}"


def _scale(
    values: Sequence[float], top: float, bottom: float, logarithmic: bool
) -> tuple[Callable[[float], float], list[float]]:
    low, high = min(values), max(values)
    if logarithmic:
        low, high = math.log10(low), math.log10(high)
    margin = margin_of(low, high)
    low, high = low - margin, high + margin

    def y_of(value: float) -> float:
        place = math.log10(value) if logarithmic else value
        return bottom - (place - low) / (high - low) * (bottom - top)

    if not logarithmic:
        return y_of, nice_ticks(low, high)
    tens = range(math.floor(low), math.ceil(high) + 1)
    ticks = [float(f"{m}e{ten}") for ten in tens for m in (1, 2, 5)]
    inside = [tick for tick in ticks if low <= math.log10(tick) <= high]
    return y_of, inside if len(inside) <= 9 else [tick for tick in inside if f"{tick:e}"[0] == "1"]


def margin_of(low: float, high: float) -> float:
    """Return how far an axis goes beyond its values: never nothing, also where they are all the same."""
    return next(margin for margin in (0.06 * (high - low), 0.05 * abs(high), 0.05) if margin > LEAST)


def _round_ticks(first: float, last: float) -> list[int]:
    return sorted({round(tick) for tick in nice_ticks(first, last, 8)})


def _labels(labels: Sequence[tuple[float, str, str, float]], x: float, top: float, bottom: float) -> list[str]:
    """Labels beside the plot, led to from their lines' ends, moved apart just enough not to touch."""
    places: list[float] = []
    ordered = sorted(labels)
    for y, *_ in ordered:
        places.append(max(y, places[-1] + _LABEL_HEIGHT if places else top))
    limit = bottom
    for index in reversed(range(len(places))):
        places[index] = min(places[index], limit)
        limit = places[index] - _LABEL_HEIGHT
    parts = []
    for (y, style, label, end), place in zip(ordered, places, strict=True):
        points = f"{end + 4:.1f},{y:.1f} {x + 4:.1f},{y:.1f} {x + 16},{place:.1f} {x + 20},{place:.1f}"
        parts.append(f'<polyline class="leader {style}" points="{points}"/>')
        parts.append(f'<text class="{style}" x="{x + 24}" y="{place + 4:.1f}">{esc(label)}</text>')
    return parts


def _centred(style: str, x: float, y: float, words: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{words}</text>'


def _shorten(label: str, length: int) -> str:
    return label if len(label) <= length else label[: length - 1] + "…"


def svg(height: float, title: str, parts: Sequence[str], *, width: float = _WIDTH) -> str:
    """Return a plot."""
    body = "\n".join(parts)
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{esc(title)}">'
        f"<title>{esc(title)}</title>\n{body}\n</svg>"
    )
