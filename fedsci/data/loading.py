"""A data file becomes a :class:`RawTable`, whole or not at all.

CSV (``.csv .tsv .data .txt``), Parquet and NPZ; chosen by the suffix. Nothing in a file is ever executed:
NPZ is read without pickle.
"""

import csv
import io
import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsci.data.table import RawTable
from fedsci.data.unpacked_size import check_npz, check_parquet, check_pieces, lists_of, texts_of
from fedsci.data.values import nearest, parse_number, show
from fedsci.errors import DataError, InputError, one_line

CSV_SUFFIXES = (".csv", ".tsv", ".data", ".txt")
DELIMITERS = (",", ";", "\t")
_SNIFFED_ROWS = 30
#: What zipfile and numpy raise on what is none: also of other versions, encrypted, or larger than memory by its header.
_NOT_NPZ = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, tokenize.TokenError, struct.error, SyntaxError),
    *(ValueError, TypeError, LookupError, ArithmeticError, OSError, EOFError, RuntimeError, MemoryError),
)
#: What the values of a Parquet column raise on their way to Python: no such day or time zone, no UTF-8, too large.
_NOT_READ = (ValueError, TypeError, LookupError, ArithmeticError, MemoryError)


@dataclass(frozen=True, kw_only=True)
class CsvOptions:
    """How to read a text file.

    Attributes:
        delimiter: one character; None finds out which of comma, semicolon and tab it is.
        columns: the names, for a file without a header line; None takes the first line.
        missing: the texts that stand for a gap, compared stripped.
    """

    delimiter: str | None = None
    columns: tuple[str, ...] | None = None
    missing: tuple[str, ...] = ("", "?", "NA", "NaN", "nan", "null")

    def __post_init__(self) -> None:
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '"\r\n'):
            raise InputError(f"delimiter {self.delimiter!r} is not usable", hint="give one character, such as ';'")
        if self.columns is not None and len(set(self.columns)) != len(self.columns):
            raise InputError("`columns` names a column twice", hint="give each column its own name")
        if self.columns is not None and not (self.columns and all(self.columns)):
            raise InputError("`columns` is empty or holds an empty name", hint="name every column of the file")


