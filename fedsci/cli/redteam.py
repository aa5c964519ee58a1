"""``fedsci redteam``: every attack of the suite on one study."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsci.cli.folders import check_writable
from fedsci.cli.studies import AsJson, AttackSeed, Overrides, loaded_study, telling
from fedsci.errors import InputError, VerificationFailed

if TYPE_CHECKING:
    from fedsci.redteam.suite import RedTeam


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("redteam", epilog="Example: fedsci redteam demo --only audit")(redteam)


def redteam(
    study: Annotated[str, typer.Argument(help="A study file, a run folder, or: demo.", metavar="STUDY|RUN")],
    overrides: Overrides = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="Families of attacks: audit,membership,…")] = None,
    sites: Annotated[
        Path | None, typer.Option("--sites", help="With a run folder: the folder of its labs' site files.")
    ] = None,
    seed: AttackSeed = 1,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for the results: by default redteam, or the run's own where one is given."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Attack a study by everything the suite knows, and print claim, attack, result and verdict.

    STUDY is a study file, or demo for the built-in one. Of a RUN folder its plan is attacked, with simulated labs that
    have the same site files; redteam.json is added to the folder and the report shows it, with what earlier attacks on
    the same plan came to by other families. Exit code 6: a claim of fedsci's own does not hold. Budgets are fresh ones.
    """
    from fedsci.redteam.earlier import with_earlier
    from fedsci.redteam.run_plan import check_no_run_file, study_of_run
    from fedsci.redteam.suite import attack
    from fedsci.reporting.red_team import RED_TEAM, read_red_team

    run = Path(study) if Path(study).is_dir() else None
    if run is not None and overrides:
        raise InputError("a run's plan is attacked as it is", hint="leave out --set, or give the study file")
    if run is None and sites is not None:
        raise InputError("--sites goes with a run folder", hint="a study file names its sites itself: --set sites=…")
    check_no_run_file(Path(study))
    loaded = loaded_study(study, overrides) if run is None else study_of_run(run, sites)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    fresh = (out or Path("redteam")) / f"{loaded.plan.study.study}-{stamp}"
    folder = run if run is not None and out is None else fresh
    _check(folder / RED_TEAM)
    with telling(quiet=as_json) as told:
        found = attack(loaded, seed=seed, only=[name for names in only or () for name in names.split(",")], told=told)
    whole = with_earlier(found.to_json(), read_red_team(folder) if folder == run else None)
    if as_json:
        typer.echo(json.dumps(whole | {"folder": str(folder)}, indent=2, allow_nan=False))
    else:
        _print(found, whole)
    broken = [str(row["key"]) for row in whole["findings"] if row.get("verdict") == "broken"]
    try:
        page = _write(folder, whole, of_a_run=folder == run)
        if not as_json:
            typer.echo(f"page: {page}")
    except InputError as error:
        if not broken:
            raise
        typer.echo(error.message, err=True)  # the exit code is for what is broken
    if broken:
        raise VerificationFailed(
            f"{found.study}: claims that did not stand: {', '.join(broken)}",
            hint="docs/redteam.md says what each row looks at",
        )


def _print(found: "RedTeam", whole: Mapping[str, Any]) -> None:
    from fedsci.cli.findings_text import print_findings
    from fedsci.reporting.red_team import in_all

    print_findings(found.findings)
    typer.echo(f"{len(found.findings)} rows in {found.seconds:.0f} s")
    shown = {finding.key for finding in found.findings}
    kept = [str(row["key"]) for row in whole["findings"] if row["key"] not in shown]
    if kept:
        typer.echo(f"kept from earlier attacks on this plan, not shown above: {', '.join(kept)}")
    for line in in_all(whole):
        typer.echo(line)


def _check(file: Path) -> None:
    """Return if the results can be written there; its folder may be a new one, in an ``--out`` that is made here."""
    folder = file.parent
    try:
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder = folder.parent
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror or error}", hint="choose --out") from None
    check_writable(folder / file.name)


def _write(folder: Path, whole: Mapping[str, Any], *, of_a_run: bool) -> Path:
    """Write results and page, and return the page: a new one, or the report of a run that has one."""
    from fedsci.reporting.red_team import RED_TEAM, write_red_team_page
    from fedsci.reporting.report import REPORT, write_report
    from fedsci.reporting.whole_file import write_whole

    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / RED_TEAM, json.dumps(whole, indent=2, allow_nan=False) + "\n")
    except OSError as error:
        raise InputError(f"cannot write {folder / RED_TEAM}: {error.strerror or error}", hint="choose --out") from None
    if not of_a_run:
        page = folder / "redteam.html"
        write_red_team_page(whole, page, title="Attacks on a federated study")
        return page
    return write_report(folder) if (folder / REPORT).exists() else folder / RED_TEAM
