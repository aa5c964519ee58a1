"""The columns of a data file, for its record: names and types are read from it; bounds never, unless asked for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsci.data.inference import round_outward
from fedsci.data.record import DataRecord, RecordColumn
from fedsci.data.record_profile import Fault
from fedsci.data.table import RawTable
from fedsci.data.values import is_missing, matching_key, missing_mask, parse_number, show

_NUMBERS = ("sc:Integer", "sc:Float")


def columns_of(raw: RawTable) -> tuple[RecordColumn, ...]:
    """Return the columns with their types, and nothing else that the values say."""
    return tuple(
        RecordColumn(name=name, data_type=_type_of(values), shape=values.shape[1:])
        for name, values in raw.columns.items()
    )


def with_bounds_from_data(columns: Sequence[RecordColumn], raw: RawTable) -> tuple[RecordColumn, ...]:
    """Return the columns, those of numbers without bounds with the data's own, to two digits outward.

    These bounds are statistics of the records, exact but for rounding: no privacy budget pays for them.
    """
    return tuple(
        column
        if column.data_type not in _NUMBERS or column.minimum is not None or column.maximum is not None
        else _bounded(column, raw.columns[column.name])
        for column in columns
    )


def type_faults(columns: Sequence[RecordColumn], raw: RawTable) -> tuple[Fault, ...]:
    """Return where a record's columns are not those of the data: absent, left out, or of another type."""
    return tuple(_type_faults(columns, raw))


def _type_faults(columns: Sequence[RecordColumn], raw: RawTable) -> Iterator[Fault]:
    for number, column in enumerate(columns):
        at = f"/recordSet/0/field/{number}"
        values = raw.columns.get(column.name)
        if values is None:
            yield Fault(pointer=f"{at}/name", found=show(column.name), right="a column of the data")
        elif values.shape[1:] != column.shape:
            written = ",".join(map(str, values.shape[1:]))
            found = show(",".join(map(str, column.shape))) if column.shape else "missing"
            yield Fault(pointer=f"{at}/arrayShape", found=found, right=show(written) if written else "left out")
        elif not _holds(column.data_type, values):
            yield Fault(
                pointer=f"{at}/dataType", found=show(column.data_type), right=f"{_type_of(values)}, as the data"
            )
    named = {column.name for column in columns}
    for name in raw.columns:
        if name not in named:
            right = f"a column {show(name)}, as the data"
            yield Fault(pointer="/recordSet/0/field", found="without it", right=right)


def _type_of(values: NDArray[Any]) -> str:
    """Return the narrowest type that all values have; text where there are none."""
    for data_type in ("sc:Boolean", "sc:Integer", "sc:Float"):
        if _holds(data_type, values, strictly=True):
            return data_type
    return "sc:Text"


def _holds(data_type: str, values: NDArray[Any], *, strictly: bool = False) -> bool:
    """Say whether a column may be called of that type; ``strictly``, also that it has values that call for it."""
    kind = values.dtype.kind
    if data_type == "sc:Text":
        return kind in "OUS"
    if kind == "b":
        return data_type == "sc:Boolean"
    if kind in "iu":
        return data_type in _NUMBERS or (
            data_type == "sc:Boolean" and not strictly and bool(np.isin(values, (0, 1)).all())
        )
    if kind == "f":
        return data_type == "sc:Float"
    found = {str(value).strip() for value in values.ravel() if not is_missing(value)}
    if not found:
        return not strictly
    if data_type == "sc:Boolean":
        known = {"true", "false"} if strictly else None
        return all(text.lower() in known if known else matching_key(text) in "01" for text in found)
    return all(_is_number(text, whole=data_type == "sc:Integer") for text in found)


def _is_number(text: str, *, whole: bool) -> bool:
    try:
        number = parse_number(text)
    except ValueError:
        return False
    return not whole or (number.is_integer() and not set(text) & set(".eE"))


def _bounded(column: RecordColumn, values: NDArray[Any]) -> RecordColumn:
    if values.dtype.kind in "iuf":
        numbers = values.astype(np.float64).ravel()
        numbers = numbers[np.isfinite(numbers)]
    else:
        numbers = np.array([parse_number(str(value)) for value in values[~missing_mask(values)]], dtype=np.float64)
    if not len(numbers):
        return column
    minimum, maximum = round_outward(float(numbers.min()), float(numbers.max()))
    return replace(column, minimum=minimum, maximum=maximum)


def with_facts(columns: Sequence[RecordColumn], facts: Mapping[str, RecordColumn]) -> tuple[RecordColumn, ...]:
    """Return the columns with what ``facts`` say of those they name: bounds, categories, unit, description."""
    return tuple(_with(column, facts[column.name]) if column.name in facts else column for column in columns)


def with_earlier(columns: Sequence[RecordColumn], earlier: DataRecord, raw: RawTable) -> tuple[RecordColumn, ...]:
    """Return the columns with all that an earlier record says of them; its types too, where the data still has them."""
    known = {column.name: column for column in earlier.columns}
    kept = (
        replace(column, data_type=known[column.name].data_type)
        if column.name in known and _holds(known[column.name].data_type, raw.columns[column.name])
        else column
        for column in columns
    )
    return with_facts(tuple(kept), known)


def _with(column: RecordColumn, fact: RecordColumn) -> RecordColumn:
    return replace(
        column,
        minimum=column.minimum if fact.minimum is None else fact.minimum,
        maximum=column.maximum if fact.maximum is None else fact.maximum,
        categories=fact.categories or column.categories,
        unit=fact.unit or column.unit,
        description=fact.description or column.description,
    )
