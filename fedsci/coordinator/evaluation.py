"""The shared model measured at the sites: over all shown records, as a mean of sites, and of sites that show theirs."""

from collections.abc import Mapping
from dataclasses import dataclass

from fedsci.config.plan import Plan
from fedsci.names import SiteId
from fedsci.training.metrics import Metrics, MetricSums, finish, half_range, mean_site


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Metric sums over the sites, and those of sites that show their own.

    Attributes:
        plan: says which metrics to report, and in which units.
        total: sums over all sites that took part.
        own: sums of single sites; a site that shows nothing is absent.
    """

    plan: Plan
    total: MetricSums
    own: Mapping[SiteId, MetricSums | None]

    def pooled(self) -> Metrics | None:
        """Return the metrics over all records, or None if no site lets any leave."""
        return self._named(finish(self.total, half_range=half_range(self.plan.study)))

    def mean_site(self) -> Metrics | None:
        """Return each metric's mean over the sites, or None if no site lets any leave."""
        if not self.total.records > 0.5:
            return None
        return self._named(mean_site(self.total, half_range=half_range(self.plan.study)))

    def of(self, site: SiteId) -> Metrics | None:
        """Return one site's metrics, or None if it does not show them."""
        sums = self.own.get(site)
        return None if sums is None else self._named(finish(sums, half_range=half_range(self.plan.study)))

    def _named(self, metrics: Metrics) -> Metrics | None:
        return {name: metrics.get(name) for name in self.plan.metrics} if metrics else None
