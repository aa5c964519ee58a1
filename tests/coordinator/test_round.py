"""One round at the coordinator: who counts, what the sum is, and when it is called off."""

import numpy as np
import pytest

from fedsci.coordinator.round import run_round
from fedsci.errors import PolicyRefused, RoundAborted
from fedsci.strategies.base import StrategyState
from fedsci.transport.in_memory import LocalGrid
from fedsci.transport.link import SiteLink
from fedsci.transport.messages import Reply, Request
from fedsci.transport.site_app import build_site_app

MODEL = np.array([1.0, -1.0], np.float32)
UPDATES = {f"lab-{n}": np.array([n, -n], np.float32) for n in (1, 2, 3, 4)}
WEIGHTS = {"lab-1": 10.0, "lab-2": 20.0, "lab-3": 30.0, "lab-4": 40.0}


@pytest.fixture
def play(make_plan):
    """Run one round of four sites; ``answers`` replaces what single sites answer."""
    grids = []

    def run(*, survivors: int = 2, **answers) -> tuple:
        plan = make_plan(sites=4, strategy="fedavg", secure_aggregation={"min_survivors": survivors})

        def handler_of(number: int):
            site = f"lab-{number + 1}"

            def handle(request: Request) -> Reply:
                if request.action == "hello":
                    return Reply(fields={"site": site})
                answer = answers.get(site.replace("-", "_"), UPDATES[site])
                if isinstance(answer, BaseException):
                    raise answer
                return answer if isinstance(answer, Reply) else Reply(vector=answer)

            return handle

        grid = LocalGrid(build_site_app(handler_of), 4)
        grids.append(grid)
        link = SiteLink(grid=grid, timeout_s=10)
        link.discover(plan.sites)
        return run_round(link, plan, "a" * 32, 1, plan.strategy.start(MODEL), WEIGHTS)

    yield run
    for grid in grids:
        grid.close()


def mean_of(*sites: str) -> np.ndarray:
    total = sum(WEIGHTS[site] * UPDATES[site].astype(np.float64) for site in sites)
    return MODEL + total / sum(WEIGHTS[site] for site in sites)


def moved_to(state: StrategyState, expected: np.ndarray) -> None:
    assert state.round == 1
    assert state.model == pytest.approx(expected, rel=1e-6)


def test_all_sites_are_weighted_by_their_records(play):
    outcome = play()
    assert outcome.dropped == ()
    moved_to(outcome.state, mean_of("lab-1", "lab-2", "lab-3", "lab-4"))


BAD = {
    "an error": PolicyRefused("no"),
    "a crash": ValueError("row 7"),
    "no vector": Reply(),
    "float64": np.zeros(2),
    "integers": np.zeros(2, np.int64),
    "too short": np.zeros(1, np.float32),
    "too long": np.zeros(3, np.float32),
    "a matrix": np.zeros((2, 1), np.float32),
    "NaN": np.array([np.nan, 0], np.float32),
    "infinity": np.array([0, np.inf], np.float32),
    "two infinities": np.array([np.inf, -np.inf], np.float32),
    "too large for its weight": np.array([3e38, 0], np.float32),
}


@pytest.mark.parametrize("name", BAD)
def test_a_failing_site_is_dropped_and_the_sum_is_over_the_others(play, name):
    outcome = play(lab_2=BAD[name])
    assert outcome.dropped == ("lab-2",)
    moved_to(outcome.state, mean_of("lab-1", "lab-3", "lab-4"))


def test_exactly_enough_survivors_are_enough(play):
    outcome = play(survivors=2, lab_1=BAD["NaN"], lab_4=BAD["an error"])
    assert outcome.dropped == ("lab-1", "lab-4")
    moved_to(outcome.state, mean_of("lab-2", "lab-3"))


def test_too_few_survivors_abort_the_round_and_say_why(play):
    with pytest.raises(RoundAborted) as aborted:
        play(survivors=3, lab_1=BAD["NaN"], lab_4=PolicyRefused("secret", public="not today"))
    message = aborted.value.message
    assert "round 1: only 2 of 4 sites finished, 3 are needed" in message
    assert "lab-1: its update holds NaN or infinity" in message
    assert "lab-4: not today" in message
    assert "secret" not in message
    assert aborted.value.exit_code == 5


def test_sums_that_overflow_together_abort_the_round(play):
    large = np.array([5e36, 0], np.float32)
    with pytest.raises(RoundAborted, match="NaN or infinity"):
        play(lab_1=large, lab_2=large, lab_3=large, lab_4=large)
