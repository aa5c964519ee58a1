"""What a data file holds (:class:`RawTable`), and what a model sees of it (:class:`Table`).

Both hold private data: they print as their size only and never leave the site.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsci.data.encoding import EncodedColumn, Place, encode_feature, encode_target
from fedsci.data.schema import Schema
from fedsci.data.values import nearest, parse_number, show_all
from fedsci.errors import DataError, InputError


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RawTable:
    """Columns as read, equally long; a gap is None in an object column and NaN in a float one.

    Attributes:
        columns: by name; one value a row, or an array of numbers a row.
        row_ids: int64, shape ``(n,)``: the rows' positions in the file they came from.
        lines: the rows' line numbers where the file has lines, else None.
    """

    columns: Mapping[str, NDArray[Any]]
    row_ids: NDArray[np.int64]
    lines: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.columns.items()}
        if not lengths or set(lengths.values()) != {len(self.row_ids)}:
            raise InputError(f"columns of lengths {lengths} make no table of {len(self.row_ids)} rows")

    @classmethod
    def from_columns(cls, columns: Mapping[str, NDArray[Any]], *, lines: NDArray[np.int64] | None = None) -> "RawTable":
        """Return a table whose rows are numbered from 0 in order."""
        rows = len(next(iter(columns.values()), ()))
        return cls(columns=columns, row_ids=np.arange(rows, dtype=np.int64), lines=lines)

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.row_ids)

    def row_label(self, row: int) -> str:
        """Return what a person would call the row: ``line 7`` of a text file, else ``row 6``, from 1."""
        return f"row {self.row_ids[row] + 1}" if self.lines is None else f"line {self.lines[row]}"

    def __repr__(self) -> str:
        return f"RawTable({self.rows} rows, {len(self.columns)} columns)"


@dataclass(frozen=True, kw_only=True)
class EncodingReport:
    """What encoding changed, for the site's own operator; exact counts of private data, never sent.

    Attributes:
        rows_read: rows in the file.
        rows_dropped_missing: of them, dropped for a gap.
        clipped: by column, values outside the bounds in the kept rows; only columns with any.
        unseen: by column, kept rows whose category the schema does not list.
        missing: by column, rows of the file with a gap.
    """

    rows_read: int
    rows_dropped_missing: int
    clipped: dict[str, int]
    unseen: dict[str, int]
    missing: dict[str, int]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Table:
    """Model inputs and targets. Each row is a function of its own record and the public schema alone.

    Attributes:
        features: float32, shape ``(n, width)``; in [-1, 1] where nothing but bounds scales them.
        target: int64 class indices, or float32 in [-1, 1] for regression; shape ``(n,)``.
        row_ids: int64, shape ``(n,)``: positions in the file the rows came from.
        report: what encoding changed.
        groups: where groups of records are protected, int64, shape ``(n,)``: each row's, numbered from 0; else None.
        gaps: which features of a row had a gap, shape ``(n, features of the schema)``; None where no row had one.
    """

    features: NDArray[np.float32]
    target: NDArray[Any]
    row_ids: NDArray[np.int64]
    report: EncodingReport
    groups: NDArray[np.int64] | None = None
    gaps: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if self.groups is not None and len(self.groups) != len(self.features):
            raise InputError(f"{len(self.groups)} groups of {len(self.features)} rows make no table")
        if not len(self.features) == len(self.target) == len(self.row_ids):
            raise InputError(
                f"{len(self.features)} feature rows, {len(self.target)} targets and "
                f"{len(self.row_ids)} row ids make no table"
            )

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.features)

    @property
    def units(self) -> int:
        """The number of groups, or of rows where there are none."""
        return self.rows if self.groups is None else len(np.unique(self.groups))

    def where(self, chosen: NDArray[np.bool_]) -> "Table":
        """Return the rows where ``chosen`` is true; the report stays that of the whole file."""
        return Table(
            features=self.features[chosen],
            target=self.target[chosen],
            row_ids=self.row_ids[chosen],
            report=self.report,
            groups=None if self.groups is None else _numbered(self.groups[chosen]),
            gaps=None if self.gaps is None else self.gaps[chosen],
        )

    def grouped(self, keys: NDArray[np.int64]) -> "Table":
        """Return the same rows in groups: those with equal ``keys``, int64, shape ``(n,)``."""
        return replace(self, groups=_numbered(keys))

    def __repr__(self) -> str:
        return f"Table({self.rows} rows, {self.features.shape[1]} inputs)"


def encode(raw: RawTable, schema: Schema, source: str, *, may_be_empty: bool = False) -> Table:
    """Return the model's view of ``raw``; ``source`` names the file in errors.

    With ``may_be_empty`` a table without rows is one too: where the answer tells of gaps, a refusal would.

    Raises:
        DataError: naming file, row, column and value, if a column is absent, a value does not fit, a gap
            is refused, or no row is left.
    """
    if raw.rows == 0:
        raise DataError(f"{source}: there are no rows", hint="a data set needs at least one row")
    impute = schema.missing == "impute"
    target_place = _place(raw, schema.target.name, source, "the study's target")
    places = [_place(raw, feature.name, source, "a feature of the study") for feature in schema.features]
    target = encode_target(raw.columns[schema.target.name], schema.target, target_place)
    features = [
        encode_feature(raw.columns[feature.name], feature, place, impute=impute)
        for feature, place in zip(schema.features, places, strict=True)
    ]
    parts = [(place, part) for place, part in zip([*places, target_place], [*features, target], strict=True)]
    if schema.missing == "refuse":
        _refuse_gaps(parts)
    dropping = [target] if impute else [part for _, part in parts]
    kept = ~np.any([part.missing for part in dropping], axis=0)
    if not kept.any() and not may_be_empty:
        raise DataError(
            f"{source}: every one of the {raw.rows} rows has a gap in a column that the study uses",
            hint="fill in the gaps, leave out mostly empty columns, or set `missing: impute` in the study",
        )
    return Table(
        features=np.concatenate([part.block[kept] for part in features], axis=1),
        target=target.block[kept],
        row_ids=raw.row_ids[kept],
        report=EncodingReport(
            rows_read=raw.rows,
            rows_dropped_missing=raw.rows - int(kept.sum()),
            clipped=_nonzero((place.column, part.clipped[kept].sum()) for place, part in parts),
            unseen=_nonzero((place.column, part.unseen[kept].sum()) for place, part in parts),
            missing=_nonzero((place.column, part.missing.sum()) for place, part in parts),
        ),
        gaps=np.stack([part.missing[kept] for part in features], axis=1) if impute else None,
    )


def concatenate(tables: Sequence[Table]) -> Table:
    """Return all rows in order, with the reports added up; row ids are not made unique, and no group spans two tables.

    Raises:
        InputError: if there are no tables, or they were encoded by different schemas.
    """
    if len({(table.features.shape[1], table.target.dtype) for table in tables}) != 1:
        raise InputError("the tables do not have one width and kind of target", hint="encode them with one schema")
    reports = [table.report for table in tables]
    groups = None
    if all(table.groups is not None for table in tables):
        firsts = np.cumsum([0, *(table.units for table in tables[:-1])])
        groups = np.concatenate([table.groups + first for table, first in zip(tables, firsts, strict=True)])
    gaps = None
    if all(table.gaps is not None for table in tables):
        gaps = np.concatenate([table.gaps for table in tables])
    return Table(
        features=np.concatenate([table.features for table in tables]),
        target=np.concatenate([table.target for table in tables]),
        row_ids=np.concatenate([table.row_ids for table in tables]),
        report=EncodingReport(
            rows_read=sum(report.rows_read for report in reports),
            rows_dropped_missing=sum(report.rows_dropped_missing for report in reports),
            clipped=_added(report.clipped for report in reports),
            unseen=_added(report.unseen for report in reports),
            missing=_added(report.missing for report in reports),
        ),
        groups=groups,
        gaps=gaps,
    )


def _numbered(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each row the place of its key among the distinct keys."""
    return np.unique(keys, return_inverse=True)[1].astype(np.int64).reshape(-1)


