"""Which studies run at the same time: no site is in two of them, and none that could run waits for ever.

A study is ready when all its sites are connected and have agreed to it; it starts as soon as none of them is in a
running study. Of the ready ones that have to wait the oldest has its sites kept for it as they come free, and later
ones start on sites that it does not need.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from fedsci.errors import ConnectionFailed
from fedsci.names import SiteId

#: Why a study waits for a site that has not come.
AWAY = "is not connected"
_FRESH_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A study and the sites that it needs, all at once.

    Attributes:
        number: of the run; the smallest is the oldest.
        study: its name.
        sites: who takes part.
    """

    number: int
    study: str
    sites: frozenset[SiteId]

    def __str__(self) -> str:
        return f"study {self.study} (run {self.number})"


def may_start(running: Iterable[Claim], ready: Iterable[Claim]) -> list[Claim]:
    """Return the ready studies that start now, the oldest first.

    The oldest that cannot start has its sites kept free; later ones start where they need none of them. So a study
    waits for those that run, for older ones, and for no younger one that was not running when it became the oldest.

    >>> a, b, c, d = (Claim(number=n, study="s", sites=frozenset(f"{n}{n + 1}")) for n in (1, 2, 3, 4))
    >>> [claim.number for claim in may_start([a], [b, c, d])]  # 2 waits for 1, and 3 for 2
    [4]
    """
    taken = {site for claim in running for site in claim.sites}
    waits = False
    started = []
    for claim in sorted(ready, key=lambda claim: claim.number):
        if taken.isdisjoint(claim.sites):
            started.append(claim)
            taken |= claim.sites
        elif not waits:
            waits = True
            taken |= claim.sites
    return started


class Turns:
    """Who runs and who is next, for the studies of one coordinator, each in a thread of its own.

    Args:
        look: says which sites are connected; ``online`` where one is.
    """

    def __init__(self, look: Callable[[], Mapping[SiteId, str]]) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self._running: dict[int, Claim] = {}
        self._ready: dict[int, Claim] = {}
        self._status: Mapping[SiteId, str] = {}
        self._looked = -_FRESH_S

    def take(self, claim: Claim) -> bool:
        """Say whether the study, which is ready, has its sites now; they are its own until :meth:`give_back`."""
        with self._lock:
            if claim.number not in self._running:
                self._ready[claim.number] = claim
                if claim in may_start(self._running.values(), self._ready.values()):
                    self._running[claim.number] = self._ready.pop(claim.number)
            return claim.number in self._running

    def hold(self, claim: Claim) -> None:
        """Give a study its sites whatever else there is: it was running already."""
        with self._lock:
            self._running[claim.number] = claim

    def give_back(self, claim: Claim) -> None:
        """Let others have the study's sites: it is over, or not ready."""
        with self._lock:
            self._running.pop(claim.number, None)
            self._ready.pop(claim.number, None)

    def busy(self, claim: Claim) -> dict[SiteId, str]:
        """Return why the study's sites cannot be had now, without those that can."""
        with self._lock:
            others = [other for other in self._running.values() if other.number != claim.number]
            why = {site: f"is in {other}" for other in others for site in other.sites & claim.sites}
            if claim.number in self._ready:
                first = next((one for _, one in sorted(self._ready.items())), claim)
                if first.number != claim.number:
                    why = dict.fromkeys(first.sites & claim.sites, f"is kept for {first}") | why
        return dict(sorted(why.items()))

    def away(self, claim: Claim) -> dict[SiteId, str]:
        """Return the study's sites that are not connected; while SuperLink does not answer, as it was last known."""
        with self._looking:
            if time.monotonic() - self._looked > _FRESH_S:
                with contextlib.suppress(ConnectionFailed):
                    self._status = self._look()
                self._looked = time.monotonic()
            return {site: AWAY for site in sorted(claim.sites) if self._status.get(site) != "online"}
