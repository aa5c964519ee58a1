"""``fedsci model-card`` and ``fedsci export``: what outsiders get of a run."""

from pathlib import Path
from typing import Annotated

import typer

Run = Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("model-card", epilog="Example: fedsci model-card runs/digits-20261123T120000Z-1a2b3c4d")(model_card)
    app.command("export", epilog="Example: fedsci export runs/digits-20261123T120000Z-1a2b3c4d --out digits.zip")(
        export
    )


def model_card(run: Run) -> None:
    """Write model_card.md and bom.cdx.json for a run folder again, and print the card's path.

    Everything is worked out from the run's files; if they disagree, nothing is written.
    """
    from fedsci.reporting.documents import write_card_and_bom

    typer.echo(write_card_and_bom(run))


def export(
    run: Run,
    out: Annotated[
        Path | None, typer.Option("--out", help="The file to write; RUN's name with .zip in this folder by default.")
    ] = None,
) -> None:
    """Pack a run for outsiders as an RO-Crate: one zip file with all evidence, and no key, ledger or data.

    The run is checked first; one that does not check out is not packed (exit code 6). The same run
    gives the same bytes.
    """
    from fedsci.cli.verify import name_place
    from fedsci.errors import VerificationFailed
    from fedsci.reporting.documents import check_documents
    from fedsci.reporting.export import export_run
    from fedsci.reporting.verify import verify_run

    def verify(folder: Path) -> None:
        try:
            verify_run(folder, documents=lambda each, key: check_documents(each, key=key))
        except VerificationFailed as error:
            name_place(error)
            raise

    packed = export_run(run, out, verify=verify)
    for name in packed.left_out:
        typer.echo(f"left out: {name}", err=True)
    typer.echo(packed.path)
