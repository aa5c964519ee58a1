"""The site operator's sections: what each lab did, what was measured for it, what left it, what to do next."""

import math
import re

from fedsci.reporting.audit_facts import AuditFacts, survivors_of
from fedsci.reporting.burndown import burndown_of
from fedsci.reporting.facts import LabFacts, RunFacts
from fedsci.reporting.page import epsilon_words, esc, facts_list, name, paragraph, section, table
from fedsci.reporting.participation import hint, lost, missed, rounds_words
from fedsci.reporting.running import duration_words, size_words
from fedsci.reporting.verdict import Worth, judge_lab, measure_named
from fedsci.reporting.view_plots import participation_plot

_SAFE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_TIGHT = 0.1
"""A part of the budget; where less is left the lab is told."""


def anchors(facts: RunFacts) -> dict[str, str]:
    """Return an anchor for each lab: its name, where that is safe in an address."""
    return {
        lab.site: f"lab-{lab.site}" if _SAFE.fullmatch(lab.site) else f"lab.{number}"
        for number, lab in enumerate(facts.labs, start=1)
    }


def index(facts: RunFacts) -> str:
    """Return links to the labs' own parts."""
    if not facts.labs:
        return paragraph("This run names no labs.")
    places = anchors(facts)
    links = " ".join(f'<a href="#{anchor}">{name(site)}</a>' for site, anchor in places.items())
    return f'<nav class="index" aria-label="Labs"><a href="#operator">all labs</a> {links}</nav>' + _overview(facts)


def _overview(facts: RunFacts) -> str:
    """Return a line per lab; its name leads to all that there is of it."""
    places, away, gone = anchors(facts), missed(facts), lost(facts)
    numbers = {each.number for each in facts.rounds} - gone
    rows = [
        [
            f'<a href="#{places[lab.site]}">{name(lab.site)}</a>',
            _away(facts, lab) or "–",
            f"{len(numbers - away[lab.site])} of {len(numbers)}",
            "–" if (burn := burndown_of(facts, lab)) is None else epsilon_words(max(burn.left, 0.0)),
        ]
        for lab in facts.labs
    ]
    head = ["Lab", "Dropped out", "In the sum of rounds", "ε left"]
    caption = "Choose your lab for what it did, what left it, and what to do next."
    return f'<div class="all-labs">{table(caption, head, rows, text_columns=2)}</div>'


def lab_blocks(facts: RunFacts, audit: AuditFacts | None) -> list[str]:
    """Return a section for each lab."""
    places = anchors(facts)
    return [_lab(facts, lab, places[lab.site], audit) for lab in facts.labs]


def _lab(facts: RunFacts, lab: LabFacts, anchor: str, audit: AuditFacts | None) -> str:
    away, gone = missed(facts)[lab.site], lost(facts)
    numbers = sorted({each.number for each in facts.rounds})
    took = len(set(numbers) - away - gone)
    strip = participation_plot(numbers, {lab.site: away}, gone)
    left = "".join(f"<li>{line}</li>" for line in what_left(facts, lab, took, audit))
    todo = "".join(f"<li>{line}</li>" for line in what_next(facts, lab))
    return section(
        anchor,
        name(lab.site),
        facts_list(
            [
                ("In the sum of", f"{took} of {len(set(numbers) - gone)} rounds" if numbers else ""),
                ("Dropped out", _away(facts, lab)),
                ("Records", _records(lab)),
                ("Measured for it", _measured(facts, lab)),
                ("Privacy", _privacy(facts, lab)),
                ("Time", _time(facts, took)),
            ]
        ),
        f'<div class="strip">{strip}</div>' if strip and away else "",
        f"<h3>What left this lab</h3><ul>{left}</ul>",
        f"<h3>What to do next</h3><ul>{todo}</ul>",
        style="lab",
    )


def _away(facts: RunFacts, lab: LabFacts) -> str:
    reasons: dict[str, list[str]] = {}
    for site, number, reason in facts.dropped:
        if site == lab.site:
            reasons.setdefault(reason, []).append(number)
    return "<br>".join(
        f"{'round' if len(numbers) == 1 else 'rounds'} {rounds_words(numbers)}: {esc(reason) or 'no reason stated'}"
        for reason, numbers in reasons.items()
    )


def _records(lab: LabFacts) -> str:
    known = [
        f"{value:,} {what}"
        for value, what in ((lab.train, "for training"), (lab.holdout, "for tests"))
        if value is not None
    ]
    return ", ".join(known)


def _measured(facts: RunFacts, lab: LabFacts) -> str:
    if not facts.makes_model:
        return "nothing: this study makes no model"
    measure = facts.measure or measure_named("the metric")
    ways = [
        (words, key)
        for words, key in (
            ("joint model", "joint"),
            *_ways_alone(facts),
            ("joint model adapted to its own records", "personalised"),
        )
        if getattr(lab.scores, key) is not None
    ]
    if not ways:
        why = "too few labs show theirs" if facts.withheld else "not shown, in the averages only"
        return f"{esc(measure.label)}: {why}"
    worth, remark = judge_lab(measure, lab.scores, private=facts.private)
    found = "; ".join(f"{words} {esc(lab.scores.words(measure, key))}" for words, key in ways)
    answer = {Worth.YES: "joining pays", Worth.AS_WELL: "joining makes little difference", Worth.NO: "alone is better"}
    verdict = f"<br><strong>{answer[worth]}</strong>{f', {esc(remark)}' if remark else ''}" if worth in answer else ""
    return f"{esc(measure.label)} on its own test records: {found}{verdict}"


