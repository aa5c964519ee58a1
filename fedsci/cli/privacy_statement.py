"""``fedsci privacy statement``."""

from pathlib import Path
from typing import Annotated

import typer


def register(group: typer.Typer) -> None:
    """Add the command to ``fedsci privacy``."""
    group.command("statement", epilog="Example: fedsci privacy statement runs/digits-20261123T120000Z-1a2b3c4d")(
        statement
    )


def statement(run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")]) -> None:
    """Write privacy_statement.md for a run folder, and print its path.

    It says what the run promises, to whom, at what cost and with what left open (NIST SP 800-226). Everything is
    recomputed from the plan; if the run's files disagree, nothing is stated.
    """
    from fedsci.reporting.statement import write_statement

    typer.echo(write_statement(run))
