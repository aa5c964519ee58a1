"""``fedsci coordinator``: found a consortium, let sites in, shut them out."""

import datetime
import getpass
import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsci.cli.folders import using
from fedsci.cli.profiles import CryptoProfile

if TYPE_CHECKING:
    from fedsci.coordinator.enrolment import EnrolledSite, Enrolment

Folder = Annotated[
    Path, typer.Option("--dir", envvar="FEDSCI_COORDINATOR", help="The coordinator's folder: keys, members, state.")
]
Name = Annotated[str, typer.Argument(help="The site's name, as in its site file.", metavar="NAME")]
HOME = Path("consortium")


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    from fedsci.cli import coordinator_studies

    group = typer.Typer(
        help="The consortium: who is in, who is out, and the studies it runs.",
        epilog="Example: fedsci coordinator enrol lab-03",
        no_args_is_help=True,
    )
    group.callback()(lambda: None)
    group.command("init", epilog="Example: fedsci coordinator init --address coordinator.example.org")(init)
    group.command("enrol", epilog="Example: fedsci coordinator enrol lab-03")(enrol)
    group.command("revoke", epilog='Example: fedsci coordinator revoke lab-03 --reason "laptop stolen"')(revoke)
    group.command("sites", epilog="Example: fedsci coordinator sites")(sites)
    group.command("sign-roster", epilog="Example: fedsci coordinator sign-roster --consortium-key /media/key")(sign)
    group.command("renew-ca", epilog="Example: fedsci coordinator renew-ca --ca-key /media/ca.key")(renew_ca)
    group.command("new-root", epilog="Example: fedsci coordinator new-root --yes")(new_root)
    group.command("serve-enrolment", epilog="Example: fedsci coordinator serve-enrolment --port 9443")(serve)
    coordinator_studies.register(group)
    app.add_typer(group, name="coordinator")


def init(
    address: Annotated[
        list[str], typer.Option("--address", help="What sites call this machine: host or host:port; may be repeated.")
    ],
    folder: Folder = HOME,
    fleet_port: Annotated[
        int | None, typer.Option("--fleet-port", min=1, max=65535, help="Port of studies [default: 9444].")
    ] = None,
    days: Annotated[
        float,
        typer.Option("--certificate-days", min=0.0001, max=398, help="How long certificates of sites are good."),
    ] = 90.0,
    profile: Annotated[
        CryptoProfile,
        typer.Option("--crypto-profile", help="fips: P-384, SHA-384, AES-256 and nothing else; for life."),
    ] = CryptoProfile.default,
) -> None:
    """Found a consortium: its root, the coordinator's certificate, the key that signs rosters.

    With FEDSCI_CA_PASSPHRASE set, the root's key is encrypted with it.
    """
    from fedsci.coordinator.authority import describe_root
    from fedsci.coordinator.enrolment import ENROLMENT_PORT, FLEET_PORT, Enrolment
    from fedsci.identity.address import parse_address
    from fedsci.secagg.profiles import PROFILES

    enrolment = Enrolment.create(
        folder,
        addresses=[parse_address(one, port=ENROLMENT_PORT) for one in address],
        fleet_port=fleet_port or FLEET_PORT,
        passphrase=passphrase(),
        site_days=days,
        profile=PROFILES[profile],
    )
    typer.echo(f"founded a consortium in {folder}, for sites to join at {enrolment.address}")
    typer.echo(f"root: {describe_root(enrolment.authority.root)}")
    if profile is not CryptoProfile.default:
        typer.echo(f"crypto profile: {profile}, for life")
    typer.echo(f"next: move {folder / 'ca.key'} to a place that is offline; it is not needed for 16 months")
    typer.echo("next: fedsci coordinator enrol NAME, for each lab")


def enrol(
    name: Name,
    folder: Folder = HOME,
    hours: Annotated[float, typer.Option("--hours", help="How long the token is good.")] = 24.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the token alone.")] = False,
) -> None:
    """Print a token that lets one site join, once. Earlier tokens for the same name are void."""
    from fedsci.names import site_id

    with using(folder):
        token = _enrolment(folder).invite(site_id(name), who=who(), hours=hours)
    typer.echo(token.encode())
    if not quiet:
        until = datetime.datetime.fromtimestamp(token.expires, datetime.UTC)
        typer.echo(
            f"good once, for {name}, until {until:%Y-%m-%d %H:%M} UTC; send it where only {name} reads it", err=True
        )
        typer.echo(f"next, at {name}: fedsci site init SITE_FILE, then fedsci site join SITE_FILE TOKEN", err=True)


def revoke(
    name: Name,
    folder: Folder = HOME,
    reason: Annotated[str, typer.Option("--reason", help="For the record.")] = "",
) -> None:
    """Shut a site out: it is refused from its next connection on, and its tokens are void."""
    from fedsci.names import site_id

    with using(folder):
        enrolment = _enrolment(folder)
        enrolment.revoke(site_id(name), who=who(), reason=reason)
        typer.echo(f"{name} is revoked")
        _say_roster(enrolment)


