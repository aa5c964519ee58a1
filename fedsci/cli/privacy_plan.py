"""``fedsci privacy plan``."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from fedsci.errors import InputError


def register(group: typer.Typer) -> None:
    """Add the command to ``fedsci privacy``."""
    group.command("plan", epilog="Example: fedsci privacy plan demo --set privacy.epsilon=1.0 --out plan.html")(plan)


def plan(
    study: Annotated[str, typer.Argument(help='The study file, or "demo" for the built-in study.', metavar="STUDY")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Replace a value: --set training.rounds=10")
    ] = None,
    state: Annotated[
        Path | None, typer.Option("--state", envvar="FEDSCI_STATE", help="Folder of the labs' ledgers, as for run.")
    ] = None,
    records: Annotated[
        list[str] | None, typer.Option("--records", help="Training records in all, or of a lab: --records lab-01=94")
    ] = None,
    runs: Annotated[Path, typer.Option("--runs", help="Folder of earlier runs, for what they measured.")] = Path(
        "runs"
    ),
    approved: Annotated[
        bool,
        typer.Option("--approved", help="Answer as after every lab's operator approved: for a study on a fleet."),
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Also write a page with plots.", metavar="FILE.html")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Say what a study would cost before anything runs: epsilon of every lab, what fits its budget, what it means.

    Nothing is charged and no data is opened. The labs' rules and ledgers are asked as a run would ask them, so plan
    and run agree. Only data can tell whether it fits the study's schema; that is not asked.
    """
    from rich.console import Console

    from fedsci.config.shipped import shipped
    from fedsci.config.study_file import load_study
    from fedsci.reporting.plan_facts import plan_facts

    demo = study == "demo" and not Path(study).exists()
    path = shipped("examples") / "digits" / "study.yaml" if demo else Path(study)
    loaded = load_study(path, overrides=overrides)
    if state is None and not demo:  # the demonstration begins with fresh ledgers each time
        state = Path(".fedsci")
    counted, total = _records(records or [])
    console = Console(stderr=True)
    waiting = console.status("calibrating noise") if console.is_terminal and not as_json else nullcontext()
    with waiting:
        facts = plan_facts(
            loaded, state=state and state.resolve(), records=counted, total=total, runs=runs, approved=approved
        )
    if out is not None:
        from fedsci.reporting.plan_page import write_plan_page

        write_plan_page(facts, out)
    if as_json:
        typer.echo(json.dumps(facts.to_json(), indent=2, allow_nan=False))
    else:
        from fedsci.cli.plan_text import print_plan

        print_plan(facts, out)


def _records(texts: list[str]) -> tuple[dict[str, int], int | None]:
    """Return records by lab, and records in all where a number stands alone."""
    counted: dict[str, int] = {}
    total = None
    for text in texts:
        name, equals, number = text.rpartition("=")
        if not number.isdecimal() or int(number) < 1 or (equals and not name):
            raise InputError(
                f"--records {text}: expected a number, or lab=number", hint="for example: --records lab-01=94"
            )
        if equals:
            counted[name] = int(number)
        else:
            total = int(number)
    return counted, total
