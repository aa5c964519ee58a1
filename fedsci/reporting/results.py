"""The page's first half: what was asked, whether to join, and each lab's line."""

import math

from fedsci.reporting.facts import LabFacts, RunFacts
from fedsci.reporting.page import (
    DASH,
    NOT_SHOWN,
    box,
    epsilon_words,
    esc,
    figure,
    name,
    paragraph,
    section,
    table,
    tile,
)
from fedsci.reporting.plots import Curve, Line, Spend, rounds_plot, spend_plot
from fedsci.reporting.verdict import ADAPTED, Measure, Worth, judge, judge_lab, measure_named

_STATUS = {
    "completed": ("good", "completed"),
    "stopped_by_budget": ("caution", "stopped by a privacy budget"),
    "aborted": ("danger", "aborted"),
    "unfinished": ("caution", "unfinished"),
}
_WHICH_EPSILON = (
    "“In all, fixed in advance” is the ε of all studies of this data so far, had all been planned before the first "
    "(PLD). “Enforced” is what the lab’s ledger counts: it also holds when studies are chosen after seeing results, "
    "and is what the budget is compared with."
)
_EPSILON_HEADS = ("ε this study", "ε in all, fixed in advance", "ε in all, enforced", "ε budget")
_ANSWERS = {Worth.YES: "yes", Worth.AS_WELL: "makes little difference", Worth.NO: "no", Worth.UNKNOWN: ""}
_NO_MEASURE = measure_named("the metric")
OWN_LAYERS = (
    "Each lab measures and uses the joint model with normalisation layers of its own, which stay at the lab, in "
    "own_model.safetensors of its state; model.safetensors holds those that all labs began from."
)
NOISED = "The joint model’s numbers carry privacy noise, since not every lab lets exact ones leave."


def masthead(facts: RunFacts, remark: str = "") -> str:
    """Return title, question, status and a remark; an aborted or unfinished run says so in a box."""
    kind, words = _STATUS.get(facts.status, ("caution", f"status: {facts.status}"))
    size = [counted(len(facts.labs), "lab")] if facts.labs else []
    size += [counted(facts.rounds_completed, "round")] if facts.rounds_completed is not None else []
    parts = [
        '<p class="eyebrow">Report of a federated study</p>',
        f"<h1>{name(facts.study)}</h1>",
        f'<p class="question">{esc(facts.question)}</p>' if facts.question else "",
        f'<p><span class="status {kind}">{esc(words)}</span> {" · ".join(size)}</p>',
        f'<p class="muted">{remark}</p>' if remark else "",
        _status_box(facts),
    ]
    return f"<header>{''.join(parts)}</header>"


def answer(facts: RunFacts) -> str:
    """Return the section "Should a lab join?"; of a study that makes no model, what came of it."""
    if not facts.makes_model:
        return _statistics(facts)
    measure = facts.measure or _NO_MEASURE
    verdict = judge(measure, facts.scores, private=facts.private, noised=facts.noised)
    caveat, headline = "", verdict.headline
    if facts.status != "completed" and verdict.worth is not Worth.UNKNOWN:
        caveat = paragraph("<strong>These are the numbers of an unfinished model.</strong>")
        headline = headline if facts.status == "stopped_by_budget" else "The run did not finish: no answer."
    tolerance = (
        f"A gap of {measure.label} counts as “as well” up to 0.01."
        if measure.higher_is_better
        else f"A gap of {measure.label} counts as “as well” up to 2 %."
    )
    chance = (
        "± is the 95 % interval that the choice of test records leaves, by resampling them; a gap that it can explain "
        "counts as “as well” too."
        if facts.errors
        else "On few test records, small gaps may be chance."
    )
    return section(
        "join",
        "Should a lab join?",
        f'<p class="headline">{esc(headline)}</p>',
        paragraph(*map(esc, verdict.sentences)),
        caveat,
        paragraph(esc(OWN_LAYERS)) if facts.own_layers else "",
        _tiles(facts, measure),
        "" if facts.noised else paragraph(f'<span class="muted">{esc(f"{tolerance} {chance}")}</span>'),
        _lab_by_lab(facts, measure),
        withheld(facts),
    )


def withheld(facts: RunFacts) -> str:
    """Return what of single labs is not shown, and why; empty where nothing was held back."""
    return "".join(box("caution", "", paragraph(esc(sentence))) for sentence in facts.withheld)