def sites(
    folder: Folder = HOME,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the sites, their state, and when certificates and tokens end."""
    from rich.console import Console
    from rich.table import Table

    with using(folder):
        enrolment = _enrolment(folder)
        listed = enrolment.sites()
    if as_json:
        typer.echo(json.dumps([_row(site) for site in listed], indent=2))
        return
    if not listed:
        typer.echo("no sites yet; next: fedsci coordinator enrol NAME")
        return
    table = Table()
    for heading in ("site", "state", "number", "until (UTC)", "verification key"):
        table.add_column(heading)
    for site in listed:
        number = str(site.index or "-")
        table.add_row(site.name, _state(site), number, f"{site.until:%Y-%m-%d %H:%M}", site.verification_key.hex()[:16])
    Console(highlight=False).print(table)
    _say_roster(enrolment)


def sign(
    folder: Folder = HOME,
    key: Annotated[
        Path | None, typer.Option("--consortium-key", help="The consortium's key, if it is kept elsewhere.")
    ] = None,
) -> None:
    """Sign the roster of all active sites; needed only where the consortium's key is kept offline."""
    with using(folder):
        roster = _enrolment(folder).sign_roster(who=who(), key=key)
    for site in roster.sites:
        typer.echo(f"{site.index:5} {site.name:20} {site.verification_key.hex()}")
    typer.echo(f"signed roster {roster.serial} of {len(roster.sites)} sites")


def renew_ca(
    folder: Folder = HOME,
    key: Annotated[Path | None, typer.Option("--ca-key", help="The root's key, if it is kept elsewhere.")] = None,
) -> None:
    """Certify the issuing key for two more years, with the root's key."""
    with using(folder):
        authority = _enrolment(folder).authority
        authority.renew_issuing(authority.root_key(key, passphrase=passphrase()))
    typer.echo(f"the issuing certificate is good until {authority.issuing.not_valid_after_utc:%Y-%m-%d}")


def new_root(
    folder: Folder = HOME,
    yes: Annotated[bool, typer.Option("--yes", help="Do it: every site must join again.")] = False,
) -> None:
    """Start over with another root, after a theft of its key, the issuing key or the server's.

    Members, numbers and verification keys stay; every certificate and token is void.
    """
    from fedsci.coordinator.authority import describe_root
    from fedsci.errors import InputError

    with using(folder):
        enrolment = _enrolment(folder)
        if not yes:
            raise InputError("after this every site must join again, with a new token", hint="repeat it with --yes")
        enrolment.new_root(who=who(), passphrase=passphrase())
    typer.echo(f"root: {describe_root(enrolment.authority.root)}")
    typer.echo(f"next: restart the coordinator, move {folder / 'ca.key'} offline, and enrol every site again")


def serve(
    folder: Folder = HOME,
    host: Annotated[str, typer.Option("--host", help="The interface to listen on.")] = "0.0.0.0",  # noqa: S104
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535, help="[default: as founded]")] = None,
) -> None:
    """Let sites enrol and renew; renews what is due. Ends with Ctrl-C."""
    from fedsci.coordinator.enrolment_service import serve_enrolment

    with using(folder):
        enrolment = _enrolment(folder)
        for line in enrolment.maintain(passphrase=passphrase()):
            typer.echo(line, err=True)
        service = serve_enrolment(enrolment, host=host, port=port, note=_say_refusal)
    with service as server:
        typer.echo(f"enrolment listens on {host}:{server.port}", err=True)
        while True:
            threading.Event().wait(enrolment.look_every_s)
            for line in enrolment.maintain(passphrase=passphrase()):
                typer.echo(line, err=True)


def _say_refusal(code: str, message: str) -> None:
    typer.echo(f"refused ({code}): {message}", err=True)


def _enrolment(folder: Path) -> "Enrolment":
    from fedsci.coordinator.enrolment import Enrolment

    return Enrolment(folder)


def _say_roster(enrolment: "Enrolment") -> None:
    from fedsci.secagg.terms import SMALLEST_COHORT

    active = sum(site.state == "active" for site in enrolment.sites())
    if active < SMALLEST_COHORT:
        typer.echo(f"no roster yet: it takes {SMALLEST_COHORT} active sites, and there are {active}")
    elif not enrolment.roster_is_current():
        typer.echo("the roster is not signed yet; next: fedsci coordinator sign-roster --consortium-key FILE")


def _state(site: "EnrolledSite") -> str:
    if site.state == "active" and site.until <= datetime.datetime.now(datetime.UTC):
        return "expired"
    return site.state


def _row(site: "EnrolledSite") -> dict[str, Any]:
    return {
        "site": site.name,
        "state": _state(site),
        "number": site.index or None,
        "until": site.until.isoformat(),
        "verification_key": site.verification_key.hex() or None,
    }


def passphrase() -> str | None:
    """Return the passphrase of the root's key, if the environment has one."""
    return os.environ.get("FEDSCI_CA_PASSPHRASE") or None


def who() -> str:
    """Return who runs the command, for the record."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"uid {os.getuid()}"
