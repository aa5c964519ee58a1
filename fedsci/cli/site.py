"""``fedsci site``: a lab's keys, and joining a consortium."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsci.cli.folders import using
from fedsci.cli.profiles import CryptoProfile

if TYPE_CHECKING:
    from fedsci.site.identity import Facts, SiteIdentity

SiteFile = Annotated[Path, typer.Argument(help="The lab's site file.", metavar="SITE_FILE")]
State = Annotated[
    Path | None,
    typer.Option(
        "--state", envvar="FEDSCI_STATE", help="The site's state folder; else state: of its file, else /var/lib/fedsci."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    from fedsci.cli import site_daemon

    group = typer.Typer(
        help="One lab's site.", epilog="Example: fedsci site identity lab-03.yaml", no_args_is_help=True
    )
    group.callback()(lambda: None)
    group.command("init", epilog="Example: fedsci site init lab-03.yaml")(init)
    group.command("join", epilog="Example: fedsci site join lab-03.yaml fedsci1.eyJhZGRyZXNz")(join)
    group.command("identity", epilog="Example: fedsci site identity lab-03.yaml")(identity)
    site_daemon.register(group)
    app.add_typer(group, name="site")


def init(
    site_file: SiteFile,
    state: State = None,
    new_keys: Annotated[
        bool, typer.Option("--new-keys", help="Throw the old keys away, after a theft; the site must join again.")
    ] = False,
    profile: Annotated[
        CryptoProfile | None,
        typer.Option("--crypto-profile", help="Join no consortium of another one [default: as the consortium]."),
    ] = None,
) -> None:
    """Make the site's keys, on this machine; they never leave it. Keys that are there are kept."""
    from fedsci.secagg.profiles import PROFILES

    found = _identity(site_file, state)
    with using(found.state):
        facts = found.create(new_keys=new_keys, profile=None if profile is None else PROFILES[profile])
    typer.echo(f"the keys of {facts.site} lie in {found.state}")
    typer.echo(f"verification key: {facts.verification_key}")
    if not facts.enrolled:
        typer.echo(f"next: ask the coordinator for a token, then: fedsci site join {site_file} TOKEN")


def join(
    site_file: SiteFile,
    token: Annotated[str, typer.Argument(help="What fedsci coordinator enrol printed; - reads it from stdin.")],
    state: State = None,
) -> None:
    """Join a consortium: check that the coordinator is the token's, and get a certificate."""
    from fedsci.identity.token import Token

    found = _identity(site_file, state)
    from_stdin = token == "-"  # noqa: S105
    with using(found.state):
        facts = found.join(Token.decode(sys.stdin.read() if from_stdin else token))
    typer.echo(f"{facts.site} has joined as number {facts.index}; its certificate is good until {facts.until:%Y-%m-%d}")
    if facts.roster is None:
        typer.echo("there is no roster yet; it comes with the first study")
    else:
        typer.echo(f"roster {facts.roster} names {facts.roster_sites} sites, this one by its own key")


def identity(
    site_file: SiteFile,
    state: State = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say who this site is: keys, certificate, consortium. Nothing printed is secret."""
    found = _identity(site_file, state)
    with using(found.state):
        facts = found.describe()
    if as_json:
        typer.echo(json.dumps(asdict(facts), default=str, indent=2))
        return
    for name, value in _lines(facts, found.state):
        typer.echo(f"{name:<18}{value}")


def _identity(site_file: Path, state: Path | None) -> "SiteIdentity":
    from fedsci.config.site import load_site
    from fedsci.names import SiteId
    from fedsci.site.identity import SiteIdentity, state_folder

    site = load_site(site_file)
    return SiteIdentity(SiteId(site.site), state_folder(site, state))


def _lines(facts: "Facts", state: Path) -> list[tuple[str, str]]:
    lines = [
        ("site", facts.site),
        ("state folder", str(state)),
        ("verification key", facts.verification_key),
        ("crypto profile", facts.crypto_profile),
    ]
    if not facts.enrolled:
        return [*lines, ("certificate", "none: not enrolled yet")]
    roster = "none yet" if facts.roster is None else f"{facts.roster}, {facts.roster_sites} sites"
    return [
        *lines,
        ("certificate", f"sha256:{facts.certificate}"),
        ("good until", f"{facts.until:%Y-%m-%d %H:%M} UTC; renewed by the site's daemon"),
        ("root", f"sha256:{facts.root}"),
        ("consortium key", facts.consortium_key),
        ("coordinator", f"{facts.address}, studies at {facts.fleet_address}"),
        ("number", str(facts.index)),
        ("roster", roster),
    ]
