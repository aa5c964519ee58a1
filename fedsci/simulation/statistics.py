"""What all labs' columns hold together, and nobody's alone: the pass that measures scaling, for people to read."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsci.config.scaling import pass_before
from fedsci.config.study import ArrayColumn, NumericColumn
from fedsci.config.study_file import StudyOnOneMachine
from fedsci.config.study_shape import shape_of
from fedsci.coordinator.run import Display
from fedsci.coordinator.scaling import noise_in, survivors_of
from fedsci.data.schema import LEAST_DEVIATION
from fedsci.errors import RoundAborted
from fedsci.simulation.run import Engine, SimulatedRun
from fedsci.strategies.feature_statistics import CategoryStatistics, NumericStatistics, norm_bound
from fedsci.training.scaling import statistics_of

_NEAR_A_BOUND = 0.05  # of the bounds' width
_SURE = 2.0  # deviations of noise


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One number and the standard deviation of the privacy noise in it, 0 without; None where it is not known."""

    value: float | None
    noise: float

    def to_json(self) -> dict[str, float | None]:
        """Return both."""
        return {"value": self.value, "noise_deviation": self.noise}


@dataclass(frozen=True, kw_only=True)
class NumberFacts:
    """A numeric column, or all entries of an array together, over all labs' training records.

    Attributes:
        mean, deviation: in the column's own units.
        missing: share of records with a gap; None where rows with gaps are dropped.
        minimum, maximum: the public bounds.
        entries: how many numbers a record has here; 1 but for arrays.
        warnings: what may be wrong with the bounds.
    """

    mean: Measured
    deviation: Measured
    missing: Measured | None
    minimum: float
    maximum: float
    entries: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CategoryFacts:
    """A categorical column: shares of all labs' training records.

    Attributes:
        shares: by category.
        other: outside the categories; None where those are refused.
        missing: as of numbers.
    """

    shares: dict[str, Measured]
    other: Measured | None
    missing: Measured | None