def load_table(path: Path, *, options: CsvOptions | None = None) -> RawTable:
    """Return the file's rows and columns.

    Raises:
        DataError: naming the file, and where it can the line and column, if it cannot be read whole.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    check_file(path)
    if suffix in CSV_SUFFIXES:
        return _load_csv(path, options or CsvOptions())
    if suffix == ".parquet":
        return _load_parquet(path)
    if suffix == ".npz":
        return _load_npz(path)
    raise DataError(
        f"{path}: the file type {suffix or '(none)'!r} is not known",
        hint=f"use {', '.join(CSV_SUFFIXES)}, .parquet or .npz",
    )


def check_file(path: Path) -> None:
    """Pass if ``path`` is a file.

    Raises:
        DataError: it is not; names the nearest file there is.
    """
    if path.is_dir():
        raise DataError(f"{path}: this is a folder, not a file", hint="name one data file in it")
    if not path.is_file():
        if not path.parent.is_dir():
            raise DataError(f"{path}: there is no such file", hint=f"there is no folder {path.parent} either")
        others = sorted(other.name for other in path.parent.iterdir() if other.is_file())
        close = nearest(path.name, others)
        hint = f"did you mean {close!r}?" if close else f"the folder {path.parent} holds no file of a like name"
        raise DataError(f"{path}: there is no such file", hint=hint)
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise DataError(f"{path}: the file is empty", hint="was it copied whole?")
    except OSError as problem:
        raise DataError(
            f"{path}: the file cannot be read: {problem.strerror}", hint="check the file's permissions"
        ) from None


def _load_csv(path: Path, options: CsvOptions) -> RawTable:
    text = _decode(path)
    named = options.columns
    delimiter = options.delimiter or _find_delimiter(text, named)
    records = _records(path, text, delimiter)
    first = next(records, None)
    if first is None:
        raise DataError(f"{path}: the file is empty", hint="was it copied whole?")
    if named is None:
        names = _header(path, *first)
    else:
        names = list(named)
        if first[1] == names:
            raise DataError(f"{path}: line {first[0]} already holds the names in `columns`", hint="leave out `columns`")
        records = _chain(first, records)
    gaps = frozenset(options.missing)
    cells: list[list[str | None]] = [[] for _ in names]
    lines: list[int] = []
    for line, record in records:
        if len(record) != len(names):
            raise DataError(
                f"{path}: line {line}: {len(record)} values where there are {len(names)} columns",
                hint="look for a stray or missing delimiter or quote on that line"
                if delimiter in text
                else "give the `delimiter`; comma, semicolon and tab were not found",
            )
        lines.append(line)
        for column, cell in zip(cells, record, strict=True):
            column.append(None if cell in gaps else cell)
    if not lines:
        raise DataError(
            f"{path}: there is a header and nothing below it",
            hint="add rows; if the line is data, give the names in `columns`",
        )
    columns = {name: _objects(column) for name, column in zip(names, cells, strict=True)}
    return RawTable.from_columns(columns, lines=np.array(lines, dtype=np.int64))


def _decode(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        raise DataError(
            f"{path}: line {line}: the byte 0x{content[problem.start]:02x} is not UTF-8 text",
            hint="save the file as UTF-8",
        ) from None


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each non-blank record, stripped, with the number of the line it starts on."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as problem:
            raise DataError(
                f"{path}: line {line}: {problem}", hint="look for a quote that is not closed or not doubled"
            ) from None
        if record:
            yield line, [cell.strip() for cell in record]


def _chain(first: tuple[int, list[str]], rest: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    yield first
    yield from rest


def _find_delimiter(text: str, named: tuple[str, ...] | None) -> str:
    """Return the delimiter that gives the first rows one length, and the longer the better."""
    best, best_score = DELIMITERS[0], (False, False, 1)
    for delimiter in DELIMITERS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
        try:
            lengths = [len(record) for record in islice(filter(None, reader), _SNIFFED_ROWS)]
        except csv.Error:
            continue
        if lengths:
            fits = named is not None and lengths[0] == len(named)
            score = (fits, lengths[0] > 1 and len(set(lengths)) == 1, lengths[0])
            if score > best_score:
                best, best_score = delimiter, score
    return best


def _header(path: Path, line: int, record: Sequence[str]) -> list[str]:
    """Return the column names; a column without one is called by its position, ``column_1``."""
    names = [name or f"column_{position}" for position, name in enumerate(record, start=1)]
    name = _twice(names)
    if name is not None:
        raise DataError(
            f"{path}: line {line}: two columns are called {show(name)}",
            hint="if that line is data, give the names in `columns`"
            if _is_number(name)
            else "give each column its own name",
        )
    return names


def _twice(names: Sequence[str]) -> str | None:
    """Return the first name that was there before, if any was."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _is_number(text: str) -> bool:
    try:
        parse_number(text)
    except ValueError:
        return False
    return True


def _objects(values: Sequence[object]) -> NDArray[Any]:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _load_npz(path: Path) -> RawTable:
    columns: dict[str, NDArray[Any]] = {}
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path}: this is one array, not an NPZ file", hint="save it with numpy.savez")
            check_npz(path)
            for name in archive.files:
                columns[name] = _npz_column(path, name, archive)
    except _NOT_NPZ:
        raise DataError(f"{path}: the file is not a whole NPZ file", hint="was it copied whole?") from None
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise DataError(f"{path}: the arrays differ in length ({shown})", hint="give each array one entry a row")
    if not lengths or not max(lengths.values()):
        raise DataError(f"{path}: there are no rows", hint="was the file written whole?")
    return RawTable.from_columns(columns)


