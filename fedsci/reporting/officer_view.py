"""The privacy officer's sections: what is left of each budget, who allowed and refused what, and what the log holds."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from fedsci.reporting.audit_facts import AuditFacts, CheckpointFacts, Entry
from fedsci.reporting.burndown import Burndown, burndown_of, study_spend
from fedsci.reporting.facts import RunFacts
from fedsci.reporting.page import (
    DASH,
    box,
    epsilon_words,
    esc,
    facts_list,
    figure,
    name,
    paragraph,
    section,
    table,
)
from fedsci.reporting.plots import Curve, Line, rounds_plot
from fedsci.reporting.run_folder import count, epsilon, mapping, text
from fedsci.reporting.view_plots import Burn, burn_plot, burn_remark

_MOST_LINES = 8


def burn_down(facts: RunFacts) -> str:
    """Return what is left of each lab's budget, round by round, and where it ends."""
    burns = [found for lab in facts.labs if (found := burndown_of(facts, lab)) is not None]
    parts = [_study(facts)]
    if burns:
        parts += [_plot(facts, burns), _table(facts, burns)]
    elif facts.private and facts.status == "unfinished":
        parts.append(paragraph("What each lab has left of its budget is known when the run has ended."))
    elif facts.private:
        parts.append(paragraph("This run does not say what its labs’ ledgers hold, so no burn-down can be drawn."))
    if not any(parts):
        parts = [paragraph("Without a privacy mechanism no budget is charged.")]
    return section("burndown", "Budgets: what is left", *parts)


def _study(facts: RunFacts) -> str:
    """Return the study's own epsilon by round, against what its noise was sized for."""
    spend = study_spend(facts)
    if spend is None:
        return ""
    number, value = spend.points[-1]
    curves = [Curve(label=f"spent {epsilon_words(value)}", style="joint", points=[(0.0, 0.0), *spend.points])]
    words = f"The study’s own ε, by its accountant: {epsilon_words(value)} after round {number:g}."
    if spend.projected is not None:
        end, planned = spend.projected
        curves.append(
            Curve(label=f"projected {epsilon_words(planned)}", style="mean", points=[(number, value), (end, planned)])
        )
        words += (
            f" Projected end: {epsilon_words(planned)} after round {end:g} of {end:g}; the noise was sized for that, "
            "so it is not passed."
        )
    elif facts.rounds_planned and number < facts.rounds_planned:
        words += f" It ended there; {facts.rounds_planned} rounds were planned."
    lines = []
    if spend.ceiling is not None:
        lines = [Line(label=f"planned for {epsilon_words(spend.ceiling)}", style="alone", value=spend.ceiling)]
    return figure(rounds_plot(curves, lines, metric="ε"), esc(words))


def _plot(facts: RunFacts, burns: Sequence[Burndown]) -> str:
    groups: dict[tuple[float, tuple[tuple[float, float], ...], object], list[Burndown]] = {}
    for burn in burns:
        key = (burn.budget, tuple((n, round(value, 6)) for n, value in burn.points), burn.projected)
        groups.setdefault(key, []).append(burn)
    least_first = sorted(groups.values(), key=lambda group: group[0].left)
    drawn = [
        Burn(
            label=group[0].site if len(group) == 1 else f"{len(group)} labs",
            ceiling=group[0].budget,
            points=group[0].points,
            projected=group[0].projected,
            remark=burn_remark(group[0].left, group[0].budget),
        )
        for group in least_first[:_MOST_LINES]
    ]
    planned = facts.rounds_planned or 0
    more = "" if len(least_first) <= _MOST_LINES else f" The {_MOST_LINES} with the least left are drawn."
    ahead = " Dashed: charged for the whole plan, and not yet settled." if any(b.projected for b in drawn) else ""
    caption = (
        f"ε left of each lab’s lifetime budget for {esc(facts.dataset or 'its data set')}, as its ledger enforces it; "
        f"the dot is the budget itself. The first charge costs more than later ones.{ahead}{more}"
    )
    return figure(burn_plot(drawn, planned=planned), caption)


def _table(facts: RunFacts, burns: Sequence[Burndown]) -> str:
    rows = [
        [
            name(burn.site),
            epsilon_words(burn.budget),
            epsilon_words(max(burn.points[0][1], 0.0)),
            epsilon_words(max(burn.left, 0.0)),
            DASH if burn.more is None else f"{burn.more:,}",
        ]
        for burn in burns
    ]
    head = ["Lab", "Budget ε", "Left before", "Left at the end", "More studies like this"]
    data = esc(facts.dataset or "the data set")
    none = sum(burn.more == 0 for burn in burns)
    warning = ""
    if none:
        labs = "one lab" if none == 1 else f"{none} labs"
        warning = box("caution", f"Not one more study like this fits the budget of {labs}.", "")
    return warning + table(f"Lifetime budgets of {data}, lab by lab.", head, rows)


def permissions(audit: AuditFacts | None) -> str:
    """Return who allowed what: permits, decisions of people, key events; empty without a log."""
    if audit is None:
        return ""
    return section(
        "permissions",
        "Permits, approvals and decisions",
        _listed(audit.of("permit"), "Permits that labs signed.", _PERMIT, "No permit was signed in this run."),
        _listed(audit.of("decision"), "Decisions of people.", _DECISION, "Nothing waited for a person’s decision."),
        _listed(audit.of("key-event"), "What happened to keys.", _KEY_EVENT, ""),
    )


