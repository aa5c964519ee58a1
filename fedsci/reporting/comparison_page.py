"""The comparison as one page that opens with the network unplugged."""

from collections.abc import Callable
from pathlib import Path

from fedsci.errors import InputError
from fedsci.reporting.comparison import Comparison, Point
from fedsci.reporting.comparison_plots import Points, Series, scaled, small_plot, style_of, swatch
from fedsci.reporting.comparison_words import result_rows, sentences
from fedsci.reporting.page import DASH, box, esc, name, page, paragraph, section, table
from fedsci.reporting.whole_file import write_whole

Pick = Callable[[Point], float | None]


def write_comparison(comparison: Comparison, target: Path) -> Path:
    """Write the page to ``target``, whole or not at all, and return its path.

    Raises:
        InputError: it cannot be written there.
    """
    try:
        write_whole(target, render_comparison(comparison))
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror}", hint="choose another file with --out") from None
    return target


def render_comparison(comparison: Comparison) -> str:
    """Return the page as text."""
    runs = sum(len(group.runs) for group in comparison.groups)
    title = comparison.question or comparison.groups[0].runs[0].facts.study
    header = (
        f'<header><p class="eyebrow">Comparison of {runs} runs</p><h1>{name(title)}</h1>'
        f'<p class="muted">{esc(_labs(comparison))}</p></header>'
    )
    parts = [header, _answer(comparison), _curves(comparison), _results(comparison), _settings(comparison)]
    return page(f"Comparison: {title}", "\n".join(filter(None, [*parts, _which(comparison)])))


def _labs(comparison: Comparison) -> str:
    counts = sorted({len(run.facts.labs) for group in comparison.groups for run in group.runs})
    studies = sorted({run.facts.study for group in comparison.groups for run in group.runs})
    return f"Study {', '.join(studies)}; {' or '.join(map(str, counts))} labs"


def _answer(comparison: Comparison) -> str:
    first, *others = sentences(comparison)
    items = "".join(f"<li>{esc(words)}</li>" for words in comparison.cautions)
    return section(
        "answer",
        "Which is better on what?",
        f'<p class="headline">{esc(first)}</p>',
        *(paragraph(esc(words)) for words in others),
        box("caution", "Before you rely on it", f"<ul>{items}</ul>") if items else "",
        _key(comparison),
    )


def _key(comparison: Comparison) -> str:
    lines = "".join(
        f"<li>{swatch(style_of(number))}<span><strong>{group.letter}</strong> {esc(group.words)}</span></li>"
        for number, group in enumerate(comparison.groups)
    )
    return f'<ul class="key">{lines}</ul>'


def _curves(comparison: Comparison) -> str:
    sizes = [p.size_bytes for group in comparison.groups for p in group.points if p.size_bytes is not None]
    unit, unit_name = scaled(max(sizes, default=0.0))
    plots = [_plot(comparison, lambda point: point.round, "rounds")]
    plots.append(
        _plot(comparison, lambda p: None if p.size_bytes is None else p.size_bytes / unit, f"{unit_name} sent")
    )
    if comparison.virtual:
        plots.append(_plot(comparison, lambda point: point.virtual_hours, "virtual hours"))
    else:
        plots.append(_plot(comparison, lambda p: None if p.hours is None else p.hours * 3600, "measured seconds"))
    drawn = [plot for plot in plots if plot]
    if not drawn:
        return section("curves", "Round by round", paragraph("No round was measured, so there is nothing to plot."))
    better = "Higher" if comparison.measure.higher_is_better else "Lower"
    over = "the mean over the labs of a round" if comparison.mean_site else "all test records of a round’s labs"
    time = (
        "Virtual hours are what the rounds would take with the speeds, lines and absences of the weather file."
        if comparison.virtual
        else "Seconds were measured on the machines that ran it, and depend on what else ran there."
    )
    words = f"{better} is better. Each point is {over}. Thin lines are single runs, thick ones their mean. {time}"
    return section(
        "curves",
        "Over rounds, bytes and time",
        f'<div class="plots">{"".join(f"<figure>{plot}</figure>" for plot in drawn)}</div>',
        paragraph(f'<span class="muted">{esc(words)}</span>'),
    )


def _plot(comparison: Comparison, pick: Pick, across: str) -> str:
    series = [
        Series(
            letter=group.letter,
            style=style_of(number),
            points=_points(group.points, pick),
            runs=[_points(run.points, pick) for run in group.settled] if len(group.settled) > 1 else [],
        )
        for number, group in enumerate(comparison.groups)
    ]
    return small_plot(series, metric=comparison.measure.label, across=across)


def _points(points: list[Point], pick: Pick) -> Points:
    return [(across, point.value) for point in points if (across := pick(point)) is not None]


def _results(comparison: Comparison) -> str:
    rows = [
        [esc(row.label), *(esc(cell) if spread else DASH for cell, spread in zip(row.cells, row.spreads, strict=True))]
        for row in result_rows(comparison)
    ]
    several = any(len(group.settled) > 1 for group in comparison.groups)
    words = f"Scores are {comparison.measure.label} on held-out records."
    if several:
        words += " Means over the runs of a group, ± their standard deviation where it shows."
    shown = table("", ["", *_heads(comparison)], rows)
    return section("results", "Results", paragraph(f'<span class="muted">{esc(words)}</span>'), shown)


def _settings(comparison: Comparison) -> str:
    if not comparison.differing:
        words = "The runs differ in their seeds alone." if len(comparison.groups[0].runs) > 1 else ""
        return section("settings", "What differs", paragraph(words)) if words else ""
    rows = [[f"<code>{esc(key)}</code>", *map(esc, texts)] for key, texts in comparison.differing.items()]
    caption = "Keys of study, recipe and weather that are not the same everywhere; all others are."
    table_html = table(caption, ["Key", *_heads(comparison)], rows, text_columns=len(comparison.groups) + 1)
    return section("settings", "What differs", table_html)


def _heads(comparison: Comparison) -> list[str]:
    return [f"{group.letter}<br>{esc(group.words)}" for group in comparison.groups]


def _which(comparison: Comparison) -> str:
    rows = []
    for group in comparison.groups:
        for run in group.runs:
            words = (run.folder.resolve().name, run.facts.seed, run.facts.status)
            rows.append([group.letter, *map(esc, words), _digest(run.facts.plan_digest)])
    caption = "Runs of one letter have the same plan but for the seed."
    head = ["", "Run folder", "Seed", "Status", "Plan digest"]
    return section("runs", "The runs", table(caption, head, rows, text_columns=len(head)))


def _digest(digest: str) -> str:
    return f"<code>{esc(digest.removeprefix('sha256:')[:12])}…</code>" if digest else DASH
