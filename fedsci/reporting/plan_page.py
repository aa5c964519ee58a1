"""Writes the page of a privacy plan, for those who must agree to a study: it opens with the network unplugged."""

import math
from pathlib import Path

from fedsci.errors import InputError
from fedsci.privacy.meaning import percent
from fedsci.reporting.earlier_runs import EarlierRun
from fedsci.reporting.page import (
    DASH,
    box,
    epsilon_words,
    esc,
    figure,
    name,
    page,
    paragraph,
    section,
    table,
    tile,
)
from fedsci.reporting.plan_facts import PlanFacts
from fedsci.reporting.plan_words import (
    ABOUT_ACCURACY,
    NOT_ASKED,
    NOTHING_PROVEN,
    WAYS,
    WHICH_EPSILON,
    about_noise,
    about_scaling,
    against_pooled,
    promise,
    refusals,
    trust,
    verdict,
)
from fedsci.reporting.plots import Curve, Line, Spend, rounds_plot, spend_plot
from fedsci.reporting.whole_file import write_whole

_POINTS = 40


def write_plan_page(facts: PlanFacts, target: Path) -> None:
    """Write the page to ``target``, whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    try:
        write_whole(target, render_plan(facts))
    except OSError as error:
        raise InputError(
            f"cannot write {target}: {error.strerror or error}", hint="choose another file with --out"
        ) from None


def render_plan(facts: PlanFacts) -> str:
    """Return the page as text."""
    study = facts.plan.study
    head = "".join(
        [
            '<p class="eyebrow">Privacy plan of a federated study; nothing has been run</p>',
            f"<h1>{name(study.study)}</h1>",
            f'<p class="question">{esc(study.question)}</p>' if study.question else "",
        ]
    )
    parts = [
        f"<header>{head}</header>",
        _promise(facts),
        _labs(facts),
        _rounds(facts),
        _noise(facts),
        _collusion(facts),
        _accuracy(facts),
        section("limits", "What was not asked", paragraph(esc(NOT_ASKED)), _digest(facts)),
    ]
    return page(f"{study.study}: privacy plan", "\n".join(filter(None, parts)))


def _promise(facts: PlanFacts) -> str:
    unit = facts.plan.study.privacy.unit
    tiles = [tile(f"Epsilon of this study<br>one {unit}", epsilon_words(facts.epsilon), "less is more private")]
    if facts.meaning is not None:
        guess, found = facts.meaning.best_guess, facts.meaning.detected
        tiles += [
            tile("Right guesses<br>in or out, at most", percent(guess), "a coin is right 50 %"),
            tile(f"{unit.capitalize()}s found<br>at most", percent(found), "by who accuses wrongly in 1 %"),
        ]
    return section(
        "promise",
        "What is promised",
        paragraph(esc(promise(facts)), *map(esc, (*about_scaling(facts), *trust(facts)))),
        f'<div class="tiles">{"".join(tiles)}</div>',
        "".join(paragraph(esc(sentence)) for sentence in facts.words),
    )


def _labs(facts: PlanFacts) -> str:
    refused = facts.first_refusal is not None
    words = "".join(paragraph(f"{', '.join(map(name, sites))}: {esc(reason)}") for sites, reason in refusals(facts))
    rows, spends = [], []
    for each in facts.forecasts:
        budget = None if each.policy is None else each.policy.epsilon
        numbers = (facts.epsilon, each.spent, each.alone, each.after, budget, each.left_after)
        answer = "fits" if each.stops_after is None else f"stops after round {each.stops_after}"
        if each.refusal is not None:
            answer = f"refused, exit {each.exit_code}"
        style = "yes" if each.refusal is None else "no"
        cells = [DASH if value is None else epsilon_words(value) for value in numbers]
        rows.append([name(each.site), *cells, f'<span class="worth {style}">{answer}</span>'])
        grown = None if each.after is None or each.spent is None else each.after - each.spent
        spends.append(Spend(site=each.site, study=grown, total=each.after, budget=budget))
    head = ["Lab", "ε this study", "ε spent so far", "ε it counts as", "ε after", "ε budget", "ε left", "Answer"]
    plot = spend_plot(spends)
    return section(
        "labs",
        "What each lab would answer",
        box("danger" if refused else "good", esc(verdict(facts)), words),
        table(esc(WHICH_EPSILON), head, rows),
        figure(plot, "Enforced ε after the study against the budget of each lab.") if plot else "",
    )


def _rounds(facts: PlanFacts) -> str:
    if facts.cost is None:
        return ""
    rounds = facts.plan.training.rounds
    numbers = sorted({max(1, round(2 * rounds * at / _POINTS)) for at in range(1, _POINTS + 1)} | {rounds})
    points = [(number, facts.cost.epsilon(number)) for number in numbers]
    curve = Curve(label="ε at this noise", style="joint", points=[each for each in points if math.isfinite(each[1])])
    line = Line(
        label=f"this study, {rounds} rounds: {epsilon_words(facts.epsilon)}", style="pooled", value=facts.epsilon
    )
    rows = [[f"{number}", epsilon_words(value)] for number, value in facts.by_rounds]
    return section(
        "rounds",
        "Epsilon by rounds",
        figure(
            rounds_plot([curve], [line], metric="ε"),
            f"At the noise of this study (noise multiplier {facts.cost.noise_multiplier:.4g}).",
        ),
        table("The same in figures.", ["Rounds", "ε"], rows),
    )


def _noise(facts: PlanFacts) -> str:
    if not facts.by_epsilon:
        return ""
    known = facts.records is not None

    def shown(value: float, pooled: float) -> float:
        length = facts.noise_length(value)
        return value / pooled if length is None else length

    curves = [
        Curve(
            label=label,
            style=style,
            points=[(each.epsilon, shown(getattr(each, key), each.pooled)) for each in facts.by_epsilon],
        )
        for label, style, key in (
            ("local noise", "alone", "local"),
            ("this study", "joint", "this_study"),
            ("pooled data", "pooled", "pooled"),
        )
    ]
    rows = [
        [
            f"{each.epsilon:g}",
            f"{each.noise_multiplier:.4g}",
            *(f"{shown(value, each.pooled):.3g}" for value in (each.this_study, each.local, each.pooled)),
        ]
        for each in facts.by_epsilon
    ]
    measure = "length of the noise, in clipping norms" if known else "noise, relative to pooled data"
    return section(
        "noise",
        "Noise by epsilon",
        figure(rounds_plot(curves, [], metric=measure, across="ε"), esc(WAYS)),
        paragraph(esc(about_noise(facts))),
        table(esc(measure), ["ε", "Noise multiplier", "This study", "Local noise", "Pooled data"], rows),
    )


def _collusion(facts: PlanFacts) -> str:
    if not facts.collusion:
        return ""
    planned = facts.plan.study.privacy.colluding_sites
    rows = [
        [
            esc(row.who) + (" <strong>(planned for)</strong>" if row.colluding == planned else ""),
            *(epsilon_words(value) for value in row.epsilon),
        ]
        for row in facts.collusion
    ]
    head = ["Who looks", f"{facts.plan.min_survivors} labs finish", f"{len(facts.plan.sites)} labs finish"]
    caption = "ε of this study for different onlookers; labs that collude know their own noise."
    infinite = any(math.isinf(value) for row in facts.collusion for value in row.epsilon)
    return section(
        "collusion",
        "Epsilon of this study, for whom",
        table(caption, head, rows),
        paragraph(NOTHING_PROVEN) if infinite else "",
    )


def _accuracy(facts: PlanFacts) -> str:
    rows = [
        [
            esc(run.name),
            epsilon_words(run.epsilon),
            f"{run.rounds}",
            *(DASH if value is None else f"{value:.3f}" for value in _scores(run)),
            esc(against_pooled(run)),
        ]
        for run in facts.earlier
    ]
    head = ["Run", "ε", "Rounds", "Federated", "Pooled", "Pooled, same ε", "Local noise, same ε", "Against pooled"]
    caption = f"Measured by earlier runs of this study: {esc(facts.earlier[-1].metric)}." if rows else ""
    return section("accuracy", "Accuracy", paragraph(esc(ABOUT_ACCURACY)), table(caption, head, rows) if rows else "")


def _scores(run: EarlierRun) -> tuple[float | None, ...]:
    return (run.federated, run.pooled, run.pooled_dp, run.local_noise)


def _digest(facts: PlanFacts) -> str:
    return paragraph(f"Plan digest <code>{esc(facts.plan.digest)}</code>")
