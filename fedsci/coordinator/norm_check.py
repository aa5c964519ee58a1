"""The norm of a round's sum against what honest sites can make, and against earlier rounds.

An *alarm* says that a sum cannot come from honest sites: no data of theirs, and no noise but once in 2^40 sums, takes
it out of its bounds (:mod:`fedsci.training.sum_bound`). A *warning* says that it is unlike the rounds before it, which
honest sites may cause as well: new data at a site, a model that diverges.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedsci.config.plan import Plan
from fedsci.names import SiteId
from fedsci.privacy.sum_norm import NormBound, signal_of
from fedsci.training.accountant import Cost
from fedsci.training.sum_bound import bound_of_sum

ABOVE, BELOW, UNLIKE = "above-bound", "below-noise", "unlike-earlier"
#: How many times the median of earlier rounds a sum may be.
WARN_ABOVE: Final = 4.0
_FEWEST, _WINDOW = 5, 20  # earlier rounds that are looked at
_BLOCK = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Norm:
    """The norm of one round's sum.

    Attributes:
        value: L2, in the sum's units; infinite where the sum is not finite.
        bound: between which norms honest sites' sum lies; None where nothing public bounds it.
        alarm: ``above-bound`` or ``below-noise``: no honest sites' sum is like this.
        warning: ``unlike-earlier``.
        level: what is left without the noise, or what noise alone may leave if that is more; over the sum's weight.
    """

    value: float
    bound: NormBound | None
    alarm: str | None
    warning: str | None
    level: float

    def to_json(self) -> dict[str, Any]:
        """Return it for ``metrics.jsonl``."""
        return {
            "sum": self.value if math.isfinite(self.value) else None,
            "bound": None if self.bound is None else self.bound.most,
            "least": None if self.bound is None else self.bound.least,
            "alarm": self.alarm,
            "warning": self.warning,
        }

    def in_words(self) -> str:
        """Return what is wrong with the sum, or an empty text."""
        if self.bound is not None and self.alarm == ABOVE:
            return f"its norm is {self.value:.4g}, and honest sites' is at most {self.bound.most:.4g}"
        if self.bound is not None and self.alarm == BELOW:
            return f"its norm is {self.value:.4g}, and the sites' noise alone is at least {self.bound.least:.4g}"
        if self.warning is not None:
            return f"its norm is {self.value:.4g}, more than {WARN_ABOVE:g} times what is usual in this run"
        return ""


@dataclass(frozen=True, kw_only=True)
class NormCheck:
    """Judges sums by public facts.

    Attributes:
        plan: the study's.
        cost: its price; None without privacy.
        parameters: the model's size.
        weights: each site's public share in the sums.
        records: each site's public count of training units.
    """

    plan: Plan
    cost: Cost | None
    parameters: int
    weights: Mapping[SiteId, float]
    records: Mapping[SiteId, int]

    def judge(self, total: NDArray[np.float32], survivors: Sequence[SiteId], earlier: Sequence[float]) -> Norm:
        """Return the norm of a sum over these sites, and what is wrong with it.

        Args:
            total: what they contributed, float32 ``(k,)``.
            survivors: who is in it; at least one.
            earlier: the levels of the rounds before it that nothing was wrong with, the oldest first.
        """
        value = norm_of(total)
        bound = bound_of_sum(
            self.plan,
            self.cost,
            parameters=self.parameters,
            contributions=[(self.weights[site], self.records[site]) for site in survivors],
        )
        alarm = None if bound is None else _alarm(value, bound)
        signal, chance = (value, 0.0) if bound is None else signal_of(value, bound)
        level = max(signal, chance) / sum(self.weights[site] for site in survivors)
        usual = earlier[-_WINDOW:]
        unlike = len(usual) >= _FEWEST and level > WARN_ABOVE * median(usual)
        return Norm(value=value, bound=bound, alarm=alarm, warning=UNLIKE if unlike else None, level=level)


def norm_to_json(norm: Norm) -> dict[str, Any]:
    """Return what :func:`norm_from_json` reads."""
    return asdict(norm)


def norm_from_json(values: Mapping[str, Any] | None) -> Norm | None:
    """Return what was kept."""
    if values is None:
        return None
    bound = values["bound"]
    return Norm(**{**values, "bound": None if bound is None else NormBound(**bound)})


def _alarm(value: float, bound: NormBound) -> str | None:
    if not value <= bound.most:  # NaN, too
        return ABOVE
    return BELOW if value < bound.least else None


def norm_of(vector: NDArray[np.float32]) -> float:
    """Return the L2 norm in float64, without a copy of the whole."""
    square = 0.0
    for start in range(0, vector.size, _BLOCK):
        block = vector[start : start + _BLOCK].astype(np.float64)
        square += float(np.dot(block, block))
    return math.sqrt(square) if math.isfinite(square) else math.inf
