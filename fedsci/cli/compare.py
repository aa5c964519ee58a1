"""``fedsci compare``: runs of one question side by side, in the terminal and on a page."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fedsci.reporting.comparison import Comparison, Spread

PAGE = Path("comparison.html")

Runs = Annotated[list[Path], typer.Argument(help="Run folders, two or more.", metavar="RUN RUN...")]
Page = Annotated[Path | None, typer.Option("--out", help=f"The page to write. Default: {PAGE}, none with --json.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the comparison as JSON and nothing else.")]


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("compare", epilog="Example: fedsci compare runs/fedavg runs/fedprox --out strategies.html")(compare)


def compare(runs: Runs, out: Page = None, as_json: AsJson = False) -> None:
    """Compare runs of one question: scores, privacy, traffic, time, and whether chance explains the difference.

    Runs that differ in nothing but the seed count as one group, with a mean and a spread. Runs of different questions,
    data sets, tasks or deciding metrics are refused.
    """
    from fedsci.reporting.comparison import compare_runs
    from fedsci.reporting.comparison_page import write_comparison

    comparison = compare_runs(runs)
    page = write_comparison(comparison, out or PAGE) if out is not None or not as_json else None
    if as_json:
        typer.echo(json.dumps(_values(comparison) | {"page": None if page is None else str(page)}, indent=2))
        return
    _show(comparison)
    typer.echo(f"\npage       {page}")


def _show(comparison: "Comparison") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from fedsci.reporting.comparison_words import result_rows, sentences

    console = Console(highlight=False, markup=False)
    for group in comparison.groups:
        seeds = ", ".join(group.seeds)
        console.print(f"{group.letter}  {group.words} (seed{'s' if len(group.runs) > 1 else ''} {seeds})")
    results = Table(title=f"{comparison.measure.label}: {comparison.question}", **_looks(box.SIMPLE_HEAD))
    results.add_column("")
    settings = Table(title="what differs", **_looks(box.SIMPLE_HEAD))
    settings.add_column("")
    for group in comparison.groups:
        results.add_column(group.letter, justify="right")
        settings.add_column(group.letter)
    for row in result_rows(comparison):
        results.add_row(row.label, *row.cells)
    for key, texts in comparison.differing.items():
        settings.add_row(key, *texts)
    if comparison.differing:
        console.print(settings)
    console.print(results)
    for words in [*sentences(comparison), *(f"Caution: {words}" for words in comparison.cautions)]:
        console.print(words)


def _looks(lines: Any) -> dict[str, Any]:
    return {"title_justify": "left", "box": lines, "padding": (0, 1)}


def _values(comparison: "Comparison") -> dict[str, Any]:
    from fedsci.reporting.comparison_words import result_rows, sentences

    return {
        "question": comparison.question,
        "metric": comparison.measure.name,
        "higher_is_better": comparison.measure.higher_is_better,
        "decided_by": "federated_mean_site" if comparison.mean_site else "federated",
        "groups": [
            {
                "letter": group.letter,
                "words": group.words,
                "seeds": group.seeds,
                "runs": [str(run.folder) for run in group.runs],
                "status": [run.facts.status for run in group.runs],
                "curve": [
                    {"round": p.round, "value": p.value, "bytes": p.size_bytes, "virtual_hours": p.virtual_hours}
                    for p in group.points
                ],
            }
            for group in comparison.groups
        ],
        "differing": {key: list(texts) for key, texts in comparison.differing.items()},
        "results": {row.label: [_number(spread) for spread in row.spreads] for row in result_rows(comparison)},
        "sentences": sentences(comparison),
        "cautions": list(comparison.cautions),
    }


def _number(spread: "Spread | None") -> dict[str, Any] | None:
    if spread is None:
        return None
    mean: float | str = spread.mean if math.isfinite(spread.mean) else "inf"
    return {"mean": mean, "deviation": spread.deviation, "runs": spread.runs}
