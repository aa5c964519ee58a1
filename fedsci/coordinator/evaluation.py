"""The shared model measured at the sites: over all shown records, as a mean of sites, and of sites that show theirs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from fedsci.config.plan import Plan
from fedsci.coordinator.aggregation import Collected
from fedsci.names import SiteId
from fedsci.training.accountant import Cost
from fedsci.training.intervals import Intervals, mean_site_intervals, pooled_intervals
from fedsci.training.metrics import Metrics, MetricSums, finish, half_range, mean_site
from fedsci.training.noised_metrics import NoisedSums
from fedsci.training.sums import MetricTable, metric_table


class Measurement(Protocol):
    """What is known of a model on the sites' holdouts."""

    def pooled(self) -> Metrics | None:
        """Return the metrics over all records, or None if nothing is known."""

    def mean_site(self) -> Metrics | None:
        """Return each metric's mean over the sites, or None if nothing is known."""

    def of(self, site: SiteId) -> Metrics | None:
        """Return one site's metrics, or None if it does not show them."""

    def intervals(self) -> Intervals | None:
        """Return 95 % intervals of the metrics over all records, as far as known: what the choice of records leaves."""

    def mean_site_intervals(self) -> Intervals | None:
        """Return the same of the means over the sites."""

    def intervals_of(self, site: SiteId) -> Intervals | None:
        """Return the same of one site's metrics, or None if it does not show them."""

    def noise_deviation(self) -> dict[str, float] | None:
        """Return the standard deviation that noise gives each pooled metric, as far as known; None without noise."""

    def mean_site_deviation(self) -> dict[str, float] | None:
        """Return the same for the means over the sites."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Exact metric sums over the sites, and those of sites that show their own.

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

    def intervals(self) -> Intervals | None:
        """Return 95 % intervals of the metrics over all records, as far as known."""
        metrics = self.pooled()
        return None if metrics is None else self._only(pooled_intervals(self.total, metrics, unit=self._unit))

    def mean_site_intervals(self) -> Intervals | None:
        """Return 95 % intervals of the means over the sites, as far as known."""
        means = self.mean_site()
        return None if means is None else self._only(mean_site_intervals(self.total, means, unit=self._unit))

    def intervals_of(self, site: SiteId) -> Intervals | None:
        """Return 95 % intervals of one site's metrics, or None if it does not show them."""
        sums, metrics = self.own.get(site), self.of(site)
        if sums is None or metrics is None:
            return None
        return self._only(mean_site_intervals(sums, metrics, unit=self._unit))

    def noise_deviation(self) -> dict[str, float] | None:
        """Return None: nothing was added."""
        return None

    def mean_site_deviation(self) -> dict[str, float] | None:
        """Return None: nothing was added."""
        return None

    def _unit(self, metric: str) -> float:
        return half_range(self.plan.study) if metric in ("rmse", "mae") else 1.0

    def _only(self, intervals: Intervals) -> Intervals:
        return {name: intervals[name] for name in self.plan.metrics if name in intervals}

    def _named(self, metrics: Metrics) -> Metrics | None:
        return {name: metrics.get(name) for name in self.plan.metrics} if metrics else None


@dataclass(frozen=True, kw_only=True)
class MeasuredWithNoise:
    """Noised metric sums over the sites, and exact ones of sites that show their own.

    Attributes:
        sums: over all sites that took part.
        own: exact sums of single sites; a site that shows nothing is absent.
    """

    sums: NoisedSums
    own: Mapping[SiteId, MetricSums | None]

    def pooled(self) -> Metrics | None:
        """Return the metrics over all records."""
        return self.sums.pooled()

    def mean_site(self) -> Metrics | None:
        """Return the mean over sites of those metrics that are means over records."""
        return self.sums.mean_site()

    def of(self, site: SiteId) -> Metrics | None:
        """Return one site's exact metrics, or None if it does not show them."""
        sums = self.own.get(site)
        if sums is None:
            return None
        return Measured(plan=self.sums.plan, total=sums, own={}).pooled()

    def intervals(self) -> Intervals | None:
        """Return None: what noise adds is said by the deviations."""
        return None

    def mean_site_intervals(self) -> Intervals | None:
        """Return None, likewise."""
        return None

    def intervals_of(self, site: SiteId) -> Intervals | None:
        """Return 95 % intervals of one site's exact metrics, or None if it does not show them."""
        sums = self.own.get(site)
        return None if sums is None else Measured(plan=self.sums.plan, total=sums, own=self.own).intervals_of(site)

    def noise_deviation(self) -> dict[str, float] | None:
        """Return the standard deviation that noise gives each pooled metric, as far as known."""
        return self.sums.noise_deviation()

    def mean_site_deviation(self) -> dict[str, float] | None:
        """Return the standard deviation that noise gives each mean over the sites, as far as known."""
        return self.sums.mean_site_deviation()


@dataclass(frozen=True, kw_only=True)
class Meter:
    """How a study's models are measured: exactly where every site lets that leave, else with noise that is paid for.

    Where whole sites are protected there is no noise for metrics: then nothing is measured unless it may leave exactly.

    Attributes:
        plan: the study's plan.
        cost: its price, None without privacy.
        holdouts: every site's public count of held-out records.
        noised: whether metrics carry noise.
        paid: whether every site's budget pays for noised metrics.
    """

    plan: Plan
    cost: Cost | None
    holdouts: Mapping[SiteId, int]
    noised: bool
    paid: bool = True

    @property
    def evaluate(self) -> str | None:
        """What requests ask for; None: nothing."""
        if not self.plan.makes_model:
            return None
        if not self.noised:
            return "exact"
        known = self.cost is not None and self.cost.metric_noise is not None
        return "noised" if known and self.paid else None

    @property
    def table(self) -> MetricTable:
        """The grid of a vector of metric sums."""
        return metric_table(self.plan, self.cost, noised=self.noised, holdout=max(self.holdouts.values()))

    @property
    def exact(self) -> "Meter":
        """The same without noise: labs that let nothing exact leave contribute nothing."""
        return replace(self, noised=False)

    def measures_after(self, number: int) -> bool:
        """Return whether the model after this round, not the last, is measured."""
        if self.evaluate is None:
            return False
        if self.noised:
            return number in self.plan.measured_rounds
        return number > 0 and number % (self.plan.study.evaluation.every or 1) == 0

    def read(self, collected: Collected, label: str, *, table: int = 0) -> Measurement:
        """Return what came back."""
        values = collected.metrics[table]
        own = {site: shown.get(label) for site, shown in collected.own.items()}
        if not self.noised or self.cost is None or self.cost.metric_noise is None:
            total = MetricSums(kind=self.plan.study.task.kind, values=values)
            return Measured(plan=self.plan, total=total, own=own)
        share = self.cost.metric_noise.share
        sums = NoisedSums(
            plan=self.plan,
            values=values,
            holdouts=tuple(self.holdouts[site] for site in collected.survivors),
            smallest=min(self.holdouts.values()),
            deviation=share.deviation * share.gamma * len(collected.survivors) ** 0.5,
        )
        return MeasuredWithNoise(sums=sums, own=own)
