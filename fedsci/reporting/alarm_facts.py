"""What a run says of sums that honest labs do not make, for the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedsci.coordinator.alarms import ALARM
from fedsci.coordinator.blame import suspicion
from fedsci.coordinator.norm_check import ABOVE, BELOW, WARN_ABOVE
from fedsci.reporting.page import box, esc, name, paragraph, table
from fedsci.reporting.run_folder import count, finite, items, mapping, text


@dataclass(frozen=True, kw_only=True)
class AlarmFacts:
    """One round's.

    Attributes:
        number: the round.
        kind: ``above-bound``, ``below-noise`` or ``unlike-earlier``.
        certain: no honest labs have such a sum; else it is only unusual.
        norm, bound, least: of the sum, and between which honest labs' lies; None where not known.
        labs: how many were in it.
    """

    number: int
    kind: str
    certain: bool
    norm: float | None
    bound: float | None
    least: float | None
    labs: int


@dataclass(frozen=True, kw_only=True)
class Alarms:
    """All of a run's.

    Attributes:
        each: in order.
        named: the labs that were found, and left out from then on.
        suspects: those that were in an alarm which nobody who was found explains.
        alone: those of them that were in all of these.
    """

    each: Sequence[AlarmFacts] = ()
    named: Sequence[str] = ()
    suspects: Sequence[str] = ()
    alone: Sequence[str] = ()


def alarms_of(summary: Mapping[str, object]) -> Alarms:
    """Return what ``summary.json`` says; nothing where it says nothing."""
    blame = mapping(summary, "blame")
    each = [
        AlarmFacts(
            number=count(one.get("round")) or 0,
            kind=text(one.get("kind")),
            certain=one.get("level") == ALARM,
            norm=finite(one.get("norm")),
            bound=finite(one.get("bound")),
            least=finite(one.get("least")),
            labs=len(items(one.get("sites"))),
        )
        for one in map(mapping, items(summary.get("alarms")))
    ]
    named, suspects = ([text(site) for site in items(blame.get(key))] for key in ("named", "suspects"))
    alone = [text(site) for site in items(blame.get("alone", suspects))]
    return Alarms(each=each, named=named, suspects=suspects, alone=alone)


def alarm_words(alarms: Alarms) -> str:
    """Return what the page says of them; nothing where there were none."""
    if not alarms.each:
        return ""
    rows = [
        [str(one.number), "alarm" if one.certain else "warning", _why(one), _number(one.norm), str(one.labs)]
        for one in alarms.each
    ]
    found = table("Rounds whose sum was looked at.", ["Round", "", "What", "Norm", "Labs"], rows, text_columns=3)
    if not any(one.certain for one in alarms.each):
        words = "Some sums were much larger than is usual here. Honest labs can cause that; look at what changed."
        return box("caution", "Unusual sums.", paragraph(words)) + found
    parts = [
        "The sums of some rounds cannot come from honest labs: clipping, the labs’ record counts and the noise "
        "allow none like them. Nothing of these rounds is in the model; what they cost in privacy stays charged."
    ]
    if alarms.named:
        who = ", ".join(map(name, alarms.named))
        parts.append(
            f"Leaving out labs in turn points to {who}: left out from then on. That is a reason to ask, not a verdict. "
            "Two labs that act together can point at a third."
        )
    if alarms.suspects:
        who = suspicion(list(map(name, alarms.suspects)), list(map(name, alarms.alone)))
        parts.append(f"Not found for certain: {who}.")
    return box("danger", "A lab sent what it cannot have computed.", paragraph(*parts)) + found


def _why(one: AlarmFacts) -> str:
    if one.kind == ABOVE:
        return f"above {_number(one.bound)}, the most of honest labs"
    if one.kind == BELOW:
        return f"below {_number(one.least)}, the least of the labs’ noise"
    return f"more than {WARN_ABOVE:g} times what is usual in this run" if not one.certain else esc(one.kind)


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"
