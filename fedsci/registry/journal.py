"""What a process did, one JSON object a line: for a person, a service manager, or a log collector."""

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO


class Journal:
    """Writes lines to a stream, a file, or both; a full disk or a closed pipe does not stop the process.

    Args:
        stream: usually standard output; None for no stream.
        path: a file to append to; None for no file.
    """

    def __init__(self, stream: TextIO | None = None, path: Path | None = None) -> None:
        self._stream, self._path, self._lock = stream, path, threading.Lock()

    def __call__(self, event: str, **fields: Any) -> None:
        """Write one line: ``time`` (UTC seconds), ``event``, and the fields."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, **fields}, default=str)
        with self._lock:
            try:
                if self._stream is not None:
                    self._stream.write(line + "\n")
                    self._stream.flush()
            except (BrokenPipeError, ValueError):
                self._stream = None
            except OSError:  # a full disk: the line waits in the stream's buffer, as long as that has room
                pass
            try:
                if self._path is not None:
                    with self._path.open("a", encoding="utf-8") as file:
                        file.write(line + "\n")
            except OSError:
                return


def to_stdout() -> Journal:
    """Return a journal on standard output."""
    return Journal(sys.stdout)
