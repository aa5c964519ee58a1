"""A data-set record: what a lab says of its data without showing it; Croissant 1.1 (JSON-LD) with the RAI vocabulary.

A record is read as if somebody hostile had written it, and is whole only if :mod:`fedsci.data.record_profile` finds no
fault. Units of columns are schema.org's ``unitText``, bounds its ``minValue`` and ``maxValue``: Croissant has no fields
of its own for them.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fedsci.data.values import nearest, show
from fedsci.errors import DataError, one_line

#: Of a record's file; so that the record and its signatures fit into one statement.
MOST_BYTES = 512 * 1024
SUFFIX = ".croissant.json"
SPDX = "https://spdx.org/licenses/"
BUILTIN = "builtin:"
_MOST_DEPTH = 32
_EXACT_INTEGER = 2**53


@dataclass(frozen=True, kw_only=True)
class RecordColumn:
    """A column of a data set, as its record tells.

    Attributes:
        name: as in the file.
        data_type: ``sc:Boolean``, ``sc:Integer``, ``sc:Float`` or ``sc:Text``; of an array, of its entries.
        shape: of an array, else empty.
        minimum, maximum: public bounds, in units of the column.
        categories: the public values of a column that has few; empty where nobody says.
        unit: as people write it, such as ``mV``.
        description: in words.
    """

    name: str
    data_type: str
    shape: tuple[int, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str | int | float | bool, ...] = ()
    unit: str | None = None
    description: str | None = None

    def to_json(self, file_id: str) -> dict[str, Any]:
        """Return the column as a Croissant Field that is read from the file ``file_id``."""
        optional = {
            "description": self.description,
            "unitText": self.unit,
            "minValue": _plain(self.minimum),
            "maxValue": _plain(self.maximum),
            "categories": list(self.categories) or None,
            "isArray": True if self.shape else None,
            "arrayShape": ",".join(map(str, self.shape)) or None,
        }
        return {
            "@type": "cr:Field",
            "@id": field_id(self.name),
            "name": self.name,
            "dataType": self.data_type,
            **{key: value for key, value in optional.items() if value is not None},
            "source": {"fileObject": {"@id": file_id}, "extract": {"column": self.name}},
        }


@dataclass(frozen=True, kw_only=True)
class DataRecord:
    """A record without a fault.

    Attributes:
        values: its JSON; has a canonical form (RFC 8785).
    """

    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What the data set is called."""
        return str(self.values["name"])

    @property
    def version(self) -> str:
        """MAJOR.MINOR.PATCH."""
        return str(self.values["version"])

    @property
    def licence(self) -> str:
        """An SPDX id or a ``LicenseRef-``."""
        return str(self.values["license"]).removeprefix(SPDX)

    @property
    def creators(self) -> tuple[str, ...]:
        """The names of who made the data."""
        return tuple(creator["name"] for creator in self.values["creator"])

    @property
    def privacy_unit(self) -> tuple[str, str | None]:
        """What a privacy guarantee is for: a record, a group or a site; and the column that makes groups."""
        return self.values["fedsci:privacyUnit"], self.values.get("fedsci:groupBy")

    @property
    def sha256(self) -> str:
        """Of the file's bytes (or of a built-in data set's parameters), hexadecimal."""
        return str(self.values["distribution"][0]["sha256"])

    @property
    def file(self) -> str:
        """The file's name without its folder; ``builtin:NAME`` where it is one."""
        return str(self.values["distribution"][0]["name"])

    @property
    def columns(self) -> tuple[RecordColumn, ...]:
        """The columns, in the order of the record."""
        return tuple(column_of(field) for field in self.values["recordSet"][0]["field"])


def _plain(number: float | None) -> float | None:
    """Return a whole number as an integer, as people write it."""
    return int(number) if number is not None and float(number).is_integer() and abs(number) < 1e15 else number


