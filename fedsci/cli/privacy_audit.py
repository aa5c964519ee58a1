"""``fedsci privacy audit``: what a study promises of a record, against what can be measured of it."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsci.cli.folders import check_writable
from fedsci.cli.studies import AsJson, AttackSeed, Overrides, loaded_study, telling
from fedsci.errors import InputError, VerificationFailed

if TYPE_CHECKING:
    from fedsci.redteam.privacy_audit import PrivacyAudit

_VERDICTS = {
    "holds": "the claim holds",
    "incomplete": "nothing speaks against the claim, but not everything was measured",
    "broken": "THE CLAIM DOES NOT HOLD",
}


def register(group: typer.Typer) -> None:
    """Add the command."""
    group.command("audit", epilog="Example: fedsci privacy audit demo --set training.rounds=10")(audit)


def audit(
    study: Annotated[str, typer.Argument(help="A study file, or: demo.", metavar="STUDY")],
    overrides: Overrides = None,
    seed: AttackSeed = 1,
    runs: Annotated[
        int, typer.Option("--runs", min=1, max=100, help="Audit so many runs together: more canaries, a sharper bound.")
    ] = 1,
    out: Annotated[Path | None, typer.Option("--out", help="Also write a page with the plot: audit.html")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how much of a record a study gives away, by canaries in whole runs with simulated labs.

    STUDY is a study file, or demo for the built-in one; a run's plan is audited by fedsci redteam RUN --only audit.

    Prints the claimed epsilon, the largest one that is refuted at 99 % confidence, and a verdict on noise, its
    freshness, samples, clipping and what left. Exit code 6: a claim does not hold. Budgets are fresh ones: nothing is
    charged to the labs' own.
    """
    from fedsci.redteam.privacy_audit import audit_privacy

    if Path(study).is_dir():
        raise InputError(
            f"{study} is a folder, not a study file",
            hint=f"of a run, audit its plan: fedsci redteam {study} --only audit",
        )
    if out is not None:
        check_writable(out)
    loaded = loaded_study(study, overrides)
    with telling(quiet=as_json) as told:
        found = audit_privacy(loaded, seed=seed, runs=runs, told=told)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2, allow_nan=False))
    else:
        from fedsci.cli.findings_text import print_findings

        print_findings(found.findings)
        bound = found.lower_bound
        shown = "not measured" if bound is None else f"{bound:.2f}" if math.isfinite(bound) else "infinite"
        typer.echo(f"claimed epsilon      {found.epsilon:.4g} (delta {found.delta:g})")
        typer.echo(f"audited lower bound  {shown} (99 % confidence)")
        typer.echo(f"verdict              {_VERDICTS[found.verdict]}")
    _page(found, out, quiet=as_json)
    if not found.holds:
        broken = [finding.key for finding in found.findings if finding.verdict == "broken"]
        raise VerificationFailed(
            f"{found.study}: what was measured speaks against the claim: {', '.join(broken)}",
            hint="do not run the study before the cause is found; docs/redteam.md says what each row looks at",
        )


def _page(found: "PrivacyAudit", out: Path | None, *, quiet: bool) -> None:
    from fedsci.reporting.red_team import write_red_team_page

    if out is None:
        return
    try:
        write_red_team_page(found.to_json(), out, title="Privacy audit")
    except InputError as error:
        if found.holds:
            raise
        typer.echo(error.message, err=True)  # the exit code is for what is broken
        return
    if not quiet:
        typer.echo(f"page                 {out}")
