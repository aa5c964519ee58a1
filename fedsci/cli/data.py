"""``fedsci data``: ``split``, and what its neighbours add."""

from pathlib import Path
from typing import Annotated

import typer

from fedsci.cli import data_catalogue, data_record, data_stats


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    group = typer.Typer(help="Data sets.", epilog="Example: fedsci data split --help", no_args_is_help=True)
    group.callback()(lambda: None)
    group.command("split", epilog="Example: fedsci data split plants.csv --sites 17 --skew 0.5 --out plants")(split)
    data_stats.register(group)
    data_record.register(group)
    data_catalogue.register(group)
    app.add_typer(group, name="data")


def split(
    file: Annotated[Path, typer.Argument(help="One CSV file.", metavar="FILE")],
    out: Annotated[Path, typer.Option("--out", help="New folder for the labs and a study file.")],
    sites: Annotated[int, typer.Option("--sites", min=1, help="How many labs.")] = 17,
    skew: Annotated[float, typer.Option("--skew", min=0, max=1, help="0: labs look alike; 1: sorted by target.")] = 0.5,
    uneven: Annotated[float, typer.Option("--uneven", min=0, max=0.95, help="0: labs of one size.")] = 0.5,
    target: Annotated[str | None, typer.Option("--target", help="Column to predict; the last one by default.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another split.")] = 0,
) -> None:
    """Split one CSV file into simulated labs, with site files and a study to start from."""
    from fedsci.data.loading import CsvOptions
    from fedsci.data.write_split import write_split

    result = write_split(
        file, out, sites=sites, skew=skew, uneven=uneven, target=target, seed=seed, options=CsvOptions()
    )
    typer.echo(f"wrote {len(result.labs)} labs to {out}")
    typer.echo(f"next: look at {out / 'study.yaml'}, then: fedsci run {out / 'study.yaml'}")
