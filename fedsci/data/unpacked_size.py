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
_TOLD = {"PLAIN", "RLE", "BIT_PACKED", "PLAIN_DICTIONARY", "RLE_DICTIONARY"}
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
    """Pass if the columns of a Parquet file, as the metadata of its row groups declares them, may be unpacked.

    Text that is packed by common beginnings or lengths is not told by that: it is unpacked piece by piece.

    Args:
        path: the file, for messages.
        file: it, opened by pyarrow.

    Raises:
        DataError: they are too large.
    """
    instead = "save it as NPZ without compression: numpy.savez"
    declared = largest = 0
    for position in range(len(file.schema)):
        width = _width(file.schema.column(position))
        for chunk in _chunks(file, position):
            declared += chunk.num_values * width + max(chunk.total_uncompressed_size, 0)
            largest = max(largest, chunk.total_uncompressed_size)
    _check(path, declared, instead)
    unpacked = 0
    unsure = [leaf.path for leaf in _texts(file, told=False)]
    rows = max(1, min(_MOST_ROWS, _limit(path) // max(8 * largest, 1)))  # a value is no larger than its column
    for piece in file.iter_batches(batch_size=rows, columns=unsure) if unsure else ():
        unpacked += piece.nbytes
        _check(path, unpacked, instead)


def texts_of(file: Any) -> list[str]:
    """Return the paths of a Parquet file's columns of text that are read as each distinct text and where it is."""
    return [leaf.path for leaf in _texts(file, told=True)]


def _texts(file: Any, *, told: bool) -> list[Any]:
    """Return the columns of text whose size the metadata tells, or the others."""
    leaves = [(file.schema.column(position), _chunks(file, position)) for position in range(len(file.schema))]
    return [leaf for leaf, chunks in leaves if _is_text(leaf) and told == all({*c.encodings} <= _TOLD for c in chunks)]


def _chunks(file: Any, position: int) -> list[Any]:
    metadata = file.metadata
    return [metadata.row_group(number).column(position) for number in range(metadata.num_row_groups)]


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
