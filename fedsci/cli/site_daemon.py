"""``fedsci site start, status, pending, approve, refuse, signer``: the daemon, and what people at the lab sign."""

import datetime
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsci.cli.folders import using
from fedsci.cli.site import SiteFile, State
from fedsci.errors import one_line

if TYPE_CHECKING:
    from fedsci.config.site import Site
    from fedsci.site.approvals import Asked
    from fedsci.site.permit import Permit
    from fedsci.site.permitting import Signed

_LITTLE_BYTES = 1 << 20
_WHEN = {
    "not_before": "when it is signed",
    "start_by": "72 hours later, or as --hours says",
    "not_after": "90 days after that, or as --days says",
    "nonce": "drawn when it is signed",
}
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Which = Annotated[
    str, typer.Argument(help="The study's name, or its plan's digest or six digits of it.", metavar="STUDY_OR_DIGEST")
]


def register(group: typer.Typer) -> None:
    """Add the commands to ``fedsci site``."""
    group.command("start", epilog="Example: fedsci site start lab-03.yaml")(start)
    group.command("status", epilog="Example: fedsci site status lab-03.yaml --json")(status)
    group.command("pending", epilog="Example: fedsci site pending lab-03.yaml")(pending)
    group.command("approve", epilog="Example: fedsci site approve lab-03.yaml heart-disease")(approve)
    group.command("refuse", epilog='Example: fedsci site refuse lab-03.yaml heart-disease --reason "not our topic"')(
        refuse
    )
    group.command("signer", epilog="Example: fedsci site signer lab-03.yaml officer --key officer.key")(signer)


def start(site_file: SiteFile, state: State = None) -> None:
    """Run the site: connect to the coordinator, and answer by the site file's policy. Ends with SIGTERM.

    Prints a JSON object a line, without private values. Reconnects for as long as it takes, and renews its certificate.
    """
    from fedsci.cli.signals import stopped_by_signals
    from fedsci.registry.journal import to_stdout
    from fedsci.site.daemon import SiteDaemon

    site, folder = _load(site_file, state)
    with using(folder):
        daemon = SiteDaemon(site, folder, journal=to_stdout())
        with stopped_by_signals(daemon.stop):
            daemon.run()


def status(site_file: SiteFile, state: State = None, as_json: AsJson = False) -> None:
    """Say how the site stands: running, connected, studies, budgets, certificate, last error."""
    from fedsci.site.daemon_status import SET_CLOCK
    from fedsci.transport.clock import said_of

    site, folder = _load(site_file, state)
    with using(folder):
        values = _status(site, folder)
    if as_json:
        typer.echo(json.dumps(values, indent=2))
        return
    pid = values["pid"]
    typer.echo(f"{'site':<14}{site.site}, state in {folder}")
    typer.echo(f"{'daemon':<14}{'not running' if pid is None else f'running, process {pid}'}")
    typer.echo(f"{'connected':<14}{'yes' if values['connected'] else 'no'}")
    if values["clock_ahead_s"]:
        typer.echo(f"{'clock':<14}{said_of(values['clock_ahead_s'])}; {SET_CLOCK}")
    if values["disk_free_bytes"] < _LITTLE_BYTES:
        free = f"no space ({values['disk_free_bytes'] / 2**20:.1f} MB free)"
        typer.echo(f"{'disk':<14}{free}: what cannot be written down is not released; make room in {folder}")
    typer.echo(f"{'certificate':<14}{_certificate(values, site_file)}")
    for run, study in values["studies"].items():
        typer.echo(f"{'study':<14}{study}, run {run}")
    for run, file in values["personal_models"].items():
        typer.echo(f"{'own model':<14}{file}, adapted in run {run}; for use inside the lab only")
    for run, file in values["own_models"].items():
        typer.echo(f"{'own model':<14}{file}, joint in run {run}, with layers of its own; for use inside the lab only")
    if values["pending"]:
        typer.echo(f"{'pending':<14}{', '.join(values['pending'])}; fedsci site pending {site_file} shows them")
    for name, budget in values["datasets"].items():
        left = "no budget"
        if budget is not None:
            left = budget.get("problem") or f"epsilon {budget['left']:.2f} of {budget['budget']:.2f} left"
        typer.echo(f"{'data set':<14}{name}: {left}")
    typer.echo(f"{'last error':<14}{values['last_error'] or 'none'}")