def column_of(field: Mapping[str, Any]) -> RecordColumn:
    """Return the column that a Croissant Field without a fault describes."""
    shape = field.get("arrayShape", "")
    return RecordColumn(
        name=field["name"],
        data_type=field["dataType"],
        shape=tuple(int(length) for length in shape.split(",") if length),
        minimum=field.get("minValue"),
        maximum=field.get("maxValue"),
        categories=tuple(field.get("categories", ())),
        unit=field.get("unitText"),
        description=field.get("description"),
    )


def field_id(column: str) -> str:
    """Return the ``@id`` of a column's Field, which no other column of the record has."""
    return "records/" + quote(column, safe="")


def file_id(name: str) -> str:
    """Return the ``@id`` of a file, which is also its relative address."""
    return name if name.startswith(BUILTIN) else quote(name, safe="")


def read_values(path: Path) -> dict[str, Any]:
    """Return the JSON object in a record's file; whether it is a whole record is not looked at.

    Raises:
        DataError: the file is missing, larger than 512 KiB, no JSON object of at most 32 levels, writes a key twice, or
            holds what has no canonical form: NaN, infinity, integers beyond 2^53, halves of characters.
    """
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder, not a record", hint=f"name one file, such as NAME{SUFFIX}")
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise DataError(f"{path} is not a file", hint=f"name one file, such as NAME{SUFFIX}")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise DataError(f"record {path} does not exist", hint=_near(path)) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"record {path} cannot be read: {reason}", hint="check the path and its rights") from None
    return parse_values(content, str(path))


def parse_values(content: bytes, source: str) -> dict[str, Any]:
    """Return the JSON object that ``content`` is; ``source`` names it in errors. See :func:`read_values`."""
    if len(content) > MOST_BYTES:
        raise DataError(
            f"{source}: a record is at most {MOST_BYTES // 1024} KiB",
            hint="is this the data itself? many like columns belong into one array",
        )
    hint = "fedsci data describe writes records; after a change by hand look for commas, quotes and brackets"
    try:
        values = json.loads(
            content.decode("utf-8"), object_pairs_hook=_each_once, parse_constant=_no_number, parse_float=_finite
        )
    except UnicodeDecodeError as problem:
        raise DataError(f"{source}: byte {problem.start + 1} is not UTF-8 text", hint=hint) from None
    except json.JSONDecodeError as problem:
        raise DataError(f"{source} line {problem.lineno}: this is not JSON: {problem.msg}", hint=hint) from None
    except RecursionError:
        raise DataError(f"{source}: nested deeper than {_MOST_DEPTH} levels", hint=hint) from None
    except ValueError as problem:
        raise DataError(f"{source}: {one_line(str(problem))}", hint=hint) from None
    if not isinstance(values, dict):
        raise DataError(f"{source}: a record is a JSON object, this is {_kind(values)}", hint=hint)
    _check_values(values, source, hint)
    return values


def _check_values(values: object, source: str, hint: str) -> None:
    level: list[object] = [values]
    for _ in range(_MOST_DEPTH):
        inner: list[object] = []
        for value in level:
            if isinstance(value, dict):
                inner += value.keys()
                inner += value.values()
            elif isinstance(value, list):
                inner += value
            elif isinstance(value, str):
                try:
                    value.encode()
                except UnicodeEncodeError:
                    raise DataError(f"{source}: half a character in {one_line(show(value))}", hint=hint) from None
            elif isinstance(value, int) and abs(value) >= _EXACT_INTEGER:
                raise DataError(f"{source}: the integer {show(value)} is beyond 2^53", hint=hint)
        level = inner
    if level:
        raise DataError(f"{source}: nested deeper than {_MOST_DEPTH} levels", hint=hint)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"the key {show(key)} is written twice")
        values[key] = value
    return values


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number in JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {show(text)} is too large")
    return number


def _kind(value: object) -> str:
    return {list: "a list", str: "a text", bool: "true or false", type(None): "null"}.get(type(value), "a number")


def _near(path: Path) -> str:
    try:
        others = sorted(other.name for other in path.parent.iterdir() if other.name.endswith(".json"))
    except OSError:
        return f"there is no folder {path.parent} either"
    close = nearest(path.name, others)
    return f"did you mean {path.parent / close}?" if close else "fedsci data describe SITE_FILE DATASET writes one"
