"""How uploads become sums: plain where every site's policy agrees, masked everywhere else.

Both answer the same question, so that a study runs the same way over either: ask the sites, return the
weighted sum of contributions, the sum of metrics, and who is in it.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedsci.config.plan import Plan
from fedsci.coordinator.blame import LEFT_OUT, NAMED
from fedsci.errors import RoundAborted, SiteFailed
from fedsci.names import SiteId
from fedsci.training.metrics import MetricSums, classes_of, names_of
from fedsci.training.sums import MetricTable
from fedsci.transport.binding import receipt_of
from fedsci.transport.link import SiteLink
from fedsci.transport.messages import DIVERGED, Reply, Request


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One thing asked of all sites of a study.

    Attributes:
        action: ``train``, ``evaluate`` or ``alone``.
        slot: its number in the study: rounds first, then evaluation, then the baseline.
        fields: public; the same for every site.
        model: sent along, or None.
        dimension: numbers of the contribution that comes back.
        tables: the metric vectors that come back.
        absent: sites that are not asked, with the reason: they are not in the sums.
        broken: of the sites that answered, those that must be left out all the same, with the reason.
    """

    action: str
    slot: int
    fields: Mapping[str, Any]
    model: NDArray[np.float32] | None
    dimension: int
    tables: Sequence[MetricTable]
    absent: Mapping[SiteId, str] = field(default_factory=dict)
    broken: Callable[[Collection[SiteId]], Mapping[SiteId, str]] = lambda answered: {}


@dataclass(frozen=True, kw_only=True)
class Collected:
    """The sums over the survivors.

    Attributes:
        contribution: weighted sum, float32 of shape ``(dimension,)``.
        weight: the survivors' share of all weights, in (0, 1].
        metrics: one sum per table, float64.
        survivors: the sites in the sums.
        own: per site and label, the site's own metrics where it shows them.
        dropped: sites that are not in the sums, with the reason.
        each: the survivors' contributions, where the strategy sees each, else None.
        receipts: per survivor, the digest of its upload.
        seconds_sites, seconds_masking, seconds_aggregation: wall time waiting for uploads, in the extra exchange(s) and
            removing masks, and adding up.
    """

    contribution: NDArray[np.float32]
    weight: float
    metrics: list[NDArray[np.float64]]
    survivors: tuple[SiteId, ...]
    own: dict[SiteId, Mapping[str, MetricSums | None]]
    dropped: dict[SiteId, str]
    seconds_sites: float
    seconds_masking: float
    seconds_aggregation: float
    each: Mapping[SiteId, NDArray[np.float32]] | None = None
    receipts: Mapping[SiteId, str] = field(default_factory=dict)


class Aggregation(Protocol):
    """Asks sites and returns sums.

    Attributes:
        weights: each site's public share in the sums.
    """

    @property
    def weights(self) -> Mapping[SiteId, float]: ...  # noqa: D102

    def members(self, slot: int) -> tuple[SiteId, ...]:
        """Return the sites that can be in a slot's sums."""
        ...

    def collect(self, ask: Ask) -> Collected:
        """Return the sums over at least ``min_survivors`` sites.

        Raises:
            RoundAborted: too few sites answered.
        """
        ...


