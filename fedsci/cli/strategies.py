"""``fedsci strategies`` and ``fedsci strategy show``."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("strategies", epilog="Example: fedsci strategies")(strategies)
    group = typer.Typer(help="One strategy.", epilog="Example: fedsci strategy show fedavg", no_args_is_help=True)
    group.callback()(lambda: None)
    group.command("show", epilog="Example: fedsci strategy show fedavg")(show)
    app.add_typer(group, name="strategy")


def strategies() -> None:
    """List the strategies a study can name, and when to use which."""
    from rich.console import Console
    from rich.table import Table

    from fedsci.config.strategy import load_recipe, recipe_names

    table = Table()
    for heading in ("name", "sees", "when to use it"):
        table.add_column(heading)
    for name in recipe_names():
        recipe = load_recipe(name, folder=Path(), where="strategies")
        table.add_row(name, recipe.sees, recipe.when)
    Console().print(table)


def show(name: Annotated[str, typer.Argument(help="A strategy's name, or its file.", metavar="NAME")]) -> None:
    """Print a strategy's recipe; a copy of it with other values is a strategy of your own."""
    from fedsci.config.strategy import load_recipe, recipe_path

    load_recipe(name, folder=Path(), where="strategy show")
    typer.echo(recipe_path(name, folder=Path()).read_text(encoding="utf-8"), nl=False)
