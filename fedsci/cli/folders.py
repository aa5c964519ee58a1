"""What the system says about a folder, in the user's words."""

import contextlib
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
