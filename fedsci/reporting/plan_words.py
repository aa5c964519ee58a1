"""The sentences of a privacy plan, for the terminal and for the page."""

import math

from fedsci.reporting.earlier_runs import EarlierRun
from fedsci.reporting.page import epsilon_words
from fedsci.reporting.plan_facts import PlanFacts
from fedsci.reporting.units import unit_words
from fedsci.site.forecast import Forecast

ABOUT_ACCURACY = (
    "How much accuracy the noise costs depends on the data, so it cannot be computed before a run. Without data one "
    "can say how much noise there is (above), and what earlier runs of this study measured (below, if there are any)."
)
NOT_ASKED = (
    "Nothing was charged and no data was opened. Not asked here: whether a lab's data fits the study, and delta "
    "against numbers of records that are not known (it must be at most 1 / records at every lab)."
)
WHICH_EPSILON = (
    "“This study” is its epsilon by PLD. The other figures are enforced epsilon, as the lab's ledger counts; it holds "
    "also when studies are chosen after seeing results, and counts one study for more, many for less than their sum."
)
WAYS = (
    "This study: with all labs taking part. Local noise: had every lab added all the noise itself. Pooled data: had "
    "one trusted holder all the records."
)
NOTHING_PROVEN = "∞: nothing is proven."


def promise(facts: PlanFacts) -> str:
    """Return the guarantee in one sentence: unit, relation, delta, mechanism."""
    privacy = facts.plan.study.privacy
    if facts.cost is None:
        return "Nothing (privacy.mechanism: none). Epsilon is infinite; for public data only."
    words = unit_words(privacy)
    return (
        f"Epsilon {epsilon_words(facts.epsilon)} at delta {facts.delta:g} for one {words.unit}: whether "
        f"{words.relation} hardly changes what can be concluded. Noise: {privacy.mechanism}. {words.limits}"
    )


def about_scaling(facts: PlanFacts) -> tuple[str, ...]:
    """Return what measuring the scaling takes of the guarantee; nothing where none is measured."""
    if facts.scaling is None:
        return ()
    first = facts.scaling[0]
    cost = ""
    if facts.cost is not None:
        cost = (
            f" It costs epsilon {epsilon_words(facts.epsilon_of_scaling)} at delta {first.study.privacy.delta:g} of "
            f"this; training has the rest. Figures of rounds and noise below are training's, each epsilon is of both."
        )
    return (
        f"Two studies: first {first.study.study} ({first.recipe.name}, one round) measures mean and deviation of each "
        f"number over all labs, then the study is scaled by them.{cost}",
    )


def trust(facts: PlanFacts) -> tuple[str, ...]:
    """Return against whom the guarantee holds."""
    cost, plan = facts.cost, facts.plan
    if cost is None:
        return ()
    if cost.share is None:
        return ("Each lab adds all the noise itself: it holds against everybody, all other labs together included.",)
    colluding = plan.study.privacy.colluding_sites
    return (
        "Labs add shares of one noise, under masks. It holds against whoever sees the model, and against the "
        f"coordinator together with {_up_to(colluding)}; at least {plan.min_survivors} labs must finish each round. "
        "More labs that collude with the coordinator, or leave out their noise, raise epsilon as in the table below.",
    )


def verdict(facts: PlanFacts) -> str:
    """Return whether the labs' rules and budgets let the study run."""
    refusal = facts.first_refusal
    where = "fresh ledgers" if facts.ledgers is None else f"the ledgers in {facts.ledgers}"
    if facts.approved:
        asks = "once every lab's people have approved it, this study would"
        if refusal is None:
            return f"By the labs' rules and {where}, {asks} start."
        return f"By the labs' rules and {where}, {asks} be refused by {refusal.site} (exit code {refusal.exit_code})."
    if refusal is None:
        return f"By the labs' rules and {where}, fedsci run would start this study."
    code = refusal.exit_code
    return f"By the labs' rules and {where}, fedsci run would be refused by {refusal.site} (exit code {code})."


def refusals(facts: PlanFacts) -> list[tuple[list[str], str]]:
    """Return each reason to refuse with the sites that have it, what would help and what would fit."""
    reasons: dict[str, list[str]] = {}
    for each in facts.forecasts:
        if each.refusal is not None:
            hint = f" {each.hint[0].upper()}{each.hint[1:]}." if each.hint else ""
            room = f" Would fit: {_room(each)}." if each.room is not None else ""
            reasons.setdefault(f"{each.refusal}.{hint}{room}", []).append(each.site)
    return [(sites, text) for text, sites in reasons.items()]


def about_noise(facts: PlanFacts) -> str:
    """Return what the figures of the noise table are."""
    if facts.records is None:
        return (
            "Noise relative to pooled data at the same epsilon. To see it beside the signal the number of records is "
            "needed: --records."
        )
    if facts.plan.strategy.site_work == "statistics":
        return (
            f"Length of the noise in the mean statistic over {facts.records:,} records ({facts.records_from}), where a "
            "record's statistics are at most 1 long."
        )
    steps = facts.plan.steps_per_round * facts.plan.training.rounds
    return (
        f"Length of the noise in one step's mean gradient over {facts.records:,} records ({facts.records_from}), in "
        "units of the clipping norm. The mean gradient itself is at most 1 long, and only if all records pull one way. "
        "Where the noise is longer than the signal, single steps wander; averaged over "
        f"the {steps} steps of the study it is {math.sqrt(steps):.3g} times shorter."
    )


def against_pooled(run: EarlierRun) -> str:
    """Return how far the run was from pooled data without privacy, relative to it, as measured; or a dash."""
    if run.federated is None or not run.pooled:
        return "-"
    change = (run.federated - run.pooled) / abs(run.pooled)
    return f"{change * 100:+.1f} %" if math.isfinite(change) else "-"


def _room(each: Forecast) -> str:
    room = each.room
    if room is None or (room.rounds == 0 and room.epsilon == 0):
        return "nothing of it"
    cost = epsilon_words(room.epsilon_of_rounds)
    count = "1 round" if room.rounds == 1 else f"{room.rounds} rounds"
    rounds = f"{count} at this noise (epsilon {cost})" if room.rounds else ""
    whole = f"all rounds at privacy.epsilon {room.epsilon:g}" if room.epsilon else ""
    return ", or ".join(filter(None, (rounds, whole)))


def _up_to(labs: int) -> str:
    return "one lab" if labs == 1 else f"up to {labs} labs"