def pending(site_file: SiteFile, state: State = None, as_json: AsJson = False) -> None:
    """Show the studies that wait for a word: what they run, on which data, what they cost, with whom."""
    from fedsci.site.approvals import Approvals

    site, folder = _load(site_file, state)
    with using(folder):
        _require(site, folder)
        waiting = [_readable(one, site, folder) for one in Approvals(folder).asked() if one.waits]
    if as_json:
        typer.echo(json.dumps(waiting, indent=2))
        return
    if not waiting:
        typer.echo("no study waits")
    for values in waiting:
        if "problem" in values:
            typer.echo(f"{'study':<10}{one_line(values['study'])} ({values['digest'][7:19]})")
            typer.echo(f"{'but':<10}it cannot be read here any more: {one_line(values['problem'])}")
            typer.echo(f"next: fedsci site refuse {site_file} {values['digest'][7:19]}")
            continue
        _show(values)
        key = f" --key FILE (signed by {values['second_signer']})" if values["state"] == "signed" else ""
        typer.echo(f"next: fedsci site approve {site_file} {values['digest'][7:19]}{key}, or fedsci site refuse")


def approve(
    site_file: SiteFile,
    which: Which,
    state: State = None,
    hours: Annotated[float, typer.Option("--hours", min=0.01, help="How long the approval is good.")] = 72.0,
    days: Annotated[float, typer.Option("--days", min=0.01, help="How long the study may then go on.")] = 90.0,
    second: Annotated[
        str | None, typer.Option("--second", help="Who signs beside the site, where several may.", metavar="NAME")
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", help="Second signer: your key; the site has signed already.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Sign the permit that lets a study run here, once. The policy's other limits stay.

    A safety-critical study runs only when a second person has signed the same permit, with --key.
    """
    from fedsci.cli.coordinator import who
    from fedsci.identity.signer import read_signer
    from fedsci.site.permitting import Permitting

    site, folder = _load(site_file, state)
    with using(folder):
        _require(site, folder)
        permitting = Permitting(site, folder)
        asked = permitting.approvals.find(which)
        if key is not None:
            signed = permitting.countersign(asked, read_signer(key))
        else:
            signed = permitting.sign(asked, who=who(), hours=hours, days=days, second=second)
    _say_signed(signed, site_file, as_json=as_json)


def refuse(
    site_file: SiteFile,
    which: Which,
    state: State = None,
    reason: Annotated[str, typer.Option("--reason", help="The coordinator sees it.")] = "",
    as_json: AsJson = False,
) -> None:
    """Refuse a study. The coordinator sees the reason."""
    from fedsci.cli.coordinator import who
    from fedsci.site.approvals import Approvals

    site, folder = _load(site_file, state)
    with using(folder):
        _require(site, folder)
        approvals = Approvals(folder)
        decided = approvals.refuse(approvals.find(which).digest, who=who(), reason=reason)
    if as_json:
        typer.echo(json.dumps({"study": decided.study, "digest": decided.digest, "reason": reason}, indent=2))
        return
    typer.echo(f"{decided.study} ({decided.digest[7:19]}) is refused")


def signer(
    site_file: SiteFile,
    name: Annotated[str, typer.Argument(help="The second person's name.", metavar="NAME")],
    key: Annotated[Path, typer.Option("--key", help="Her key's file; made if it is not there.")],
) -> None:
    """Make a second person's key, and say what the site file needs to let her sign permits beside the site."""
    from fedsci.config.site import load_site
    from fedsci.identity.signer import new_signer, read_signer
    from fedsci.site.permit_check import second_signers

    site = load_site(site_file)
    fresh = not key.exists()
    public = (new_signer(key) if fresh else read_signer(key)).public
    if fresh:
        typer.echo(f"made {key}: it is {name}'s alone; keep a copy of it")
    if second_signers(site.policy).get(name) == public:
        typer.echo(f"{site_file} names {name} with this key")
        return
    typer.echo(f'in {site_file}: policy: {{second_signers: {{{name}: "{public.hex()}"}}}}')
    typer.echo("next: write that there, and start the site again")


def _say_signed(signed: "Signed", site_file: Path, *, as_json: bool) -> None:
    asked, second = signed.asked, signed.asked.second
    complete = asked.state == "approved"
    if as_json:
        values = {
            "study": asked.study,
            "digest": asked.digest,
            "permit": signed.digest,
            "file": str(signed.file),
            "complete": complete,
            "waits_for": None if complete else second,
            "body": signed.permit.to_json(),
        }
        typer.echo(json.dumps(values, indent=2))
        return
    short = asked.digest[7:19]
    if complete:
        typer.echo(f"{asked.study} ({short}) may run here once, until {_utc(asked.until)}")
    else:
        typer.echo(f"{asked.study} ({short}) is signed by the site and waits for {second}'s signature")
    typer.echo(f"permit {signed.digest}, in {signed.file}")
    if not complete:
        typer.echo(f"next: {second} looks at it, then: fedsci site approve {site_file} {short} --key FILE")


def _utc(seconds: float) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%d %H:%M} UTC"


def _load(site_file: Path, state: Path | None) -> "tuple[Site, Path]":
    from fedsci.config.site import load_site
    from fedsci.site.identity import state_folder

    site = load_site(site_file)
    return site, state_folder(site, state)


def _require(site: "Site", folder: Path) -> None:
    """Pass if the folder is this site's."""
    from fedsci.names import SiteId
    from fedsci.site.identity import SiteIdentity

    SiteIdentity(SiteId(site.site), folder).describe()


def _status(site: "Site", folder: Path) -> dict[str, Any]:
    from fedsci.errors import BudgetRefused
    from fedsci.names import SiteId
    from fedsci.privacy.budget import epsilon_enforced
    from fedsci.site.approvals import Approvals
    from fedsci.site.daemon_status import daemon_status
    from fedsci.site.forecast import spending_of
    from fedsci.site.identity import SiteIdentity
    from fedsci.site.memory import OWN_MODEL, PERSONAL_MODEL

    identity = SiteIdentity(SiteId(site.site), folder)
    facts = identity.describe()
    said = daemon_status(folder)
    budgets: dict[str, Any] = {}
    for name in site.datasets:
        try:
            spending = spending_of(site, name, folder)
        except BudgetRefused as error:  # an operator wants to see the rest all the same
            budgets[name] = {"problem": error.message}
            continue
        if spending is None:
            budgets[name] = None
            continue
        spent = epsilon_enforced(spending.policy, spending.spent_rdp)
        budgets[name] = {"budget": spending.policy.epsilon, "spent": spent, "left": spending.policy.epsilon - spent}
    return {
        "site": site.site,
        "pid": said.pid or None,
        "running": said.pid != 0,
        "connected": said.connected,
        "certificate_expired": bool(identity.outlived),
        "disk_free_bytes": shutil.disk_usage(folder).free,
        "clock_ahead_s": said.clock_ahead_s,
        "certificate_until": None if facts.until is None else f"{facts.until:%Y-%m-%d %H:%M} UTC",
        "studies": {path.parent.name: _study_of(path) for path in sorted((folder / "runs").glob("*/plan.json"))},
        "personal_models": {
            path.parent.name: str(path) for path in sorted((folder / "runs").glob(f"*/{PERSONAL_MODEL}"))
        },
        "own_models": {path.parent.name: str(path) for path in sorted((folder / "runs").glob(f"*/{OWN_MODEL}"))},
        "pending": [one.study for one in Approvals(folder).asked() if one.waits],
        "datasets": budgets,
        "last_error": said.last_error,
    }


def _study_of(plan: Path) -> str:
    """Return the name of an admitted study; of one that cannot be read what to do, for the rest is shown as well."""
    try:
        name = json.loads(plan.read_bytes())["study"]["study"]
    except (ValueError, LookupError, TypeError, RecursionError):
        name = None
    return name if isinstance(name, str) else f"{plan} is damaged: restore it from a backup"


def _certificate(values: dict[str, Any], site_file: Path) -> str:
    until = values["certificate_until"]
    if until is None:
        return "none: not enrolled yet"
    if values["certificate_expired"]:
        return f"RAN OUT {until}: ask the coordinator for a token, then: fedsci site join {site_file} TOKEN"
    return f"good until {until}, renewed before"


def _readable(one: "Asked", site: "Site", folder: Path) -> dict[str, Any]:
    """Return what a pending study would do here; or why it cannot be read, which must hide no other."""
    from fedsci.errors import ConfigError, PolicyRefused

    try:
        return _about(one, site, folder)
    except (ConfigError, PolicyRefused) as error:  # the version or the policy has changed since it was asked for
        return {"study": one.study, "digest": one.digest, "asked": one.since, "problem": error.message}


def _about(one: "Asked", site: "Site", folder: Path) -> dict[str, Any]:
    """Return what a pending study would do here."""
    from fedsci.errors import FedsciError
    from fedsci.site.charging import cost_for, dimension_of
    from fedsci.site.forecast import forecast
    from fedsci.site.permitting import Permitting

    plan = one.opened(site.policy)
    study = plan.study
    dimension = dimension_of(plan)
    expected = forecast(plan, site, cost=cost_for(plan), dimension=dimension, state=folder, approved=True)
    permitting, permit, obstacle = Permitting(site, folder), None, ""
    try:
        permit = permitting.signed(one) if one.state == "signed" else permitting.preview(plan)
    except FedsciError as error:  # what it would say cannot be said; what is asked is shown all the same
        obstacle = error.message
    return {
        "study": study.study,
        "digest": one.digest,
        "question": study.question,
        "asked": one.since,
        "data": study.dataset,
        "target": study.task.target,
        "features": list(study.features),
        "model": study.model.name,
        "parameters": dimension,
        "strategy": plan.recipe.name,
        "rounds": plan.training.rounds,
        "mechanism": study.privacy.mechanism,
        "unit": study.privacy.unit,
        "epsilon": study.privacy.epsilon,
        "delta": study.privacy.delta,
        "masked": study.secure_aggregation.enabled,
        "min_survivors": plan.min_survivors,
        "smallest_sum": plan.smallest_sum,
        "sites": list(plan.sites),
        "costs": expected.alone,
        "spent": expected.spent,
        "spent_after": expected.after,
        "budget": None if expected.policy is None else expected.policy.epsilon,
        "left": None if expected.policy is None else expected.policy.epsilon - (expected.spent or 0.0),
        "left_after": expected.left_after,
        "would_be_refused": expected.refusal,
        "safety_critical": study.safety_critical,
        "state": one.state,
        "expired": one.until if one.expired else None,
        "second_signer": one.second or None,
        "permit": None if permit is None else _body(permit, signed=one.state == "signed"),
        "no_permit": obstacle or None,
    }


def _body(permit: "Permit", *, signed: bool) -> dict[str, Any]:
    """Return a permit's fields; before anybody signs there are neither times nor a nonce."""
    body = permit.to_json()
    return body if signed else body | dict.fromkeys(("not_before", "start_by", "not_after", "nonce"))


def _show(values: dict[str, Any]) -> None:
    private = values["mechanism"] != "none"
    model = f"{values['model']} ({values['parameters']} numbers)"
    lines = [
        ("study", f"{values['study']} ({values['digest'][7:19]})"),
        ("question", values["question"] or "not said"),
        ("data", f"{values['data']}: {', '.join(values['features'])}, to predict {values['target']}"),
        (
            "runs",
            f"{values['strategy']}, {values['rounds']} rounds, {model}",
        ),
        ("with", ", ".join(values["sites"])),
    ]
    if values["masked"]:
        lines.append(("leaves", f"masked sums over at least {values['smallest_sum']} sites"))
    else:
        lines.append(("leaves", "UNMASKED updates"))
    if private:
        lines.append(
            (
                "privacy",
                f"epsilon {values['epsilon']:g} at delta {values['delta']:g} for each {values['unit']}, "
                f"{values['mechanism']} noise",
            )
        )
    else:
        lines.append(("privacy", "NONE"))
    if private and values["budget"] is not None:
        lines.append(
            (
                "costs",
                f"epsilon {values['costs']:.2f}: spent {values['spent']:.2f}, then {values['spent_after']:.2f} "
                f"of {values['budget']:.2f}",
            )
        )
        lines.append(("left", f"epsilon {values['left']:.2f} now, {values['left_after']:.2f} after it"))
    if values["safety_critical"]:
        lines.append(("critical", "SAFETY-CRITICAL: the site and a second person sign"))
    if values["expired"]:
        lines.append(("expired", f"what was signed was good until {_utc(values['expired'])}; sign again"))
    if values["would_be_refused"]:
        lines.append(("but", f"the site would refuse it all the same: {values['would_be_refused']}"))
    for name, text in lines:
        typer.echo(f"{name:<10}{one_line(text)}")  # the coordinator's words must not look like ours
    if values["permit"] is None:
        typer.echo(f"{'permit':<10}none can be signed: {one_line(values['no_permit'])}")
        return
    typer.echo(f"{'permit':<10}{'signed by the site:' if values['state'] == 'signed' else 'to be signed:'}")
    for name, value in values["permit"].items():
        shown = ", ".join(value) if isinstance(value, list) else _WHEN.get(name, "none") if value is None else value
        typer.echo(f"  {name:<17}{one_line(str(shown))}")
