"""``fedsci redteam``: every attack of the suite on one study."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from fedsci.cli.studies import AsJson, AttackSeed, Overrides, loaded_study, telling
from fedsci.errors import InputError, VerificationFailed


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
    out: Annotated[Path, typer.Option("--out", help="Folder for the results of a study's attacks.")] = Path("redteam"),
    as_json: AsJson = False,
) -> None:
    """Attack a study by everything the suite knows, and print claim, attack, result and verdict.

    Of a run folder its plan is attacked, with simulated labs that have the same site files; redteam.json is added to
    the folder and the report shows it. Exit code 6: a claim of fedsci's own does not hold. Budgets are fresh ones.
    """
    from fedsci.redteam.run_plan import check_no_run_file, study_of_run
    from fedsci.redteam.suite import attack
    from fedsci.reporting.red_team import RED_TEAM, write_red_team_page
    from fedsci.reporting.report import REPORT, write_report

    run = Path(study) if Path(study).is_dir() else None
    if run is not None and overrides:
        raise InputError("a run's plan is attacked as it is", hint="leave out --set, or give the study file")
    if run is None and sites is not None:
        raise InputError("--sites goes with a run folder", hint="a study file names its sites itself: --set sites=…")
    check_no_run_file(Path(study))
    loaded = loaded_study(study, overrides) if run is None else study_of_run(run, sites)
    with telling(quiet=as_json) as told:
        found = attack(loaded, seed=seed, only=[name for names in only or () for name in names.split(",")], told=told)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    folder = out / f"{found.study}-{stamp}" if run is None else run
    _write(folder, RED_TEAM, json.dumps(found.to_json(), indent=2, allow_nan=False) + "\n")
    if run is None:
        page = folder / "redteam.html"
        write_red_team_page(found.to_json(), page, title="Attacks on a federated study")
    else:
        page = write_report(run) if (run / REPORT).exists() else folder / RED_TEAM
    if as_json:
        typer.echo(json.dumps(found.to_json() | {"folder": str(folder)}, indent=2, allow_nan=False))
    else:
        from fedsci.cli.findings_text import print_findings

        print_findings(found.findings)
        total = sum(found.seconds.values())
        typer.echo(f"{len(found.findings)} rows in {total:.0f} s; {len(found.broken)} claims broken")
        typer.echo(f"page  {page}")
    if found.broken:
        raise VerificationFailed(
            f"{found.study}: claims that did not stand: {', '.join(finding.key for finding in found.broken)}",
            hint="docs/redteam.md says what each row looks at",
        )


def _write(folder: Path, name: str, content: str) -> None:
    from fedsci.reporting.whole_file import write_whole

    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / name, content)
    except OSError as error:
        raise InputError(f"cannot write {folder / name}: {error.strerror or error}", hint="choose --out") from None
