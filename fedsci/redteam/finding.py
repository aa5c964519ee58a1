"""What one attack on one claim came to: the rows of the red team's table."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from fedsci.errors import DataError, FedsciError

Verdict = Literal["holds", "broken", "control", "not protected", "not measured"]
"""What a row says.

``holds``: a claim of fedsci's stood this attack. ``broken``: it did not, which is a fault. ``control``: the same
attack where the protection was taken away, to show that it works. ``not protected``: the attack works, and fedsci
does not claim otherwise. ``not measured``: no claim was tested, ``result`` says why.
"""

Overall = Literal["holds", "broken", "incomplete"]
"""What all rows say together.

``broken``: a claim did not stand. ``holds``: claims stood, and nothing that was to be measured was not.
``incomplete``: nothing is broken, but not everything was measured, or nothing is claimed at all. Not a pass.
"""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line, or a cloud of points, of a plot.

    Attributes:
        name: for the legend.
        points: (x, y), finite.
    """

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Plot:
    """What a finding shows besides its numbers.

    Attributes:
        title: one line.
        x, y: axis labels, with units.
        curves: at most five.
    """

    title: str
    x: str
    y: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One row: a claim, what was tried against it, and what came of it.

    Attributes:
        key: short and unique, for scripts: ``membership``, ``membership-control``.
        claim: what fedsci promises, in words that a privacy officer uses.
        attack: what was tried, in a line, with who would do it.
        result: what was measured, in a line.
        verdict: see :data:`Verdict`.
        measured: the numbers behind ``result``; JSON-ready, finite.
        plot: shown in the report, if there is one.
    """

    key: str
    claim: str
    attack: str
    result: str
    verdict: Verdict
    measured: Mapping[str, Any] = field(default_factory=dict)
    plot: Plot | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the finding for ``redteam.json``."""
        return asdict(self)


def overall(verdicts: Iterable[str], *, left_out: bool = False) -> Overall:
    """Return what rows with these verdicts say together; ``left_out``: that there would have been more of them.

    >>> overall(["holds", "control"]), overall(["holds", "not measured"]), overall(["not protected"])
    ('holds', 'incomplete', 'incomplete')
    """
    found = set(verdicts)
    if "broken" in found:
        return "broken"
    return "incomplete" if left_out or "not measured" in found or "holds" not in found else "holds"


def words_for(error: FedsciError) -> str:
    """Return what a row says of an error: of a lab's data no more than the lab itself would tell others.

    >>> words_for(DataError("row 3: age 112 is out of bounds"))
    "the site's data does not fit the study; see its own log"
    """
    return error.public_message if isinstance(error, DataError) else error.message
