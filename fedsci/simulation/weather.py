"""Labs that are slow, far away or not there: virtual time for studies on one machine.

The weather stands between coordinator and labs, where a network stands in production, so a lab that is away or late
is missed by the same code. It changes who takes part in a round and what a round would have taken, and nothing else.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fedsci.config.plan import Plan
from fedsci.config.weather import Weather
from fedsci.errors import SiteFailed
from fedsci.names import SiteId
from fedsci.transport.link import SiteLink, Traffic
from fedsci.transport.messages import Reply, Request

_OPENINGS = frozenset({"begin", "train"})
_LATER_EXCHANGES = frozenset({"unmask", "votes", "share"})
_AWAY = "not connected"


def is_away(weather: Weather, site: SiteId, round_number: int) -> bool:
    """Return whether the lab cannot be reached in this round: the same for the same seed, and independent of others.

    >>> weather = Weather.model_validate({"seed": 1, "labs": {"lab-01": {"availability": 0.5}}})
    >>> [is_away(weather, SiteId("lab-01"), number) for number in range(1, 7)]
    [True, False, False, False, True, False]
    >>> is_away(weather, SiteId("lab-02"), 1)
    False
    """
    availability = weather.of(site).availability
    if availability is None:
        return False
    drawn = hashlib.sha256(f"fedsci weather|{weather.seed}|{site}|{round_number}".encode()).digest()
    return int.from_bytes(drawn[:8], "big") >= availability * 2**64


def work(plan: Plan, records: int, *, steps: int | None = None) -> float:
    """Return how many records go through a local step in one round; a record in two steps counts twice.

    ``steps`` are those that the round says; the plan's if left out.
    """
    sampled = plan.strategy.site_work != "local_update" or (plan.private and plan.study.privacy.unit != "site")
    batch = plan.training.sample_rate * records if sampled else min(plan.training.batch_size, records)
    return (plan.local_steps(records) if steps is None else steps) * batch


@dataclass(kw_only=True)
class WeatherLink(SiteLink):
    """A link on which rounds take virtual time, and labs are away or late.

    An exchange takes what its slowest lab takes: the request down, the computing, the reply up. A lab that is away is
    known to be, as from SuperLink, and not waited for. One that would pass the study's ``round_deadline_s``, which
    here is virtual, computes all the same, as it would in production, and its reply is not heard; the coordinator has
    then waited for the whole deadline. In studies of buffers a lab that begins is not waited for: it has finished when
    the virtual clock says so (:meth:`finished`), and what it then sends takes its line's time only. It computes at once
    on the clock on the wall: virtual time decides who is in which buffer, and nothing else. Only rounds have weather:
    everybody is there for preparation, the last evaluation and the end, and they take no time.

    Attributes:
        plan: says what a round's work is.
        weather: with a seed.
    """

    plan: Plan
    weather: Weather
    virtual_seconds: float | None = 0.0
    _round: int | None = field(default=None, init=False)
    _line_s: dict[SiteId, float] = field(default_factory=dict, init=False)
    _done_at: dict[SiteId, float] = field(default_factory=dict, init=False)

    def ask(self, requests: Mapping[SiteId, Request]) -> dict[SiteId, Reply | SiteFailed]:
        """Send and wait as :class:`SiteLink` does; who is away or late is a :class:`SiteFailed` value."""
        opening = next((request for request in requests.values() if request.action in _OPENINGS), None)
        begins = opening is not None and opening.action == "begin"
        if opening is not None:
            self._round = opening.integer("version") + 1 if begins else opening.integer("round")
        elif any(request.action not in _LATER_EXCHANGES for request in requests.values()):
            self._round = None
        if self._round is None:
            return super().ask(requests)
        there = {site: said for site, said in requests.items() if not is_away(self.weather, site, self._round)}
        before = {site: replace(self.traffic_of.get(site, Traffic())) for site in there}
        self.round_deadline_s = None  # of the clock on the wall
        replies = super().ask(there)
        taken = {site: self._seconds(site, request, before[site]) for site, request in there.items()}
        if begins:
            self._done_at |= {site: self._now + taken[site] for site in there}
            return {site: replies.get(site) or _missed(site, _AWAY, code="transport") for site in sorted(requests)}
        deadline = self.plan.training.round_deadline_s
        self.virtual_seconds = self._now + min(max(taken.values(), default=0.0), deadline)
        return {
            site: _missed(site, _AWAY, code="transport")
            if site not in there
            else _missed(site, f"late: no answer within {deadline:g} virtual s", code="silent")
            if taken[site] > deadline
            else replies[site]
            for site in sorted(requests)
        }

    def finished(self, sites: Collection[SiteId], *, count: int, round_number: int) -> tuple[SiteId, ...]:
        """Let virtual time pass until ``count`` of these labs have finished what they began; return all that have."""
        done = {site: self._done_at[site] for site in sites if not is_away(self.weather, site, round_number)}
        self.virtual_seconds = max([self._now, *sorted(done.values())[:count]])
        return tuple(site for site in sorted(done) if done[site] <= self._now)

    def records_per_s(self, site: SiteId) -> float | None:
        """Return the lab's speed, as the weather has it."""
        return self.weather.of(site).records_per_s

    def line_s(self, site: SiteId) -> float:
        """Return the least time that a round's model and update took on the lab's line; 0 before the first round."""
        return self._line_s.get(site, 0.0)

    @property
    def _now(self) -> float:
        return self.virtual_seconds or 0.0

    def _seconds(self, site: SiteId, request: Request, before: Traffic) -> float:
        """Return what the exchange takes this lab, in virtual seconds."""
        lab, moved = self.weather.of(site), self.traffic_of.get(site, Traffic())
        total = 0.0
        if lab.down_bytes_per_s is not None:
            total += (moved.down - before.down) / lab.down_bytes_per_s
        if lab.up_bytes_per_s is not None:
            total += (moved.up - before.up) / lab.up_bytes_per_s
        if request.action == "train":
            self._line_s[site] = min(total, self._line_s.get(site, total))
        computes = request.action == ("train" if self.plan.buffer is None else "begin")
        if lab.records_per_s is not None and computes:
            records: Mapping[str, Any] = request.fields["records"]
            steps: Mapping[str, int] = request.fields.get("steps", {})
            total += work(self.plan, records[site][0], steps=steps.get(site)) / lab.records_per_s
        return total


def _missed(site: SiteId, message: str, *, code: str) -> SiteFailed:
    """Return what a link says of such a site between machines."""
    return SiteFailed(site, {"message": message, "exit_code": 5, "code": code})
