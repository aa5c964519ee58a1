"""How a site's daemon stands, as it writes it down for who asks; reading it loads neither Flower nor torch."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from fedsci.registry.process_lock import holder

LOCK, STATUS = "daemon.lock", "status.json"
#: What an operator does about a clock that is off.
SET_CLOCK = "set the clock: timedatectl set-ntp true"


@dataclass(frozen=True, kw_only=True)
class Connected:
    """How the daemon stands; public, kept in the state folder.

    Attributes:
        pid: its process; 0 while none runs.
        connected: whether the coordinator's door is open to it.
        since: since when, UTC seconds.
        clock_ahead_s: how far this machine's clock is ahead of the coordinator's; 0 where they agree to a few seconds.
        last_error: why there is no connection or no new certificate; or the code of the last failed request.
    """

    pid: int = 0
    connected: bool = False
    since: float = 0.0
    clock_ahead_s: float = 0.0
    last_error: str = ""


def daemon_status(state: Path) -> Connected:
    """Return how the daemon of a state folder stands."""
    try:
        said = Connected(**json.loads((state / STATUS).read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError):
        said = Connected()
    pid = holder(state / LOCK)
    return replace(said, pid=pid) if pid is not None else replace(said, pid=0, connected=False)
