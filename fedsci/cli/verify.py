"""``fedsci verify``: whether a run folder is what it says, with the network unplugged."""

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from fedsci.errors import InputError, VerificationFailed


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: fedsci verify runs/digits-…")(verify)


def verify(
    run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")],
    consortium: Annotated[
        str | None,
        typer.Option(
            "--consortium-key",
            metavar="HEX|FILE",
            help="The key you know to be the consortium's (a site's consortium.pub); else its SHA-256 is printed.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check signatures, the log and its witnesses, rounds, charges, the model and every figure of RUN, a run folder.

    Exit code 6 names the first file and field that is wrong.
    """
    from fedsci.reporting.documents import check_documents
    from fedsci.reporting.verify import verify_run

    known = None if consortium is None else _key(consortium)
    try:
        found = verify_run(run, consortium=known, documents=lambda folder, key: check_documents(folder, key=key))
    except VerificationFailed as error:
        if as_json:
            typer.echo(json.dumps({"verified": False, **_said(error)}, indent=2))
        name_place(error)
        raise
    if as_json:
        typer.echo(json.dumps({"verified": True, **_facts(found)}, indent=2))
        return
    typer.echo(f"{run}: verified")
    for line in found.checks:
        typer.echo(f"  {line}")
    typer.echo(f"coordinator  {found.coordinator}")
    if not found.consortium:
        typer.echo("consortium   none: the study was not masked, its sites' keys are known from the folder only")
    elif consortium is None:
        typer.echo(f"consortium   {found.consortium}")
        typer.echo(
            "all of this rests on the consortium's key: give the one that a site has pinned, --consortium-key FILE"
        )


def name_place(error: VerificationFailed) -> None:
    """Let the message begin with the file and field that failed, and have a hint."""
    where = f"{error.file}: {error.field}" if error.field else error.file
    error.message = f"{where}: {error.message}" if where and error.file not in error.message else error.message
    error.hint = error.hint or "compare with another copy; what was signed cannot be changed unseen"


def _key(text: str) -> bytes:
    path = Path(text)
    try:
        if not path.is_file():
            return bytes.fromhex(text)
        content = path.read_bytes()
        return bytes.fromhex(content.decode()) if re.fullmatch(rb"\s*[0-9a-fA-F]{64,}\s*", content) else content
    except (OSError, ValueError):
        raise InputError(
            f"{text!r} is neither a file nor a key in hexadecimal",
            hint="a site keeps the consortium's key in consortium.pub in its state folder",
        ) from None


def _said(error: VerificationFailed) -> dict[str, str]:
    return {"file": error.file, "field": error.field, "message": error.message}


def _facts(found: Any) -> dict[str, Any]:
    point = found.log.newest.checkpoint
    return {
        "run": found.run,
        "study": found.plan.study.study,
        "plan_digest": found.plan.digest,
        "status": found.status,
        "rounds": found.rounds,
        "log": {"size": point.size, "root": point.root.hex()},
        "coordinator": found.coordinator,
        "consortium": found.consortium,
        "sites": found.sites,
        "checks": list(found.checks),
    }
