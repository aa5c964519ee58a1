"""The ledger: pay before release, each round once, append-only, and trusted only while its chain holds."""

import contextlib
import math
import secrets
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fedsci.errors import BudgetRefused, InputError
from fedsci.privacy.budget import SAMPLER_SHARE, budget_policy, charge_cost
from fedsci.privacy.calibration import charged_plan
from fedsci.privacy.events import Plan as EventPlan
from fedsci.site.ledger import Ledger

BUDGET = {"epsilon": 8.0, "delta": 1e-5, "unit": "record"}
RUN = "a" * 32


def events(rounds: int, noise: float = 4.0) -> EventPlan:
    if rounds == 0:
        return EventPlan(events=())
    return charged_plan(noise_multiplier=noise, sample_rate=1.0, steps=rounds, dimension=10)


@pytest.fixture
def state(tmp_path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def ledger(state) -> Ledger:
    return Ledger(state)


@pytest.fixture
def policy(ledger):
    return ledger.register("heart", **BUDGET)


def reserve(ledger: Ledger, policy, run: str = RUN, rounds: int = 3, **more) -> int:
    asked = {"measurements": 0, "distance": 1e-20} | more
    return ledger.reserve("heart", run, policy=policy, plan=events, rounds=rounds, **asked)


def used(rounds: int, measurements: int) -> EventPlan:
    return events(rounds + measurements)


def spent(ledger: Ledger, policy) -> float:
    return ledger.spending("heart", policy).spent_rdp


def test_nothing_is_spent_at_first(ledger, policy):
    spending = ledger.spending("heart", policy)
    assert (spending.spent_rdp, spending.epsilon_enforced, spending.plans, spending.no_privacy_runs) == (0, 0, (), 0)


def test_a_reservation_is_spent_at_once_and_by_whoever_opens_the_file(ledger, policy, state):
    reserve(ledger, policy)
    assert spent(Ledger(state), policy) == pytest.approx(charge_cost(events(3), policy))


def test_a_crash_without_settling_keeps_the_whole_charge(ledger, policy, state):
    reserve(ledger, policy)
    ledger.step("heart", RUN, 1)
    del ledger
    assert spent(Ledger(state), policy) == pytest.approx(charge_cost(events(3), policy))


def test_settling_keeps_only_the_rounds_that_were_computed(ledger, policy):
    reserve(ledger, policy, rounds=5)
    ledger.step("heart", RUN, 1)
    ledger.step("heart", RUN, 4)
    assert ledger.settle("heart", RUN, policy=policy, used=used) == (2, 0)
    assert spent(ledger, policy) == pytest.approx(charge_cost(events(2), policy))


def test_settling_a_run_that_computed_nothing_frees_it_all(ledger, policy):
    reserve(ledger, policy)
    assert ledger.settle("heart", RUN, policy=policy, used=used) == (0, 0)
    assert spent(ledger, policy) == 0


def test_settling_twice_changes_nothing(ledger, policy):
    reserve(ledger, policy)
    ledger.step("heart", RUN, 1)
    ledger.settle("heart", RUN, policy=policy, used=used)
    before = len(ledger.entries())
    assert ledger.settle("heart", RUN, policy=policy, used=used) == (1, 0)
    assert len(ledger.entries()) == before


def test_settling_a_run_that_was_never_charged_writes_nothing(ledger, policy):
    assert ledger.settle("heart", RUN, policy=policy, used=used) == (0, 0)
    assert [entry.kind for entry in ledger.entries()] == ["register"]


def test_no_step_without_a_reservation(ledger, policy):
    with pytest.raises(BudgetRefused, match="no open charge on heart"):
        ledger.step("heart", RUN, 1)


def test_no_step_on_another_data_set(ledger, policy):
    reserve(ledger, policy)
    with pytest.raises(BudgetRefused, match="no open charge on lungs"):
        ledger.step("lungs", RUN, 1)


def test_no_step_after_settling(ledger, policy):
    reserve(ledger, policy)
    ledger.settle("heart", RUN, policy=policy, used=used)
    with pytest.raises(BudgetRefused, match="no open charge"):
        ledger.step("heart", RUN, 1)


def test_a_replayed_round_is_refused(ledger, policy, state):
    reserve(ledger, policy)
    ledger.step("heart", RUN, 2)
    for again in (ledger, Ledger(state)):
        with pytest.raises(BudgetRefused, match=r"round 2 of run a+ was already computed") as refused:
            again.step("heart", RUN, 2)
    assert refused.value.public()["message"] == "this round was already answered"


@pytest.mark.parametrize("number", [0, -1, 4, 10**9])
def test_a_round_beyond_the_reservation_is_refused(ledger, policy, number):
    reserve(ledger, policy)
    with pytest.raises(BudgetRefused, match="beyond the 3 rounds charged"):
        ledger.step("heart", RUN, number)


def test_a_run_is_charged_once(ledger, policy):
    reserve(ledger, policy)
    with pytest.raises(BudgetRefused, match="was already charged"):
        reserve(ledger, policy)
    ledger.settle("heart", RUN, policy=policy, used=used)
    with pytest.raises(BudgetRefused, match="was already charged"):
        reserve(ledger, policy)


def test_a_charge_beyond_the_budget_is_refused_and_not_written(ledger, policy):
    cost, runs = charge_cost(events(30), policy), 0
    while spent(ledger, policy) + cost <= policy.rdp_capacity:
        reserve(ledger, policy, run=f"{runs:032x}", rounds=30)
        runs += 1
    assert runs > 0
    with pytest.raises(BudgetRefused, match=r"^state: epsilon .* would pass the budget of 8\.00 for heart") as refused:
        reserve(ledger, policy, rounds=30)
    assert refused.value.exit_code == 3
    assert refused.value.public()["message"] == "the budget for heart does not allow this study"
    assert len(ledger.entries()) == 1 + runs
    assert ledger.spending("heart", policy).epsilon_enforced <= 8.0


def test_data_sets_have_budgets_of_their_own(ledger, policy):
    reserve(ledger, policy)
    other = ledger.register("lungs", **BUDGET)
    assert ledger.spending("lungs", other).spent_rdp == 0


def test_a_study_without_privacy_is_on_record(ledger, policy):
    ledger.record_no_privacy("heart", RUN)
    spending = ledger.spending("heart", policy)
    assert (spending.no_privacy_runs, spending.spent_rdp) == (1, 0)


@pytest.mark.parametrize("change", [{"epsilon": 80.0}, {"epsilon": 7.0}, {"delta": 1e-4}, {"unit": "patient"}])
def test_a_budget_is_not_changed_by_editing_the_site_file(ledger, policy, change):
    with pytest.raises(BudgetRefused, match=r"ledger .*(says epsilon 8|was opened with unit)") as refused:
        ledger.register("heart", **(BUDGET | change))
    assert "in the site file" in refused.value.hint
    assert ledger.register("heart", **BUDGET) == policy


def test_evaluations_are_reserved_measured_once_and_settled(ledger, policy):
    reserve(ledger, policy, rounds=2, measurements=2)
    ledger.step("heart", RUN, 1)
    ledger.measure("heart", RUN, 2)
    with pytest.raises(BudgetRefused, match=r"the model after round 2 of run a+ was already measured"):
        ledger.measure("heart", RUN, 2)
    seen = []

    def of(rounds: int, measurements: int) -> EventPlan:
        seen.append((rounds, measurements))
        return used(rounds, measurements)

    assert ledger.settle("heart", RUN, policy=policy, used=of) == (1, 1)
    assert seen == [(1, 1)]
    assert spent(ledger, policy) == pytest.approx(charge_cost(events(2), policy))
    with pytest.raises(BudgetRefused, match="no open charge"):
        ledger.measure("heart", RUN, 1)


def test_an_evaluation_alone_keeps_its_charge(ledger, policy):
    reserve(ledger, policy, measurements=1)
    ledger.measure("heart", RUN, 1)
    assert ledger.settle("heart", RUN, policy=policy, used=used) == (0, 1)
    assert spent(ledger, policy) > 0


def test_no_more_measurements_than_were_reserved(ledger, policy):
    reserve(ledger, policy, measurements=2)
    ledger.measure("heart", RUN, 0)
    ledger.measure("heart", RUN, 3)
    with pytest.raises(BudgetRefused, match="paid for 2 measurements and made them"):
        ledger.measure("heart", RUN, 1)


def fill(ledger: Ledger, policy, rounds: int) -> None:
    """Charge studies of so many rounds until one more does not fit."""
    cost = charge_cost(events(rounds), policy)
    while spent(ledger, policy) + cost <= policy.rdp_capacity:
        reserve(ledger, policy, run=secrets.token_hex(16), rounds=rounds)


def test_a_study_may_be_stopped_at_the_last_round_it_can_pay_for(ledger, policy):
    fill(ledger, policy, 30)
    left = policy.rdp_capacity - spent(ledger, policy)
    allowed = reserve(ledger, policy, rounds=30, stop=True)
    assert 1 <= allowed < 30
    assert charge_cost(events(allowed), policy) <= left < charge_cost(events(allowed + 1), policy)
    assert ledger.entries()[-1].body["rounds_asked"] == 30
    with pytest.raises(BudgetRefused, match=f"beyond the {allowed} rounds charged"):
        ledger.step("heart", RUN, allowed + 1)


def test_not_even_a_round_is_refused(ledger, policy):
    fill(ledger, policy, 1)
    with pytest.raises(BudgetRefused, match="for even one round"):
        reserve(ledger, policy, rounds=30, stop=True)


def test_what_fits_whole_is_not_stopped(ledger, policy):
    assert reserve(ledger, policy, rounds=3, stop=True) == 3


def test_delta_is_budgeted_too(ledger, policy):
    room = SAMPLER_SHARE * 1e-5 / (1 + math.exp(8))
    reserve(ledger, policy, run="1" * 32, distance=0.6 * room)
    with pytest.raises(BudgetRefused, match="delta 1e-05 of heart does not pay for this study") as refused:
        reserve(ledger, policy, run="2" * 32, distance=0.6 * room)
    assert refused.value.exit_code == 3
    reserve(ledger, policy, run="3" * 32, distance=0.3 * room)


def test_the_distance_of_noise_that_was_never_drawn_is_given_back(ledger, policy):
    room = SAMPLER_SHARE * 1e-5 / (1 + math.exp(8))
    reserve(ledger, policy, distance=0.9 * room)
    ledger.settle("heart", RUN, policy=policy, used=used)
    reserve(ledger, policy, run="1" * 32, distance=0.9 * room)


@pytest.mark.parametrize("distance", [-1e-30, math.nan, math.inf])
def test_a_distance_without_meaning_is_refused(ledger, policy, distance):
    with pytest.raises(InputError, match="distance"):
        reserve(ledger, policy, distance=distance)


SAME, NEW = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def test_the_same_data_under_another_name_is_refused(ledger):
    ledger.register("heart", **BUDGET, content=SAME)
    for use in (
        lambda: ledger.register("hearts", **BUDGET, content=SAME),
        lambda: ledger.record_no_privacy("hearts", RUN, content=SAME),
    ):
        with pytest.raises(BudgetRefused, match="hearts holds the same data as heart, whose budget holds") as refused:
            use()
        assert refused.value.exit_code == 3
    assert [entry.kind for entry in ledger.entries()] == ["register"]


def test_data_used_without_privacy_is_known_too(ledger):
    ledger.record_no_privacy("hearts", RUN, content=SAME)
    with pytest.raises(BudgetRefused, match="heart holds the same data as hearts"):
        ledger.register("heart", **BUDGET, content=SAME)


def test_a_new_version_of_a_data_set_draws_on_the_same_budget_and_the_old_one_stays_bound(ledger):
    policy = ledger.register("heart", **BUDGET, content=SAME)
    reserve(ledger, policy)
    assert ledger.register("heart", **BUDGET, content=NEW) == policy
    assert ledger.register("heart", **BUDGET, content=NEW) == policy
    assert spent(ledger, policy) > 0
    assert [entry.kind for entry in ledger.entries()] == ["register", "reserve", "data"]
    for content in (SAME, NEW):
        with pytest.raises(BudgetRefused, match="holds the same data as heart"):
            ledger.register("hearts", **BUDGET, content=content)


def test_a_budget_that_changed_after_it_was_asked_for_is_refused(ledger, policy):
    other = budget_policy(epsilon=9.0, delta=1e-5)
    with pytest.raises(BudgetRefused, match="was changed meanwhile"):
        reserve(ledger, other)


class Filter(RuleBasedStateMachine):
    """Whatever is reserved, computed and settled, in whichever order, what was released stays within the budget."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.ledger = Ledger(Path(self.folder.name) / "state")
        self.policy = self.ledger.register("heart", **BUDGET)
        self.open: dict[str, int] = {}
        self.released: dict[str, set[int]] = {}

    @rule(rounds=st.integers(1, 200), stop=st.booleans())
    def reserve(self, rounds: int, stop: bool) -> None:
        run = secrets.token_hex(16)
        with contextlib.suppress(BudgetRefused):
            self.open[run] = reserve(self.ledger, self.policy, run=run, rounds=rounds, stop=stop)
            self.released[run] = set()

    @rule(number=st.integers(0, 60), data=st.data())
    def step(self, number: int, data: st.DataObject) -> None:
        if self.released:
            run = data.draw(st.sampled_from(sorted(self.released)))
            with contextlib.suppress(BudgetRefused):
                self.ledger.step("heart", run, number)
                assert number not in self.released[run]
                self.released[run].add(number)

    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        if self.open:
            run = data.draw(st.sampled_from(sorted(self.open)))
            assert self.ledger.settle("heart", run, policy=self.policy, used=used) == (len(self.released[run]), 0)
            del self.open[run]

    @rule()
    def restart(self) -> None:
        self.ledger = Ledger(Path(self.folder.name) / "state")

    @invariant()
    def what_was_released_is_charged_and_within_the_budget(self) -> None:
        charged = spent(self.ledger, self.policy)
        released = sum(charge_cost(events(len(numbers)), self.policy) for numbers in self.released.values())
        assert released <= charged * (1 + 1e-9)
        assert charged <= self.policy.rdp_capacity

    def teardown(self) -> None:
        self.folder.cleanup()


TestFilter = Filter.TestCase
TestFilter.settings = settings(max_examples=5, stateful_step_count=15, deadline=None)
