"""``fedsci coordinator start, submit, status, runs, logs, stop``: the service, and the studies it runs."""

import datetime
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsci.cli.coordinator import HOME, Folder, passphrase, who
from fedsci.cli.folders import using
from fedsci.cli.run import Overrides, Seed

if TYPE_CHECKING:
    from fedsci.coordinator.queue import Job

Run = Annotated[str, typer.Argument(help="A run: its number, its study's name, or its run folder.", metavar="RUN")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_LOOK_S = 0.3


def register(group: typer.Typer) -> None:
    """Add the commands to ``fedsci coordinator``."""
    group.command("start", epilog="Example: fedsci coordinator start --dir consortium")(start)
    group.command("submit", epilog="Example: fedsci coordinator submit study.yaml --sites all --wait")(submit)
    group.command("status", epilog="Example: fedsci coordinator status")(status)
    group.command("runs", epilog="Example: fedsci coordinator runs --json")(runs)
    group.command("logs", epilog="Example: fedsci coordinator logs 3 --follow")(logs)
    group.command("stop", epilog="Example: fedsci coordinator stop 3")(stop)


def start(
    folder: Folder = HOME,
    out: Annotated[Path, typer.Option("--out", help="Folder that run folders are made in.")] = Path("runs"),
    host: Annotated[str, typer.Option("--host", help="The interface to listen on.")] = "0.0.0.0",  # noqa: S104
) -> None:
    """Run the coordinator: enrolment, the sites' door, and studies as they are submitted. Ends with SIGTERM.

    Prints a JSON object a line. Killed and started again it goes on serving; a study that was going on is ended, its
    sites are told, and it can be submitted again.
    """
    from fedsci.cli.signals import stopped_by_signals
    from fedsci.coordinator.service import CoordinatorService
    from fedsci.registry.journal import to_stdout

    with using(folder):
        service = CoordinatorService(
            folder=folder, out=out, journal=to_stdout(), publish=_publish, host=host, passphrase=passphrase()
        )
        with stopped_by_signals(service.stop):
            service.run()


def submit(
    study: Annotated[Path, typer.Argument(help="The study file.", metavar="STUDY")],
    folder: Folder = HOME,
    sites: Annotated[
        str | None, typer.Option("--sites", help="Names, with commas, or all; else the study file's sites.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end, and exit as the study does.")] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", min=1, help="Seconds to wait for sites to connect and to approve.")
    ] = 86400.0,
    seed: Seed = None,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --wait: print summary.json and nothing else.")] = False,
) -> None:
    """Hand a study to the running coordinator. Several wait for each other."""
    from fedsci.config.study_file import load_deployed_study
    from fedsci.coordinator.enrolment import Enrolment
    from fedsci.coordinator.queue import StudyQueue
    from fedsci.coordinator.service import running
    from fedsci.errors import ConnectionFailed

    with using(folder):
        active = [site.name for site in Enrolment(folder).sites() if site.state == "active"]
        chosen = None if sites is None else [name.strip() for name in sites.split(",") if name.strip()]
        plan = load_deployed_study(study, active=active, chosen=chosen, overrides=overrides, seed=seed)
        if running(folder) is None:
            raise ConnectionFailed(
                f"no coordinator runs in {folder}", hint=f"start it first: fedsci coordinator start --dir {folder}"
            )
        job = StudyQueue(folder).add(plan, who=who(), patience_s=timeout)
    if not as_json:
        typer.echo(f"run {job.number}: {job.study}, {len(job.sites)} sites, {job.planned} rounds", err=wait)
    if wait:
        _follow(job, folder, as_json=as_json)
    elif not as_json:
        typer.echo(f"next: fedsci coordinator status, or fedsci coordinator logs {job.number} --follow")


def status(folder: Folder = HOME, as_json: AsJson = False) -> None:
    """Say whether the coordinator runs, which sites are connected, and what goes on."""
    from fedsci.coordinator.enrolment import Enrolment
    from fedsci.coordinator.queue import OVER, StudyQueue
    from fedsci.coordinator.service import FLEET, running
    from fedsci.errors import ConnectionFailed
    from fedsci.transport.superlink_sites import site_status

    with using(folder):
        enrolment = Enrolment(folder)
        pid = running(folder)
        try:
            connected: dict[Any, str] = site_status(folder / FLEET) if pid is not None else {}
        except ConnectionFailed:
            connected = {}
        sites = {site.name: connected.get(site.name, "offline") for site in enrolment.sites() if site.state == "active"}
        going = [job for job in StudyQueue(folder).jobs() if job.state.state not in OVER]
    if as_json:
        values = {"running": pid is not None, "pid": pid, "sites": sites, "studies": [_row(job) for job in going]}
        typer.echo(json.dumps(values, indent=2))
        return
    typer.echo(f"coordinator  {'not running' if pid is None else f'running, process {pid}'}")
    for site, said in sites.items():
        typer.echo(f"site         {site}: {'connected' if said == 'online' else 'not connected'}")
    for job in going:
        typer.echo(f"run {job.number:<8} {_line(job)}")
        for name, why in job.state.waiting.items():
            typer.echo(f"  waits for {name}, which {why}")


