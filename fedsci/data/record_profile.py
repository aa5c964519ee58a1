"""What fedsci asks of a data-set record, and every place where one falls short.

The shape is a JSON Schema that ships with fedsci (``croissant_profile.schema.json``), so that others can check records
with their own tools; what no schema can say (a licence that exists, columns that are told apart) is checked here.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsci.data.record import BUILTIN, SPDX, DataRecord, field_id, file_id, read_values
from fedsci.data.values import nearest, show
from fedsci.errors import DataError, one_line

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError

_REFERENCE = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")


@dataclass(frozen=True, kw_only=True, order=True)
class Fault:
    """One thing that is wrong with a record.

    Attributes:
        pointer: where, as a JSON pointer (RFC 6901).
        found: what is there.
        right: what would be right.
    """

    pointer: str
    found: str
    right: str

    def __str__(self) -> str:
        return one_line(f"{self.pointer or '/'}: {self.found}; it should be {self.right}")


def read_record(path: Path) -> DataRecord:
    """Return the record in a file.

    Raises:
        DataError: it cannot be read, or it has a fault; the first is named.
    """
    return record_of(read_values(path), str(path))


def record_of(values: Mapping[str, Any], source: str) -> DataRecord:
    """Return ``values`` as a record; ``source`` names it in errors.

    Raises:
        DataError: it has a fault; the first is named, and how many there are.
    """
    faults = faults_of(values)
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise DataError(f"{source}: {faults[0]}{more}", hint=f"fedsci data check {source} lists every fault")
    return DataRecord(values=values)


def faults_of(values: Mapping[str, Any]) -> tuple[Fault, ...]:
    """Return every fault of a record, by place; none if it is whole."""
    shape = {fault for error in _validator().iter_errors(values) for fault in _explained(error)}
    if shape:
        return tuple(sorted(shape))
    return tuple(
        sorted([*_licence_faults(values), *_date_faults(values), *_file_faults(values), *_field_faults(values)])
    )


def context() -> dict[str, Any]:
    """Return the JSON-LD context of records."""
    expected = _schema()["properties"]["@context"]["properties"]
    return {name: meaning["const"] for name, meaning in expected.items()}


@cache
def licence_ids() -> tuple[str, ...]:
    """Return the ids of the SPDX licence list 3.28.0, those that are out of use left out."""
    return tuple(files("fedsci.data").joinpath("spdx_licences.txt").read_text(encoding="ascii").split())


@cache
def _schema() -> dict[str, Any]:
    text = files("fedsci.data").joinpath("croissant_profile.schema.json").read_text(encoding="ascii")
    schema: dict[str, Any] = json.loads(text)
    return schema


@cache
def _validator() -> "Draft202012Validator":
    from jsonschema import Draft202012Validator  # 8 MB that a site without records does not need

    return Draft202012Validator(_schema())


def _explained(error: "ValidationError") -> Iterator[Fault]:
    schema = error.schema if isinstance(error.schema, Mapping) else {}
    pointer = _pointer(error.absolute_path)
    if error.validator == "required":
        for key in error.validator_value:
            if key not in error.instance:
                inner = schema.get("properties", {}).get(key, {})
                yield Fault(pointer=_pointer([*error.absolute_path, key]), found="missing", right=_right(inner))
    elif error.validator == "additionalProperties":
        known = schema.get("properties", {})
        for key in error.instance:
            if key not in known:
                right = f"left out (known here: {', '.join(known)})"
                yield Fault(pointer=_pointer([*error.absolute_path, key]), found="not known", right=right)
    else:
        yield Fault(pointer=pointer, found=_found(error.instance), right=_right(schema))


def _right(schema: Mapping[str, Any]) -> str:
    return str(schema.get("description", "of another kind"))


def _found(value: object) -> str:
    if isinstance(value, dict):
        return "an object with " + (", ".join(show(key) for key in list(value)[:4]) or "nothing in it")
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return show(value)


def _pointer(path: Sequence[Any]) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _licence_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    written = values["license"]
    known = licence_ids()
    if written.startswith(SPDX) and written.removeprefix(SPDX) in known:
        return
    if _REFERENCE.fullmatch(written):
        return
    close = nearest(written.removeprefix(SPDX), known)
    meant = f"{SPDX}{close}" if close else f"{SPDX} and an SPDX id, such as CC-BY-4.0"
    yield Fault(pointer="/license", found=show(written), right=f"{meant}, or LicenseRef- and a name of your own")


def _date_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    written = values["datePublished"]
    try:
        date.fromisoformat(written)
    except ValueError:
        yield Fault(pointer="/datePublished", found=show(written), right="a day that there is, such as 2026-01-31")


def _file_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    file, at = values["distribution"][0], "/distribution/0"
    name = file["name"].removeprefix(BUILTIN)
    if "/" in name or "\\" in name or name in ("", ".", ".."):
        yield Fault(pointer=f"{at}/name", found=show(file["name"]), right="a file's name without its folder")
    for key in ("@id", "contentUrl"):
        if file[key] != file_id(file["name"]):
            yield Fault(pointer=f"{at}/{key}", found=show(file[key]), right=show(file_id(file["name"])))


def _field_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    file = values["distribution"][0]["@id"]
    seen: set[str] = set()
    for number, field in enumerate(values["recordSet"][0]["field"]):
        at, name = f"/recordSet/0/field/{number}", field["name"]
        if name in seen:
            yield Fault(pointer=f"{at}/name", found=f"{show(name)} a second time", right="another column's name")
        seen.add(name)
        expected = ((("@id",), field_id(name)), (("source", "fileObject", "@id"), file))
        for keys, right in (*expected, (("source", "extract", "column"), name)):
            value: Any = field
            for key in keys:
                value = value[key]
            if value != right:
                yield Fault(pointer="/".join((at, *keys)), found=show(value), right=show(right))
        if ("isArray" in field) != ("arrayShape" in field):
            yield Fault(pointer=at, found="isArray or arrayShape alone", right="both, or neither")
        low, high = field.get("minValue"), field.get("maxValue")
        if low is not None and high is not None and not low < high:
            yield Fault(pointer=f"{at}/minValue", found=show(low), right=f"below maxValue, {show(high)}")
        numeric = field["dataType"] in ("sc:Integer", "sc:Float")
        if not numeric and (low is not None or high is not None):
            yield Fault(pointer=at, found=f"bounds on {field['dataType']}", right="bounds on numbers only")
    unit, group = values["fedsci:privacyUnit"], values.get("fedsci:groupBy")
    if (unit == "group") != (group is not None):
        right = "there where fedsci:privacyUnit is group, and only there"
        yield Fault(pointer="/fedsci:groupBy", found="missing" if group is None else show(group), right=right)
    elif group is not None and group not in seen:
        yield Fault(pointer="/fedsci:groupBy", found=show(group), right="one of the columns")


_CHECKS = (_licence_faults, _date_faults, _file_faults, _field_faults)
