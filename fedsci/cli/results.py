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
    table = Table(title=f"{summary['study']}: {name} on each lab's holdout", title_justify="left")
    table.add_column("lab")
    table.add_column("records", justify="right")
    table.add_column("federated", justify="right")
    table.add_column("alone", justify="right")
    if private:
        table.add_column("no DP", justify="right")
        table.add_column("epsilon", justify="right")
        table.add_column("in all", justify="right")
        table.add_column("budget", justify="right")
    for site, values in metrics["by_site"].items():
        row = [site, str((values["records"] or {}).get("train", "-"))]
        row += [_metric(values["federated"], name), _metric(values["local"], name)]
        if private:
            spent = privacy["by_site"].get(site, {})
            row.append(_metric(values["local_no_dp"], name))
            row += [_number(spent.get(key)) for key in _SPENT]
        table.add_row(*row)
    console.print(table)
    if summary["status"] == "stopped_by_budget":
        console.print(f"  [bold]stopped early[/]: {summary['reason']}; the model is that of the last paid round")
    rows = [
        ("federated, all holdout records", metrics["federated"]),
        ("federated, mean of labs", metrics["federated_mean_site"]),
        ("alone, mean of labs", metrics["local_mean_site"]),
        ("alone without privacy, mean of labs", metrics["local_no_dp_mean_site"]),
        ("pooled data, no privacy", metrics["pooled"]),
        ("pooled data, same epsilon", metrics["pooled_dp"]),
    ]
    for label, values in rows:
        if values is not None:
            console.print(f"  {label:<38} {_metric(values, name)}")
    if private:
        note = f"epsilon is per record (add or remove one), at delta {privacy['delta']:g}, {privacy['mechanism']} noise"
        console.print(f"  {note}")
        console.print("  no DP: the lab alone without privacy; epsilon: this study; in all: all studies so far")
        console.print("  in all is as if all had been fixed in advance; what is enforced: fedsci privacy budget SITE")
    else:
        console.print("  [bold red]no privacy guarantee[/]: updates left the labs without noise")
    console.print(f"\nrun     {folder}")
    if page is not None:
        console.print(f"report  {page}")


_SPENT = ("epsilon_spent_study", "epsilon_spent_total", "epsilon_budget")


def _metric(values: dict[str, float | None] | None, name: str) -> str:
    if values is None:
        return "not shown"
    return _number(values.get(name), digits=3)


def _number(value: float | str | None, *, digits: int = 2) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.{digits}f}"