def _statistics(facts: RunFacts) -> str:
    """Return what came of a study that makes no model: there is nothing to join, measure or compare."""
    headline = {
        "completed": "Statistics of all labs’ columns together, nobody’s own.",
        "unfinished": "Not finished yet: no statistics.",
    }.get(facts.status, "The run did not finish: no statistics.")
    return section(
        "outcome",
        "What came of it",
        f'<p class="headline">{headline}</p>',
        paragraph(
            "This study made no model, so nothing was measured or compared, and it does not say whether joining pays.",
            "Its sums lie in <code>model.safetensors</code>. <code>fedsci data stats</code> prints what they mean; a "
            "study with <code>features.scaling: federated</code> uses them as its scaling.",
        ),
        f'<div class="tiles">{_epsilon_tile(facts)}</div>',
    )


def _lab_by_lab(facts: RunFacts, measure: Measure) -> str:
    """Return a short table: each lab that shows its numbers, alone against joint against adapted, and the answer."""
    if facts.status not in ("completed", "stopped_by_budget"):
        return ""
    alone = [("Alone", "alone" if facts.alone_column == "local_mean_site" else "alone_no_dp")]
    if facts.private:
        alone = [("Alone, same privacy", "alone"), ("Alone without privacy", "alone_no_dp")]
    ways = [
        (title, key)
        for title, key in (*alone, ("Joint", "joint"), ("Joint, adapted by the lab", "personalised"))
        if any(getattr(lab.scores, key) is not None for lab in facts.labs)
    ]
    rows = []
    for lab in facts.labs:
        worth, remark = judge_lab(measure, lab.scores, private=facts.private)
        if worth is Worth.UNKNOWN:
            continue
        cells = [DASH if getattr(lab.scores, key) is None else esc(lab.scores.words(measure, key)) for _, key in ways]
        rows.append([name(lab.site), esc(f"{_ANSWERS[worth]}, {remark}" if remark else _ANSWERS[worth]), *cells])
    if not rows:
        return ""
    caption = f"Each lab that shows its numbers: {esc(measure.label)} on its own test records."
    return table(caption, ["Lab", "Should it join?", *(title for title, _ in ways)], rows, text_columns=2)


def rounds(facts: RunFacts) -> str:
    """Return the section with the metric per round."""
    if not facts.makes_model:
        return ""
    measure = facts.measure or _NO_MEASURE
    joint = [(each.number, each.joint) for each in facts.rounds if each.joint is not None]
    mean = [(each.number, each.mean_site) for each in facts.rounds if each.mean_site is not None]
    curves = [
        Curve(label=f"{label} {measure.format(points[-1][1])}", style=style, points=sorted(points))
        for label, style, points in (
            ("joint, all records", "joint", joint),
            ("joint, mean over labs", "mean", mean),
        )
        if points
    ]
    lines = [
        Line(label=f"{label} {measure.format(facts.means[key])}", style=style, value=facts.means[key])
        for label, style, key in _levels(facts)
        if key in facts.means
    ]
    band = [(each.number, *each.spread) for each in facts.rounds if each.spread is not None]
    plot = rounds_plot(curves, lines, metric=measure.label, band=band)
    if not plot:
        return section("rounds", "Round by round", paragraph("No round was evaluated, so there is nothing to plot."))
    better = "Higher" if measure.higher_is_better else "Lower"
    caption = (
        f"{better} is better. The joint model is tested on the labs’ held-out records. “Alone” is what "
        "labs reach by themselves. “Pooled” is a model trained on all records in one place, which is "
        "only possible in a simulation."
    )
    if "local_noise" in facts.means:
        caption += (
            " “Local noise” is the joint model at the same ε had each lab added all the noise by itself: what the "
            "shared noise of this run saved."
        )
    if facts.noised:
        caption += f" {NOISED}"
    caption += f" {_spread_words(facts)}"
    return section("rounds", "Round by round", figure(plot, esc(caption)))


def _spread_words(facts: RunFacts) -> str:
    labs = [each.spread_labs for each in facts.rounds if each.spread is not None]
    if not labs and facts.status == "unfinished":
        return "How far the labs lie apart is known when the run has ended."
    if not labs:
        return (
            f"How far the labs lie apart is not shown: that takes {facts.least_shown} labs or more that show their own "
            "metrics, and none or at least three that do not."
        )
    of = f"{labs[-1]}" if len(set(labs)) == 1 else f"{min(labs)} to {max(labs)}"
    where = "The band" if len(labs) > 1 else "The bar at the end"
    before = "" if len(labs) > 1 else "; in earlier rounds labs sent sums only"
    return f"{where} reaches from the lowest to the highest of the {of} labs that show their own metrics{before}."


def spending(facts: RunFacts) -> str:
    """Return the section with epsilon per lab against its budget."""
    plot = spend_plot([_spend(lab) for lab in facts.labs])
    if not plot and facts.status == "unfinished":
        return ""
    if not plot:
        infinite = any(lab.epsilon_study == math.inf for lab in facts.labs)
        words = "Every ε is infinite: there is no guarantee to draw." if infinite else "This run recorded no spending."
        return section("spending", "Privacy spent", paragraph(words))
    caption = (
        "ε per lab as the lab’s ledger enforces it, by a rule that also holds for studies chosen after seeing results "
        "(Rényi filter). It is more than the ε of one study alone. A study that would pass a lab’s budget is refused."
    )
    return section("spending", "Privacy spent", figure(plot, caption))


