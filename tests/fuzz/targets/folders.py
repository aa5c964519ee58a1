"""Folders that somebody else may have changed: run folders, a coordinator's own, a site's ledger.

An input names one file and says what is in it; everything else is as an honest run left it.
"""

import json
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from fedsci.audit.entries import FILE as ENTRIES
from fedsci.audit.statement import open_statement, peek, sign_statement
from fedsci.audit.verification import VerifiedLog, verify_log
from fedsci.config.site import load_site
from fedsci.coordinator.checkpoint import Checkpoint
from fedsci.coordinator.deployed import keep_scaling, kept_scaling
from fedsci.coordinator.progress import Progress
from fedsci.coordinator.queue import StudyQueue
from fedsci.errors import FedsciError, InputError, VerificationFailed
from fedsci.names import digest
from fedsci.registry.run_folder import RunFolder
from fedsci.reporting.comparison import compare_runs
from fedsci.reporting.documents import check_documents, write_documents
from fedsci.reporting.earlier_runs import earlier_runs
from fedsci.reporting.evidence import read_evidence
from fedsci.reporting.red_team import RED_TEAM, read_red_team, red_team, write_red_team_page
from fedsci.reporting.report import write_report
from fedsci.reporting.run_folder import read_run_folder
from fedsci.reporting.verify import verify_run
from fedsci.simulation.consortium import SimulatedConsortium
from fedsci.site.approvals import Approvals
from fedsci.site.daemon_status import daemon_status
from fedsci.site.keystore import Keystore
from fedsci.site.ledger import open_ledger
from fedsci.site.log import SiteLog
from fedsci.site.memory import StrategyMemory
from fedsci.site.waiting import Waiting
from tests.fuzz.engine import Target, home
from tests.fuzz.targets.audit import LAB, files_of, overwrite, values_in
from tests.fuzz.world import STUDIES, finished, recorded, study


@contextmanager
def copied(folder: Path, data: bytes) -> Iterator[Path]:
    """A copy of a folder with the file that an input names."""
    name, _, content = data.partition(b"\n")
    with tempfile.TemporaryDirectory(dir=home()) as place:
        copy = Path(place, folder.name)
        shutil.copytree(folder, copy)
        overwrite(copy, name, content)
        yield copy


def run_folder(data: bytes, *, kind: str) -> None:
    """Whatever reads a run folder: reports, statements, cards, comparisons, the verifier."""
    with copied(finished(kind).folder, data) as folder:
        read_run_folder(folder)
        plan = study(kind).plan
        readers: list[Callable[[], object]] = [
            lambda: write_report(folder, verified=verify_run),
            lambda: compare_runs([folder, finished(kind).folder]),
            lambda: earlier_runs(plan, folder.parent),
            lambda: read_evidence(folder),
            lambda: verify_run(folder),
            lambda: write_documents(folder),
            lambda: check_documents(folder),
        ]
        answers, first = list[FedsciError](), zlib.crc32(data) % len(readers)
        for number in (first, (first or len(readers)) - 1):  # each for itself: most take a second
            try:
                readers[number]()
            except FedsciError as error:
                if plan.private or number < 3:  # the others refuse a run that promises nothing and kept no log
                    answers.append(error)
    if answers:
        raise answers[0]


def signed_folder(data: bytes) -> None:
    """What a hostile coordinator leaves: it changes a file, or its manifest, and signs the manifest anew."""
    ran = finished("masked")
    with copied(ran.folder, data) as folder:
        manifest = folder / "audit" / "manifest.json"
        body = dict(peek((ran.folder / "audit" / "manifest.json").read_bytes())[1])
        name, _, content = data.partition(b"\n")
        if name == b"audit/manifest.json":
            body = values_in(content)
            if not isinstance(body, dict):
                raise VerificationFailed("no body")
        else:
            body["files"] = {name: digest((folder / name).read_bytes()) for name in body["files"]}
        manifest.write_bytes(sign_statement("manifest", body, [SimulatedConsortium(ran.state).log_key]))
        try:
            verify_run(folder)
        finally:
            with suppress(FedsciError):
                write_documents(folder)


def log_statements(data: bytes) -> None:
    """A statement of a log whose signer is hostile: everything after the log's own checks looks at it."""
    kind, _, content = data.partition(b"\n")
    body = values_in(content)
    if not isinstance(body, dict):
        raise VerificationFailed("no body")
    name = kind.decode("ascii", "replace")
    signed = open_statement(name, sign_statement(name, body, [LAB]), [LAB.public])

    def changed(*args: Any, **options: Any) -> VerifiedLog:
        log = verify_log(*args, **options)
        at = next((entry.digest for entry in log.entries if entry.kind == name), None)
        if at is None:
            raise VerificationFailed("no such entry")
        return replace(log, statements={**log.statements, at: signed})

    with patch("fedsci.reporting.verify.verify_log", changed):
        verify_run(finished("masked").folder)


