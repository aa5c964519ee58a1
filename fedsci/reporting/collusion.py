"""What the study tells whom: an outsider, another lab, a coordinator with colluding labs; and if masking broke."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fedsci.config.masking import terms_for
from fedsci.config.plan import Plan
from fedsci.training.accountant import Cost, epsilon_against


@dataclass(frozen=True, kw_only=True)
class Against:
    """Epsilon of the study for one kind of onlooker; add or remove one record.

    Attributes:
        who: in words.
        colluding: labs whose noise the onlooker knows; None where masking is broken instead.
        epsilon: for each column of the table; infinite where nothing is proven.
    """

    who: str
    colluding: int | None
    epsilon: tuple[float, ...]


def collusion_table(
    plan: Plan, cost: Cost, *, dimension: int, columns: tuple[Mapping[int, int], ...]
) -> tuple[Against, ...]:
    """Return a row for each number of colluding labs that masking stands, and one for broken masking.

    Args:
        plan: a private plan with distributed noise; with local noise there is nothing to collude about.
        cost: its price.
        dimension: the model's number of parameters.
        columns: for each column, how many labs took part in how many rounds.
    """
    if cost.share is None:
        return ()
    privacy = plan.study.privacy
    most = max(terms_for(plan).corrupt, privacy.colluding_sites)

    def row(who: str, colluding: int | None, columns: tuple[Mapping[int, int], ...]) -> Against:
        epsilons = (
            epsilon_against(plan, cost, dimension=dimension, survivors=column, colluding=colluding or 0)
            for column in columns
        )
        return Against(who=who, colluding=colluding, epsilon=tuple(epsilons))

    rows = [row(_who(number), number, columns) for number in range(most + 1)]
    broken = tuple({1: sum(column.values())} for column in columns)
    rows.append(row("if masking were broken: one lab's share alone", None, broken))
    return tuple(rows)


def added(rows: tuple[Against, ...], others: tuple[Against, ...]) -> tuple[Against, ...]:
    """Return the rows of two studies of the same labs as one table: epsilons add up (basic composition)."""
    return tuple(
        replace(row, epsilon=tuple(a + b for a, b in zip(row.epsilon, other.epsilon, strict=True)))
        for row, other in zip(rows, others, strict=True)
    )


def _who(colluding: int) -> str:
    if colluding == 0:
        return "an outsider, or the coordinator alone"
    if colluding == 1:
        return "another lab, or the coordinator with one"
    return f"the coordinator with {colluding} labs"