def labs(facts: RunFacts) -> str:
    """Return the table with a line per lab."""
    if not facts.labs:
        return section("labs", "Lab by lab", paragraph("This run names no labs."))
    if facts.status == "unfinished":
        return section(
            "labs", "Lab by lab", paragraph("What single labs reach and spend is known when the run has ended.")
        )
    if not facts.makes_model:
        return _labs_of_statistics(facts)
    measure = facts.measure or _NO_MEASURE
    verdicts = [judge_lab(measure, lab.scores, private=facts.private) for lab in facts.labs]
    rows = [_lab_row(facts, lab, measure, *verdict) for lab, verdict in zip(facts.labs, verdicts, strict=True)]
    head = [
        "Lab",
        "Joining pays?",
        "Records<br>train / test",
        *(["Alone, same privacy", "Alone without privacy"] if facts.private else ["Alone"]),
        "Joint",
        *_EPSILON_HEADS,
    ]
    caption = f"Each model’s {esc(measure.label)} on the lab’s own test records."
    return section(
        "labs",
        "Lab by lab",
        paragraph(
            "Labs that let no exact metrics leave show no numbers of their own: theirs are in the noised sums only."
            if facts.noised
            else _tally(facts, measure, verdicts)
        ),
        withheld(facts),
        table(caption, head, rows, text_columns=2),
        paragraph(f'<span class="muted">{_WHICH_EPSILON}</span>'),
    )


def _labs_of_statistics(facts: RunFacts) -> str:
    rows = [[name(lab.site), DASH if lab.train is None else f"{lab.train:,}", *_epsilons(lab)] for lab in facts.labs]
    head = ["Lab", "Records", *_EPSILON_HEADS]
    return section(
        "labs",
        "Lab by lab",
        table("The training records that each lab’s sums are of, and what they cost.", head, rows),
        paragraph(f'<span class="muted">{_WHICH_EPSILON}</span>'),
    )


def _epsilons(lab: LabFacts) -> list[str]:
    return [
        DASH if value is None else epsilon_words(value)
        for value in (lab.epsilon_study, lab.epsilon_total, lab.epsilon_enforced, lab.epsilon_budget)
    ]


def _spend(lab: LabFacts) -> Spend:
    """The lab's spending as its ledger counts it; as if fixed in advance where the run does not say."""
    total, study = lab.epsilon_enforced, lab.epsilon_study
    if total is None or (study is not None and math.isinf(study)):
        return Spend(site=lab.site, study=study, total=lab.epsilon_total, budget=lab.epsilon_budget)
    before = min(lab.epsilon_before or 0.0, total)
    return Spend(site=lab.site, study=total - before, total=total, budget=lab.epsilon_budget)


def _levels(facts: RunFacts) -> list[tuple[str, str, str]]:
    """The level lines of the plot as label, style and key; without privacy there is one way to be alone."""
    if not facts.private:
        return [
            ("alone (mean)", "alone", facts.alone_column),
            ("joint, adapted (mean)", "personal", "personalised_mean_site"),
            ("pooled", "pooled", "pooled"),
        ]
    return [
        ("alone, same privacy (mean)", "alone", "local_mean_site"),
        ("alone, no privacy (mean)", "bare", "local_no_dp_mean_site"),
        ("joint, adapted (mean)", "personal", "personalised_mean_site"),
        ("pooled, no privacy", "pooled", "pooled"),
        ("pooled, same privacy", "pooled-dp", "pooled_dp"),
        ("joint, local noise", "local-noise", "local_noise"),
    ]


def _status_box(facts: RunFacts) -> str:
    if facts.status == "completed":
        return ""
    reason = paragraph(f"Reason: {esc(facts.reason)}") if facts.reason else ""
    if facts.status == "aborted":
        body = reason or paragraph("The run gives no reason; the audit log says which step failed.")
        return box("danger", "This run was aborted. Its numbers are not a result.", body)
    if facts.status == "unfinished":
        body = paragraph("It is still going, or it was cut off. What it had written by then is shown.")
        return box("caution", "This run left no readable summary.", reason + body)
    if facts.status == "stopped_by_budget":
        body = reason or paragraph("A lab’s privacy budget would have been passed by another round.")
        return box("caution", "This run stopped early to keep within a privacy budget.", body)
    return box("caution", "This run’s state is not known to this report.", reason)


