"""``fedsci coordinator start, submit, status, runs, logs, stop``: the service, and the studies it runs."""

import datetime
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsci.cli.coordinator import HOME, Folder, passphrase, who
from fedsci.cli.folders import using
from fedsci.cli.run import Overrides, Seed

if TYPE_CHECKING:
    from fedsci.coordinator.queue import Job, JobState

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

    Prints a JSON object a line. Stopped or killed and started again it goes on serving: studies that ran go on from
    their last round, and those that waited go on waiting.
    """
    from fedsci.cli.signals import stopped_by_signals
    from fedsci.coordinator.service import CoordinatorService
    from fedsci.registry.journal import to_stdout

    with using(folder):
        service = CoordinatorService(
            folder=folder,
            out=out,
            journal=to_stdout(),
            publish=partial(_publish, folder),
            host=host,
            passphrase=passphrase(),
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
        float,
        typer.Option("--timeout", min=1, help="Seconds to wait for sites to connect and to approve, not for its turn."),
    ] = 86400.0,
    seed: Seed = None,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --wait: print summary.json and nothing else.")] = False,
) -> None:
    """Hand a study to the running coordinator. Each submission is a run of its own, and a charge of its own.

    A study starts when all its sites are connected and have agreed to it, and none of them is in a running study.
    Of the studies that wait only for busy sites the oldest has its sites kept for it as they come free; later ones
    start on sites that it does not need.
    """
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
        queue = StudyQueue(folder)
        before = [job for job in queue.jobs() if job.digest == plan.digest and _charged(job)]
        job = queue.add(plan, who=who(), patience_s=timeout)
    if not as_json:
        typer.echo(f"run {job.number}: {job.study}, {len(job.sites)} sites, {job.planned} rounds", err=wait)
    if before:
        typer.echo(
            f"note: run {before[-1].number} ({before[-1].state.state}) is the very same study; run {job.number} is "
            f"charged to every site's budget once more. To take it back: fedsci coordinator stop {job.number}",
            err=True,
        )
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
        state = job.state
        typer.echo(f"run {job.number:<8} {job.study}: {state.state if state.waiting else _standing(job, state)}")
        for why, names in _reasons(state).items():
            typer.echo(f"  waits for {', '.join(names)}, {'which' if len(names) == 1 else 'each of which'} {why}")


def runs(folder: Folder = HOME, as_json: AsJson = False) -> None:
    """List all studies that were submitted."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

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
    for heading in ("run", "study", "submitted (UTC)", "state", "rounds", "run folder, or why it waits or ended"):
        table.add_column(heading)
    for job in jobs:
        state = job.state
        when = datetime.datetime.fromtimestamp(job.submitted, datetime.UTC)
        about = state.reason if state.state == "aborted" else _waits(state) or Path(state.folder).name
        row = (str(job.number), job.study, f"{when:%Y-%m-%d %H:%M}", state.state)
        table.add_row(*row, f"{state.rounds}/{job.planned}", Text(about))  # a site's words are no markup
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
    """End a study, also one that waits: its sites are told, and settle. What was released stays charged."""
    from fedsci.coordinator.queue import OVER, StudyQueue
    from fedsci.coordinator.service import running

    with using(folder):
        _require(folder)
        job = StudyQueue(folder).find_going(run)
        state = job.state.state
        if state in OVER:
            typer.echo(f"run {job.number} is over already ({state})")
            return
        job.ask_to_stop(who())
        if running(folder) is None:
            typer.echo(f"run {job.number} is ended when the coordinator is started; it does not run now")
            return
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
    from fedsci.reporting.documents import documents_of

    summary = json.loads((folder / "summary.json").read_bytes())
    if as_json:
        typer.echo(json.dumps(summary | {"run_folder": str(folder)}, indent=2))
        return
    print_results(summary, folder, documents_of(folder))


def _publish(consortium: Path, folder: Path) -> None:
    from fedsci.coordinator.enrolment import Enrolment
    from fedsci.coordinator.study_log import log_key
    from fedsci.reporting.documents import write_documents

    write_documents(folder, signer=log_key(consortium, Enrolment(consortium).profile))


def _line(job: "Job") -> str:
    return f"{job.study}: {_standing(job, job.state)}"


def _standing(job: "Job", state: "JobState") -> str:
    if state.state == "waiting":
        return f"waiting for {_waits(state)}" if state.waiting else "waiting while its sites are asked"
    text = f"running, round {state.rounds}/{job.planned}" if state.state == "running" else state.state
    return f"{text}, waits for {_waits(state)}" if state.waiting else text


def _reasons(state: "JobState") -> dict[str, list[str]]:
    """Return why a study waits, and for whom."""
    whom: dict[str, list[str]] = {}
    for name, why in state.waiting.items():
        whom.setdefault(why, []).append(name)
    return whom


def _waits(state: "JobState") -> str:
    return "; ".join(f"{', '.join(names)} ({why})" for why, names in _reasons(state).items())


def _charged(job: "Job") -> bool:
    """Say whether sites have paid for a run, or will."""
    return job.state.state != "aborted" or job.state.rounds > 0


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
