"""``fedsci strategies`` and ``fedsci strategy show``."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("strategies", epilog="Example: fedsci strategies")(strategies)
    group = typer.Typer(help="One strategy.", no_args_is_help=True)
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


def show(name: Annotated[str, typer.Argument(help="The strategy's name.", metavar="NAME")]) -> None:
    """Print a strategy's recipe; a copy of it with other values is a strategy of your own."""
    from fedsci.config.shipped import shipped
    from fedsci.config.strategy import load_recipe

    load_recipe(name, folder=Path(), where="fedsci strategy show")
    typer.echo((shipped("strategies") / f"{name}.yaml").read_text(encoding="utf-8"), nl=False)
