"""What the system says about a folder, in the user's words."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fedsci.errors import InputError


@contextlib.contextmanager
def using(folder: Path) -> Iterator[None]:
    """Turn an error of the file system into one that names the folder and what to do.

    Raises:
        InputError: in place of OSError.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot use {folder}: {error.strerror or error}",
            hint="run as the user who owns the folder, and see that the disk has room",
        ) from None


def check_writable(file: Path) -> None:
    """Return if ``file`` can be written; for what takes long, before the work and not after it.

    Raises:
        InputError: it is a folder, or nothing can be written beside it.
    """
    problem = f"{file} is a folder" if file.is_dir() else ""
    if not problem and not file.parent.is_dir():
        problem = f"there is no folder {file.parent}"
    if not problem:
        try:
            tempfile.TemporaryFile(dir=file.parent).close()
        except OSError as error:
            problem = error.strerror or str(error)
    if problem:
        raise InputError(f"cannot write {file}: {problem}", hint="choose another place with --out")
