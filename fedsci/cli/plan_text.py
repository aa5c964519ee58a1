"""A study's privacy plan, as an officer reads it in the terminal."""

import math
from pathlib import Path
from textwrap import fill

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedsci.reporting.page import epsilon_words
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

_BAR = 32
_WIDTH = 100


def print_plan(facts: PlanFacts, page: Path | None) -> None:
    """Print the plan: promise, verdict of each lab, rounds, noise, colluders, earlier runs."""
    console = Console(highlight=False)
    study, training = facts.plan.study, facts.plan.training
    rate = "all records" if training.sample_rate == 1 else f"each record with probability {training.sample_rate:g}"
    _say(console, f"{study.study}: {len(facts.plan.sites)} labs, {training.rounds} rounds, {rate} in each step")
    _heading(console, "What is promised")
    _say(console, promise(facts), *about_scaling(facts), *trust(facts))
    _heading(console, f"What it means for one {study.privacy.unit}")
    _say(console, *facts.words)
    _heading(console, "What each lab would answer")
    _sites(console, facts)
    if facts.cost is not None:
        _heading(console, f"Epsilon by rounds, at this noise (noise multiplier {facts.cost.noise_multiplier:.4g})")
        _rounds(console, facts)
        _heading(console, "Noise by epsilon")
        _noise(console, facts)
    if facts.collusion:
        _heading(console, "Epsilon of this study, for whom")
        _collusion(console, facts)
    _heading(console, "Accuracy")
    _say(console, ABOUT_ACCURACY)
    _earlier(console, facts)
    _say(console, "", NOT_ASKED)
    if page is not None:
        console.print(f"\npage  {page}", soft_wrap=True)


def _sites(console: Console, facts: PlanFacts) -> None:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0))
    table.add_column("\nlab")
    for heading in ("this\nstudy", "spent\nso far", "counts\nas", "\nafter", "\nbudget", "\nleft"):
        table.add_column(heading, justify="right")
    table.add_column("\nanswer")
    for each in facts.forecasts:
        budget = None if each.policy is None else each.policy.epsilon
        numbers = (facts.epsilon, each.spent, each.alone, each.after, budget, each.left_after)
        answer = "fits" if each.stops_after is None else f"stops after round {each.stops_after}"
        if each.refusal is not None:
            answer = f"[bold red]refused[/], exit {each.exit_code}"
        table.add_row(each.site, *("-" if value is None else _number(value) for value in numbers), answer)
    console.print(table)
    _say(console, WHICH_EPSILON)
    _say(console, *(f"{', '.join(sites)}: {text}" for sites, text in refusals(facts)))
    _say(console, verdict(facts))


def _rounds(console: Console, facts: PlanFacts) -> None:
    largest = max(epsilon for _, epsilon in facts.by_rounds if math.isfinite(epsilon))
    for rounds, epsilon in facts.by_rounds:
        bar = "█" * max(1, round(_BAR * min(1.0, epsilon / largest)))
        mark = "  this study" if rounds == facts.plan.training.rounds else ""
        console.print(f"  {rounds:>6} rounds  {_number(epsilon):>7}  {bar}{mark}", soft_wrap=True)


def _noise(console: Console, facts: PlanFacts) -> None:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0))
    for heading in ("\nepsilon", "noise\nmultiplier", "this\nstudy", "local\nnoise", "pooled\ndata"):
        table.add_column(heading, justify="right")
    for each in facts.by_epsilon:
        lengths = [facts.noise_length(value) for value in (each.this_study, each.local, each.pooled)]
        if None in lengths:
            lengths = [each.this_study / each.pooled, each.local / each.pooled, 1.0]
        here = " *" if each.epsilon == facts.plan.study.privacy.epsilon else "  "
        cells = (f"{value:.3g}" for value in lengths if value is not None)
        table.add_row(f"{each.epsilon:g}{here}", f"{each.noise_multiplier:.4g}", *cells)
    console.print(table)
    _say(console, about_noise(facts), WAYS)


def _collusion(console: Console, facts: PlanFacts) -> None:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0))
    table.add_column("\nwho looks")
    for labs in (facts.plan.min_survivors, len(facts.plan.sites)):
        table.add_column(f"{labs} labs\nfinish", justify="right")
    for row in facts.collusion:
        mark = " (planned for)" if row.colluding == facts.plan.study.privacy.colluding_sites else ""
        table.add_row(row.who + mark, *(_number(value) for value in row.epsilon))
    console.print(table)
    if any(math.isinf(value) for row in facts.collusion for value in row.epsilon):
        _say(console, NOTHING_PROVEN)


def _earlier(console: Console, facts: PlanFacts) -> None:
    if not facts.earlier:
        return
    metric = facts.earlier[-1].metric
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0), title=f"earlier runs: {metric}", title_justify="left")
    table.add_column("\nrun", overflow="fold")
    for heading in (
        "\nepsilon",
        "\nrounds",
        "feder-\nated",
        "pooled",
        "pooled,\nDP",
        "local\nnoise",
        "against\npooled",
    ):
        table.add_column(heading, justify="right")
    for run in facts.earlier:
        values = (run.federated, run.pooled, run.pooled_dp, run.local_noise)
        table.add_row(
            run.name,
            _number(run.epsilon),
            str(run.rounds),
            *("-" if value is None else f"{value:.3f}" for value in values),
            against_pooled(run),
        )
    console.print(table)


def _heading(console: Console, words: str) -> None:
    console.print(f"\n[bold]{words}[/]", soft_wrap=True)


def _say(console: Console, *sentences: str) -> None:
    for sentence in sentences:
        lines = fill(sentence, width=max(40, min(console.width, _WIDTH)), initial_indent="  ", subsequent_indent="  ")
        console.print(Text(lines), soft_wrap=True)


def _number(value: float) -> str:
    return epsilon_words(value)
