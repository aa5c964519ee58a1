"""``fedsci tune``: several settings of a study, every try paid for."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fedsci.cli.run import AsJson, Engine, EngineOption, Out, Overrides, Quiet, Seed, State
from fedsci.errors import FedsciError

Grid = Annotated[
    list[str], typer.Option("--try", help="Values to try: --try training.learning_rate=0.1,0.5", metavar="KEY=V,V,...")
]
Each = Annotated[
    bool, typer.Option("--each", help="Charge every try the study's epsilon; by default all together keep within it.")
]


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("tune", epilog="Example: fedsci tune study.yaml --try training.learning_rate=0.2,0.5")(tune)


def tune(
    study: Annotated[Path, typer.Argument(help="The study file.", metavar="STUDY")],
    grid: Grid,
    each: Each = False,
    out: Out = Path("runs"),
    engine: EngineOption = Engine.local,
    seed: Seed = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    state: State = None,
) -> None:
    """Run a study with every combination of some settings, and say which did best.

    No try is free: whoever sees the results of several studies has learned from all of them. By default all tries
    together cost the study's epsilon, so each gets less of it; --each charges every try in full. Budgets are checked
    for all tries before the first one runs. The best try's score is a little optimistic: it was picked for it.
    """
    from fedsci.cli.progress import SilentDisplay
    from fedsci.config.site import load_site
    from fedsci.simulation.run import SimulatedRun
    from fedsci.simulation.search import plan_search, require_affordable

    search = plan_search(study, grid=grid, overrides=overrides or [], seed=seed, each=each)
    state = state or Path(".fedsci")
    sites = {file: load_site(file) for file in search.tries[0].study.site_files}
    require_affordable(search, sites, {site.site: state / site.site for site in sites.values()})
    silent = quiet or as_json
    if not silent:
        _say(_price(search.epsilon, len(search.tries), each))
    results: list[dict[str, Any]] = []
    for number, found in enumerate(search.tries, start=1):
        if not silent:
            _say(f"try {number} of {len(search.tries)}: {', '.join(found.settings)}")
        simulated = SimulatedRun(study=found.study, engine=engine.value, state=state, out=out, display=SilentDisplay())
        try:
            summary = simulated.run()
        except FedsciError as error:
            if error.exit_code == 3:  # nothing after this could be paid for either
                raise
            results.append({"settings": list(found.settings), "error": error.message, "run_folder": _folder(simulated)})
            continue
        results.append(_result(found.settings, summary, _folder(simulated)))
    _report(results, search.epsilon, as_json=as_json, quiet=quiet)


def _price(epsilon: float | None, tries: int, each: bool) -> str:
    if epsilon is None:
        return f"{tries} tries, with NO privacy guarantee (privacy.mechanism: none)"
    how = "each charged in full" if each else "each with its part of the study's epsilon"
    return f"{tries} tries, {how}: epsilon {epsilon:.2f} for all of them together"


def _result(settings: tuple[str, ...], summary: dict[str, Any], folder: str) -> dict[str, Any]:
    metrics = summary["metrics"]
    name = metrics["primary"]
    noise = (metrics.get("noise_deviation") or {}).get(name)
    spent = [site["epsilon_spent_study"] for site in summary["privacy"]["by_site"].values()]
    return {
        "settings": list(settings),
        "metric": name,
        "higher_is_better": metrics["higher_is_better"],
        "value": (metrics["federated"] or {}).get(name),
        "noise_deviation": noise,
        "epsilon": None if "inf" in spent or not spent else max(spent),
        "run_folder": folder,
    }


def _report(results: list[dict[str, Any]], epsilon: float | None, *, as_json: bool, quiet: bool) -> None:
    measured = [result for result in results if result.get("value") is not None]
    best = None
    if measured:
        pick = max if measured[0]["higher_is_better"] else min
        best = pick(measured, key=lambda result: float(result["value"]))
    if as_json:
        typer.echo(json.dumps({"epsilon": epsilon, "tries": results, "best": best}, indent=2))
        return
    if quiet:
        typer.echo(best["run_folder"] if best else "")
        return
    _print_table(results, best)


def _print_table(results: list[dict[str, Any]], best: dict[str, Any] | None) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table()
    table.add_column("settings")
    table.add_column(best["metric"] if best else "result", justify="right")
    table.add_column("epsilon", justify="right")
    for result in results:
        if "error" in result:
            table.add_row(", ".join(result["settings"]), f"failed: {result['error']}", "-")
            continue
        value, noise = result["value"], result["noise_deviation"]
        shown = "not shown" if value is None else f"{value:.3f}" + (f" +- {noise:.3f}" if noise else "")
        price = "none" if result["epsilon"] is None else f"{result['epsilon']:.2f}"
        table.add_row(", ".join(result["settings"]), shown, price, style="bold" if result is best else None)
    console.print(table)
    if best is None:
        console.print("no try could be measured: the labs let no metrics leave")
        return
    console.print(f"best: {', '.join(best['settings'])}")
    noise = best["noise_deviation"]
    close = [r for r in results if r is not best and noise and r.get("value") is not None]
    if any(abs(r["value"] - best["value"]) < 2 * noise * 2**0.5 for r in close):
        console.print("the noise on the metrics is as large as the difference to others: do not read much into it")
    console.print(f"run   {best['run_folder']}")


def _folder(simulated: Any) -> str:
    return str(simulated.folder.path) if simulated.folder else ""


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
