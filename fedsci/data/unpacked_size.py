"""How large a compressed data file says that it is once it is unpacked, looked at before anything is.

A few hundred bytes can claim gigabytes. What a file unpacks to may be 256 MiB, or 300 times the file's own size if that
is more: tables that people compress stay far below that.
"""

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from fedsci.errors import DataError

_MIB = 1024 * 1024
_ALWAYS = 256 * _MIB
_TIMES = 300
#: What a value takes in memory: a number or a text that is shared; anything else becomes an object of Python's.
_NUMBER, _OBJECT = 8, 64
_AS_NPZ = "save it as NPZ without compression: numpy.savez"
_MOST_ROWS = 65536
_NUMBERS = ("BOOLEAN", "INT32", "INT64", "FLOAT", "DOUBLE")


def check_npz(path: Path) -> None:
    """Pass if the arrays of an NPZ file, as its directory and each array's header declare them, may be unpacked.

    Raises:
        DataError: they are too large, or one declares more than there is.
        zipfile.BadZipFile, ValueError, and what else zipfile raises: it is no NPZ file.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        _check(path, sum(member.file_size for member in members), "save it without compression: numpy.savez")
        for member in members:
            with archive.open(member) as file:
                declared = _array_bytes(file)
            if declared > member.file_size:
                raise DataError(
                    f"{path}: {member.filename!r} declares {_mib(declared)} and holds {_mib(member.file_size)}",
                    hint="was it copied whole?",
                )


def _array_bytes(file: IO[bytes]) -> int:
    """Return how many bytes an array's header declares.

    Raises:
        ValueError: it is no array.
    """
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:  # 3.0 differs in how names are spelt
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    return 0 if dtype.hasobject else math.prod(shape) * int(dtype.itemsize)


def check_parquet(path: Path, file: Any) -> None:
    """Pass if a Parquet file's rows, as its metadata declares them, may be unpacked; see :func:`check_pieces`, too.

    The metadata of single columns is not looked at: pyarrow ends the process where it is damaged.

    Args:
        path: the file, for messages.
        file: it, opened by pyarrow.

    Raises:
        DataError: they are too large.
    """
    width = sum(_width(leaf) for leaf in _leaves(file))
    _check(path, file.metadata.num_rows * width + sum(_group_bytes(file)), _AS_NPZ)


def check_pieces(path: Path, file: Any, columns: Sequence[str], *, times: int = 1) -> None:
    """Pass if columns whose size the metadata does not tell may be unpacked, which they are piece by piece.

    Args:
        path: the file, for messages.
        file: it, opened by pyarrow.
        columns: their paths.
        times: as large they become once they are read.

    Raises:
        DataError: they are too large.
    """
    largest, unpacked = max(_group_bytes(file), default=0), 0
    rows = max(1, min(_MOST_ROWS, _limit(path) // max(8 * largest, 1)))  # a text is no larger than its row group
    for piece in file.iter_batches(batch_size=rows, columns=list(columns)) if columns else ():
        unpacked += times * piece.nbytes
        _check(path, unpacked, _AS_NPZ)


def texts_of(file: Any) -> list[str]:
    """Return the paths of a Parquet file's columns of text."""
    return [leaf.path for leaf in _leaves(file) if _is_text(leaf)]


def lists_of(file: Any) -> list[str]:
    """Return the paths of a Parquet file's columns of lists."""
    return [leaf.path for leaf in _leaves(file) if leaf.max_repetition_level]


def _leaves(file: Any) -> list[Any]:
    return [file.schema.column(position) for position in range(len(file.schema))]


def _group_bytes(file: Any) -> list[int]:
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    return [max(group.total_byte_size, 0) for group in groups]


def _is_text(leaf: Any) -> bool:
    plain = leaf.max_repetition_level == 0 and leaf.physical_type == "BYTE_ARRAY"
    return plain and leaf.logical_type.type in ("STRING", "NONE")


def _width(leaf: Any) -> int:
    number = leaf.physical_type in _NUMBERS and leaf.logical_type.type in ("NONE", "INT")
    return _NUMBER if leaf.max_repetition_level == 0 and (number or _is_text(leaf)) else _OBJECT


def _limit(path: Path) -> int:
    return max(_ALWAYS, _TIMES * path.stat().st_size)


def _check(path: Path, size: int, instead: str) -> None:
    limit = _limit(path)
    if size > limit:
        raise DataError(
            f"{path}: it unpacks to {_mib(size)} or more; at most {_mib(limit)} are read of a file this small",
            hint=f"if the data is right, {instead}",
        )


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / _MIB:.4g} MiB" if size_bytes < 1e15 else "more than a petabyte"