def refusals(audit: AuditFacts | None) -> str:
    """Return what labs refused; empty without a log."""
    if audit is None:
        return ""
    return section("refusals", "Refusals", _listed(audit.of("refusal"), "", _REFUSAL, "No lab refused anything."))


def log(audit: AuditFacts | None) -> str:
    """Return what the log holds, its last checkpoint, and what labs signed that they spent."""
    if audit is None:
        words = (
            "Its numbers rest on the coordinator’s word. Permits, decisions, refusals and what labs signed of their "
            "spending are not recorded with it either."
        )
        return section("log", "Audit log", box("caution", "This run has no audit log.", paragraph(words)))
    kinds: dict[str, int] = {}
    for entry in audit.entries:
        kinds[entry.kind] = kinds.get(entry.kind, 0) + 1
    beyond = len(audit.entries) - (audit.held.size if audit.held else 0)
    return section(
        "log",
        "Audit log",
        _checkpoint(audit),
        facts_list(
            [
                ("Entries", esc(f"{len(audit.entries):,}")),
                ("Of which", esc(", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items())))),
                ("Not yet under a quorum", esc(f"{beyond:,}") if beyond > 0 else ""),
            ]
        ),
        _spends(audit.of("spend")),
    )


def _checkpoint(audit: AuditFacts) -> str:
    if audit.held is None:
        words = "Nobody but the coordinator vouches for the order and number of its entries yet."
        return box("caution", "No checkpoint has held a quorum.", paragraph(words))
    return facts_list(
        [
            ("Last verified checkpoint", esc(f"{audit.held.size:,} entries")),
            ("Root", f"<code>{esc(audit.held.root[:16])}…</code>"),
            ("Cosigned by", esc(_quorum_words(audit.held, audit))),
            ("At", esc(time_words(max(audit.held.cosigned.values(), default=0)))),
        ]
    )


def _quorum_words(held: CheckpointFacts, audit: AuditFacts) -> str:
    of = f" of {audit.sites}" if audit.sites else ""
    needed = f", {audit.quorum} needed" if audit.quorum is not None else ""
    return f"{len(held.cosigned)}{of} labs{needed}"


def time_words(seconds: int) -> str:
    """Return a time for a reader.

    >>> time_words(0), time_words(1_800_000_000)
    ('', '2027-01-15 08:00 UTC')
    """
    if not 0 < seconds < 253_402_300_800:  # the year 10000
        return ""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _spends(entries: Sequence[Entry]) -> str:
    rows = []
    for entry in entries:
        privacy = mapping(entry.body, "privacy")
        spent = _first(privacy, "study", "epsilon_spent_study")
        enforced = _first(privacy, "enforced_total", "epsilon_enforced_total")
        budget = _first(privacy, "budget", "epsilon_budget")
        rounds = count(entry.body.get("rounds", privacy.get("rounds_charged")))
        cells = [DASH if value is None else epsilon_words(value) for value in (spent, enforced, budget)]
        rows.append([name(entry.site), DASH if rounds is None else f"{rounds:,}", *cells])
    if not rows:
        return paragraph("No lab has signed what it spent.")
    head = ["Lab", "Rounds", "ε this study", "ε in all, enforced", "ε budget"]
    return table("What labs signed that they spent.", head, rows)


def _first(values: Mapping[str, object], *keys: str) -> float | None:
    return next((found for key in keys if (found := epsilon(values.get(key))) is not None), None)


_PERMIT = {
    "Lab": ("site",),
    "Rounds": ("rounds",),
    "ε at most": ("epsilon",),
    "δ at most": ("delta",),
    "Least labs": ("min_cohort",),
    "Valid until": ("not_after",),
}
_DECISION = {
    "Asked": ("checkpoint", "before"),
    "Round": ("round",),
    "Who": ("role", "who"),
    "Name": ("name",),
    "Decision": ("decision",),
    "Reason": ("reason",),
    "At": ("at",),
}
_REFUSAL = {
    "Lab": ("site",),
    "Asked": ("action",),
    "Round": ("round",),
    "Kind": ("code",),
    "Said": ("message", "reason"),
}
_KEY_EVENT = {"What": ("what",), "Lab": ("site",), "Key": ("key",)}
_TIMES = {"At", "Valid until"}


def _listed(entries: Sequence[Entry], caption: str, columns: Mapping[str, tuple[str, ...]], nothing: str) -> str:
    """Return statements as a table; columns that no statement has are left out."""
    if not entries:
        return paragraph(nothing) if nothing else ""
    cells = [[_plain(entry.body, heading, keys) for heading, keys in columns.items()] for entry in entries]
    used = [index for index in range(len(columns)) if any(row[index] for row in cells)]
    heads = list(columns)
    rows = [[esc(row[index]) or DASH for index in used] for row in cells]
    return table(caption, [heads[index] for index in used], rows, text_columns=len(used))


def _plain(body: Mapping[str, object], heading: str, keys: tuple[str, ...]) -> str:
    value = next((body[key] for key in keys if body.get(key) is not None), None)
    if isinstance(value, bool) or value is None:
        return ""
    if isinstance(value, int | float):
        if not math.isfinite(value):
            return "∞"
        return (time_words(int(value)) if heading in _TIMES else "") or f"{value:g}"
    shown = text(value)
    if heading in ("Who", "Asked"):
        return shown.replace("_", " ").replace(":", " ")
    return shown if heading != "Key" else f"{shown[:16]}…" if len(shown) > 16 else shown
