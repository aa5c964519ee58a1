"""A tiny consortium in one process, whose labs and line a target may replace: for inputs that need a whole study."""

import atexit
import base64
import json
import shutil
import tempfile
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fedsci.cli.progress import SilentDisplay
from fedsci.config.site import load_site
from fedsci.config.study_file import StudyOnOneMachine, load_study
from fedsci.coordinator.progress import Progress
from fedsci.coordinator.run import RunRecord
from fedsci.coordinator.study import run_study
from fedsci.coordinator.study_log import StudyLog
from fedsci.errors import FedsciError
from fedsci.simulation.consortium import SimulatedConsortium
from fedsci.site.service import SiteService
from fedsci.transport.in_memory import LocalGrid
from fedsci.transport.link import SiteLink
from fedsci.transport.messages import Reply, Request
from fedsci.transport.site_app import build_site_app
from tests.conftest import POLICY, STUDY, changed
from tests.fuzz.engine import home

LABS, ROWS = 3, 24
MASKED: dict[str, Any] = {"audit_log": {"enabled": True}, "secure_aggregation": {"enabled": True}}
PLAIN: dict[str, Any] = {
    "secure_aggregation": {"enabled": False},
    "strategy": "fedavg",
    "privacy": {"mechanism": "none", "epsilon": None},
}
STUDIES = {"masked": MASKED, "plain": PLAIN}

Handle = Callable[[SiteService, Request], Reply]


def honest(service: SiteService, request: Request) -> Reply:
    """Answer as a lab does."""
    return service.handle(request)


@dataclass(kw_only=True)
class Ran:
    """What a study led to.

    Attributes:
        folder: its run folder.
        state: of the labs, each in a folder by its name.
        error: what ended it early.
    """

    folder: Path
    state: Path
    error: FedsciError | None


@cache
def study(kind: str) -> StudyOnOneMachine:
    """A study of three labs on this machine, and their files."""
    folder = home() / kind
    folder.mkdir()
    for number in range(1, LABS + 1):
        points = np.random.default_rng(number).uniform(size=(ROWS, 2))
        lines = ["a,b,above", *(f"{a:.6f},{b:.6f},{int(a > b)}" for a, b in points)]
        (folder / f"lab-{number}.csv").write_text("\n".join(lines) + "\n")
        source = {"path": f"lab-{number}.csv", "privacy": {"epsilon": 12.0, "delta": 1.0e-5}}
        policy = POLICY | {"mechanisms": ["local", "none"], "max_epsilon_per_study": 20.0}
        values = {"site": f"lab-{number}", "datasets": {"points": source}, "policy": policy}
        (folder / f"lab-{number}.yaml").write_text(yaml.safe_dump(values))
    sites = {"sites": [f"lab-{number}.yaml" for number in range(1, LABS + 1)]}
    (folder / "study.yaml").write_text(yaml.safe_dump(changed(STUDY, STUDIES[kind] | sites), sort_keys=False))
    return load_study(folder / "study.yaml")


def conduct(kind: str, handle: Handle = honest) -> Ran:
    """Run a study whose labs answer by ``handle``; everything else is what a real run is.

    Raises:
        Exception: whatever else than an error of fedsci's tree the coordinator stumbles over.
    """
    mine = study(kind)
    place = Path(tempfile.mkdtemp(dir=home()))
    state, plan = place / "labs", mine.plan
    consortium = SimulatedConsortium(state)
    services = [SiteService(load_site(file), state / str(load_site(file).site)) for file in mine.site_files]
    for service in services:
        service.keystore.pin_consortium(consortium.public)
    progress = Progress()
    record = RunRecord.begin(plan, engine="local", out=place / "runs", display=SilentDisplay(), progress=progress)
    record.write_plan()
    grid = LocalGrid(build_site_app(lambda number: lambda request: handle(services[number], request)), LABS)
    record.link = link = SiteLink(grid=grid, timeout_s=120)
    status, reason, failed = "aborted", "", None
    try:
        keys = link.discover(plan.sites, wait_s=2.0)
        roster = consortium.roster(plan, keys) if plan.study.secure_aggregation.enabled else None
        log = record.log(consortium.log_key, roster)
        if isinstance(log, StudyLog):
            log.patience_s = 0.01
        run_study(link, plan, progress, record, roster=roster, log=log)
        record.write_model()
        status, reason = record.ending()
    except FedsciError as error:
        failed, reason = error, error.message
    finally:
        grid.close()
        for service in services:
            service.keystore.forget(progress.run)
    record.close(status, reason)
    return Ran(folder=record.folder.path, state=state, error=failed)


@cache
def finished(kind: str) -> Ran:
    """An honest run."""
    ran = conduct(kind)
    assert ran.error is None, ran.error
    return ran


def vector_to_json(vector: Any) -> dict[str, Any] | None:
    """Return an array as JSON."""
    if vector is None:
        return None
    packed = base64.b64encode(np.ascontiguousarray(vector).tobytes()).decode()
    return {"dtype": vector.dtype.name, "shape": list(vector.shape), "data": packed}


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A lab's whole state as a request reached it, and the request.

    Attributes:
        at: where the state, its anchors and its batches' secrets were copied to.
        body: the request as JSON.
    """

    at: Path
    body: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """An honest study as one lab met it.

    Attributes:
        service: of that lab; its folders are those that :meth:`restore` fills.
        moments: by name, in order.
    """

    service: SiteService
    moments: dict[str, Moment]

    def restore(self, name: str) -> SiteService:
        """Return the lab as it was when this request reached it."""
        moment, batches = self.moments[name], self.service.keystore._batches
        for place, copy in (*_places(self.service), (batches, "batches")):
            shutil.rmtree(place, ignore_errors=True)
            if (moment.at / copy).exists():
                shutil.copytree(moment.at / copy, place)
        return SiteService(self.service.site, self.service.state)


def _of_others(folder: str, names: list[str]) -> list[str]:
    """Leave out what other labs are writing at this moment, in the folder of all labs' anchors."""
    return [name for name in names if "lab-2" in name or "lab-3" in name]


def _places(service: SiteService) -> list[tuple[Path, str]]:
    return [(service.state, "state"), (service.state.parent / "anchors", "anchors")]


@cache
def recorded(kind: str) -> Recorded:
    """Run an honest study and keep lab-1's state before each request, and the request."""
    moments: dict[str, Moment] = {}
    seen: list[SiteService] = []
    copies = Path(tempfile.mkdtemp(dir=home()))

    def handle(service: SiteService, request: Request) -> Reply:
        if service.site.site != "lab-1":
            return service.handle(request)
        seen[:] = [service]
        number = sum(name.startswith(request.action) for name in moments)
        name, at = f"{request.action}-{number}", copies / f"{len(moments):02}"
        for place, copy in (*_places(service), (service.keystore._batches, "batches")):
            if place.exists():
                shutil.copytree(place, at / copy, ignore=_of_others)
        body = {"action": request.action, "fields": deepcopy(dict(request.fields))}
        moments[name] = Moment(at=at, body=body | {"vector": vector_to_json(request.vector)})
        return service.handle(request)

    ran = conduct(kind, handle)
    assert ran.error is None, ran.error
    atexit.register(shutil.rmtree, seen[0].keystore._batches, ignore_errors=True)
    return Recorded(service=seen[0], moments=moments)


def body_text(body: dict[str, Any]) -> bytes:
    """Return a request's JSON as an input."""
    return json.dumps(body).encode()
