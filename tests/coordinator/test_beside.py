"""Two masked studies at the same sites at the same time: keys, slots and charges of one are none of the other's."""

import contextlib
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

with warnings.catch_warnings():  # Flower imports typer, which imports names that click has deprecated
    warnings.filterwarnings("ignore", "'click", DeprecationWarning)
    from fedsci.config.site import load_site
    from fedsci.config.study_file import load_study
    from fedsci.coordinator.study import Progress, run_study
    from fedsci.errors import FedsciError
    from fedsci.simulation.consortium import SimulatedConsortium
    from fedsci.site.service import SiteService
    from fedsci.transport.in_memory import LocalGrid
    from fedsci.transport.link import SiteLink
    from fedsci.transport.site_app import build_site_app

NO_NOISE = {"mechanism": "none", "epsilon": None}
NOISE = {"mechanism": "distributed", "epsilon": 2.0, "colluding_sites": 1}
PATIENCE_S = 60


@dataclass
class Run:
    """One study, in a thread; ``at`` is called with each phase, and with the number of each round that is over."""

    labs: "Labs"
    plan: object
    at: Callable[[object], None] = lambda what: None
    progress: Progress = field(default_factory=Progress)
    error: FedsciError | None = None

    def phase(self, name: str) -> None:
        self.at(name)

    def round_finished(self, progress, result) -> None:
        self.at(result.number)

    def go(self) -> None:
        labs = self.labs
        grid = LocalGrid(build_site_app(lambda number: lambda request: labs.services[number].handle(request)), 3)
        with contextlib.closing(grid):
            link = SiteLink(grid=grid, timeout_s=PATIENCE_S)
            roster = labs.consortium.roster(self.plan, link.discover(self.plan.sites))
            try:
                run_study(link, self.plan, self.progress, self, roster=roster)
            except FedsciError as error:
                self.error = error

    def model(self) -> bytes:
        assert self.error is None
        return self.progress.model.tobytes()


class Labs:
    """Three labs, whose processes can be started anew."""

    def __init__(self, files, state, write_study) -> None:
        self.files, self.state, self._write_study = files, state, write_study
        self.consortium = SimulatedConsortium(state)
        self.restart()
        for service in self.services:
            service.keystore.pin_consortium(self.consortium.public)

    def restart(self) -> None:
        sites = [load_site(file) for file in self.files]
        self.services = [SiteService(site, self.state / str(site.site)) for site in sites]

    def run(self, *, rounds: int, privacy=NO_NOISE, at=lambda what: None, **changes) -> Run:
        values = {"training": {"rounds": rounds}, "privacy": privacy, "evaluation": {"baselines": []}}
        file = self._write_study(sites=[file.name for file in self.files], **values | changes)
        return Run(self, load_study(file).plan, at)

    def charges(self) -> list[int]:
        """How many studies every lab has charged."""
        return [len(spending.plans) for spending in self._spending()]

    def spent(self) -> list[float]:
        """What they cost together, in epsilon."""
        return [spending.epsilon_enforced for spending in self._spending()]

    def _spending(self):
        return [service.ledger.spending("points", service.charging.budget("points")) for service in self.services]

    def secrets(self) -> list[str]:
        return sorted(path.name for service in self.services for path in service.keystore._batches.glob("*"))


@pytest.fixture
def labs(make_lab, write_study, tmp_path):
    made = []

    def make(name: str, **dataset) -> Labs:
        policy = {"mechanisms": ["none", "distributed"], "unmasked_updates": False}
        files = [make_lab(number, rows=24, policy=policy, dataset=dataset) for number in (1, 2, 3)]
        made.append(Labs(files, tmp_path / name, write_study))
        return made[-1]

    yield make
    for one in made:
        for service in one.services:
            for folder in (service.state / "runs").glob("*"):
                service.keystore.forget(folder.name)


def side_by_side(*runs: Run) -> None:
    threads = [threading.Thread(target=run.go) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE_S)
        assert not thread.is_alive()


def in_step():
    """A hook that keeps two studies of as many rounds in step."""
    both = threading.Barrier(2)
    return lambda what: both.wait(PATIENCE_S)


@pytest.mark.slow
def test_round_by_round_beside_each_other_each_has_the_model_that_it_has_alone(labs):
    slower = {"training": {"rounds": 3, "learning_rate": 0.1}}
    alone = labs("alone")
    first, second = alone.run(rounds=3), alone.run(rounds=3, **slower)
    first.go()
    second.go()
    assert first.model() != second.model()
    together, step = labs("together"), in_step()
    mine, other = together.run(rounds=3, at=step), together.run(rounds=3, **slower, at=step)
    side_by_side(mine, other)
    assert (mine.model(), other.model()) == (first.model(), second.model())
    once, twice = together.run(rounds=3, at=step), together.run(rounds=3, at=step)  # the very same study
    side_by_side(once, twice)
    assert once.model() == twice.model() == first.model()
    assert once.progress.run != twice.progress.run
    assert together.secrets() == []


@pytest.mark.slow
def test_one_that_ends_and_a_restart_leave_the_others_keys_and_slots(labs):
    alone = labs("alone")
    reference = alone.run(rounds=4)
    reference.go()
    together, began, over = labs("together"), threading.Event(), threading.Event()
    held = []

    def long_one(what):
        if what == "training":
            began.set()
        if what == 1:
            assert over.wait(PATIENCE_S)
            held.extend(together.secrets())
            together.restart()

    def short_one(what):
        if what == "preparing":
            assert began.wait(PATIENCE_S)

    short, long = together.run(rounds=1, at=short_one), together.run(rounds=4, at=long_one)
    threads = [threading.Thread(target=run.go) for run in (short, long)]
    for thread in threads:
        thread.start()
    threads[0].join(PATIENCE_S)
    over.set()
    threads[1].join(PATIENCE_S)
    assert short.error is None
    assert held
    assert all(name.startswith(long.progress.run) for name in held)
    assert long.model() == reference.model()
    assert long.progress.dropped == []
    assert together.secrets() == []


@pytest.mark.slow
def test_both_are_charged_and_what_does_not_fit_beside_the_first_is_refused(labs):
    one_by_one = labs("one-by-one")
    for _ in range(2):
        one_by_one.run(rounds=2, privacy=NOISE).go()
    together, step = labs("together"), in_step()
    runs = [together.run(rounds=2, privacy=NOISE, at=step) for _ in range(2)]
    side_by_side(*runs)
    assert [run.error for run in runs] == [None, None]
    assert together.charges() == one_by_one.charges() == [2, 2, 2]
    assert together.spent() == pytest.approx(one_by_one.spent())
    assert runs[0].model() != runs[1].model()  # each has noise of its own

    poor = labs("poor", privacy={"epsilon": 3.0})
    refused = poor.run(rounds=2, privacy=NOISE)
    first = poor.run(rounds=2, privacy=NOISE, at=lambda what: refused.go() if what == "training" else None)
    first.go()
    assert refused.error is not None
    assert refused.error.exit_code == 3
    assert first.error is None
    assert poor.charges() == [1, 1, 1]
    assert max(poor.spent()) <= 3.0
