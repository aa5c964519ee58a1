"""``fedsci privacy``: the privacy officer's commands, a file for each kind."""

import typer

from fedsci.cli import privacy_audit, privacy_ledger, privacy_plan, privacy_statement


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    group = typer.Typer(
        help="For the privacy officer: before, during and after a study.",
        epilog="Example: fedsci privacy plan demo",
        no_args_is_help=True,
    )
    group.callback()(lambda: None)
    privacy_plan.register(group)
    privacy_ledger.register(group)
    privacy_statement.register(group)
    privacy_audit.register(group)
    app.add_typer(group, name="privacy")
