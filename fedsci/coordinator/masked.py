"""Secure aggregation as the coordinator drives it: one extra exchange a round, two where somebody dropped.

The setup of a batch rides on other messages: the first on the study's preparation (one exchange of its own),
the next ones on the rounds before they are needed.
"""

import contextlib
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fedsci import secagg
from fedsci.config.masking import grid_for, setup_for
from fedsci.config.plan import Plan
from fedsci.coordinator.aggregation import Ask, Collected, own_metrics, reason_of, receipts, require_enough
from fedsci.coordinator.progress import Keeper, Unkept
from fedsci.errors import FedsciError, InputError, ProtocolError, SiteFailed
from fedsci.names import SiteId
from fedsci.training.sums import SumEncoding
from fedsci.transport.binding import config_digest, pack, unpack
from fedsci.transport.link import SiteLink
from fedsci.transport.messages import Reply, Request

Replies = Mapping[SiteId, Reply | SiteFailed]

_LEAD = 6  # slots before the end of a batch at which the next one's setup begins


@dataclass(kw_only=True)
class MaskedAggregation:
    """Collects masked uploads and opens nothing but their sum.

    Attributes:
        link: to the sites.
        plan: the study's plan.
        run: 32 hexadecimal digits.
        roster: the signed roster's content.
        weights: each site's public share in the weighted mean.
        slots: how many slots the study uses in all.
        step: what one integer of a contribution stands for.
        keep: takes what a restarted coordinator needs to go on with a batch.
    """

    link: SiteLink
    plan: Plan
    run: str
    roster: secagg.Roster
    weights: Mapping[SiteId, float] = field(default_factory=dict)
    slots: int = 0
    step: float | None = None
    keep: Keeper = field(default_factory=Unkept)
    _ready: dict[int, secagg.ReadySetup] = field(default_factory=dict)
    _deliveries: dict[int, dict[int, bytes]] = field(default_factory=dict)
    _next: "secagg.SetupCollector | None" = None

    def begin(self, adverts: Mapping[SiteId, str]) -> None:
        """Take up the batches that were set up already, or finish the first one's setup.

        Args:
            adverts: what came with the sites' preparation.

        Raises:
            RoundAborted: too few sites took part.
        """
        for batch, (ready, deliveries) in self.keep.setups().items():
            self._ready[batch], self._deliveries[batch] = ready, deliveries
        if self._ready:
            return
        collector = secagg.SetupCollector(setup_for(self.plan, self.roster, run=self.run, batch=0))
        for advert in adverts.values():
            collector.add_advert(unpack(advert))
        fields = {"run": self.run, "setup_of": 0, "setup_adverts": pack(collector.close_adverts())}
        replies = self.link.ask({site: Request(action="share", fields=fields) for site in self.plan.sites})
        for _, packed in _answers(replies, "envelopes"):
            collector.add_envelopes(packed)
        self._finish_setup(0, collector)

    def members(self, slot: int) -> tuple[SiteId, ...]:
        """Return the sites that finished the setup of the slot's batch."""
        ready = self._ready[slot // self.roster.batch_slots].ready
        return tuple(SiteId(member.name) for member in self.roster.sites if member.index in ready)

    def collect(self, ask: Ask) -> Collected:
        """Return the sums over the survivors; see docs/protocol.md for what each exchange is.

        Raises:
            RoundAborted: too few sites are left; nothing was revealed.
        """
        started = time.monotonic()
        batch, slot = divmod(ask.slot, self.roster.batch_slots)
        ready = self._ready[batch]
        names = {member.index: SiteId(member.name) for member in self.roster.sites}
        cohort = {names[index]: index for index in ready.ready if names[index] not in ask.absent}
        dropped = {
            site: ask.absent.get(site, f"{site}: not part of this batch's setup")
            for site in self.plan.sites
            if site not in cohort
        }
        require_enough(self.plan, dropped)
        fields = {**ask.fields, "slot": ask.slot, "cohort": sorted(cohort)}
        encoding = SumEncoding(grid=grid_for(self.plan), dimension=ask.dimension, tables=ask.tables, step=self.step)
        call = secagg.RoundCall(
            slot=slot,
            cohort=tuple(sorted(cohort.values())),
            model_digest=hashlib.sha256(b"" if ask.model is None else ask.model.tobytes()).digest(),
            config_digest=config_digest(self.plan.digest, ask.action, fields),
        )
        collector = secagg.RoundCollector(ready, call, length=encoding.length)
        requests = {
            site: Request(action=ask.action, fields=fields | self._setup_fields(ask.slot, index), vector=ask.model)
            for site, index in cohort.items()
        }
        for index, site in names.items():  # who missed this batch's setup is asked to join the next one's
            setup = self._setup_fields(ask.slot, index) if site in dropped else {}
            if setup:
                requests[site] = Request(action="share", fields={"run": self.run} | setup)
        replies = self.link.ask(requests)
        for index, site in names.items():
            if site in dropped and isinstance(replies.get(site), Reply):
                self._delivered(ask.slot, index)
        answered = time.monotonic()
        broken = ask.broken([site for site in cohort if _uploaded(replies[site])])
        for site in cohort:
            reply = replies[site]
            problem = reason_of(reply) if isinstance(reply, SiteFailed) else broken.get(site)
            if problem is None and isinstance(reply, Reply):
                problem = _add_input(collector, encoding, site, reply)
            if problem is not None:
                dropped[site] = problem
            else:
                self._delivered(ask.slot, cohort[site])
        adding = time.monotonic() - answered
        require_enough(self.plan, dropped)
        result = self._open(collector, ask.slot, cohort, replies)
        opened = time.monotonic()
        contribution, metrics = encoding.decode(result.total)
        return Collected(
            contribution=contribution,
            weight=sum(self.weights[names[index]] for index in result.survivors),
            metrics=metrics,
            survivors=tuple(names[index] for index in result.survivors),
            own=own_metrics(self.plan, replies),
            dropped=dropped,
            seconds_sites=answered - started,
            seconds_masking=opened - answered - adding,
            seconds_aggregation=adding + time.monotonic() - opened,
            receipts=receipts(replies, tuple(cohort), dropped),
        )

    def _open(
        self, collector: secagg.RoundCollector, slot: int, cohort: Mapping[SiteId, int], uploads: Replies
    ) -> secagg.RoundSum:
        """Show the survivors each other's headers and open the sum with the shares they release."""
        survivors = [site for site, index in cohort.items() if index in collector.uploaded]
        fields: dict[str, Any] = {"run": self.run, "slot": slot, "survivors": pack(collector.close_inputs())}
        setup = self._adverts(slot, uploads)
        requests = {site: Request(action="unmask", fields=fields | setup) for site in survivors}
        if setup:  # a site that lost this batch's secrets can still take part in the next
            for site, _ in _answers(uploads, "advert"):
                requests.setdefault(site, Request(action="share", fields={"run": self.run} | setup))
        replies = self.link.ask(requests)
        self._envelopes(slot, replies)
        if collector.needs_votes:
            for _, vote in _answers(replies, "answer"):
                _tolerate(collector.add_vote, vote)
            fields = {"run": self.run, "slot": slot, "votes": pack(collector.close_votes())}
            replies = self.link.ask({site: Request(action="votes", fields=fields) for site in survivors})
        for _, shares in _answers(replies, "answer"):
            _tolerate(collector.add_shares, shares)
        return collector.finish()

    def _setup_fields(self, slot: int, index: int) -> dict[str, Any]:
        """What rides on an upload request: the delivery of shares, and the call for the next batch's advert."""
        batch = slot // self.roster.batch_slots
        fields: dict[str, Any] = {}
        for number in (batch, batch + 1):
            deliveries = self._deliveries.get(number, {})
            if index in deliveries:
                fields |= {"setup_of": number, "setup_delivery": pack(deliveries[index])}
                break
        if self._wants_setup(slot) and self.keep.adverts(batch + 1) is None:
            fields["setup_batch"] = batch + 1
        return fields

    def _delivered(self, slot: int, index: int) -> None:
        """Note that a site has what rode on its upload request: it takes delivery before it masks."""
        batch = slot // self.roster.batch_slots
        for number in (batch, batch + 1):
            if self._deliveries.get(number, {}).pop(index, None) is not None:
                return

    def _finish_setup(self, batch: int, collector: secagg.SetupCollector) -> None:
        ready, deliveries = collector.close_envelopes()
        self.keep.save_setup(batch, ready, deliveries)
        self._ready[batch], self._deliveries[batch] = ready, deliveries

    def _wants_setup(self, slot: int) -> bool:
        """Whether the next batch is set up on this slot's messages: the first chance, or one after it was missed."""
        batch, inside = divmod(slot, self.roster.batch_slots)
        last = (batch + 1) * self.roster.batch_slots
        return last < self.slots and inside >= self.roster.batch_slots - _LEAD and batch + 1 not in self._ready

    def _adverts(self, slot: int, uploads: Replies) -> dict[str, Any]:
        """What rides on an unmask request: the next batch's adverts."""
        if not self._wants_setup(slot):
            return {}
        batch = slot // self.roster.batch_slots + 1
        self._next = secagg.SetupCollector(setup_for(self.plan, self.roster, run=self.run, batch=batch))
        shown = self.keep.adverts(batch)
        if shown is not None:  # a site that saw them shares under no other set
            self._next.add_adverts(shown)
        for _, advert in _answers(uploads, "advert") if shown is None else ():
            _tolerate(self._next.add_advert, advert)
        content = self._next.close_adverts()
        self.keep.save_adverts(batch, content)
        return {"setup_of": batch, "setup_adverts": pack(content)}

    def _envelopes(self, slot: int, replies: Replies) -> None:
        if self._next is None or not self._wants_setup(slot):
            return
        batch = slot // self.roster.batch_slots + 1
        for _, envelopes in _answers(replies, "envelopes"):
            _tolerate(self._next.add_envelopes, envelopes)
        self._finish_setup(batch, self._next)
        self._next = None


def _uploaded(reply: Reply | SiteFailed) -> bool:
    return isinstance(reply, Reply) and "header" in reply.fields


def _add_input(collector: secagg.RoundCollector, encoding: SumEncoding, site: SiteId, reply: Reply) -> str | None:
    """Add one upload; return why it cannot be used, or None."""
    header, vector = reply.fields.get("header"), reply.vector
    if "absent" in reply.fields:
        return str(SiteFailed(site, {"message": reply.fields["absent"]}))
    if not isinstance(header, str) or vector is None:
        return f"{site}: its upload is not masked"
    if vector.dtype != encoding.grid.ring.dtype or vector.shape != (encoding.length,):
        return f"{site}: its upload does not fit the model"
    try:
        collector.add_input(unpack(header), vector)
    except FedsciError as error:
        return f"{site}: {error}"
    return None


def _answers(replies: Replies, name: str) -> list[tuple[SiteId, bytes]]:
    """Return the packed field of every reply that has it; a site that failed has none."""
    found = []
    for site, reply in replies.items():
        if isinstance(reply, Reply) and name in reply.fields:
            with contextlib.suppress(InputError):
                found.append((site, unpack(reply.fields[name])))
    return found


def _tolerate(add: Callable[[bytes], int], content: bytes) -> None:
    """Take a site's message; one that breaks a rule counts as not sent: the round needs only enough of them."""
    with contextlib.suppress(ProtocolError):
        add(content)
