"""Labs whose records are drawn anew, one of them perhaps unusual, and what an attacker knows of records like theirs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedsci.config.plan import Plan
from fedsci.config.study_file import StudyOnOneMachine
from fedsci.data.table import Table, concatenate
from fedsci.redteam.cohort import labs_of, worker_of
from fedsci.site.round import Contributor

#: Records that there must be of the kind, and of others, on either side.
FEWEST = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """Where labs' records come from, and what is asked of one lab.

    Attributes:
        plan: of the study.
        held: records that labs draw theirs from, with replacement.
        known: other records from the same labs, which the attacker has.
        sizes: how many records each lab has.
        victim: which lab it is about.
        middle: of a regression, the target that kinds lie above (1) and below (0); else kinds are classes.
        kind: what the lab may hold unusually much of.
    """

    plan: Plan
    held: Table
    known: Table
    sizes: Sequence[int]
    victim: int
    middle: float | None
    kind: int

    @classmethod
    def of(cls, study: StudyOnOneMachine, rng: np.random.Generator) -> "World | None":
        """Return the study's: one half of all labs' records is the attacker's; None if they are too few."""
        labs = labs_of(study)
        everything = concatenate([lab.train for lab in labs.values()])
        order, half = rng.permutation(everything.rows), everything.rows // 2
        held, known = _rows(everything, order[:half]), _rows(everything, order[half:])
        regression = study.plan.study.task.kind == "regression"
        middle = float(np.median(known.target)) if regression and known.rows else None
        sizes = [lab.train_count for lab in labs.values()]
        victim = int(np.argsort(sizes, kind="stable")[len(sizes) // 2])
        world = cls(plan=study.plan, held=held, known=known, sizes=sizes, victim=victim, middle=middle, kind=0)
        kinds, counts = np.unique(world.kinds_of(known), return_counts=True)
        if len(kinds) < 2:
            return None
        enough = np.where(counts >= FEWEST, counts, known.rows)
        world = replace(world, kind=int(kinds[np.argmin(enough)]) if middle is None else 1)
        of_kind = [int((world.kinds_of(table) == world.kind).sum()) for table in (held, known)]
        fewest = min(*of_kind, held.rows - of_kind[0], known.rows - of_kind[1])
        return world if fewest >= FEWEST else None

    def kinds_of(self, table: Table) -> NDArray[np.int64]:
        """Return the kind of each record, ``(n,)``."""
        kinds = table.target if self.middle is None else table.target > self.middle
        return kinds.astype(np.int64)

    @property
    def usual(self) -> float:
        """The kind's share at a lab like the others."""
        return float((self.kinds_of(self.held) == self.kind).mean())

    @property
    def unusual(self) -> float:
        """The kind's share at an unusual lab: three of four that would be of other kinds are of it, too."""
        return (3 + self.usual) / 4

    @property
    def kind_in_words(self) -> str:
        """What the kind is."""
        task = self.plan.study.task
        if task.kind == "multiclass":
            return f"class {task.classes[self.kind]}"
        return f"{task.target} above the median" if self.middle is not None else f"{task.target}: {bool(self.kind)}"

    def draw(self, *, unusual: bool, rng: np.random.Generator) -> list[Table]:
        """Return every lab's records."""
        is_kind = self.kinds_of(self.held) == self.kind
        tables = []
        for lab, size in enumerate(self.sizes):
            rows = rng.integers(0, self.held.rows, size)
            if lab == self.victim and unusual:
                count = rng.binomial(size, self.unusual)
                parts = [rng.choice(np.flatnonzero(is_kind), count), rng.choice(np.flatnonzero(~is_kind), size - count)]
                rows = np.concatenate(parts)
            tables.append(_rows(self.held, rows))
        return tables

    @cached_property
    def means(self) -> "Means":
        """The attacker's means, with the study's privacy."""
        return Means(world=self, plan=self.plan)

    @cached_property
    def bare_means(self) -> "Means":
        """The same without privacy."""
        return Means(world=self, plan=self.plan.without_privacy())


@dataclass(frozen=True, kw_only=True, eq=False)
class Means:
    """What records of each kind contribute on average, by the attacker's own.

    Attributes:
        world: holds them.
        plan: how contributions are made; their noise is left out.
    """

    world: World
    plan: Plan

    @cached_property
    def _workers(self) -> Sequence[Contributor]:
        hides_labs = self.plan.private and self.plan.study.privacy.unit == "site"
        plan = self.plan.without_privacy() if hides_labs else self.plan
        kinds = self.world.kinds_of(self.world.known)
        tables = [self.world.known.where(kinds == kind) for kind in np.unique(kinds)]
        return [worker_of(plan, table, records=table.units, quiet=True) for table in tables]

    @property
    def place(self) -> int:
        """Which column is of the kind that is asked about."""
        return int(np.searchsorted(np.unique(self.world.kinds_of(self.world.known)), self.world.kind))

    def at(self, received: NDArray[np.float32], number: int) -> NDArray[np.float64]:
        """Return them at a model, one a column, float64 ``(k, kinds)``."""
        found = [worker.contribution(received, number, memory={}) for worker in self._workers]
        return np.stack(found, 1).astype(np.float64)


def _rows(table: Table, rows: NDArray[np.int64]) -> Table:
    """Return these rows, some of them perhaps twice; where groups are protected each is one of its own."""
    return replace(
        table,
        features=table.features[rows],
        target=table.target[rows],
        row_ids=table.row_ids[rows],
        groups=None if table.groups is None else np.arange(len(rows), dtype=np.int64),
        gaps=None if table.gaps is None else table.gaps[rows],
    )
