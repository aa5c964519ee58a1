"""``fedsci data stats``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsci.cli.run import Engine, EngineOption, Out, Overrides, Seed, State

if TYPE_CHECKING:
    from rich.console import Console

    from fedsci.simulation.statistics import Measured, PooledFacts

_BAR = 32


def register(group: typer.Typer) -> None:
    """Add the command to ``fedsci data``."""
    group.command("stats", epilog="Example: fedsci data stats examples/heart/study.yaml --set privacy.mechanism=none")(
        stats
    )


def stats(
    study: Annotated[Path, typer.Argument(help="The study file.", metavar="STUDY")],
    out: Out = Path("runs"),
    engine: EngineOption = Engine.local,
    seed: Seed = None,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    state: State = None,
) -> None:
    """Say what all labs' columns hold together: means, deviations, gaps, categories, the target; nobody's own.

    Labs are simulated, as for run. It is a study of its own (strategy feature_statistics, one masked exchange over the
    training records) and is charged like one: privacy.scaling_share of the study's epsilon and delta, each time it is
    run. features.scaling: federated measures the same before a study by itself.
    """
    from fedsci.cli.progress import SilentDisplay
    from fedsci.config.study_file import load_study
    from fedsci.simulation.statistics import measure_statistics

    loaded = load_study(study, overrides=overrides, seed=seed)
    facts = measure_statistics(
        loaded, engine=engine.value, state=state or Path(".fedsci"), out=out, display=SilentDisplay()
    )
    if loaded.plan.private:
        from fedsci.reporting.statement import write_statement

        write_statement(facts.folder)
    if as_json:
        typer.echo(json.dumps(facts.to_json(), indent=2, allow_nan=False))
    else:
        _print(facts)


def _print(facts: "PooledFacts") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print(f"{facts.study}: {facts.records} training records of all labs together")
    if facts.numbers:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 0))
        table.add_column("number")
        for heading in ("mean", "deviation", "missing", "bounds"):
            table.add_column(heading, justify="right")
        table.add_column("look at")
        for name, number in facts.numbers.items():
            shown = name if number.entries == 1 else f"{name} ({number.entries} entries)"
            cells = [_measured(number.mean), _measured(number.deviation), _share(number.missing)]
            bounds = f"{number.minimum:g} to {number.maximum:g}"
            table.add_row(shown, *cells, bounds, "; ".join(number.warnings))
        console.print(table)
    for name, category in facts.categories.items():
        shares = {**category.shares, "other": category.other, "missing": category.missing}
        parts = [f"{label} {_share(share)}" for label, share in shares.items() if share is not None]
        console.print(f"  {name}: {', '.join(parts)}", soft_wrap=True)
    _histogram(console, *facts.target)
    if facts.epsilon is None:
        console.print("\n  [bold red]no privacy guarantee[/]: the sums left the labs without noise")
    else:
        console.print(
            f"\n  Behind each +- is the deviation of the privacy noise. This cost each {facts.unit} epsilon "
            f"{facts.epsilon:.3g} at delta {facts.delta:.3g}, and will again.",
            soft_wrap=True,
        )
    console.print(f"\nrun  {facts.folder}", soft_wrap=True)


def _histogram(console: "Console", name: str, counts: "dict[str, Measured]") -> None:
    console.print(f"\n  {name} (target), records")
    most = max(1.0, *(count.value or 0.0 for count in counts.values()))
    width = max(map(len, counts))
    for label, count in counts.items():
        value = count.value or 0.0
        noise = f" +- {count.noise:.0f}" if count.noise else ""
        console.print(f"  {label:<{width}} {value:>7.0f}{noise}  {'█' * round(_BAR * value / most)}", soft_wrap=True)


def _measured(found: "Measured") -> str:
    if found.value is None:
        return "-"
    return f"{found.value:.4g}" + (f" +- {found.noise:.2g}" if found.noise else "")


def _share(found: "Measured | None") -> str:
    if found is None or found.value is None:
        return "-"
    return f"{100 * found.value:.1f} %" + (f" +- {100 * found.noise:.1f}" if found.noise else "")
