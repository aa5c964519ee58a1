"""Which labs are bad, and what an attack on the model took: the same for every attack that a few labs make together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedsci.names import SiteId
from fedsci.redteam.deviating import Deviation
from fedsci.redteam.finding import Curve, Finding, Plot
from fedsci.redteam.together import Together, Trained
from fedsci.training.metrics import higher_is_better

LOST = 0.05  # of the first metric, from which on an attack on the model has worked


@dataclass(frozen=True, kw_only=True)
class Attackers:
    """A study's labs, of which some are bad.

    Attributes:
        sites: all of them.
        metric: the study's first.
        seed: of the choice.
    """

    sites: Sequence[SiteId]
    metric: str
    seed: int

    @classmethod
    def of(cls, together: Together, seed: int) -> "Attackers":
        """Return those of a study."""
        return cls(sites=together.plan.sites, metric=together.plan.metrics[0], seed=seed)

    @property
    def counts(self) -> tuple[int, ...]:
        """Numbers of bad labs that are tried: 1, 3 and 5 of 17, and the like of others.

        >>> Attackers(sites=[SiteId(f"lab-{n}") for n in range(17)], metric="accuracy", seed=0).counts
        (1, 3, 5)
        """
        return tuple(sorted({max(1, round(share * len(self.sites) / 17)) for share in (1, 3, 5)}))

    def bad(self, count: int, *, repeat: int = 0) -> tuple[SiteId, ...]:
        """Return the bad labs; more of them are the fewer and others."""
        order = np.random.default_rng([self.seed, repeat]).permutation(len(self.sites))
        return tuple(self.sites[place] for place in order[:count])

    def train(self, together: Together, deviation: Deviation, count: int, *, repeat: int = 0) -> Trained:
        """Return what training comes to where so many labs deviate this way; with 0 none does."""
        return together.train(dict.fromkeys(self.bad(count, repeat=repeat), deviation))

    def lost(self, clean: float, found: float | None) -> float:
        """Return what an attack took from the metric: in its own units, or as a share where less of it is better.

        All of it where there is no model any more.
        """
        if found is None:
            return max(1.0, clean)
        return clean - found if higher_is_better(self.metric) else (found - clean) / max(abs(clean), 1e-9)

    def curve(self, name: str, values: Mapping[int, float | None]) -> Curve:
        """Return a metric by the number of bad labs; 0 where there is no model and more would be better."""
        floor = 0.0 if higher_is_better(self.metric) else None
        points = [(float(count), floor if value is None else value) for count, value in sorted(values.items())]
        return Curve(name=name, points=tuple((count, value) for count, value in points if value is not None))

    def plot(self, title: str, ways: Mapping[str, Mapping[int, float | None]]) -> Plot:
        """Return the metric by the number of bad labs, a curve for each way."""
        curves = tuple(self.curve(name, values) for name, values in ways.items())
        return Plot(title=title, x="bad labs", y=f"{self.metric} on all labs' held-out records", curves=curves)


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean; None if one of them is not there."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def line(values: Mapping[int, float | None], *, percent: bool = False) -> str:
    """Return values by the number of bad labs as one line.

    >>> line({1: 0.9, 3: None})
    '1: .900, 3: no model'
    """
    return ", ".join(f"{count}: {shown(value, percent=percent)}" for count, value in values.items())


def shown(value: float | None, *, percent: bool = False) -> str:
    """Return a value as the table shows it."""
    if value is None:
        return "no model"
    return f"{value:.0%}" if percent else f"{value:.3f}".removeprefix("0") if 0 <= value < 1 else f"{value:.3g}"


def by_count(values: Mapping[int, float | None]) -> dict[str, float | None]:
    """Return values by the number of bad labs as JSON has it."""
    return {str(count): value for count, value in values.items()}


def not_measured(key: str, claim: str, why: str) -> Finding:
    """Return the row of an attack that does not fit."""
    return Finding(key=key, claim=claim, attack="-", result=why, verdict="not measured", measured={"why": why})
