"""The site's own log: a JSON object a line, in its state folder, for its owner only. It never leaves the site."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsci.errors import FedsciError

_TAIL_BYTES = 64 * 1024


@dataclass(frozen=True)
class SiteLog:
    """Appends to ``site.log``.

    Attributes:
        path: the file.
    """

    path: Path

    def write(self, event: str, **fields: Any) -> None:
        """Append one line; a full disk does not stop the site."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, **fields}, default=str)
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError:
            return

    def error(self, run: str, action: str, error: BaseException) -> None:
        """Append an error with its details."""
        known = isinstance(error, FedsciError)
        self.write(
            "error",
            run=run[:64],
            action=action[:64],
            code=error.code if isinstance(error, FedsciError) else "internal",
            message=error.message if isinstance(error, FedsciError) else f"{type(error).__name__}: {error}",
            hint=error.hint if isinstance(error, FedsciError) else "",
            expected=known,
        )

    def last_error(self, run: str) -> dict[str, Any] | None:
        """Return the newest error of this run, or None."""
        try:
            with self.path.open("rb") as file:
                file.seek(0, 2)
                file.seek(max(0, file.tell() - _TAIL_BYTES))
                lines = file.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return None
        for line in reversed(lines):
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(entry, dict) and entry.get("event") == "error" and entry.get("run") == run:
                return entry
        return None
