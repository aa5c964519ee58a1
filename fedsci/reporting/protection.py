"""The page's sections for the privacy officer: what is promised, to whom, and what masking hid.

Every epsilon on the page holds under the add-or-remove-one relation, and the page says so.
"""

import math

from fedsci.reporting.facts import RunFacts
from fedsci.reporting.page import box, epsilon_words, esc, facts_list, paragraph, section

_ACCOUNTANTS = {
    "pld": "privacy loss distributions (PLD)",
    "rdp": "Rényi differential privacy (RDP)",
    "prv": "privacy random variables (PRV)",
}


def privacy(facts: RunFacts) -> str:
    """Return what the guarantee is, for whom, and what it does not cover."""
    return section(
        "privacy",
        "Privacy",
        _guarantee(facts),
        facts_list(
            [
                ("Unit protected", esc(_unit_words(facts.unit))),
                ("Neighbouring data sets", esc(f"one is the other with one {facts.unit} added or removed")),
                ("δ", "" if facts.delta is None else f"{facts.delta:g}, the slack in the promise"),
                ("Accountant", esc(_ACCOUNTANTS.get(facts.accountant, facts.accountant))),
                ("Mechanism", esc(facts.mechanism or "not stated")),
                ("Scaling", _scaling_words(facts)),
            ]
        ),
        "" if not facts.private else paragraph(_NOT_COVERED),
    )


def masking(facts: RunFacts) -> str:
    """Return whether updates were masked."""
    at_least = f"at least {facts.min_survivors} labs" if facts.min_survivors else "enough labs"
    grouped = ""
    if facts.smallest_sum and facts.min_survivors and facts.smallest_sum < facts.min_survivors:
        if facts.buffered:
            grouped = (
                " The labs of a round trained on several models. A coordinator that cheats with models on which "
                f"nothing is learned can narrow the sum down to the labs of one model: at least {facts.smallest_sum}."
            )
        else:
            grouped = f" It learns that sum by groups of labs, the smallest of at least {facts.smallest_sum}."
    if facts.masked:
        words = paragraph(
            "Enabled. Each lab adds random masks to its update before sending it. The masks cancel in "
            f"the sum and nowhere else, so the coordinator learns only the sum over {at_least}, never one "
            f"lab’s update. A round with fewer labs is aborted.{grouped}"
        )
    elif facts.masked is None:
        words = paragraph("This run does not say whether updates were masked. Assume that they were not.")
    else:
        words = box(
            "caution",
            "Not enabled.",
            paragraph("The coordinator received each lab’s update by itself and could read it."),
        )
    return section("masking", "Secure aggregation", words)


_NOT_COVERED = (
    "ε covers the sums that the coordinator saw and the trained model. It does not cover test results that "
    "a lab’s policy lets out without noise, and it does not hide what is true of everybody: a model may "
    "rightly teach that a habit and an illness go together, with or without any one person’s record."
)


def _guarantee(facts: RunFacts) -> str:
    if facts.mechanism == "none":
        return box(
            "danger",
            "No privacy guarantee.",
            paragraph(
                "This run added no noise (mechanism “none”, for research only). Its ε is infinite: the "
                "model may reveal single records. Do not release it, and do not use it with data that "
                "must stay private."
            ),
        )
    if not facts.private:
        return box(
            "danger",
            "No privacy guarantee can be stated.",
            paragraph("This run does not name a mechanism that this report knows. Treat its model as not private."),
        )
    spent = [lab.epsilon_study for lab in facts.labs if lab.epsilon_study is not None]
    return "".join([_unsafe(facts, spent), paragraph(_meaning(facts, spent)), paragraph(_mechanism_words(facts))])


def _unsafe(facts: RunFacts, spent: list[float]) -> str:
    parts = []
    if any(map(math.isinf, spent)):
        parts.append(
            box(
                "danger",
                "No privacy guarantee at some labs.",
                paragraph("The labs whose ε is ∞ in the table above have no guarantee in this study."),
            )
        )
    if facts.mechanism == "distributed" and facts.masked is False:
        parts.append(
            box(
                "danger",
                "Shared noise without masking.",
                paragraph(
                    "Each lab added only its share of the noise, and secure aggregation was off. Against the "
                    "coordinator, who saw each update by itself, the stated ε does not hold."
                ),
            )
        )
    return "".join(parts)


def _meaning(facts: RunFacts, spent: list[float]) -> str:
    finite = [value for value in spent if math.isfinite(value)]
    unit = esc(facts.unit)
    slack = f", plus δ = {facts.delta:g}" if facts.delta else ""
    promise = (
        f"Adding or removing any one {unit} at a lab changes the probability of anything that could be "
        f"concluded from what this study released by at most a factor of e<sup>ε</sup>{slack}."
    )
    if not finite:
        return promise
    worst = max(finite)
    factor = f" (a factor of {math.exp(worst):.3g})" if worst <= 20 else ""
    return f"{promise} The most that any lab spent in this study is ε = {epsilon_words(worst)}{factor}."


def _mechanism_words(facts: RunFacts) -> str:
    if facts.mechanism == "local":
        return (
            "Mechanism “local”: each lab clips the influence of its records and adds all the noise it needs by "
            "itself. Its records stay protected even if the coordinator and every other lab work together "
            "against it. The price is much more noise in the sum."
        )
    honest = f"at least {facts.min_survivors} labs" if facts.min_survivors else "enough labs"
    return (
        "Mechanism “distributed”: each lab clips the influence of its records and adds a share of the noise; "
        "the shares add up to the full noise in the masked sum. This protects against the coordinator and "
        f"against anybody who sees the model. {_collusion_words(facts.colluding_sites)} It rests on secure "
        f"aggregation and on {honest} that add their share honestly: a single update, without its mask, would "
        "carry only a part of the noise."
    )


def _scaling_words(facts: RunFacts) -> str:
    if not facts.scaled:
        return "public bounds, or public means and deviations"
    part = "" if facts.scaling_epsilon is None else f", for ε = {epsilon_words(facts.scaling_epsilon)} of what is shown"
    return f"means and deviations, measured over all labs by a study of its own{part}"


def _collusion_words(colluding_sites: int | None) -> str:
    if colluding_sites is None:
        return "A lab that takes its own share of the noise off again sees a little more than that."
    if colluding_sites == 0:
        return "It leaves out labs that take their own share of the noise off again; against them ε is larger."
    labs = "one lab" if colluding_sites == 1 else f"up to {colluding_sites} labs"
    return f"It also holds when the coordinator works together with {labs}, whose own noise then does not count."


def _unit_words(unit: str) -> str:
    if unit == "record":
        return "record: one row of a lab’s data set. A person with several rows is protected less."
    if unit == "group":
        return "group: all rows of a lab’s data set that share a value, such as one patient’s, together."
    if unit == "site":
        return "site: everything that one lab contributed, as a whole."
    return unit