def runs(folder: Folder = HOME, as_json: AsJson = False) -> None:
    """List all studies that were submitted."""
    from rich.console import Console
    from rich.table import Table

    with using(folder):
        _require(folder)
        from fedsci.coordinator.queue import StudyQueue

        jobs = StudyQueue(folder).jobs()
    if as_json:
        typer.echo(json.dumps([_row(job) for job in jobs], indent=2))
        return
    if not jobs:
        typer.echo("nothing was submitted yet; next: fedsci coordinator submit STUDY")
        return
    table = Table()
    for heading in ("run", "study", "submitted (UTC)", "state", "rounds", "run folder, or why it ended"):
        table.add_column(heading)
    for job in jobs:
        state = job.state
        when = datetime.datetime.fromtimestamp(job.submitted, datetime.UTC)
        about = state.reason if state.state == "aborted" else Path(state.folder).name
        row = (str(job.number), job.study, f"{when:%Y-%m-%d %H:%M}", state.state)
        table.add_row(*row, f"{state.rounds}/{job.planned}", about)
    Console(highlight=False).print(table)


def logs(
    run: Run,
    folder: Folder = HOME,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
) -> None:
    """Print what happened in a run, a JSON object a line."""
    from fedsci.coordinator.queue import OVER

    with using(folder):
        job = _find(folder, run)
        seen = 0
        while True:
            over = job.state.state in OVER
            path = job.path / "log.jsonl"
            content = path.read_bytes()[seen:] if path.exists() else b""
            whole = content[: content.rfind(b"\n") + 1]
            seen += len(whole)
            sys.stdout.write(whole.decode())
            sys.stdout.flush()
            if over or not follow:
                return
            time.sleep(_LOOK_S)


def stop(run: Run, folder: Folder = HOME) -> None:
    """End a study: its sites are told, and settle what they charged. What was released stays charged."""
    from fedsci.coordinator.queue import OVER

    with using(folder):
        job = _find(folder, run)
        state = job.state.state
        if state in OVER:
            typer.echo(f"run {job.number} is over already ({state})")
            return
        job.ask_to_stop(who())
    typer.echo(f"run {job.number} is asked to stop; fedsci coordinator runs says when it has")


def _follow(job: "Job", folder: Path, *, as_json: bool) -> None:
    """Show a study until it is over, and exit as it did."""
    from fedsci.coordinator.queue import OVER
    from fedsci.coordinator.service import running
    from fedsci.errors import ConnectionFailed, FedsciError

    shown, gone = "", 0
    while True:
        state = job.state
        line = _line(job)
        if line != shown and not as_json and state.state not in OVER:
            typer.echo(line, err=True)
            shown = line
        if state.state in OVER:
            break
        gone = gone + 1 if running(folder) is None else 0
        if gone > 3:
            raise ConnectionFailed(
                "the coordinator has stopped", hint=f"start it again, then: fedsci coordinator logs {job.number}"
            )
        time.sleep(_LOOK_S)
    if state.state == "aborted":
        if state.folder:
            typer.echo(f"what there is of the run lies in {state.folder}", err=True)
        error = FedsciError(state.reason, hint=state.hint)
        error.exit_code = state.exit_code
        raise error
    _show(Path(state.folder), as_json=as_json)


def _show(folder: Path, *, as_json: bool) -> None:
    from fedsci.cli.results import print_results

    summary = json.loads((folder / "summary.json").read_bytes())
    if as_json:
        typer.echo(json.dumps(summary | {"run_folder": str(folder)}, indent=2))
        return
    page, statement = folder / "report.html", folder / "privacy_statement.md"
    print_results(summary, folder, page if page.exists() else None, statement if statement.exists() else None)


def _publish(folder: Path) -> None:
    from fedsci.reporting import write_report
    from fedsci.reporting.statement import write_statement

    write_report(folder)
    if json.loads((folder / "summary.json").read_bytes())["privacy"]["mechanism"] != "none":
        write_statement(folder)


def _line(job: "Job") -> str:
    state = job.state
    text = f"{job.study}: {state.state}"
    if state.waiting:
        whom = {why: [name for name, other in state.waiting.items() if other == why] for why in state.waiting.values()}
        text += " for " + "; ".join(f"{', '.join(names)} ({why})" for why, names in whom.items())
    elif state.state == "running":
        text += f", round {state.rounds}/{job.planned}"
    return text


def _row(job: "Job") -> dict[str, Any]:
    from dataclasses import asdict

    about = {"run": job.number, "study": job.study, "plan_digest": job.digest, "sites": list(job.sites)}
    return about | {"planned": job.planned, "submitted": job.submitted, "who": job.who} | asdict(job.state)


def _find(folder: Path, run: str) -> "Job":
    from fedsci.coordinator.queue import StudyQueue

    _require(folder)
    return StudyQueue(folder).find(run)


def _require(folder: Path) -> None:
    from fedsci.coordinator.enrolment import Enrolment

    Enrolment(folder)
