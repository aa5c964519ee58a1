"""One process at a time in a folder, and whether there is one."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from fedsci.errors import InputError

_TRIES = 5


@contextlib.contextmanager
def only_process(path: Path, *, what: str) -> Iterator[None]:
    """Hold the lock file; it is free again when the process ends, however it ends.

    Args:
        path: the lock file, in a folder that exists.
        what: what runs already, for the message.

    Raises:
        InputError: another process holds it.
    """
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+") as file:
        if not _taken(file):
            raise InputError(
                f"{what} is running already (process {file.read().strip() or 'unknown'})", hint="stop it first"
            )
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _taken(file: TextIO) -> bool:
    for _ in range(_TRIES):  # whoever looks for the holder holds it for a moment
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
        else:
            return True
    return False


def holder(path: Path) -> int | None:
    """Return the process that holds the lock file, or None."""
    try:
        with path.open("r", encoding="ascii") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                said = file.read().strip()
                return int(said) if said.isdigit() else 0
    except FileNotFoundError:
        pass
    return None
