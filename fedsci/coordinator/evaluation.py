"""The shared model measured at the sites: totals over those that allow it, and each of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from fedsci.config.plan import Plan
from fedsci.names import SiteId
from fedsci.training.metrics import MetricSums, finish, mean_metrics
from fedsci.transport.link import SiteLink
from fedsci.transport.messages import Reply, Request

Metrics = dict[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Metric sums by site; None where a site does not show them.

    Attributes:
        by_site: in the order of the sites' names.
        metrics: the names to report.
    """

    by_site: Mapping[SiteId, MetricSums | None]
    metrics: tuple[str, ...]

    def pooled(self) -> Metrics | None:
        """Return the metrics over all shown records, or None if no site shows any."""
        shown = [sums for sums in self.by_site.values() if sums is not None]
        return self._named(finish(reduce(add, shown))) if shown else None

    def of(self, site: SiteId) -> Metrics | None:
        """Return one site's metrics, or None if it does not show them."""
        sums = self.by_site.get(site)
        return None if sums is None else self._named(finish(sums))

    def mean_site(self) -> Metrics | None:
        """Return each metric's mean over the sites that show it, or None if none does."""
        shown = [metrics for site in self.by_site if (metrics := self.of(site)) is not None]
        return mean_metrics(shown) if shown else None

    def _named(self, metrics: Metrics) -> Metrics:
        return {name: metrics.get(name) for name in self.metrics}


def measure(link: SiteLink, plan: Plan, run: str, model: NDArray[np.float32]) -> Measured:
    """Return the model's metrics at every site that shows them."""
    request = Request(action="evaluate", fields={"run": run}, vector=model)
    replies = link.ask(dict.fromkeys(plan.sites, request))
    by_site: dict[SiteId, MetricSums | None] = {}
    for site, reply in replies.items():
        vector = reply.vector if isinstance(reply, Reply) else None
        by_site[site] = None
        if vector is not None and vector.dtype == np.float64 and np.isfinite(vector).all():
            by_site[site] = MetricSums(kind=plan.study.task.kind, values=vector)
    return Measured(by_site=by_site, metrics=plan.metrics)
