"""The page's last sections: time, traffic, and how to run the study again."""

from collections.abc import Sequence

from fedsci.reporting.facts import RunFacts
from fedsci.reporting.page import box, details, esc, facts_list, paragraph, section, table
from fedsci.reporting.results import NOISED
from fedsci.reporting.verdict import measure_named
from fedsci.reporting.view_plots import bars_plot

_WAYS = {
    "federated_mean_site": "Joint, mean over labs",
    "federated": "Joint, all test records",
    "local_mean_site": "Alone, mean over labs",
    "personalised_mean_site": "Joint, adapted by each lab, mean over labs",
    "local_no_dp_mean_site": "Alone without privacy, mean over labs",
    "pooled": "Pooled",
    "pooled_dp": "Pooled, same privacy",
    "local_noise": "Joint with local noise, same privacy",
}
_LOGGED = "<code>fedsci verify</code> checks the signed log behind it, offline."
_NO_LOG = "This run has no audit log, so nobody can check afterwards what it wrote."
_ENGINES = {
    "local": "simulated labs, in one process",
    "ray": "simulated labs, on Ray",
    "flower": "labs connected over the network",
}


def every_metric(facts: RunFacts) -> str:
    """Return the table of all metrics, not only the one that decides."""
    columns = sorted({metric for values in facts.all_metrics.values() for metric in values})
    if not columns:
        return ""
    rows = [
        [words, *(measure_named(metric).format(values[metric]) if metric in values else "–" for metric in columns)]
        for key, words in _WAYS.items()
        if (values := facts.all_metrics.get(key))
    ]
    caption = f"Held-out records only.{f' {NOISED}' if facts.noised else ''}"
    return section("metrics", "All metrics", table(caption, ["Model", *map(esc, columns)], rows))


def time_and_traffic(facts: RunFacts) -> str:
    """Return how long it took and how much was sent."""
    hours = facts.virtual_hours
    parts = [(f"Time, {step}", duration_words(seconds)) for step, seconds in facts.seconds.items() if step != "total"]
    pairs = [
        ("Time in total", duration_words(facts.seconds["total"]) if "total" in facts.seconds else ""),
        *parts,
        ("Virtual time of the rounds", "" if hours is None else duration_words(hours * 3600)),
        ("Sent by the labs", _traffic(facts.bytes_up, facts)),
        ("Sent to the labs", _traffic(facts.bytes_down, facts)),
    ]
    known, by_round = any(value for _, value in pairs), _by_round(facts)
    if not known and not by_round:
        return section("time", "Time and traffic", paragraph("This run recorded neither."))
    return section("time", "Time and traffic", facts_list(pairs) if known else "", by_round)


def _by_round(facts: RunFacts) -> str:
    """Return how long each round took and how much it sent."""
    time = [(each.number, each.seconds) for each in facts.rounds if each.seconds is not None]
    size = [(each.number, each.size_bytes) for each in facts.rounds if each.size_bytes is not None]
    plots = [
        bars_plot(time, title="time", words=duration_words),
        bars_plot(size, title="sent, up and down", words=size_words),
    ]
    if not any(plots) or len(facts.rounds) < 2:
        return ""
    return f'<div class="plots">{"".join(f"<figure>{plot}</figure>" for plot in plots if plot)}</div>'


def how_it_ran(facts: RunFacts, plan_text: str, notes: Sequence[str], *, logged: bool) -> str:
    """Return what is needed to run it again: digest, seed, versions and the plan itself; ``logged``: it has a log."""
    missing = "".join(f"<li>{esc(note)}</li>" for note in notes)
    return section(
        "how",
        "How it was run",
        box("caution", "Some of this run’s files are missing or damaged.", f"<ul>{missing}</ul>") if notes else "",
        facts_list(
            [
                ("Plan digest", f"<code>{esc(facts.plan_digest)}</code>" if facts.plan_digest else ""),
                ("Strategy", esc(facts.strategy)),
                ("Seed", esc(facts.seed)),
                ("Engine", esc(_ENGINES.get(facts.engine, facts.engine))),
                ("Versions", esc(", ".join(f"{what} {version}" for what, version in facts.versions.items()))),
            ]
        ),
        details("The full plan", f"<pre>{esc(plan_text)}</pre>") if plan_text else "",
        paragraph(
            f'<span class="muted">This page only retells what the run wrote. {_LOGGED if logged else _NO_LOG}</span>'
        ),
    )


def duration_words(seconds: float) -> str:
    """Return a length of time in words.

    >>> [duration_words(value) for value in (0.02, 12.34, 600, 7300)]
    ['0.02 s', '12.3 s', '10 min 0 s', '2 h 1 min']
    """
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes = int(seconds // 60)
    return f"{minutes} min {int(seconds % 60)} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def size_words(size_bytes: float) -> str:
    """Return a number of bytes in words.

    >>> [size_words(value) for value in (12, 1500, 2_000_000)]
    ['12 B', '1.5 kB', '2 MB']
    """
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.3g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:,.3g} TB"


def _traffic(size_bytes: int | None, facts: RunFacts) -> str:
    if size_bytes is None:
        return ""
    turns = len(facts.labs) * (facts.rounds_completed or 0)
    each = f", about {size_words(size_bytes / turns)} per lab and round" if turns and size_bytes else ""
    return f"{size_words(size_bytes)}{each}"
