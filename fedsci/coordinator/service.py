"""The coordinator's process: enrolment, SuperLink and the queue of studies, from start to SIGTERM."""

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fedsci.coordinator.deployed import DeployedRun, begin_again
from fedsci.coordinator.enrolment import EnrolledSite, Enrolment
from fedsci.coordinator.enrolment_service import serve_enrolment
from fedsci.coordinator.preparation import SignedRoster
from fedsci.coordinator.queue import OVER, Job, StudyQueue
from fedsci.coordinator.study_log import log_key
from fedsci.coordinator.turns import Turns
from fedsci.errors import FedsciError, InputError
from fedsci.identity.files import replace_private
from fedsci.names import SiteId
from fedsci.registry.journal import Journal
from fedsci.registry.process_lock import holder, only_process
from fedsci.transport.superlink_process import Superlink
from fedsci.transport.superlink_sites import register_sites, site_status, unregister_site
from fedsci.transport.tls import CoordinatorTls

FLEET = "fleet"
_LOCK, _FACTS = "service.lock", "service.json"
_TICK_S = 0.5
_RETRY_S = 20.0  # a SuperLink whose parent was killed needs seconds to notice


def running(folder: Path) -> int | None:
    """Return the process that serves a coordinator's folder, or None."""
    return holder(folder / _LOCK)


