"""How far labs lie apart on one model, where enough of them show their own metrics to tell on nobody."""

from statistics import median
from typing import Any

from fedsci.config.plan import Plan
from fedsci.config.study import METRICS
from fedsci.coordinator.evaluation import Measured, Measurement
from fedsci.privacy.minimum_cohort import least_shown, tells_on_nobody


def spread_of(measured: Measurement | None, plan: Plan) -> dict[str, dict[str, Any]] | None:
    """Return for each metric ``labs``, ``lowest``, ``median`` and ``highest`` of the labs that show their own.

    None where nothing was measured; a metric that too few labs show is absent.
    """
    if measured is None:
        return None
    own = [metrics for site in plan.sites if (metrics := measured.of(site)) is not None]
    exact, spread = isinstance(measured, Measured), {}
    for name in plan.metrics:
        values = sorted(value for metrics in own if (value := metrics.get(name)) is not None)
        hidden = _in_the_mean(measured, name) - len(values) if isinstance(measured, Measured) else 0
        if tells_on_nobody(len(values), hidden, least=least_shown(plan.min_survivors), exact=exact):
            ends = {"lowest": values[0], "median": median(values), "highest": values[-1]}
            spread[name] = {"labs": len(values), **ends}
    return spread


def _in_the_mean(measured: Measured, name: str) -> int:
    """Return how many labs a metric's mean over the labs is of."""
    names = METRICS[measured.total.kind]
    return round(float(measured.total.own("has")[names.index(name)]))
