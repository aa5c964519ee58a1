"""The simulated labs: one site service a site file, made where and when a message arrives."""

import fcntl
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fedsci.config.site import Site, load_site
from fedsci.errors import InputError
from fedsci.names import SiteId
from fedsci.site.keystore import Keystore
from fedsci.site.log import SiteLog
from fedsci.site.service import SiteService
from fedsci.transport.messages import BUSY, Handler, Reply, Request

Service = Callable[[Site, Path], SiteService]
"""Makes the service of a lab, from its site and its state folder. Only a red team's is not :class:`SiteService`."""

# one process may serve several labs (threads, or a Ray worker that gets their messages in turn)
_services: dict[tuple[Path, Path], SiteService] = {}
_lock = threading.Lock()


class Labs:
    """Finds the handler of lab number ``i``. It holds paths only, so that it can travel to Ray workers."""

    def __init__(
        self, site_files: tuple[Path, ...], sites: tuple[SiteId, ...], state: Path, service: Service = SiteService
    ) -> None:
        self._files = site_files
        self._service = service
        self._consortium = b""
        self._sites = sites
        self._state = state

    def handler(self, number: int) -> Handler:
        """Return the handler of lab ``number``, starting its service in this process if need be."""
        key = (self._files[number], self.state_of(self._sites[number]))
        with _lock:
            if key not in _services:
                _services[key] = self._service(load_site(key[0]), key[1])
                _services[key].keystore.pin_consortium(self._consortium)
            return partial(_in_turn, _services[key])

    def enrol(self, consortium: bytes) -> None:
        """Let every lab trust rosters signed by this key."""
        self._consortium = consortium

    def state_of(self, site: SiteId) -> Path:
        """Return the lab's state folder: ledger, log, admitted plans."""
        return self._state / site

    def make_states(self) -> None:
        """Make the labs' state folders, so that a lab that cannot keep a ledger is named before it is asked.

        Raises:
            InputError: one cannot be made or written.
        """
        for site in self._sites:
            folder = self.state_of(site)
            try:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                problem = "" if os.access(folder, os.W_OK | os.X_OK) else "it is not writable"
            except OSError as error:
                problem = error.strerror or str(error)
            if problem:
                raise InputError(
                    f"{site}: cannot keep its ledger in {folder}: {problem}", hint="choose another folder with --state"
                )

    def split_key(self, site: Site) -> bytes:
        """Return what decides which of a lab's records are held out; known here because the lab is simulated."""
        return Keystore(self.state_of(SiteId(site.site))).split_key()

    def log_of(self, site: SiteId) -> SiteLog:
        """Return the lab's own log; readable here because all labs are simulated on this machine."""
        return SiteLog(self.state_of(site) / "site.log")

    def forget(self, run: str) -> None:
        """Drop this run's services from the process, and the secrets of its batches from the machine."""
        with _lock:
            for number, site in enumerate(self._sites):
                _services.pop((self._files[number], self.state_of(site)), None)
                Keystore(self.state_of(site)).forget(run)


def _in_turn(service: SiteService, request: Request) -> Reply:
    """Answer, unless the lab is at work: who waited for it here would hold a processor that others need."""
    with (service.state / "turn").open("w") as turn:
        try:
            fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)  # another process may serve the lab, too
        except BlockingIOError:
            return Reply(error=BUSY)
        return service.handle(request)
