"""Writes a page whole or not at all, so that a reader never sees half of one."""

import os
import tempfile
from pathlib import Path


def write_whole(target: Path, content: str) -> None:
    """Write ``content`` to ``target`` durably; on failure what was there stays."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode("utf-8", errors="replace"))
            file.flush()
            os.fsync(file.fileno())
        draft.chmod(0o644)
        draft.replace(target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