def attacks(data: bytes) -> None:
    """What attacks came to, as a report shows it: every coordinate of a plot is a number."""
    with tempfile.TemporaryDirectory(dir=home()) as place:
        Path(place, RED_TEAM).write_bytes(data)
        found = read_red_team(Path(place))
        if found is None:
            raise InputError("nothing that can be read")
        write_red_team_page(found, Path(place, "page.html"), title="t")
        for drawn in re.findall(r' (?:points|x|y|x1|x2|y1|y2|cx|cy|width|height)="([^"]*)"', red_team(found)):
            assert "nan" not in drawn, drawn
            assert "inf" not in drawn, drawn


def coordinator_folder(data: bytes) -> None:
    """What a coordinator kept of a study that goes on, damaged."""
    with copied(_kept(), data) as folder:
        keep = Checkpoint(folder)
        try:
            restored = keep.restore(study("masked").plan)
            if restored is not None:
                keep.save(restored)
        finally:
            keep.setups()


def queue(data: bytes) -> None:
    """The folders of studies that were handed in, damaged."""
    with copied(_queue(), data) as folder:
        for job in StudyQueue(folder).jobs():
            assert job.state.state
            assert job.stop_asked is None or job.stop_asked.isprintable()
            kept_scaling(job)
            job.plan()


def own_files(data: bytes) -> None:
    """What a coordinator goes on with of a run folder, and a site of its own state, damaged."""
    name, _, content = data.partition(b"\n")
    with tempfile.TemporaryDirectory(dir=home()) as place:
        folder = Path(place)
        overwrite(folder, name, content)
        RunFolder(path=folder).settle_metrics()
        Keystore(folder).check_serial(7)
        StrategyMemory(folder)
        Waiting(folder)


def ledger(data: bytes) -> None:
    """A site's ledger, its anchor and its approvals, damaged: nothing is charged by them, and nothing crashes."""
    world = recorded("masked")
    world.restore("train-1")
    site, state = world.service.site, world.service.state
    name, _, content = data.partition(b"\n")
    overwrite(state.parent, name, content)
    for path in state.glob("ledger.sqlite-*"):
        path.unlink()
    try:
        seen = open_ledger(site, state).inspect()
        assert seen.books is not None
        open_ledger(site, state).entries()
    finally:
        daemon_status(state)
        SiteLog(state / "site.log").last_error("0" * 32)
        with suppress(FedsciError):
            Approvals(state).asked()


@cache
def _kept() -> Path:
    """A coordinator's folder in the middle of a masked study: its last checkpoint, caught as it was written."""
    from fedsci.secagg import ReadySetup
    from tests.fuzz.targets.secagg import batch

    folder = home() / "kept"
    keep, progress = Checkpoint(folder), Progress()
    ran = _progress()
    progress.__dict__.update(ran.__dict__)
    keep.save(progress)
    keep.save_state(progress)
    found = batch()[0]
    keep.save_setup(0, ReadySetup.decode(found["ready"]), {1: found["delivery"]})
    keep.save_adverts(1, found["adverts"])
    return folder


@cache
def _progress() -> Progress:
    """The progress of a plain study after its last round."""

    from fedsci.coordinator.admission import Admission
    from fedsci.coordinator.progress import RoundResult
    from fedsci.strategies.base import StrategyState
    from fedsci.strategies.server_optimiser import OptimiserState

    progress, nothing = Progress(), np.zeros(3, np.float32)
    said = {"train": 18, "holdout": 6, "inputs": 2, "parameters": 3, "schema": "x", "privacy": {"study": 1.0}}
    said |= {"exact_evaluation": True, "rounds_allowed": 2, "measurements_allowed": 1, "advert": "AAAA"}
    progress.sites = {site: Admission(**said) for site in study("masked").plan.sites}  # type: ignore[arg-type]
    progress.rounds_allowed, progress.asked = 2, 1
    optimiser = OptimiserState(first=nothing, second=nothing)
    progress.state = StrategyState(round=1, model=nothing + 1, optimiser=optimiser, memory={})
    progress.pending = RoundResult(number=1, measured=None, survivors=3, dropped=(), seconds=1.0)
    return progress


@cache
def _queue() -> Path:
    folder = home() / "queue"
    folder.mkdir()
    job = StudyQueue(folder).add(study("masked").plan, who="fuzz", patience_s=1.0)
    job.write_state(replace(job.state, state="running", run="0" * 32))
    job.ask_to_stop("fuzz")
    keep_scaling(job, study("masked").plan, folder)
    return folder


