"""The studies that were handed in: a folder each, so that any process can hand one in, look, and ask it to stop.

``request.json`` and ``plan.json`` are written once, by who hands the study in; ``state.json`` by the service alone;
``stop`` by who wants it stopped.
"""

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fedsci.config.plan import Plan
from fedsci.config.plan_checks import plan_from_bytes
from fedsci.coordinator.turns import Claim
from fedsci.errors import InputError, one_line
from fedsci.identity.files import replace_private, write_private
from fedsci.names import SiteId

#: States in which a study is over.
OVER = ("completed", "stopped_by_budget", "aborted")


@dataclass(frozen=True, kw_only=True)
class JobState:
    """How a study stands.

    Attributes:
        state: ``queued``, ``waiting`` (for sites), ``running``, or one of :data:`OVER`.
        waiting: for whom, and for what.
        rounds: rounds completed.
        run: 32 hexadecimal digits by which sites know it; empty before it began.
        folder: its run folder; empty before it began.
        reason, hint, exit_code: why it ended early, and what ``submit --wait`` exits with.
        changed: when this was written, UTC seconds.
    """

    state: str = "queued"
    waiting: Mapping[str, str] = field(default_factory=dict)
    rounds: int = 0
    run: str = ""
    folder: str = ""
    reason: str = ""
    hint: str = ""
    exit_code: int = 0
    changed: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """A study that was handed in.

    Attributes:
        number: 1, 2, ...
        path: its folder in the queue.
        study: its name.
        digest: the plan's.
        sites: who takes part.
        planned: rounds.
        patience_s: how long to wait for sites that are not connected or not decided.
        submitted: UTC seconds.
        who: who handed it in.
    """

    number: int
    path: Path
    study: str
    digest: str
    sites: tuple[str, ...]
    planned: int
    patience_s: float
    submitted: float
    who: str

    @property
    def claim(self) -> Claim:
        """The study, as others that wait for its sites see it."""
        return Claim(number=self.number, study=self.study, sites=frozenset(SiteId(site) for site in self.sites))

    def plan(self) -> Plan:
        """Return the plan."""
        return plan_from_bytes((self.path / "plan.json").read_bytes(), modules=None)  # made from a file of ours

    @property
    def state(self) -> JobState:
        """How it stands now."""
        path = self.path / "state.json"
        try:
            state = JobState(**json.loads(path.read_bytes()))
        except FileNotFoundError:
            return JobState(changed=self.submitted)
        except (ValueError, TypeError, RecursionError):
            raise damaged(path) from None
        if not all(isinstance(getattr(state, name), kind) for kind, names in _KINDS for name in names):
            raise damaged(path)
        return state

    def write_state(self, state: JobState) -> None:
        """Write down how it stands; for the service alone."""
        values = asdict(state) | {"changed": time.time()}
        replace_private(self.path / "state.json", json.dumps(values).encode())

    @property
    def stop_asked(self) -> str | None:
        """Who asked to stop it, or None; whatever the file holds, it stops."""
        try:
            return one_line((self.path / "stop").read_bytes().decode("utf-8", "replace"))
        except FileNotFoundError:
            return None

    def ask_to_stop(self, who: str) -> None:
        """Ask the service to stop it."""
        write_private(self.path / "stop", who.encode())


#: What each field of a state is in JSON.
_KINDS = (
    (str, ("state", "run", "folder", "reason", "hint")),
    (int | float, ("rounds", "exit_code", "changed")),
    (dict, ("waiting",)),
)


def damaged(path: Path) -> InputError:
    """Return the refusal of a study's file that cannot be read."""
    return InputError(f"{path} is damaged", hint="restore the folder from a backup, or hand the study in again")


class StudyQueue:
    """The studies of a coordinator's folder, by the order in which they came.

    Args:
        folder: the coordinator's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "studies"

    def add(self, plan: Plan, *, who: str, patience_s: float) -> Job:
        """Hand a study in, durably."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        partial = self._folder / f".{secrets.token_hex(8)}"
        partial.mkdir(mode=0o700)
        request = {
            "study": plan.study.study,
            "digest": plan.digest,
            "sites": list(plan.sites),
            "planned": plan.training.rounds,
            "patience_s": patience_s,
            "submitted": time.time(),
            "who": who,
        }
        write_private(partial / "plan.json", plan.to_bytes())
        write_private(partial / "request.json", json.dumps(request).encode())
        number = max((job.number for job in self.jobs()), default=0) + 1
        while True:
            try:
                partial.rename(self._folder / f"{number:06}")
            except OSError:
                if not (self._folder / f"{number:06}").exists():
                    raise
                number += 1  # another process was first
                continue
            return self.job(number)

    def job(self, number: int) -> Job:
        """Return a study by its number.

        Raises:
            InputError: its folder is damaged.
        """
        path = self._folder / f"{number:06}"
        try:
            values: dict[str, Any] = json.loads((path / "request.json").read_bytes())
            return Job(number=number, path=path, **(values | {"sites": tuple(values["sites"])}))
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            raise damaged(path / "request.json") from None

    def jobs(self, *, after: int = 0) -> list[Job]:
        """Return all studies with a larger number than ``after``, the oldest first."""
        if not self._folder.is_dir():
            return []
        numbers = sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdigit())
        return [self.job(number) for number in numbers if number > after]

    def find(self, text: str) -> Job:
        """Return the study with this number, run folder or name; of several with one name the newest.

        Raises:
            InputError: there is none.
        """
        jobs = self.jobs()
        wanted = Path(text).name
        for job in reversed(jobs):
            if wanted in (str(job.number), job.study) or (job.state.folder and wanted == Path(job.state.folder).name):
                return job
        raise InputError(f"no run is called {text}", hint="fedsci coordinator runs lists them, by number")

    def find_going(self, text: str) -> Job:
        """Return the same, but by a name one that is not over, if there is one.

        Raises:
            InputError: there is none, or the name is that of several that are not over.
        """
        going = [job for job in self.jobs() if job.study == text and job.state.state not in OVER]
        if len(going) > 1:
            numbers = ", ".join(str(job.number) for job in going)
            raise InputError(f"{len(going)} runs of {text} are not over", hint=f"name one by its number: {numbers}")
        return going[0] if going else self.find(text)
