"""Files that only their owner may read, written whole and durably, and a key with its certificate as one."""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, whole and durably; an existing file is not replaced."""
    if path.exists():  # also on a full disk, where looking costs nothing
        return
    partial = _write_partial(path, content)
    try:
        os.link(partial, path)  # fails if another process was first, whose file then counts
    except FileExistsError:
        pass
    finally:
        partial.unlink()


def replace_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, whole and durably, in place of what was there."""
    _write_partial(path, content).replace(path)
    _sync_folder(path.parent)


def replace_pair(key: Path, key_content: bytes, certificate: Path, certificate_content: bytes) -> None:
    """Replace a key and its certificate so that a crash leaves the old pair or the new one.

    The certificate's ``.next`` file is written last; from then on :func:`settle_pair` finishes the work.
    """
    with _alone(key):  # a reader that finishes an earlier replacement must not take half of this one
        replace_private(_next(key), key_content)
        replace_private(_next(certificate), certificate_content)
        _settle(key, certificate)


def settle_pair(key: Path, certificate: Path) -> None:
    """Finish a replacement that a crash cut short; call it before reading the pair."""
    if _next(certificate).exists():
        with _alone(key):
            _settle(key, certificate)


def _settle(key: Path, certificate: Path) -> None:
    if _next(certificate).exists():
        for path in (key, certificate):
            with contextlib.suppress(FileNotFoundError):  # the key was done before the crash
                _next(path).replace(path)
        _sync_folder(key.parent)


@contextlib.contextmanager
def _alone(key: Path) -> Iterator[None]:
    """Let one process at a time, and one thread of it, work on a pair."""
    key.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(key.with_name(f".{key.name}.lock"), os.O_WRONLY | os.O_CREAT, 0o600), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _next(path: Path) -> Path:
    return path.with_name(path.name + ".next")


def _write_partial(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:  # a full disk: what there is of it would take the last of the space
        partial.unlink()
        raise
    return partial


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