@dataclass(kw_only=True)
class CoordinatorService:
    """Serves one consortium until :meth:`stop`.

    Attributes:
        folder: the consortium's.
        out: parent of run folders.
        journal: told what happens.
        publish: called with every run folder that is finished, to write what people read.
        host: the interface to listen on.
        fleet_port: studies; as founded if left out, 0 for any free one.
        enrolment_port: enrolment; likewise.
        passphrase: of the root's key, where that is kept here and encrypted.
    """

    folder: Path
    out: Path
    journal: Journal
    publish: Callable[[Path], None] = lambda folder: None
    host: str = "0.0.0.0"  # noqa: S104
    fleet_port: int | None = None
    enrolment_port: int | None = None
    passphrase: str | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _known: dict[SiteId, EnrolledSite] = field(default_factory=dict)
    _publishing: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._turns = Turns(lambda: site_status(self.folder / FLEET))
        self._studies: list[threading.Thread] = []
        self._newest = 0

    def stop(self) -> None:
        """Let :meth:`run` return; studies that are going on go on at the next start. For signal handlers, too."""
        self._stop.set()

    def run(self) -> None:
        """Serve.

        Raises:
            FedsciError: it cannot begin: no consortium there, a port is taken, another process serves it.
        """
        enrolment = Enrolment(self.folder)
        with only_process(self.folder / _LOCK, what=f"the coordinator of {self.folder}"):
            self._maintain(enrolment)
            fleet = self.folder / FLEET
            fleet_port = enrolment.fleet_address.port if self.fleet_port is None else self.fleet_port
            superlink = Superlink(fleet, CoordinatorTls.in_folder(self.folder), host=self.host, port=fleet_port)
            server = serve_enrolment(enrolment, host=self.host, port=self.enrolment_port, note=self._note_refusal)
            with server as enrolling:
                self._start(superlink)
                try:
                    facts = {"pid": os.getpid(), "enrolment_port": enrolling.port, "fleet_port": superlink.port}
                    replace_private(self.folder / _FACTS, json.dumps(facts | {"out": str(self.out.resolve())}).encode())
                    self._register(enrolment, fleet)
                    self.journal("started", **facts)
                    self._serve(enrolment, superlink, fleet)
                finally:
                    superlink.stop()
        self.journal("stopped")

    def _serve(self, enrolment: Enrolment, superlink: Superlink, fleet: Path) -> None:
        maintained = time.monotonic()
        try:
            self._take_up(enrolment, fleet)
            while not self._stop.wait(_TICK_S):
                if superlink.pid is None:
                    self.journal("superlink-ended")
                    self._start(superlink)
                    self._known.clear()
                self._begin(enrolment, fleet)
                try:
                    self._register(enrolment, fleet)
                    if time.monotonic() - maintained > enrolment.look_every_s:
                        maintained = time.monotonic()
                        self._maintain(enrolment)
                except FedsciError as error:
                    self.journal("error", message=error.message)
        finally:
            self._stop.set()
            for study in self._studies:
                study.join()

    def _start(self, superlink: Superlink) -> None:
        deadline = time.monotonic() + _RETRY_S
        while True:
            try:
                superlink.start()
            except FedsciError:
                if self._stop.is_set() or time.monotonic() >= deadline:
                    raise
                time.sleep(_TICK_S)
            else:
                return

    def _maintain(self, enrolment: Enrolment) -> None:
        for line in enrolment.maintain(passphrase=self.passphrase):
            self.journal("maintenance", message=line)

    def _register(self, enrolment: Enrolment, fleet: Path) -> None:
        """Bring SuperLink's list of sites in line with the consortium's members."""
        listed = enrolment.sites()
        active = {site.name: site for site in listed if site.state == "active"}
        if active == self._known:
            return
        register_sites(fleet, [site.certificate for site in active.values()])
        for name in {site.name for site in listed if site.state == "revoked"} - active.keys():
            unregister_site(fleet, name)
        for changed in active.keys() ^ self._known.keys():
            self.journal("site-admitted" if changed in active else "site-shut-out", site=changed)
        self._known = active

    def _take_up(self, enrolment: Enrolment, fleet: Path) -> None:
        """Take up what the process before this one has left; who was running has its sites still."""
        for job in StudyQueue(self.folder).jobs():
            if job.state.state == "running":
                self._turns.hold(job.claim)
        self._begin(enrolment, fleet)

    def _begin(self, enrolment: Enrolment, fleet: Path) -> None:
        """Start a thread for every study that is not over and has none yet."""
        for job in StudyQueue(self.folder).jobs(after=self._newest):
            self._newest, state = job.number, job.state
            if state.state in OVER:
                continue
            if state.state == "waiting":
                begin_again(job)
            about = {"rounds": state.rounds} if state.state == "running" else {"sites": job.sites}
            self.journal("taken-up" if state.state == "running" else "study", run=job.number, study=job.study, **about)
            self._studies = [thread for thread in self._studies if thread.is_alive()]
            self._studies.append(threading.Thread(target=self._run_one, args=(job, enrolment, fleet)))
            self._studies[-1].start()

    def _run_one(self, job: Job, enrolment: Enrolment, fleet: Path) -> None:
        """Run a study to its end; whatever becomes of it, its sites are free for others then."""

        def stopping() -> str | None:
            who = job.stop_asked
            return None if who is None else f"stopped by {who}"

        def roster() -> SignedRoster:
            signed = enrolment.roster()
            if signed is None:
                raise InputError(
                    "the consortium has no roster that names only active sites",
                    hint="fedsci coordinator sign-roster; it takes three active sites",
                )
            return SignedRoster(content=signed, consortium_key=enrolment.consortium_key)

        def over(folder: Path) -> None:
            self._turns.give_back(job.claim)  # sites have settled: others need not wait for the report
            if job.state.state == "running":
                self._publish(folder)  # of a study that never began there is nothing to tell

        run = DeployedRun(
            job=job,
            fleet=fleet,
            out=self.out,
            roster=roster,
            log_key=log_key(self.folder, enrolment.profile),
            stopping=stopping,
            suspending=self._stop.is_set,
            turns=self._turns,
            publish=over,
        )
        try:
            run.run()
        except Exception as error:  # a disk that is full: the study is taken up when the service is started again
            self.journal("error", run=job.number, message=f"{type(error).__name__}: {error}")
        finally:
            self._turns.give_back(job.claim)
        state = job.state
        if state.state not in OVER:
            self.journal("study-suspended", run=job.number, rounds=state.rounds)
            return
        self.journal("study-ended", run=job.number, status=state.state, reason=state.reason, folder=state.folder)

    def _publish(self, folder: Path) -> None:
        try:
            with self._publishing:  # what draws its pictures does one at a time
                self.publish(folder)
        except Exception as error:  # the study is over, whatever is wrong with its report
            self.journal("error", message=f"no report for {folder}: {type(error).__name__}: {error}")

    def _note_refusal(self, code: str, message: str) -> None:
        self.journal("enrolment-refused", code=code, message=message)
