"""Strategies whose whole study is one exchange: the sum of one vector a record, and what is made of it.

The vector of a record is computed from that record alone. The site clips each to the study's clipping norm and adds
them up; from there a sum of statistics is treated as a sum of gradients is: sampling, noise, masks, charge. What a
strategy makes of the sum is post-processing.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from fedsci.errors import InputError, RoundAborted
from fedsci.privacy.clipping import SLACK
from fedsci.strategies.base import MeanStrategy, SiteRound, SiteWork, StrategyState, Vector, WeightedSum

#: A record's norm that clipping to 1 leaves alone, whatever floating point does to it.
LONGEST = 1 - 2 * SLACK


@dataclass(frozen=True, kw_only=True)
class ColumnShape:
    """One feature of a study, as it lies among the model's inputs; public.

    Attributes:
        name: of the feature.
        kind: ``numeric`` (scaled to [-1, 1] by public bounds), ``category`` (one-hot) or ``array`` (of such numbers).
        start: its first input.
        width: numbers of a numeric feature (1) or an array, categories of a categorical one.
        other: whether an input for a value outside the categories follows.
        flag: whether an input that marks a gap is the last.
        minimum, maximum: the bounds that are -1 and 1 when scaled; NaN for a categorical feature.
        labels: the categories as text.
    """

    name: str
    kind: Literal["numeric", "category", "array"]
    start: int
    width: int
    other: bool = False
    flag: bool = False
    minimum: float = math.nan
    maximum: float = math.nan
    labels: tuple[str, ...] = ()

    @property
    def inputs(self) -> int:
        """How many model inputs it is."""
        return self.width + self.other + self.flag


@dataclass(frozen=True, kw_only=True)
class StudyShape:
    """What a strategy must know of a study to say which statistics it sums; public, from the study file alone.

    Attributes:
        task: the task's kind.
        model: the model's family.
        columns: the features, in the order of the model's inputs.
        classes: of a multiclass task, as text; else none.
        gaps: what becomes of a missing value.
        target: the target's name.
        minimum, maximum: of a regression target, which are -1 and 1 when scaled; else NaN.
    """

    task: Literal["binary", "multiclass", "regression"]
    model: str
    columns: tuple[ColumnShape, ...]
    classes: tuple[str, ...]
    gaps: Literal["refuse", "drop", "impute"]
    target: str = ""
    minimum: float = math.nan
    maximum: float = math.nan

    @property
    def inputs(self) -> int:
        """The model's inputs."""
        return sum(column.inputs for column in self.columns)

    @property
    def outputs(self) -> int:
        """The model's outputs: classes, or 1."""
        return len(self.classes) if self.task == "multiclass" else 1


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Records:
    """Some records of a site, encoded; private.

    Attributes:
        features: float32, shape ``(n, inputs)``, in [-1, 1].
        target: class indices, int64, or float32 in [-1, 1] for regression; shape ``(n,)``.
        missing: which features had a gap, shape ``(n, columns)``.
    """

    features: NDArray[np.float32]
    target: NDArray[Any]
    missing: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class OneExchange(MeanStrategy, ABC):
    """A strategy of one round; others say which statistics are summed, and what the mean of them becomes.

    Attributes:
        optimiser: takes no step here; there so that a recipe can be read as any other.
        study: what :meth:`for_study` was told; statistics have a size only then.
        makes_model: what comes of the sum is a model of the study's family; else it is a vector of its own.
    """

    study: StudyShape | None = None
    name: str = field(default="", init=False)
    makes_model: bool = field(default=True, init=False)
    site_work: SiteWork = field(default="statistics", init=False)

    def for_study(self, study: StudyShape) -> Self:
        """Return the strategy for a study.

        Raises:
            InputError: it is for studies of another kind.
        """
        return replace(self, study=study)

    @property
    def shape(self) -> StudyShape:
        """What the strategy was told of the study.

        Raises:
            InputError: nothing yet.
        """
        if self.study is None:
            raise InputError(f"{self.name} sums statistics of a study, and no study is known")
        return self.study

    @property
    @abstractmethod
    def numbers(self) -> int:
        """K: how many numbers a record's vector has."""

    @abstractmethod
    def statistics(self, records: Records) -> NDArray[np.float64]:
        """Return one vector a record, float64 ``(n, k)``, each a function of its own record alone, to the bit.

        Whoever else is among ``records`` must make no difference: no means over them, no products of matrices. A
        vector of norm at most :data:`LONGEST` is not clipped; one with NaN or infinity counts as zeros.
        """

    @abstractmethod
    def finish(self, state: StrategyState, mean: Vector, *, noise: float) -> Vector:
        """Return the result: what is made of the mean vector.

        Args:
            state: before the round.
            mean: of the records' clipped vectors, float32 ``(k,)``.
            noise: standard deviation of privacy noise in each of its numbers; 0 without.
        """

    def width(self, size: int) -> int:
        """Return the size of a record's vector."""
        return self.numbers

    def contribute(self, work: SiteRound) -> Vector:
        """Return the site's mean vector."""
        return work.statistics()

    def stretch(self, *, steps: int, momentum: float, learning_rate: float) -> float | None:
        """Return 1, unless a strategy contributes something else than the mean vector."""
        return 1.0 if type(self).contribute is OneExchange.contribute else None

    def apply(self, state: StrategyState, total: WeightedSum) -> StrategyState:
        """Return the state with the result in the model's place.

        Raises:
            RoundAborted: see :meth:`WeightedSum.mean`; or the result holds NaN or infinity.
        """
        mean = total.mean()
        with np.errstate(over="ignore", invalid="ignore"):  # seen below
            result = self.finish(state, mean, noise=total.noise / total.weight)
        if not np.isfinite(result).all():
            raise RoundAborted(
                f"what {self.name} makes of the sum holds NaN or infinity",
                hint="look at the recipe's options, or for a site with broken data",
            )
        return StrategyState(round=state.round + 1, model=result, optimiser=state.optimiser)