def _own_files() -> Mapping[str, bytes]:
    folder = Path(tempfile.mkdtemp(dir=home()))
    RunFolder(path=folder).append_metrics({"round": 1, "metrics": {"accuracy": 0.5}})
    RunFolder(path=folder).append_metrics({"round": 2})
    Keystore(folder).check_serial(3)
    memory, waiting = StrategyMemory(folder), Waiting(folder)
    memory["control"] = np.ones(3, np.float32)
    memory.store()
    waiting.keep(1, np.ones(3, np.float32), np.ones(3, np.float32))
    waiting.measured(2)
    return files_of(folder, "metrics.jsonl", "roster.serial", "*.safetensors")


def _run_files(kind: str) -> Mapping[str, bytes]:
    audit = ("audit/keys.json", "audit/manifest.json", f"audit/{ENTRIES}", "audit/statements/*", "audit/checkpoints/*")
    folder = finished(kind).folder
    write_documents(folder)
    values = json.loads(_attacks()["valid"]) | {"plan_digest": study(kind).plan.digest}
    attacked = {"redteam": b"redteam.json\n" + json.dumps(values).encode()}
    return files_of(folder, "*.yaml", "*.jsonl", "*.json", "*.safetensors", "*.md", *audit) | attacked


def _signed_files() -> Mapping[str, bytes]:
    folder = finished("masked").folder
    body = peek((folder / "audit" / "manifest.json").read_bytes())[1]
    manifest = {"manifest": b"audit/manifest.json\n" + json.dumps(body).encode()}
    return files_of(folder, "*.yaml", "*.jsonl", "summary.json", "model.*", "audit/keys.json") | manifest


def _log_statements() -> Mapping[str, bytes]:
    audit = finished("masked").folder / "audit"
    found = dict[str, bytes]()
    for line in (audit / ENTRIES).read_text().splitlines():
        entry = json.loads(line)
        statement = audit / "statements" / f"{entry['digest'].removeprefix('sha256:')}.json"
        body = json.dumps(peek(statement.read_bytes())[1]).encode()
        found.setdefault(entry["kind"], entry["kind"].encode() + b"\n" + body)
    return found


def _attacks() -> Mapping[str, bytes]:
    curves = [{"name": "n", "points": [[0, 0.5], [0.25, 0.75], [1, 1]]}, {"name": "m", "points": [[0, 0], [1, 1]]}]
    plot = {"title": "t", "x": "x", "y": "y", "curves": curves}
    row = {"key": "audit-noise", "claim": "c", "attack": "a", "result": "r", "verdict": "holds", "plot": plot}
    return {"valid": json.dumps({"study": "heart", "plan_digest": "sha256:00", "findings": [row]}).encode()}


def _ledger_files() -> Mapping[str, bytes]:
    world = recorded("masked")
    world.restore("train-1")
    labs = world.service.state.parent
    with suppress(FedsciError):
        load_site(study("masked").site_files[0])
    asked = b'{"digest": "sha256:00", "study": "x", "plan": "{}", "state": "pending", "since": 1.0}'
    status = b'{"pid": 1, "connected": true, "since": 1.0}'
    return {
        **files_of(labs, "lab-1/ledger.sqlite", "anchors/lab-1.json"),
        "status": b"lab-1/status.json\n" + status,
        "log": b'lab-1/site.log\n{"time": 1, "event": "error", "run": "x"}\n',
        "approval": b"lab-1/approvals/00.json\n" + asked,
    }


_YAML = (b"&a [", b"*a", b"!!bool x", b"2024-13-45", b"!!python/name:os.system", b".inf", b"? ")

TARGETS = [
    *(
        Target(
            name=f"run-folder-{kind}",
            run=partial(run_folder, kind=kind),
            seeds=partial(_run_files, kind),
            tokens=_YAML,
            headed=True,
            fresh=True,
            tries=8,
        )
        for kind in STUDIES
    ),
    Target(name="run-folder-signed", run=signed_folder, seeds=_signed_files, headed=True, fresh=True, tries=12),
    Target(name="log-statements", run=log_statements, seeds=_log_statements, headed=True, fresh=True, tries=20),
    Target(name="red-team", run=attacks, seeds=_attacks, tokens=(b"5e-324", b"1e308", b"-1e308", b"NaN"), tries=80),
    Target(
        name="coordinator-folder",
        run=coordinator_folder,
        seeds=lambda: files_of(_kept(), "*"),
        headed=True,
        fresh=True,
        tries=25,
    ),
    Target(
        name="queue-folder",
        run=queue,
        seeds=lambda: files_of(_queue(), "studies/*/*"),
        headed=True,
        fresh=True,
        tries=15,
    ),
    Target(name="own-files", run=own_files, seeds=_own_files, headed=True, fresh=True, tries=60),
    Target(name="site-ledger", run=ledger, seeds=_ledger_files, headed=True, fresh=True, tries=15),
]
