"""``fedsci privacy``: the group of the privacy officer's commands."""

import typer

from fedsci.cli import privacy_ledger


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    group = typer.Typer(
        help="Privacy: what a site has spent, and what it may spend.",
        epilog="Example: fedsci privacy budget sites/lab-01.yaml",
        no_args_is_help=True,
    )
    group.callback()(lambda: None)
    privacy_ledger.register(group)
    app.add_typer(group, name="privacy")
