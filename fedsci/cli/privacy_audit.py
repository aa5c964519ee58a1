"""``fedsci privacy audit``: what a study promises of a record, against what can be measured of it."""

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from fedsci.cli.studies import AsJson, AttackSeed, Overrides, loaded_study, telling
from fedsci.errors import InputError, VerificationFailed


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

    Prints the claimed epsilon, the largest one that is refuted at 99 % confidence, and a verdict on noise, its
    freshness, samples, clipping and what left. Exit code 6: a claim does not hold. Budgets are fresh ones: nothing is
    charged to the labs' own.
    """
    from fedsci.redteam.privacy_audit import audit_privacy
    from fedsci.reporting.red_team import write_red_team_page

    if out is not None and not out.parent.is_dir():  # before the work, not after it
        raise InputError(f"cannot write {out}: there is no folder {out.parent}", hint="choose another file with --out")
    loaded = loaded_study(study, overrides)
    with telling(quiet=as_json) as told:
        found = audit_privacy(loaded, seed=seed, runs=runs, told=told)
    if out is not None:
        write_red_team_page(found.to_json(), out, title="Privacy audit")
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2, allow_nan=False))
    else:
        from fedsci.cli.findings_text import print_findings

        print_findings(found.findings)
        bound = found.lower_bound
        shown = "not measured" if bound is None else f"{bound:.2f}" if math.isfinite(bound) else "infinite"
        typer.echo(f"claimed epsilon      {found.epsilon:.4g} (delta {found.delta:g})")
        typer.echo(f"audited lower bound  {shown} (99 % confidence)")
        everything = all(finding.verdict != "not measured" for finding in found.findings)
        holds = "the claim holds" if everything else "the claim holds as far as it was measured"
        typer.echo(f"verdict              {holds if found.holds else 'THE CLAIM DOES NOT HOLD'}")
        if out is not None:
            typer.echo(f"page                 {out}")
    if not found.holds:
        broken = [finding.key for finding in found.findings if finding.verdict == "broken"]
        raise VerificationFailed(
            f"{found.study}: what was measured speaks against the claim: {', '.join(broken)}",
            hint="do not run the study before the cause is found; docs/redteam.md says what each row looks at",
        )
