"""How large a compressed data file says that it is once it is unpacked, looked at before anything is.

A few hundred bytes can claim gigabytes. What a file unpacks to may be 256 MiB, or 300 times the file's own size if that
is more: tables that people compress stay far below that.
"""

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from fedsci.errors import DataError

_MIB = 1024 * 1024
_ALWAYS = 256 * _MIB
_TIMES = 300
#: What a value takes in memory: a number or a text that is shared; anything else becomes an object of Python's.
_NUMBER, _OBJECT = 8, 64
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
    """Pass if the columns of a Parquet file, as the metadata of its row groups declares them, may be unpacked.

    Args:
        path: the file, for messages.
        file: it, opened by pyarrow.

    Raises:
        DataError: they are too large.
    """
    declared, metadata, schema = 0, file.metadata, file.schema
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for position in range(group.num_columns):
            chunk = group.column(position)
            declared += chunk.num_values * _width(schema.column(position)) + max(chunk.total_uncompressed_size, 0)
    _check(path, declared, "save it as NPZ without compression: numpy.savez")


def texts_of(file: Any) -> list[str]:
    """Return the paths of a Parquet file's columns of text, which are read as each distinct text and where it is."""
    leaves = [file.schema.column(position) for position in range(len(file.schema))]
    return [leaf.path for leaf in leaves if _is_text(leaf)]


def _is_text(leaf: Any) -> bool:
    plain = leaf.max_repetition_level == 0 and leaf.physical_type == "BYTE_ARRAY"
    return plain and leaf.logical_type.type in ("STRING", "NONE")


def _width(leaf: Any) -> int:
    number = leaf.physical_type in _NUMBERS and leaf.logical_type.type in ("NONE", "INT")
    return _NUMBER if leaf.max_repetition_level == 0 and (number or _is_text(leaf)) else _OBJECT


def _check(path: Path, declared: int, instead: str) -> None:
    limit = max(_ALWAYS, _TIMES * path.stat().st_size)
    if declared > limit:
        raise DataError(
            f"{path}: it says that it unpacks to {_mib(declared)}; at most {_mib(limit)} are read of a file this small",
            hint=f"if the data is right, {instead}",
        )


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / _MIB:.4g} MiB" if size_bytes < 1e15 else "more than a petabyte"