def absent_column(raw: RawTable, name: str, source: str, role: str) -> DataError:
    """Return the error for a column that is not there (``role``: whose), with the nearest that is."""
    close = nearest(name, raw.columns)
    hint = f"the columns are {show_all(raw.columns)}"
    if _looks_like_data(raw.columns):
        hint = "the first line looks like data, not names; give the names in `columns`"
    elif close is not None:
        hint = f"did you mean {close!r}?"
    return DataError(f"{source}: there is no column {name!r}, {role}", hint=hint)


def _place(raw: RawTable, name: str, source: str, role: str) -> Place:
    if name not in raw.columns:
        raise absent_column(raw, name, source, role)
    return Place(source=source, column=name, row_label=raw.row_label)


def _looks_like_data(names: Mapping[str, object]) -> bool:
    numbers = 0
    for name in names:
        try:
            parse_number(name)
        except ValueError:
            continue
        numbers += 1
    return 2 * numbers >= len(names)


def _refuse_gaps(parts: Sequence[tuple[Place, EncodedColumn]]) -> None:
    for place, part in parts:
        rows = np.flatnonzero(part.missing)
        if len(rows):
            raise place.error(
                int(rows[0]),
                "the value is missing",
                hint="fill it in, or set `missing: drop` or `missing: impute` in the study",
            )


def _nonzero(counts: Any) -> dict[str, int]:
    return {name: int(count) for name, count in counts if count}


def _added(counts: Any) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(total)