def _tiles(facts: RunFacts, measure: Measure) -> str:
    shown = [("Joint model", "federated_mean_site", "mean over the labs")]
    if facts.noised:
        shown = [("Joint model", "federated", "all test records"), *shown]
    if facts.private:
        shown += [
            ("Alone, same privacy", "local_mean_site", "mean over the labs"),
            ("Alone, no privacy", "local_no_dp_mean_site", "mean over the labs; not to be released"),
            ("Joint, adapted by each lab", "personalised_mean_site", "mean over the labs; not to be released"),
            ("Pooled, no privacy", "pooled", "all records in one place"),
        ]
    else:
        shown += [
            ("Alone", facts.alone_column, "mean over the labs"),
            ("Joint, adapted by each lab", "personalised_mean_site", "mean over the labs"),
            ("Pooled", "pooled", "all records in one place"),
        ]
    tiles = [
        tile(f"{label}<br>{esc(measure.label)}", measure.format(facts.means[key]), remark + _noise(facts, measure, key))
        for label, key, remark in shown
        if key in facts.means
    ]
    if facts.worst is not None:
        site, value = facts.worst
        tiles.append(tile(f"Joint model, worst lab<br>{esc(measure.label)}", measure.format(value), esc(site)))
    return f'<div class="tiles">{"".join([*tiles, _epsilon_tile(facts)])}</div>'


def _noise(facts: RunFacts, measure: Measure, key: str) -> str:
    """Return what the noise may have done to a tile's number."""
    if not facts.noised or key not in ("federated", "federated_mean_site"):
        return ""
    return f"; noise ± {measure.format(facts.noise[key])}" if key in facts.noise else "; with noise"


def _epsilon_tile(facts: RunFacts) -> str:
    spent = [lab.epsilon_study for lab in facts.labs if lab.epsilon_study is not None]
    spent = spent or [each.epsilon_max for each in facts.rounds[-1:] if each.epsilon_max is not None]
    if not spent:
        return ""
    remark = "no guarantee" if math.isinf(max(spent)) else "the most that any lab spent here; less is more private"
    return tile("Privacy spent (ε)<br>this study", epsilon_words(max(spent)), remark)


def _lab_row(facts: RunFacts, lab: LabFacts, measure: Measure, worth: Worth, remark: str) -> list[str]:
    def score(value: float | None, column: str) -> str:
        return measure.format(value) if value is not None else _absent(lab, column)

    records = _absent(lab, "records")
    if lab.train is not None or lab.holdout is not None:
        records = " / ".join("–" if value is None else f"{value:,}" for value in (lab.train, lab.holdout))
    alone = [score(lab.scores.alone, "local"), score(lab.scores.alone_no_dp, "local_no_dp")]
    if not facts.private:
        alone = alone[:1] if facts.alone_column == "local_mean_site" else alone[1:]
    below = f'<span class="remark">{esc(remark)}</span>' if remark else ""
    return [
        name(lab.site),
        _worth_cell(lab, worth) + below,
        records,
        *alone,
        score(lab.scores.joint, "federated"),
        *_epsilons(lab),
    ]


def _worth_cell(lab: LabFacts, worth: Worth) -> str:
    if worth is Worth.UNKNOWN:
        return NOT_SHOWN if lab.hidden else DASH
    return f'<span class="worth {worth.value.replace(" ", "-")}">{worth.value}</span>'


def _absent(lab: LabFacts, column: str) -> str:
    return NOT_SHOWN if column in lab.hidden else DASH


def _tally(facts: RunFacts, measure: Measure, verdicts: list[tuple[Worth, str]]) -> str:
    known = [worth for worth, _ in verdicts if worth is not Worth.UNKNOWN]
    if not known:
        return "No lab shows numbers that can be compared."
    rival = "training alone with the same privacy" if facts.private else "training alone"
    words = (
        f"Of {counted(len(known), 'lab')} that can be compared with {rival}: joining pays for "
        f"{known.count(Worth.YES)}{_adapting(verdicts)}, alone does as well for {known.count(Worth.AS_WELL)}, "
        f"and alone does better for {known.count(Worth.NO)}."
    )
    bare = [lab.scores.compare(measure, "joint", "alone_no_dp") for lab in facts.labs]
    if not facts.private or set(bare) == {Worth.UNKNOWN}:
        return words
    return f"{words} Alone without privacy does better than joining for {bare.count(Worth.NO)}."


def _adapting(verdicts: list[tuple[Worth, str]]) -> str:
    number = sum(verdict == (Worth.YES, ADAPTED) for verdict in verdicts)
    return f" ({number} of them only with the joint model adapted to their own records)" if number else ""


def counted(number: int, noun: str) -> str:
    """Return a number of things.

    >>> counted(1, "lab"), counted(1200, "round")
    ('1 lab', '1,200 rounds')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
