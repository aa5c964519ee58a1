"""``fedsci data catalogue``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fedsci.data.record_catalogue import Entry, Search

_MOST_COLUMNS = 6


def register(group: typer.Typer) -> None:
    """Add the command to ``fedsci data``."""
    group.command("catalogue", epilog="Example: fedsci data catalogue examples/heart --column age --unit years")(
        catalogue
    )


def catalogue(
    places: Annotated[list[Path], typer.Argument(help="Records, or folders of them.", metavar="RECORD_OR_FOLDER...")],
    column: Annotated[str | None, typer.Option("--column", help="Only data sets with this column.")] = None,
    unit: Annotated[str | None, typer.Option("--unit", help="Only those with a column in this unit, as mV.")] = None,
    licence: Annotated[str | None, typer.Option("--licence", help="Only those under this SPDX licence.")] = None,
    privacy_unit: Annotated[
        str | None, typer.Option("--privacy-unit", help="Only those that protect each record, group or site.")
    ] = None,
    text: Annotated[str | None, typer.Option("--text", help="Only those that say this word somewhere.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """List what labs hold, from their records alone; no data is opened.

    A record that cannot be read or has a fault is listed as broken, whatever is searched for.
    """
    from fedsci.data.record_catalogue import Search, read_catalogue

    search = Search(column=column, unit=unit, licence=licence, privacy_unit=privacy_unit, text=text)
    entries = read_catalogue(places)
    shown = [entry for entry in entries if entry.record is None or search.finds(entry.record)]
    if as_json:
        typer.echo(json.dumps({"records": [_as_json(entry) for entry in shown], "read": len(entries)}, indent=2))
    else:
        _print(shown, search, read=len(entries))


def _print(entries: "list[Entry]", search: "Search", *, read: int) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from fedsci.errors import one_line

    console = Console(highlight=False)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0))
    for heading in ("data set", "version", "licence", "made by", "protects each", "columns", "record"):
        table.add_column(heading, overflow="fold")
    found = 0
    for entry in entries:
        if entry.record is None:
            continue
        found += 1
        record, (privacy_unit, group_by) = entry.record, entry.record.privacy_unit
        columns = [
            f"{one.name} [{one.unit}]" if one.unit else one.name for one in search.columns(record)[:_MOST_COLUMNS]
        ]
        more = len(record.columns) - len(columns)
        cells = (
            record.name,
            record.version,
            record.licence,
            ", ".join(record.creators),
            f"group by {group_by}" if group_by else privacy_unit,
            ", ".join(columns) + (f" and {more} more" if more else ""),
            str(entry.path),
        )
        table.add_row(*(escape(one_line(cell)) for cell in cells))
    if found:
        console.print(table)
    broken = [entry for entry in entries if entry.record is None]
    for entry in broken:
        console.print(f"broken: {escape(one_line(entry.fault))}", soft_wrap=True)
    what = "1 data set" if found == 1 else f"{found} data sets"
    console.print(f"{what} of {read - len(broken)}" + (f", and {len(broken)} broken" if broken else ""))


def _as_json(entry: "Entry") -> dict[str, Any]:
    if entry.record is None:
        return {"path": str(entry.path), "fault": entry.fault}
    from fedsci.audit.statement import digest_of

    record, (privacy_unit, group_by) = entry.record, entry.record.privacy_unit
    return {
        "path": str(entry.path),
        "digest": digest_of(dict(record.values)),
        "name": record.name,
        "version": record.version,
        "licence": record.licence,
        "creators": list(record.creators),
        "privacy_unit": privacy_unit,
        "group_by": group_by,
        "columns": [{"name": one.name, "type": one.data_type, "unit": one.unit} for one in record.columns],
    }
