"""The result of a run, as a coordinator reads it in the terminal."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from fedsci.reporting.documents import Documents


def print_results(summary: dict[str, Any], folder: Path, documents: "Documents") -> None:
    """Print one row a lab, the comparison that decides whether joining pays, and where things lie."""
    console = Console(highlight=False)
    metrics, privacy = summary["metrics"], summary["privacy"]
    name, private = metrics["primary"], privacy["mechanism"] != "none"
    noised = metrics.get("noise_deviation") is not None
    # a column in which no lab shows anything says nothing
    shown = [
        (title, key)
        for title, key in _COLUMNS
        if any(values.get(key) is not None for values in metrics["by_site"].values())
    ]
    about = f"{name} on each lab's holdout" if shown else "what each lab spent" if private else "labs"
    table = Table(title=f"{summary['study']}: {about}", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0))
    table.add_column("\nlab")
    for heading in ("\nrecords", *(title for title, _ in shown), *(_SPENT if private else ())):
        table.add_column(heading, justify="right")
    for site, values in metrics["by_site"].items():
        row = [site, str((values["records"] or {}).get("train", "-"))]
        row += [_metric(values.get(key), name) for _, key in shown]
        if private:
            spent = privacy["by_site"].get(site, {})
            row += [_number(spent.get(key)) for key in _SPENT.values()]
        table.add_row(*row)
    console.print(table)
    if summary["status"] == "stopped_by_budget":
        console.print(f"  [bold]stopped early[/]: {summary['reason']}; the model is that of the last paid round")
    for label, key, noise in _ROWS:
        values = metrics.get(key)
        if values is not None and not (noise and noised and values.get(name) is None):
            beside = _noise(metrics.get(noise), name) if noise else ""
            console.print(f"  {label:<48} {_metric(values, name)}{beside}{_interval(metrics, key, name)}")
    _alarms(console, summary)
    worst = (metrics.get("federated_worst_site") or {}).get(name)
    if worst:
        console.print(f"  {'federated, worst lab':<48} {_number(worst['value'], digits=3)}  ({worst['site']})")
    _answer(console, folder)
    if noised:
        console.print("  not every lab lets exact metrics leave: those of the federation carry privacy noise")
    if "virtual_hours" in summary:
        lost = len(summary["secure_aggregation"]["dropped"])
        console.print(f"  virtual time of the rounds {summary['virtual_hours']:.3g} h; a lab was missing {lost} times")
    if private:
        _explain(console, privacy | {"scaling": summary.get("scaling")})
        if metrics.get("local_noise") is not None:
            _price_of_local_noise(console, metrics, name)
    else:
        console.print("  [bold red]no privacy guarantee[/]: updates left the labs without noise")
    console.print(f"\nrun        {folder}", soft_wrap=True)
    for what, file in (("report", documents.report), ("statement", documents.statement), ("card", documents.card)):
        if file is not None:
            console.print(f"{what:<9}  {file}", soft_wrap=True)


_ROWS = (
    ("federated, all holdout records", "federated", "noise_deviation"),
    ("federated, mean of labs", "federated_mean_site", "noise_deviation_mean_site"),
    ("alone, mean of labs", "local_mean_site", ""),
    ("alone without privacy, mean of labs", "local_no_dp_mean_site", ""),
    ("federated, adapted by each lab, mean of labs", "personalised_mean_site", ""),
    ("pooled data, no privacy", "pooled", ""),
    ("pooled data, same epsilon", "pooled_dp", ""),
    ("federated with local noise, same epsilon", "local_noise", ""),
)


def _alarms(console: Console, summary: dict[str, Any]) -> None:
    lost = [one["round"] for one in summary["alarms"] if one["level"] == "alarm"]
    if not lost:
        return
    console.print(f"  [bold red]{len(lost)} rounds given up[/]: no honest labs have such a sum")
    blame = summary["blame"] or {"named": [], "suspects": []}
    if blame["named"]:
        console.print(f"  left out as the source, to be asked: {', '.join(blame['named'])}", markup=False)
    if blame["suspects"]:
        from fedsci.coordinator.blame import suspicion

        words = suspicion(blame["suspects"], blame.get("alone", blame["suspects"]))
        console.print(f"  not found: {words}", markup=False)


def _answer(console: Console, folder: Path) -> None:
    """Print which model the labs use, if each has its own, and whether a lab should join, in the report's words."""
    from fedsci.reporting.facts import facts_of
    from fedsci.reporting.results import OWN_LAYERS
    from fedsci.reporting.run_folder import read_run_folder
    from fedsci.reporting.verdict import Worth, judge

    facts = facts_of(read_run_folder(folder))
    if facts.own_layers:
        console.print(_filled(OWN_LAYERS, console), soft_wrap=True)
    if facts.measure is None or facts.status not in ("completed", "stopped_by_budget"):
        return
    verdict = judge(facts.measure, facts.scores, private=facts.private, noised=facts.noised)
    if verdict.worth is not Worth.UNKNOWN:
        console.print(f"  [bold]Should a lab join? {verdict.headline}[/]")
        console.print(_filled(" ".join(verdict.sentences), console), soft_wrap=True)


def _filled(words: str, console: Console) -> str:
    return textwrap.fill(words, min(100, console.width), initial_indent="  ", subsequent_indent="  ")


def _interval(metrics: dict[str, Any], key: str, name: str) -> str:
    """Return the 95 % interval of a number as it stands beside it, where there is one."""
    ends = ((metrics.get("intervals") or {}).get(key) or {}).get(name)
    return f"  ({_number(ends[0], digits=3)} to {_number(ends[1], digits=3)})" if ends else ""


def _explain(console: Console, privacy: dict[str, Any]) -> None:
    for line in (
        "",
        f"Epsilon is per {privacy['unit']} (add or remove one), at delta {privacy['delta']:g}, "
        f"{privacy['mechanism']} noise.",
        "  study     this study" + (", with what measured its scaling" if privacy["scaling"] else ""),
        "  planned   all studies of this data so far, had all been fixed in advance",
        "  enforced  the same by the ledger's rule, which also holds for studies chosen",
        "            after seeing results; this is what the budget is compared with",
    ):
        console.print(f"  {line}", soft_wrap=True)


def _price_of_local_noise(console: Console, metrics: dict[str, Any], name: str) -> None:
    ours, local = metrics["federated"], metrics["local_noise"]
    if ours is not None and ours.get(name) is not None and local.get(name) is not None:
        console.print(
            f"\n  Had every lab added all noise itself (local noise, same epsilon): {name} {_metric(local, name)}, "
            f"not {_metric(ours, name)}.",
            soft_wrap=True,
        )


_COLUMNS = (
    ("\nfederated", "federated"),
    ("\nalone", "local"),
    ("alone\nno DP", "local_no_dp"),
    ("\nadapted", "personalised"),
)
_SPENT = {
    "epsilon\nstudy": "epsilon_spent_study",
    "in all\nplanned": "epsilon_spent_total",
    "in all\nenforced": "epsilon_enforced_total",
    "\nbudget": "epsilon_budget",
}


def _metric(values: dict[str, float | None] | None, name: str) -> str:
    if values is None:
        return "not shown"
    return _number(values.get(name), digits=3)


def _noise(deviation: dict[str, float] | None, name: str) -> str:
    """Return the noise of a metric as it stands beside it; its deviation is not known for every metric."""
    if deviation is None:
        return ""
    return f" +- {deviation[name]:.3f} (noise)" if name in deviation else " (with noise)"


def _number(value: float | str | None, *, digits: int = 2) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.{digits}f}"