@dataclass(kw_only=True)
class PlainAggregation:
    """Adds up uploads that travel in the clear; only where every site's policy allows it.

    Attributes:
        link: to the sites.
        plan: the study's plan.
        weights: each site's public share in the weighted mean; they add up to 1.
    """

    link: SiteLink
    plan: Plan
    weights: Mapping[SiteId, float]

    def members(self, slot: int) -> tuple[SiteId, ...]:
        """Return all sites."""
        return self.plan.sites

    def collect(self, ask: Ask) -> Collected:
        """Return the sums; a reply of another length, or with NaN or infinity, counts as a dropped site.

        Sums run over sites in the order of their names: the same bit for bit whoever was fastest.
        """
        started = time.monotonic()
        request = Request(action=ask.action, fields=ask.fields, vector=ask.model)
        require_enough(self.plan, ask.absent)
        replies = self.link.ask({site: request for site in self.plan.sites if site not in ask.absent})
        answered = time.monotonic()
        total, scratch = np.zeros(ask.dimension, np.float32), np.empty(ask.dimension, np.float32)
        weight, dropped, metrics = 0.0, dict(ask.absent), [np.zeros(table.width) for table in ask.tables]
        each: dict[SiteId, NDArray[np.float32]] | None = {} if self.plan.strategy.sees == "each" else None
        dropped |= ask.broken([site for site, reply in replies.items() if isinstance(reply, Reply)])
        for site, reply in replies.items():
            if isinstance(reply, SiteFailed):
                dropped[site] = reason_of(reply)
            if site in dropped or isinstance(reply, SiteFailed):
                continue
            if ask.dimension:
                vector = reply.vector
                if vector is None or vector.dtype != np.float32 or vector.shape != (ask.dimension,):
                    dropped[site] = f"{site}: its update does not fit the model"
                    continue
                with np.errstate(invalid="ignore"):  # two infinities that cancel make a NaN
                    np.multiply(vector, np.float32(self.weights[site]), out=scratch)
                    finite = np.isfinite(scratch.sum(dtype=np.float64))
                if not finite:
                    dropped[site] = f"{site}: {DIVERGED}"
                    continue
                total += scratch
                if each is not None:
                    each[site] = vector
            weight += self.weights[site]
            sent = reply.fields.get("metrics")
            for total_sums, values in zip(metrics, sent if isinstance(sent, list) else [], strict=False):
                sums = _numbers(values)
                if sums is not None and sums.shape == total_sums.shape:
                    total_sums += sums
        require_enough(self.plan, dropped)
        return Collected(
            contribution=total,
            weight=weight,
            metrics=metrics,
            survivors=tuple(site for site in self.plan.sites if site not in dropped),
            own=own_metrics(self.plan, replies),
            dropped=dropped,
            seconds_sites=answered - started,
            seconds_masking=0.0,
            seconds_aggregation=time.monotonic() - answered,
            each=each,
            receipts=receipts(replies, self.plan.sites, dropped),
        )


def reason_of(failed: SiteFailed) -> str:
    """Return why a site that answered with an error is in no sum, in its words: but not in the coordinator's own."""
    if failed.message in (f"{failed.site}: {LEFT_OUT}", f"{failed.site}: {NAMED}"):
        return f"{failed.site}: it answered as if it had been left out"
    return str(failed)


def require_enough(plan: Plan, dropped: Mapping[SiteId, str]) -> None:
    """Pass if enough sites are left.

    Raises:
        RoundAborted: fewer than ``min_survivors``, with each site's reason.
    """
    left = len(plan.sites) - len(dropped)
    if left < plan.min_survivors:
        diverged = any(reason.endswith(DIVERGED) for reason in dropped.values())
        advice = "lower training.learning_rate, or look for broken data" if diverged else "see the sites' own logs"
        raise RoundAborted(
            f"only {left} of {len(plan.sites)} sites finished, {plan.min_survivors} are needed "
            f"({'; '.join(dropped.values())})",
            hint=f"the model up to the last finished round is kept; {advice}",
        )


def receipts(
    replies: Mapping[SiteId, Reply | SiteFailed], sites: Collection[SiteId], dropped: Collection[SiteId]
) -> dict[SiteId, str]:
    """Return the digest of each survivor's upload, as the site reckons it too."""
    there = {site: replies[site] for site in sites if site not in dropped}
    return {site: receipt_of(reply) for site, reply in there.items() if isinstance(reply, Reply)}


def metric_sums(plan: Plan, values: object) -> MetricSums | None:
    """Return what a site shows as its own exact metric sums, or None if it shows none or sent nonsense."""
    array = _numbers(values)
    if array is None:
        return None
    kind = plan.study.task.kind
    if array.shape != (len(names_of(kind, classes_of(plan.study))),):
        return None
    return MetricSums(kind=kind, values=array)


#: No metric sum over a site's records comes near it; so sums and products of what sites send stay finite.
_LARGEST = 1e30


def _numbers(values: object) -> NDArray[np.float64] | None:
    """Return numbers that a site sent, if they are of a size that metric sums have, or None."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        return None
    return array if values is not None and (np.abs(array) <= _LARGEST).all() else None


def own_metrics(
    plan: Plan, replies: Mapping[SiteId, Reply | SiteFailed]
) -> dict[SiteId, Mapping[str, MetricSums | None]]:
    """Return what sites showed of their own metrics, by label."""
    own: dict[SiteId, Mapping[str, MetricSums | None]] = {}
    for site, reply in replies.items():
        shown = reply.fields.get("own") if isinstance(reply, Reply) else None
        if isinstance(shown, dict):
            own[site] = {str(label): metric_sums(plan, values) for label, values in shown.items()}
    return own
