"""The site's process: one warm service behind one connection to the coordinator, from start to SIGTERM.

What a message may ask for is looked up among the actions in ``transport/messages.py``; nothing that arrives is run.
"""

import json
import os
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

from fedsci.config.site import Site
from fedsci.errors import FedsciError, InputError
from fedsci.identity.files import replace_private
from fedsci.names import SiteId
from fedsci.registry.journal import Journal
from fedsci.registry.process_lock import only_process
from fedsci.site.daemon_status import LOCK, SET_CLOCK, STATUS, Connected
from fedsci.site.identity import SiteIdentity
from fedsci.site.service import SiteService
from fedsci.transport.binding import unpack
from fedsci.transport.clock import said_of
from fedsci.transport.flower_site import SiteConnection
from fedsci.transport.messages import Reply, Request
from fedsci.transport.tls import SiteTls

_HOUR_S = 3600.0
_CLOCK_TOLERATED_S = 5.0


class SiteDaemon:
    """Serves one site until :meth:`stop`.

    Args:
        site: the site's file.
        state: its state folder, where it has enrolled.
        journal: told what happens; holds no private values: actions, runs, codes and times.
    """

    def __init__(self, site: Site, state: Path, *, journal: Journal) -> None:
        self._site, self._state, self._journal = site, state, journal
        self._identity = SiteIdentity(SiteId(site.site), state)
        self._stop = threading.Event()
        self._connection: SiteConnection | None = None
        self._status = Connected()
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Let :meth:`run` return after the message in work; callable from a signal handler."""
        self._stop.set()
        connection = self._connection
        if connection is not None:
            connection.stop()

    def run(self) -> None:
        """Serve.

        Raises:
            FedsciError: it cannot begin: not enrolled, another site's folder, or a second daemon.
        """
        facts = self._identity.describe()
        if not facts.enrolled:
            raise InputError(
                f"{facts.site} is not enrolled ({self._state} holds no certificate)",
                hint="ask the coordinator for a token, then: fedsci site join SITE_FILE TOKEN",
            )
        with only_process(self._state / LOCK, what=f"the daemon of {facts.site}"):
            service = SiteService(self._site, self._state)
            self._note(pid=os.getpid(), connected=False, last_error="")
            address = str(self._identity.fleet_address)
            self._journal("started", site=facts.site, pid=os.getpid(), coordinator=address)
            renewing = threading.Thread(target=self._renew, name="renewal", daemon=True)
            renewing.start()
            try:
                self._serve(service)
            finally:
                self._stop.set()
                self._note(connected=False)
        self._journal("stopped", site=facts.site)

    def _serve(self, service: SiteService) -> None:
        """Serve over one connection until :meth:`stop`."""
        self._connection = SiteConnection(
            lambda request: self._answer(service, request),
            address=str(self._identity.fleet_address),
            tls=SiteTls.in_folder(self._state / "tls"),
            state=self._state,
            notice=self._notice,
            clock=self._clock,
            late=self._late,
        )
        if not self._stop.is_set():
            self._connection.serve()

    def _answer(self, service: SiteService, request: Request) -> Reply:
        began = time.monotonic()
        reply = self._roster(service, request) or service.handle(request)
        code = "" if reply.error is None else str(reply.error.get("code", "internal"))
        self._journal(
            "request",
            action=request.action,
            run=str(request.fields.get("run", ""))[:32],
            round=request.fields.get("round") if type(request.fields.get("round")) is int else None,
            seconds=round(time.monotonic() - began, 3),
            error=code,
            message="" if reply.error is None else str(reply.error.get("message", "")),
        )
        if reply.error is not None:
            self._note(last_error=f"{request.action}: {code}: {reply.error.get('message', '')}; see site.log")
        return reply

    def _roster(self, service: SiteService, request: Request) -> Reply | None:
        """Take the roster that comes with a study; answer in the service's place if it is not acceptable."""
        if request.action != "prepare" or "roster" not in request.fields:
            return None
        try:
            self._identity.accept_roster(unpack(request.fields["roster"]))
        except FedsciError as error:
            self._journal("roster-refused", message=error.message)
            return service.failed(request, error)
        except OSError as error:
            return service.failed(request, error)
        return None

    def _renew(self) -> None:
        """Keep the certificate good; connections show the new one by themselves."""
        asked, pause = -_HOUR_S, _HOUR_S
        while True:
            try:
                pause, gone = self._identity.look_every_s, self._identity.outlived
                if not gone or time.monotonic() - asked >= _HOUR_S:  # refusals are counted at the other end
                    asked = time.monotonic()
                    if self._identity.renew_if_due():
                        self._journal("renewed", until=self._identity.describe().until)
            except FedsciError as error:
                message = self._identity.outlived or f"renewal: {error.message}"
                self._note(last_error=message)
                self._journal("renewal-failed", message=message)
            except OSError as error:
                self._journal("renewal-failed", message=f"{self._state}: {error.strerror}")
            if self._stop.wait(pause):
                return

    def _notice(self, text: str) -> None:
        connected = text == "connected"
        text = "" if connected else self._identity.outlived or text
        self._journal("connected" if connected else "disconnected", message=text)
        self._note(connected=connected, since=time.time(), last_error=text)

    def _clock(self, ahead_s: float) -> None:
        off, before = abs(ahead_s) > _CLOCK_TOLERATED_S, self._status.clock_ahead_s
        if off and (not before or said_of(ahead_s) != said_of(before)):  # a busy coordinator's dates vary by seconds
            self._journal("clock", message=said_of(ahead_s), ahead_s=round(ahead_s), hint=SET_CLOCK)
        elif before and not off:
            self._journal("clock", message="this machine's clock is right again", ahead_s=0)
        self._note(clock_ahead_s=round(ahead_s) if off else 0)

    def _late(self, message_type: str, what: str) -> None:
        self._journal("late", type=message_type, message=f"its time was over: {what}")
        self._note(last_error=f"{message_type}: late, {what}; the study does not wait longer for a site")

    def _note(self, **values: object) -> None:
        with self._lock:
            self._status = replace(self._status, **values)  # type: ignore[arg-type]
            try:
                replace_private(self._state / STATUS, json.dumps(asdict(self._status)).encode())
            except OSError as error:  # a full disk; the ledger says so where it matters
                self._journal("error", message=f"cannot write {self._state / STATUS}: {error.strerror}")