def _ways_alone(facts: RunFacts) -> list[tuple[str, str]]:
    """Return the ways to be alone, with their names in a lab's scores; without privacy there is one."""
    if facts.private:
        return [("alone with the same privacy", "alone"), ("alone without privacy", "alone_no_dp")]
    return [("alone", "alone" if facts.alone_column == "local_mean_site" else "alone_no_dp")]


def _privacy(facts: RunFacts, lab: LabFacts) -> str:
    if lab.epsilon_study is None:
        return ""
    if math.isinf(lab.epsilon_study):
        return "ε infinite: no guarantee"
    words = f"ε {epsilon_words(lab.epsilon_study)} in this study"
    burn = burndown_of(facts, lab)
    if burn is None:
        return words
    words += f"; {epsilon_words(max(burn.left, 0.0))} of {epsilon_words(burn.budget)} left for this data set"
    return words if burn.more is None else f"{words}, enough for {burn.more:,} more like it"


def _time(facts: RunFacts, took: int) -> str:
    seconds = [each.seconds for each in facts.rounds if each.seconds is not None]
    if not seconds or not took:
        return ""
    return (
        f"{duration_words(sum(seconds))} for all rounds, {duration_words(sum(seconds) / len(seconds))} each on average"
    )


def what_left(facts: RunFacts, lab: LabFacts, took: int, audit: AuditFacts | None) -> list[str]:
    """Return what left the lab in this run, a line of HTML each."""
    each = "statistics" if not facts.makes_model else "update"
    rounds = "1 round" if took == 1 else f"{took} rounds"
    size = ""
    turns = sum(one.survivors or 0 for one in facts.rounds)
    if facts.bytes_up and turns:
        size = f", with all messages about {size_words(facts.bytes_up / turns)} a round"
    noise = {"distributed": " with its share of the noise", "local": " with all the noise it needs"}.get(
        facts.mechanism, ""
    )
    lines = []
    if not took:
        lines.append("No update: it was in no round’s sum.")
    elif facts.masked:
        lines.append(f"Its {each}{noise}, masked, in {rounds}: only the sum over labs can be opened{size}.")
    else:
        lines.append(
            f"<strong>Its {each}{noise}, not masked, in {rounds}</strong>: the coordinator could read it{size}."
        )
    if lab.train is not None or lab.holdout is not None:
        lines.append("How many records it trains and tests on.")
    if facts.makes_model and facts.means:
        lines.append(
            "Its test results in the sums over labs, with noise."
            if facts.noised
            else "Its test results in sums, exact."
        )
    own = any(getattr(lab.scores, key) is not None for key in ("joint", "alone", "alone_no_dp", "personalised"))
    if own:
        lines.append("Its own test results, since its policy says <code>show_own_metrics: true</code>.")
    if lab.epsilon_study is not None:
        lines.append("What its ledger charged and what its budget is.")
    if audit is not None:
        receipts = sum(lab.site in survivors_of(entry) for entry in audit.of("round"))
        signed = sum(entry.site == lab.site for entry in audit.entries)
        lines.append(f"Statements that it signed or was named in: {signed}; it is in the log of {receipts} round sums.")
    return [*lines, "No record, and no value of one."]


def what_next(facts: RunFacts, lab: LabFacts) -> list[str]:
    """Return what the lab's operator can do, a line of HTML each."""
    lines = []
    reasons = dict.fromkeys(reason for site, _, reason in facts.dropped if site == lab.site)
    lines += [f"It dropped out ({esc(reason) or 'no reason stated'}): {esc(hint(reason))}." for reason in reasons]
    burn = burndown_of(facts, lab)
    if burn is not None and burn.more == 0:
        lines.append(
            "Its budget does not pay for another study like this: tell the privacy officer "
            "(<code>fedsci privacy budget SITE</code>)."
        )
    elif burn is not None and burn.left < _TIGHT * burn.budget:
        lines.append(
            "Little is left of its budget: tell the privacy officer (<code>fedsci privacy budget SITE</code>)."
        )
    if lab.settled is False:
        lines.append("It did not close its charge, so that of the whole plan stays: see its own log.")
    if facts.status == "unfinished":
        lines.append("The study still runs, or was cut off: leave the daemon on.")
    elif facts.status == "aborted":
        lines.append("The study was aborted: wait for the coordinator to start it again.")
    elif facts.makes_model:
        worth, _ = judge_lab(facts.measure or measure_named("the metric"), lab.scores, private=facts.private)
        if worth is Worth.UNKNOWN:
            lines.append("Test <code>model.safetensors</code> on its own records before using it.")
        elif worth is Worth.NO:
            lines.append("Keep using its own model: on its records it is better than the joint one.")
        elif worth is Worth.AS_WELL:
            lines.append("Its own model and the joint one, <code>model.safetensors</code>, do about as well here.")
        else:
            lines.append("The joint model, <code>model.safetensors</code>, can be used at this lab.")
        if not facts.private:
            lines.append("Do not let the model out: it was made without a privacy guarantee.")
    return lines or ["Nothing."]
