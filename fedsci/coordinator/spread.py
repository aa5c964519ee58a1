"""How far labs lie apart on one model, where enough of them show their own metrics to tell on nobody.

Labs that show their own metrics have agreed to it. Those that do not are in the sums and means only, and what is shown
must not take a mean apart: the mean over all labs, less those that show theirs, is the mean over the others.
"""

from statistics import median
from typing import Any

from fedsci.config.plan import Plan
from fedsci.config.study import METRICS
from fedsci.coordinator.evaluation import Measured, Measurement

LEAST_SHOWN = 3
"""Of two labs, each could tell the other's number from what is said of both."""


def least_shown(min_survivors: int | None) -> int:
    """Return how many labs must show their own metrics before anything of single labs is shown."""
    return max(LEAST_SHOWN, min_survivors or 0)


def tells_on_nobody(shown: int, hidden: int, *, least: int, exact: bool) -> bool:
    """Return whether the metrics of ``shown`` single labs may stand beside an average that ``hidden`` more are in.

    ``exact``: the average carries no noise, so that subtracting the shown labs leaves exactly that of the hidden ones.

    >>> tells_on_nobody(5, 0, least=3, exact=True), tells_on_nobody(5, 1, least=3, exact=True)
    (True, False)
    >>> tells_on_nobody(5, 1, least=3, exact=False), tells_on_nobody(2, 0, least=3, exact=False)
    (True, False)
    """
    return shown >= least and (not exact or hidden == 0 or hidden >= LEAST_SHOWN)


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
