"""The result of a run, as a coordinator reads it in the terminal."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def print_results(summary: dict[str, Any], folder: Path, page: Path | None) -> None:
    """Print one row a lab, the comparison that decides whether joining pays, and where things lie."""
    console = Console(highlight=False)
    metrics, privacy = summary["metrics"], summary["privacy"]
    name, private = metrics["primary"], privacy["mechanism"] != "none"
    noised = metrics.get("noise_deviation") is not None
    # a column in which no lab shows anything says nothing
    shown = [
        (title, key)
        for title, key in _COLUMNS
        if any(values[key] is not None for values in metrics["by_site"].values())
    ]
    about = f"{name} on each lab's holdout" if shown else "what each lab spent" if private else "labs"
    table = Table(title=f"{summary['study']}: {about}", title_justify="left")
    table.add_column("lab")
    for title in ("records", *(title for title, _ in shown), *(("epsilon", "in all", "budget") if private else ())):
        table.add_column(title, justify="right")
    for site, values in metrics["by_site"].items():
        row = [site, str((values["records"] or {}).get("train", "-"))]
        row += [_metric(values[key], name) for _, key in shown]
        if private:
            spent = privacy["by_site"].get(site, {})
            row += [_number(spent.get(key)) for key in _SPENT]
        table.add_row(*row)
    console.print(table)
    rows = [
        ("federated, all holdout records", metrics["federated"], metrics.get("noise_deviation")),
        ("federated, mean of labs", metrics["federated_mean_site"], metrics.get("noise_deviation_mean_site")),
        ("alone, mean of labs", metrics["local_mean_site"], None),
        ("alone without privacy, mean of labs", metrics["local_no_dp_mean_site"], None),
        ("pooled data, no privacy", metrics["pooled"], None),
        ("pooled data, same epsilon", metrics["pooled_dp"], None),
    ]
    for label, values, noise in rows:
        if values is not None and not (noised and values.get(name) is None):
            console.print(f"  {label:<38} {_metric(values, name)}{_noise(noise, name)}")
    if noised:
        console.print("  not every lab lets exact metrics leave: those of the federation carry privacy noise, and")
        console.print("  what a lab reaches alone is not told, so whether joining pays cannot be said here")
    if private:
        note = f"epsilon is per record (add or remove one), at delta {privacy['delta']:g}, {privacy['mechanism']} noise"
        console.print(f"  {note}")
        bare = "no DP: the lab alone without privacy; " if ("no DP", "local_no_dp") in shown else ""
        console.print(f"  {bare}epsilon: this study; in all: all studies so far")
    else:
        console.print("  [bold red]no privacy guarantee[/]: updates left the labs without noise")
    console.print(f"\nrun     {folder}")
    if page is not None:
        console.print(f"report  {page}")


_COLUMNS = (("federated", "federated"), ("alone", "local"), ("no DP", "local_no_dp"))
_SPENT = ("epsilon_spent_study", "epsilon_spent_total", "epsilon_budget")


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
