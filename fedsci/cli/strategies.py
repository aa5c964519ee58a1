"""``fedsci strategies`` and ``fedsci strategy show``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fedsci.config.strategy import StrategyRecipe


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("strategies", epilog="Example: fedsci strategies")(strategies)
    group = typer.Typer(help="One strategy.", epilog="Example: fedsci strategy show fedavg", no_args_is_help=True)
    group.callback()(lambda: None)
    group.command("show", epilog="Example: fedsci strategy show fedavg")(show)
    app.add_typer(group, name="strategy")


def strategies() -> None:
    """List the strategies a study can name, what they see and cost, and when to use which."""
    from rich.console import Console
    from rich.table import Table

    from fedsci.config.strategy import load_recipe, recipe_names

    table = Table()
    for heading in ("name", "sees", "rounds", "exchanges", "sent / back", "kept: site / coordinator"):
        table.add_column(heading, no_wrap=heading == "name")
    table.add_column("when to use it", ratio=1)
    for name in recipe_names():
        recipe = load_recipe(name, folder=Path(), where="strategies")
        table.add_row(name, recipe.sees, _rounds(recipe), *_costs(recipe), recipe.when)
    console = Console()
    console.print(table)
    console.print(
        "rounds: the recipe's default; a study's own wins, except where there is only 1. exchanges: in a masked round, "
        "one more where a site drops out, one less without masks. sent / back: numbers to and from a site in a round, "
        "in multiples of the model; sums: of statistics of records, as many as the study's columns ask for. "
        "kept: from round to round, at "
        "the coordinator beside the model, likewise. More: fedsci strategy show NAME"
    )


def _rounds(recipe: "StrategyRecipe") -> str:
    """Return how many rounds the recipe asks for, and whether a study may have others."""
    from fedsci.strategies import ServerOptimiser, build_strategy

    strategy = build_strategy(recipe.name, optimiser=ServerOptimiser(), options=recipe.options)
    return "only 1" if strategy.site_work == "statistics" else str(recipe.training.rounds or "")


def _costs(recipe: "StrategyRecipe") -> tuple[str, str, str]:
    """Return a round's exchanges, what goes to and comes from a site, and what it and the coordinator keep."""
    import numpy as np

    from fedsci.strategies import build_strategy
    from fedsci.strategies.base import BufferedStrategy

    spec, size = recipe.server_optimiser, 1
    strategy = build_strategy(recipe.name, optimiser=spec.optimiser(), options=recipe.options)
    momentum = (recipe.training.momentum or 0.0) if strategy.site_work == "gradient" else 0.0
    kept = spec.optimiser(momentum=momentum).memories + len(strategy.start(np.zeros(size, np.float32)).memory)
    exchanges = 2 - (recipe.sees == "each") + isinstance(strategy, BufferedStrategy)  # one to begin
    back = "sums" if strategy.site_work == "statistics" else f"{strategy.width(size)}x"
    return str(exchanges), f"{strategy.sent(size)}x / {back}", f"{strategy.keeps}x / {kept}x"


def show(name: Annotated[str, typer.Argument(help="A strategy's name, or its file.", metavar="NAME")]) -> None:
    """Print a strategy's recipe; a copy of it with other values is a strategy of your own."""
    from fedsci.config.strategy import load_recipe, recipe_path

    load_recipe(name, folder=Path(), where="strategy show")
    typer.echo(recipe_path(name, folder=Path()).read_text(encoding="utf-8"), nl=False)
