"""No number of a single lab where so few labs show theirs that somebody's could be told from it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fedsci.privacy.minimum_cohort import LEAST_SHOWN, tells_on_nobody

if TYPE_CHECKING:
    from fedsci.reporting.facts import LabFacts

_COLUMNS = {
    "joint": "the joint model",
    "alone": "labs alone",
    "alone_no_dp": "labs alone without privacy",
    "personalised": "the joint model adapted by each lab",
}


@dataclass(frozen=True, kw_only=True)
class Withheld:
    """A column of single labs' metrics that is not shown.

    Attributes:
        column: its name in :class:`fedsci.reporting.verdict.Scores`.
        sentence: why, for a reader.
    """

    column: str
    sentence: str


def withhold(labs: "Sequence[LabFacts]", *, least: int, noised: bool) -> "tuple[list[LabFacts], list[Withheld]]":
    """Return the labs without the metrics that may not be shown, and what was taken away.

    Args:
        labs: with what each shows.
        least: how many must show a metric.
        noised: the averages of the joint model carry noise; those of labs alone never do.
    """
    kept, withheld = list(labs), []
    for column, words in _COLUMNS.items():
        shown = sum(getattr(lab.scores, column) is not None for lab in kept)
        hidden = len(kept) - shown
        if not shown or tells_on_nobody(shown, hidden, least=least, exact=not (noised and column == "joint")):
            continue
        nothing: dict[str, Any] = {column: None}
        kept = [replace(lab, scores=replace(lab.scores, **nothing)) for lab in kept]
        withheld.append(Withheld(column=column, sentence=_why(words, shown, hidden, least)))
    return kept, withheld


def _why(words: str, shown: int, hidden: int, least: int) -> str:
    begin = f"What single labs reach ({words}) is not shown: "
    if shown < least:
        return f"{begin}{shown} of {shown + hidden} labs let it be shown, and {least} are needed (minimum cohort)."
    others = "the lab that does not" if hidden == 1 else f"the {hidden} labs that do not"
    return (
        f"{begin}{shown} of {shown + hidden} labs let it be shown, and taking them from the average would leave that "
        f"of {others}; such an average is of at least {LEAST_SHOWN}."
    )