def _npz_column(path: Path, name: str, archive: Any) -> NDArray[Any]:
    try:
        column: NDArray[Any] = archive[name]
    except ValueError as problem:
        if "bject arrays" not in str(problem):
            raise
        raise DataError(
            f"{path}: column {name!r} is an array of objects, which could run code when read",
            hint="save numbers, or text with a fixed width such as dtype 'U20'",
        ) from None
    if column.ndim == 0:
        raise DataError(f"{path}: column {name!r} is a single value", hint="give each array one entry a row")
    if column.dtype.kind in "biufU":
        return column
    if column.dtype.kind == "S":
        return np.char.decode(column, "utf-8")
    raise DataError(f"{path}: column {name!r} has dtype {column.dtype}", hint="use numbers, booleans or text")


def _load_parquet(path: Path) -> RawTable:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            check_parquet(path, file)
            check_pieces(path, file, lists_of(file), times=8)  # each number becomes an object
            texts = texts_of(file)
        table = _parquet_table(path, texts)
    except (pa.ArrowException, OSError, *_NOT_READ):
        raise DataError(f"{path}: the file is not a whole Parquet file", hint="was it copied whole?") from None
    names = list(table.column_names)
    twice = _twice(names)
    if twice is not None:
        raise DataError(f"{path}: two columns are called {twice!r}", hint="give each column its own name")
    if not names or not table.num_rows:
        raise DataError(f"{path}: there are no rows", hint="was the file written whole?")
    columns: dict[str, NDArray[Any]] = {}
    for name in names:
        try:
            columns[name] = _parquet_column(path, name, table.column(name))
        except (pa.ArrowException, OSError, *_NOT_READ) as problem:
            why = one_line(str(problem))[:120] or type(problem).__name__
            raise DataError(
                f"{path}: column {name!r} holds a value that cannot be read: {why}",
                hint="is it a day beyond the calendar, an unknown time zone, damaged text? mend it, or drop the column",
            ) from None
    return RawTable.from_columns(columns)


def _parquet_table(path: Path, texts: Sequence[str]) -> Any:
    """Return the table with each distinct text once, or as it is where pyarrow cannot find those out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, read_dictionary=texts) as file:
            return file.read()
    except (pa.ArrowException, OSError):  # text that is packed by common beginnings, or a damaged file
        with pq.ParquetFile(path) as file:
            check_pieces(path, file, texts)
            return file.read()


def _parquet_column(path: Path, name: str, column: Any) -> NDArray[Any]:
    """Return the column; kinds that no model uses (dates, structures) come as text."""
    from pyarrow import types

    if types.is_dictionary(column.type) and (
        types.is_string(column.type.value_type) or types.is_binary(column.type.value_type)
    ):
        return _parquet_texts(column)
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if types.is_decimal(column.type):
        column = column.cast("float64")
    kind = column.type
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _parquet_lists(path, name, column.to_pylist())
    if types.is_floating(kind) or types.is_integer(kind) or (types.is_boolean(kind) and not column.null_count):
        numbers: NDArray[Any] = column.to_numpy()
        return numbers
    if types.is_boolean(kind):
        return _objects(column.to_pylist())
    return _objects([None if value is None else str(value) for value in column.to_pylist()])


def _parquet_texts(column: Any) -> NDArray[Any]:
    """Return a column of texts; a text that is there twice is in memory once."""
    parts = [np.empty(0, dtype=object)]
    for chunk in column.chunks:
        texts = [None if text is None else str(text) for text in chunk.dictionary.to_pylist()]
        parts.append(_objects([*texts, None])[chunk.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False)])
    return np.concatenate(parts)


def _parquet_lists(path: Path, name: str, rows: list[Any]) -> NDArray[Any]:
    try:
        shape = next(np.shape(row) for row in rows if row is not None)
        return np.array([np.full(shape, np.nan) if row is None else row for row in rows], dtype=np.float64)
    except (ValueError, TypeError, StopIteration):
        raise DataError(
            f"{path}: column {name!r} holds lists that are not numbers of one shape",
            hint="give every row as many numbers",
        ) from None
