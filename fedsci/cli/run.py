"""``fedsci run``, ``fedsci demo``, ``fedsci report``."""

import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from fedsci.errors import FedsciError


class Engine(StrEnum):
    """Where simulated labs run."""

    local = "local"
    ray = "ray"


Out = Annotated[Path, typer.Option("--out", help="Folder that run folders are made in.")]
EngineOption = Annotated[Engine, typer.Option("--engine", help="local: threads in this process; ray: Flower on Ray.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Replace the study's seed.", min=0)]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="Replace a value: --set training.rounds=10")]
AsJson = Annotated[bool, typer.Option("--json", help="Print summary.json (with run_folder) and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors and the run folder.")]
State = Annotated[
    Path | None, typer.Option("--state", envvar="FEDSCI_STATE", help="Folder of ledgers and logs of the labs.")
]
WeatherFile = Annotated[
    Path | None,
    typer.Option(
        "--weather",
        help="File of the labs' speeds, lines and absences, for virtual time; or: uneven. fedbuff and "
        "training.pace=by_speed need one.",
    ),
]
Serialise = Annotated[
    bool, typer.Option("--serialise", help="Local engine: send every message through Flower's wire format.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("run", epilog="Example: fedsci run examples/digits/study.yaml --set training.rounds=10 --seed 3")(run)
    app.command("demo", epilog="Example: fedsci demo --set privacy.epsilon=1.0")(demo)
    app.command("report", epilog="Example: fedsci report runs/digits-20261123T120000Z-1a2b3c4d")(report)


def run(
    study: Annotated[Path, typer.Argument(help="The study file.", metavar="STUDY")],
    out: Out = Path("runs"),
    engine: EngineOption = Engine.local,
    seed: Seed = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    state: State = None,
    serialise: Serialise = False,
    weather: WeatherFile = None,
) -> None:
    """Run a study on this machine, with its labs simulated.

    Budgets are kept in the state folder (.fedsci in the current folder): running twice spends twice. With a
    privacy mechanism the noise is the operating system's, so results differ from run to run; with
    privacy.mechanism=none the same seed gives the same model, bit for bit.
    """
    _run(study, out, engine, seed, overrides, as_json, quiet, state or Path(".fedsci"), serialise, weather)


def demo(
    out: Out = Path("runs"),
    engine: EngineOption = Engine.local,
    seed: Seed = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    state: State = None,
    serialise: Serialise = False,
    weather: WeatherFile = None,
) -> None:
    """Run the built-in study: 17 labs learn to read digits under record-level differential privacy.

    Needs no files and can be run any number of times: budgets live in the run's own folder.
    """
    from fedsci.config.shipped import shipped

    study = shipped("examples") / "digits" / "study.yaml"
    _run(study, out, engine, seed, overrides, as_json, quiet, state, serialise, weather)


def report(run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")]) -> None:
    """Write report.html for a run folder again, and print its path."""
    from fedsci.reporting import write_report

    typer.echo(write_report(run))


def _run(
    study: Path,
    out: Path,
    engine: Engine,
    seed: int | None,
    overrides: list[str] | None,
    as_json: bool,
    quiet: bool,
    state: Path | None,
    serialise: bool,
    weather_file: Path | None,
) -> None:
    from fedsci.cli.progress import RichDisplay, SilentDisplay
    from fedsci.config.study_file import load_study
    from fedsci.config.weather import load_weather

    loaded = load_study(study, overrides=overrides, seed=seed)
    weather = None
    if weather_file is not None:
        weather = load_weather(weather_file, sites=loaded.plan.sites, seed=loaded.plan.study.seed)
    silent = quiet or as_json
    if not silent:
        _say(
            f"{loaded.plan.study.study}: {len(loaded.plan.sites)} labs, {loaded.plan.recipe.name}, "
            f"{loaded.plan.training.rounds} rounds, {_guarantee(loaded.plan.study.privacy)}{_before(loaded.plan)}"
        )
        _warn_of_drowning(loaded.plan)
    from fedsci.simulation.run import SimulatedRun

    display = SilentDisplay() if silent else RichDisplay(loaded.plan)
    simulated = SimulatedRun(
        study=loaded, engine=engine.value, state=state, out=out, display=display, serialise=serialise, weather=weather
    )
    try:
        with display:
            summary = simulated.run()
    except (FedsciError, KeyboardInterrupt):
        _point_to_folder(simulated.folder.path if simulated.folder else None)
        raise
    folder = simulated.folder.path if simulated.folder else out
    from fedsci.reporting.documents import write_documents

    documents = write_documents(folder, signer=simulated.signer)
    if as_json:
        typer.echo(json.dumps(summary | {"run_folder": str(folder)}, indent=2))
    elif quiet:
        typer.echo(folder)
    else:
        from fedsci.cli.results import print_results

        print_results(summary, folder, documents)


def _warn_of_drowning(plan: Any) -> None:
    """Say so where hiding whole labs takes more noise than so few labs can carry."""
    from fedsci.training.accountant import noise_over_update
    from fedsci.training.learner import module_for
    from fedsci.training.models import layout_of
    from fedsci.training.schema import schema_of

    dimension = layout_of(module_for(plan, inputs=schema_of(plan.study).width)).size
    drowned = noise_over_update(plan, dimension=dimension)
    if drowned is not None and drowned > 1:
        _say(
            f"warning: with {len(plan.sites)} labs hidden as wholes, the noise of one round is about "
            f"{drowned:.1f} times the largest possible mean update; privacy.unit: record needs far less noise"
        )


def _guarantee(privacy: Any) -> str:
    if privacy.mechanism == "none":
        return "NO privacy guarantee (privacy.mechanism: none)"
    unit = f"group ({privacy.group_by})" if privacy.group_by else privacy.unit
    return f"epsilon {privacy.epsilon:g} at delta {privacy.delta:g} for each {unit}, {privacy.mechanism} noise"


def _before(plan: Any) -> str:
    """Return what happens first, where the scaling is to be measured."""
    if not plan.awaits_scaling:
        return ""
    cost = f", for {plan.study.privacy.scaling_share:g} of both" if plan.private else ""
    return f"; a study of its own measures the scaling first{cost}"


def _point_to_folder(folder: Path | None) -> None:
    if folder is None:
        return
    from fedsci.reporting.documents import write_what_there_is

    write_what_there_is(folder)
    sys.stderr.write(f"what there is of the run lies in {os.fspath(folder)}\n")


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
