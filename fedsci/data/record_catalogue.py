"""What a consortium holds, from its data-set records alone: no data is opened."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fedsci.data.record import SUFFIX, DataRecord, RecordColumn
from fedsci.data.record_profile import read_record
from fedsci.errors import DataError, InputError


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file of a catalogue: a record, or why it is none.

    Attributes:
        path: the file.
        record: None where the file is broken.
        fault: what is wrong with it, on one line; empty where nothing is.
    """

    path: Path
    record: DataRecord | None
    fault: str = ""


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a data set must have to be found; None asks for nothing, and letters may be large or small.

    Attributes:
        column, unit: a column of this name, in this unit; given both, one column that is both.
        licence: an SPDX id.
        privacy_unit: record, group or site.
        text: a part of the name, description, provenance, a maker, a keyword or a column.
    """

    column: str | None = None
    unit: str | None = None
    licence: str | None = None
    privacy_unit: str | None = None
    text: str | None = None

    def columns(self, record: DataRecord) -> tuple[RecordColumn, ...]:
        """Return the columns that have the name and unit that are asked for; all where neither is."""
        return tuple(
            column
            for column in record.columns
            if (self.column is None or column.name.casefold() == self.column.casefold())
            and (self.unit is None or (column.unit or "").casefold() == self.unit.casefold())
        )

    def finds(self, record: DataRecord) -> bool:
        """Say whether the record has all that is asked for."""
        if not self.columns(record):
            return False
        if self.licence is not None and record.licence.casefold() != self.licence.casefold():
            return False
        if self.privacy_unit is not None and record.privacy_unit[0] != self.privacy_unit:
            return False
        return self.text is None or any(self.text.casefold() in said.casefold() for said in _said(record))


def read_catalogue(places: Iterable[Path]) -> tuple[Entry, ...]:
    """Return an entry for each record named, and for each ``*.croissant.json`` in a folder named or below it.

    Raises:
        InputError: a place does not exist, or a folder holds no record.
    """
    paths: dict[Path, None] = {}
    for place in places:
        if place.is_dir():
            found = sorted(place.rglob(f"*{SUFFIX}"))
            if not found:
                raise InputError(
                    f"{place}: there is no record in this folder", hint=f"records are called NAME{SUFFIX} in folders"
                )
            paths |= dict.fromkeys(found)
        elif place.exists():
            paths[place] = None
        else:
            raise InputError(f"{place} does not exist", hint="name records, or folders that hold some")
    return tuple(_entry(path) for path in paths)


def _entry(path: Path) -> Entry:
    try:
        return Entry(path=path, record=read_record(path))
    except DataError as error:
        return Entry(path=path, record=None, fault=error.message)


def _said(record: DataRecord) -> Iterable[str]:
    values = record.values
    yield from (record.name, values["description"], values["rai:dataCollection"])
    yield from record.creators
    yield from values.get("keywords", ())
    for column in record.columns:
        yield column.name
        yield column.description or ""
