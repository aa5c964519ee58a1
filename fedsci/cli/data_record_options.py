"""What the options of ``fedsci data describe`` say of columns and of the privacy unit."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from fedsci.config.loading import parse, read_document
from fedsci.config.site import Budget
from fedsci.config.study import Study
from fedsci.data.record import RecordColumn
from fedsci.data.schema import ArrayFeature, CategoryFeature, MulticlassTarget, NumericFeature, RegressionTarget
from fedsci.data.table import RawTable, absent_column
from fedsci.data.values import parse_number
from fedsci.errors import InputError
from fedsci.training.schema import schema_of


def study_facts(path: Path, dataset: str, raw: RawTable) -> dict[str, RecordColumn]:
    """Return the bounds and categories of the study's public schema, by column.

    Raises:
        InputError: the study is of another data set, or of a column that there is not.
    """
    study = parse(Study, read_document(path, kind="study"))
    if study.dataset != dataset:
        raise InputError(f"{path} is of the data set {study.dataset!r}, not {dataset!r}", hint="name its own study")
    schema = schema_of(study)
    facts: dict[str, RecordColumn] = {}
    for part in (*schema.features, schema.target):
        if part.name not in raw.columns:
            raise absent_column(raw, part.name, dataset, "a column of the study")
        if isinstance(part, NumericFeature | ArrayFeature | RegressionTarget):
            facts[part.name] = _fact(part.name, minimum=part.minimum, maximum=part.maximum)
        elif isinstance(part, CategoryFeature):
            facts[part.name] = _fact(part.name, categories=part.categories)
        elif isinstance(part, MulticlassTarget):
            facts[part.name] = _fact(part.name, categories=part.classes)
    return facts


def column_facts(
    raw: RawTable,
    *,
    unit: Sequence[str] | None,
    bounds: Sequence[str] | None,
    categories: Sequence[str] | None,
    about: Sequence[str] | None,
) -> dict[str, RecordColumn]:
    """Return what the options say, by column.

    Raises:
        InputError: one is not COLUMN=VALUE, of no column of the data, or of another form.
    """
    units, abouts = dict(_pairs("--unit", unit, raw)), dict(_pairs("--about", about, raw))
    ranges = {name: _range(name, text) for name, text in _pairs("--bounds", bounds, raw)}
    lists = {
        name: tuple(_category(item.strip()) for item in text.split(","))
        for name, text in _pairs("--categories", categories, raw)
    }
    return {
        name: _fact(
            name,
            unit=units.get(name),
            description=abouts.get(name),
            minimum=ranges.get(name, (None, None))[0],
            maximum=ranges.get(name, (None, None))[1],
            categories=lists.get(name, ()),
        )
        for name in {**units, **abouts, **ranges, **lists}
    }


def one_privacy_unit(budget: Budget | None, said: str | None, dataset: str) -> tuple[str, str | None] | None:
    """Return the unit that the site's budget protects, or what is said where there is none; None if nobody says.

    Raises:
        InputError: it is no unit, or not the budget's.
    """
    if said is None:
        return None if budget is None else (budget.unit, budget.group_by)
    unit, _, column = said.partition(":")
    if unit not in ("record", "group", "site") or (unit == "group") != bool(column):
        raise InputError(f"--privacy-unit {said}: no such unit", hint="use record, site or group:COLUMN")
    chosen = unit, column or None
    if budget is not None and chosen != (budget.unit, budget.group_by):
        own = f"{budget.unit}:{budget.group_by}" if budget.group_by else budget.unit
        raise InputError(
            f"--privacy-unit {said}: the budget of {dataset} is for each {own}", hint="leave --privacy-unit out"
        )
    return chosen


def _fact(name: str, **said: object) -> RecordColumn:
    return RecordColumn(name=name, data_type="", **said)  # type: ignore[arg-type]


def _pairs(option: str, texts: Sequence[str] | None, raw: RawTable) -> Iterator[tuple[str, str]]:
    for text in texts or ():
        # a column's name may hold an equals sign: the longest name that fits counts
        fitting = [name for name in raw.columns if text.startswith(f"{name}=")]
        if not fitting:
            name, equals, _ = text.partition("=")
            if not equals:
                _refuse(option, text, "it is COLUMN=VALUE")
            raise absent_column(raw, name, f"{option} {text}", "a column of the data")
        name = max(fitting, key=len)
        value = text.removeprefix(f"{name}=").strip()
        if not value:
            _refuse(option, text, "give a value after the equals sign")
        yield name, value


def _range(name: str, text: str) -> tuple[float, float]:
    low, colon, high = text.partition(":")
    try:
        if not colon:
            raise ValueError
        minimum, maximum = parse_number(low), parse_number(high)
    except ValueError:
        _refuse("--bounds", f"{name}={text}", "it is COLUMN=MIN:MAX, such as age=0:120")
    if not minimum < maximum:
        _refuse("--bounds", f"{name}={text}", "give MIN below MAX")
    return minimum, maximum


def _category(text: str) -> str | int | float:
    """Return the number that a text spells, else the text."""
    try:
        number = parse_number(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() and abs(number) < 1e15 else number


def _refuse(option: str, text: str, hint: str) -> NoReturn:
    raise InputError(f"{option} {text}: this is not understood", hint=hint)
