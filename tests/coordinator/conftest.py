"""A whole masked study over labs in this process, with everything on the way seen and, if a test wants, changed."""

import contextlib
import secrets
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

with warnings.catch_warnings():  # Flower imports typer, which imports names that click has deprecated
    warnings.filterwarnings("ignore", "'click", DeprecationWarning)
    from fedsci.config.site import load_site
    from fedsci.config.study_file import load_study
    from fedsci.config.weather import Weather
    from fedsci.coordinator.checkpoint import Checkpoint
    from fedsci.coordinator.deciding import Deciding
    from fedsci.coordinator.decisions import Question
    from fedsci.coordinator.progress import Progress, RoundResult, Suspended
    from fedsci.coordinator.study import run_study
    from fedsci.coordinator.study_log import StudyLog
    from fedsci.errors import FedsciError
    from fedsci.registry.run_folder import RunFolder
    from fedsci.simulation.consortium import SimulatedConsortium
    from fedsci.simulation.weather import WeatherLink
    from fedsci.site.service import SiteService
    from fedsci.transport.in_memory import LocalGrid
    from fedsci.transport.link import SiteLink
    from fedsci.transport.messages import Reply, Request
    from fedsci.transport.site_app import build_site_app

PLAIN = {"mechanism": "none", "epsilon": None}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One request and its reply, as the lab saw them; ``None`` where the lab gave none."""

    site: str
    request: Request
    reply: Reply | None

    @property
    def action(self) -> str:
        return self.request.action

    @property
    def slot(self) -> int:
        return int(self.request.fields.get("slot", -1))


@dataclass(kw_only=True)
class Conducted:
    """What a study led to.

    Attributes:
        progress: as the coordinator has it.
        rounds: as observers were told.
        error: what ended it early, or None.
        exchanges: how often each action was asked for, however many labs got it.
        waits: the checkpoints at which it waited and for whom, as shown; empty when it went on.
        heard: what became of decisions.
        steps: every request and reply.
        audit, log_key: the folder of its log, if it has one, and what signs it.
    """

    progress: Progress
    rounds: list[RoundResult] = field(default_factory=list)
    error: FedsciError | None = None
    exchanges: Counter[str] = field(default_factory=Counter)
    steps: list[Step] = field(default_factory=list)
    audit: Path | None = None
    log_key: Any = None
    waits: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)

    def phase(self, name: str) -> None: ...

    def round_finished(self, progress: Progress, result: RoundResult) -> None:
        if result.number not in [one.number for one in self.rounds]:  # as a run folder does
            self.rounds.append(result)

    def shows(self) -> "Shown":
        return Shown(self)

    def said(self, action: str, *, slot: int | None = None) -> dict[str, Reply]:
        """Every lab's reply to an action."""
        return {
            step.site: step.reply
            for step in self.steps
            if step.action == action and slot in (None, step.slot) and step.reply is not None
        }


@dataclass
class Shown:
    """Notes what a run shows while it waits for people."""

    result: Conducted

    def waits(self, question: Question, roles: tuple[str, ...], folder: Path) -> None:
        self.result.waits.append((question.point.checkpoint, roles))

    def heard(self, text: str) -> None:
        self.result.heard.append(text)


@pytest.fixture
def conduct(
    write_study: Callable[..., Path], make_lab: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Conducted]]:
    """Run a study without noise over ``labs`` labs, in virtual time if there is ``weather``.

    ``dies`` names exchanges (the first is 0) in which the coordinator's process ends, ``before`` it has asked or
    ``after`` the labs have answered; the study is taken up from what was kept.

    ``before(service, request)`` may return another request or raise: the lab's process died before it
    answered. ``after(service, request, reply)`` likewise: it computed, and its answer may never arrive.

    ``people(folder, result)`` is called again and again while the run waits for decisions in the run folder; it may
    raise, also Suspended: the coordinator's process ends.
    """
    services: list[SiteService] = []

    def run(
        *,
        labs: int = 4,
        masked: bool = True,
        before: Callable[[SiteService, Request], Request] = lambda _, request: request,
        after: Callable[[SiteService, Request, Reply], Reply] = lambda _, __, reply: reply,
        serialise: bool = False,
        policy: dict[str, Any] | None = None,
        dies: Collection[tuple[int, str]] = (),
        rows: int = 24,
        weather: dict[str, Any] | None = None,
        people: Callable[[Path, Conducted], None] | None = None,
        **changes: Any,
    ) -> Conducted:
        files = [make_lab(n, rows=rows, policy={"mechanisms": ["none"]} | (policy or {})) for n in range(1, labs + 1)]
        values = {"privacy": PLAIN, "evaluation": {"baselines": []}, "secure_aggregation": {"enabled": masked}}
        study = load_study(write_study(sites=[file.name for file in files], **values | changes))
        state = tmp_path / secrets.token_hex(4)
        consortium = SimulatedConsortium(state, study.plan.study.secure_aggregation.crypto_profile)
        mine = [SiteService(load_site(file), state / str(load_site(file).site)) for file in study.site_files]
        for service in mine:
            service.keystore.pin_consortium(consortium.public)
        services.extend(mine)
        result = Conducted(progress=Progress())

        def handler_of(number: int) -> Callable[[Request], Reply]:
            service = mine[number]

            def handle(request: Request) -> Reply:
                reply = None
                try:
                    request = before(service, request)
                    reply = after(service, request, service.handle(request))
                finally:
                    result.steps.append(Step(site=service.site.site, request=request, reply=reply))
                return reply

            return handle

        ask, struck = SiteLink.ask, set()

        def count(link: SiteLink, requests: Any) -> Any:
            number = result.exchanges.total()
            if (number, "before") in dies and (number, "before") not in struck:
                struck.add((number, "before"))
                raise Suspended
            result.exchanges[next(iter(requests.values())).action] += 1
            replies = ask(link, requests)
            if (number, "after") in dies:
                raise Suspended
            return replies

        grid = LocalGrid(build_site_app(handler_of), labs, serialise=serialise)
        link = SiteLink(grid=grid, timeout_s=30)
        if weather is not None:
            under = Weather.model_validate({"seed": 1} | weather)
            link = WeatherLink(grid=grid, timeout_s=30, plan=study.plan, weather=under)
        with contextlib.ExitStack() as stack:
            stack.callback(grid.close)
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setattr(SiteLink, "ask", count)
            keys = link.discover(study.plan.sites)
            roster = consortium.roster(study.plan, keys) if masked else None
            keep = Checkpoint(state / "coordinator")
            folder = state / "run"
            folder.mkdir()
            while True:
                deciding = None
                if people is not None:
                    deciding = Deciding(
                        plan=study.plan,
                        folder=folder,
                        shows=result.shows(),
                        epsilon=lambda rounds: None,
                        pause=lambda _: people(folder, result),
                    )
                try:
                    log = None
                    if study.plan.study.audit_log.enabled:  # as a new process would: from what lies in the folder
                        log = StudyLog(
                            folder=RunFolder(path=folder), plan=study.plan, key=consortium.log_key, patience_s=2.0
                        )
                        result.audit, result.log_key = log.path, consortium.log_key
                    run_study(
                        link,
                        study.plan,
                        result.progress,
                        result,
                        roster=roster,
                        keep=keep,
                        deciding=deciding,
                        log=log,
                    )
                except Suspended:
                    result.progress = keep.restore(study.plan)
                    continue
                except FedsciError as error:
                    result.error = error
                break
        return result

    yield run
    for service in services:
        for folder in (service.state / "runs").glob("*"):
            service.keystore.forget(folder.name)