@dataclass(frozen=True, kw_only=True)
class PooledFacts:
    """Everything ``fedsci data stats`` shows.

    Attributes:
        study: the pass's name.
        records: training records of all labs in the sum.
        numbers, categories: by column.
        target: its name, and how many records are in each class, or in each bin from one bound to the other.
        epsilon, delta: what it cost each unit; None without privacy.
        folder: the run's.
    """

    study: str
    plan_digest: str
    unit: str
    records: int
    numbers: dict[str, NumberFacts]
    categories: dict[str, CategoryFacts]
    target: tuple[str, dict[str, Measured]]
    epsilon: float | None
    delta: float | None
    folder: Path

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON-ready values."""
        columns: dict[str, Any] = {}
        for name, number in self.numbers.items():
            columns[name] = {
                "mean": number.mean.to_json(),
                "deviation": number.deviation.to_json(),
                "missing": number.missing and number.missing.to_json(),
                "min": number.minimum,
                "max": number.maximum,
                "warnings": list(number.warnings),
            }
        for name, category in self.categories.items():
            columns[name] = {
                "shares": {label: share.to_json() for label, share in category.shares.items()},
                "other": category.other and category.other.to_json(),
                "missing": category.missing and category.missing.to_json(),
            }
        return {
            "study": self.study,
            "plan_digest": self.plan_digest,
            "records": self.records,
            "columns": columns,
            "target": {"name": self.target[0], "counts": {k: v.to_json() for k, v in self.target[1].items()}},
            "privacy": {"unit": self.unit, "epsilon": self.epsilon, "delta": self.delta},
            "run_folder": str(self.folder),
        }


def measure_statistics(
    study: StudyOnOneMachine, *, engine: Engine, state: Path, out: Path, display: Display
) -> PooledFacts:
    """Run the pass over the study's labs, and return what it says; charged like any study.

    Raises:
        FedsciError: a lab refused it, or it did not complete.
    """
    first = pass_before(study.plan)
    run = SimulatedRun(
        study=StudyOnOneMachine(plan=first, site_files=study.site_files),
        engine=engine,
        state=state,
        out=out,
        display=display,
    )
    summary = run.run()
    vector, folder = run.progress.model, run.folder
    if vector is None or folder is None:
        raise RoundAborted("nothing was released")
    records, shape = survivors_of(first, run.progress), shape_of(first.study)
    found = statistics_of(first, vector, records)
    # of a sum over records, and of a share of those that have a target
    each = noise_in(first, run.progress) * norm_bound(shape) * sum(records)
    share = each / max(1.0, found.records)
    bounds = {
        name: (column.min, column.max)
        for name, column in first.study.features.items()
        if isinstance(column, NumericColumn | ArrayColumn)
    }
    labels = [str(label) for label in shape.classes] or ["no", "yes"]
    if found.edges is not None:
        labels = [f"{low:.4g} to {high:.4g}" for low, high in zip(found.edges, found.edges[1:], strict=False)]
    spent = [said["epsilon_spent_study"] for said in summary["privacy"]["by_site"].values()]
    return PooledFacts(
        study=first.study.study,
        plan_digest=first.digest,
        unit=first.study.privacy.unit,
        records=sum(records),
        numbers={name: _number(known, bounds[name], share) for name, known in found.numeric.items()},
        categories={name: _category(known, share) for name, known in found.categorical.items()},
        target=(
            first.study.task.target,
            {
                label: Measured(value=float(count), noise=each)
                for label, count in zip(labels, found.target, strict=True)
            },
        ),
        epsilon=max(spent) if first.private else None,
        delta=first.study.privacy.delta if first.private else None,
        folder=folder.path,
    )


def _number(known: NumericStatistics, bounds: tuple[float, float], share: float) -> NumberFacts:
    """Return a column's facts; ``share`` is the noise of a sum over the records that count."""
    (minimum, maximum), half = bounds, (bounds[1] - bounds[0]) / 2
    entries = len(known.mean)
    each = share / max(1e-9, 1.0 - (known.missing or 0.0)) / math.sqrt(entries)
    mean = float(known.mean.mean())
    # the spread of all entries around their common mean
    deviation = math.sqrt(max(0.0, float((known.deviation**2 + (known.mean - mean) ** 2).mean())))
    if math.isfinite(mean):
        centre = (mean - minimum) / half - 1.0
        # of the root of a variance, to first order; where the noise is larger than that, as large as the root itself
        of_variance = each * math.hypot(1.0, 2.0 * centre)
        relative = deviation / half
        found = Measured(value=mean, noise=each * half)
        spread = Measured(
            value=deviation, noise=half * min(of_variance / (2 * max(relative, 1e-9)), math.sqrt(of_variance))
        )
        warnings = _warnings(found, spread, minimum, maximum)
    else:
        found = spread = Measured(value=None, noise=0.0)
        warnings = ("(nearly) every record has a gap",)
    return NumberFacts(
        mean=found,
        deviation=spread,
        missing=_of(known.missing, share),
        minimum=minimum,
        maximum=maximum,
        entries=entries,
        warnings=warnings,
    )


def _warnings(mean: Measured, deviation: Measured, minimum: float, maximum: float) -> tuple[str, ...]:
    """Return what may be wrong with the bounds, where noise leaves no doubt."""
    width, found = maximum - minimum, []
    for bound, name in ((minimum, "min"), (maximum, "max")):
        if abs((mean.value or 0.0) - bound) + _SURE * mean.noise < _NEAR_A_BOUND * width:
            found.append(f"the mean is near {name}: are values clipped?")
    if (deviation.value or 0.0) + _SURE * deviation.noise < LEAST_DEVIATION * width:
        found.append(f"the deviation is below {LEAST_DEVIATION:.0%} of the width: the bounds are too wide")
    return tuple(found)


def _category(known: CategoryStatistics, share: float) -> CategoryFacts:
    return CategoryFacts(
        shares={label: Measured(value=value, noise=share) for label, value in known.shares.items()},
        other=_of(known.other, share),
        missing=_of(known.missing, share),
    )


def _of(value: float | None, noise: float) -> Measured | None:
    return None if value is None else Measured(value=value, noise=noise)
