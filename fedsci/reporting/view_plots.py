"""Plots of the three views: who took part, what is left of budgets, and what a round took."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

from fedsci.reporting.page import epsilon_words, esc
from fedsci.reporting.plots import LEAST, MOST, nice_ticks, svg

_WIDTH = 900.0
_LEFT = 150.0
_ROW = 22.0


@dataclass(frozen=True, kw_only=True)
class Burn:
    """A budget that several labs may share.

    Attributes:
        label: whose.
        ceiling: the budget.
        points: ``(round, epsilon left)``.
        projected: where it ends, if it is not there yet.
        remark: beside the line's end.
    """

    label: str
    ceiling: float
    points: Sequence[tuple[float, float]]
    projected: tuple[float, float] | None
    remark: str


def participation_plot(rounds: Sequence[int], missing: Mapping[str, Set[int]], lost: Set[int]) -> str:
    """Return a row per lab and a column per round: in the sum, not in it, or a round that nobody finished.

    Args:
        rounds: their numbers, rising.
        missing: lab -> rounds whose sum it was not in; the rows' order.
        lost: rounds that were never applied.
    """
    if not rounds or not missing:
        return ""
    edge, top = _WIDTH - 130.0, 30.0
    width = (edge - _LEFT) / len(rounds)
    gap = 1.5 if width > 6 else 0.0
    height = top + _ROW * len(missing) + 40
    x = _LEFT
    parts = []
    for style, words in (("took", "in the sum"), ("away", "not in the sum"), ("lost", "round not applied")):
        if style == "lost" and not lost:
            continue
        parts.append(f'<rect class="{style}" x="{x:.1f}" y="4" width="14" height="12" rx="2"/>')
        parts.append(f'<text x="{x + 20:.1f}" y="15">{words}</text>')
        x += 44 + 7.2 * len(words)
    for row, (site, absent) in enumerate(missing.items()):
        y = top + row * _ROW
        parts.append(_lab_name(site, y + 14))
        styles = ["lost" if number in lost else "away" if number in absent else "took" for number in rounds]
        for first, last in _pieces(styles, apart=gap > 0):
            left = _LEFT + first * width
            parts.append(
                f'<rect class="{styles[first]}" x="{left:.1f}" y="{y + 2:.1f}" '
                f'width="{(last - first) * width - gap:.1f}" height="{_ROW - 5:.1f}" rx="{2 if gap else 0}"/>'
            )
        took = len(set(rounds) - set(absent) - lost)
        parts.append(f'<text x="{edge + 10:.1f}" y="{y + 14:.1f}">{took} of {len(set(rounds) - lost)}</text>')
    base = top + _ROW * len(missing) + 14
    for number in _whole_ticks(rounds):
        middle = _LEFT + (rounds.index(number) + 0.5) * width
        parts.append(f'<text class="tick" x="{middle:.1f}" y="{base:.1f}" text-anchor="middle">{number}</text>')
    parts.append(
        f'<text class="soft" x="{_LEFT + (edge - _LEFT) / 2:.1f}" y="{base + 19:.1f}" text-anchor="middle">round</text>'
    )
    return svg(height, "Which lab was in which round’s sum", parts)


def burn_plot(burns: Sequence[Burn], *, planned: int) -> str:
    """Return what is left of each budget by round, its ceiling at the left, its end at the right."""
    if not burns:
        return ""
    left, edge, top, bottom = 62.0, _WIDTH - 270.0, 30.0, 336.0
    height = bottom + 44
    most = max(max(burn.ceiling for burn in burns), *(value for burn in burns for _, value in burn.points))
    if not LEAST < most <= MOST:
        return ""
    last = max(planned, *(int(number) for burn in burns for number, _ in burn.points), 1)

    def x_of(number: float) -> float:
        return left + number / last * (edge - left)

    def y_of(value: float) -> float:
        return bottom - max(value, 0.0) / most * (bottom - top)

    parts = ['<text class="soft" x="0" y="14">ε left of the budget</text>']
    for tick in nice_ticks(0.0, most):
        y = y_of(tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{edge}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    parts.append(f'<line class="floor" x1="{left}" x2="{edge}" y1="{bottom}" y2="{bottom}"/>')
    for tick in sorted({float(round(tick)) for tick in nice_ticks(0, last, 8)}):
        parts.append(f'<text class="tick" x="{x_of(tick):.1f}" y="{bottom + 18}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text class="soft" x="{(left + edge) / 2:.1f}" y="{bottom + 38}" text-anchor="middle">round</text>')
    ends = []
    for index, burn in enumerate(burns):
        style = f"c{index % 6}"
        path = " ".join(f"{x_of(number):.1f},{y_of(value):.1f}" for number, value in burn.points)
        parts.append(f'<circle class="{style}" cx="{x_of(0):.1f}" cy="{y_of(burn.ceiling):.1f}" r="3.5"/>')
        parts.append(f'<polyline class="line {style} whole" points="{path}"/>')
        number, value = burn.points[-1]
        if burn.projected is not None:
            end = burn.projected
            parts.append(
                f'<line class="line {style} ahead" x1="{x_of(number):.1f}" y1="{y_of(value):.1f}" '
                f'x2="{x_of(end[0]):.1f}" y2="{y_of(end[1]):.1f}"/>'
            )
            number, value = end
        ends.append((y_of(value), x_of(number), style, burn))
    places: list[float] = []
    for y, *_ in sorted(ends, key=lambda each: each[0]):
        places.append(max(y, places[-1] + 17 if places else top))
    limit = bottom
    for index in reversed(range(len(places))):
        places[index] = min(places[index], limit)
        limit = places[index] - 17
    for (y, x, style, burn), place in zip(sorted(ends, key=lambda each: each[0]), places, strict=True):
        points = f"{x:.1f},{y:.1f} {edge + 12:.1f},{place:.1f} {edge + 18:.1f},{place:.1f}"
        parts.append(f'<polyline class="leader {style} whole" points="{points}"/>')
        words = f"{_shorten(burn.label, 16)}: {burn.remark}"
        parts.append(f'<text class="{style}" x="{edge + 22:.1f}" y="{place + 4:.1f}">{esc(words)}</text>')
    return svg(height, "What is left of each privacy budget by round", parts)


def bars_plot(values: Sequence[tuple[int, float]], *, title: str, words: Callable[[float], str]) -> str:
    """Return a bar per round.

    Args:
        values: ``(round, value)``, rising.
        title: what it is of.
        words: a value for a reader.
    """
    most = max((value for _, value in values), default=0.0)
    if not LEAST < most <= MOST:
        return ""
    width, left, edge, top, bottom, height = 440.0, 62.0, 430.0, 30.0, 190.0, 236.0
    step = (edge - left) / len(values)
    parts = [f'<text class="soft" x="0" y="14">{esc(title)}</text>']
    for tick in nice_ticks(0.0, most, 4):
        y = bottom - tick / most * (bottom - top)
        parts.append(f'<line class="grid" x1="{left}" x2="{edge}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{esc(words(tick))}</text>')
    for index, (_, value) in enumerate(values):
        tall = value / most * (bottom - top)
        parts.append(
            f'<rect class="spent" x="{left + index * step:.1f}" y="{bottom - tall:.1f}" '
            f'width="{step * (0.8 if step > 4 else 1):.1f}" height="{tall:.1f}"/>'
        )
    numbers = [number for number, _ in values]
    for number in _whole_ticks(numbers):
        x = left + (numbers.index(number) + 0.4) * step
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{number}</text>')
    parts.append(f'<text class="soft" x="{(left + edge) / 2}" y="{bottom + 38}" text-anchor="middle">round</text>')
    return svg(height, f"{title} by round", parts, width=width)


def burn_remark(left: float, budget: float) -> str:
    """Return what stands beside a burn-down's end."""
    return f"{epsilon_words(max(left, 0.0))} of {epsilon_words(budget)} left"


def _pieces(styles: Sequence[str], *, apart: bool) -> list[tuple[int, int]]:
    """Return from where to where equal neighbours reach; each by itself where they are drawn apart."""
    ends = [at for at in range(1, len(styles)) if apart or styles[at] != styles[at - 1]]
    return list(zip([0, *ends], [*ends, len(styles)], strict=True))


def _lab_name(site: str, y: float) -> str:
    words = f"<title>{esc(site)}</title>{esc(_shorten(site, 18))}"
    return f'<text x="{_LEFT - 10}" y="{y:.1f}" text-anchor="end">{words}</text>'


def _shorten(label: str, length: int) -> str:
    return label if len(label) <= length else label[: length - 1] + "…"


def _whole_ticks(numbers: Sequence[int]) -> list[int]:
    """Return some of the numbers, few enough to stand side by side."""
    every = max(1, -(-len(numbers) // 12))
    return [number for index, number in enumerate(numbers) if index % every == 0]
