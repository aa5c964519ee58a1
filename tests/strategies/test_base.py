import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsci.errors import InputError, RoundAborted
from fedsci.strategies import BUILDERS, ServerOptimiser, build_strategy
from fedsci.strategies.base import Survivor, WeightedSum
from fedsci.strategies.one_exchange import ColumnShape, OneExchange, StudyShape

ALONE = Survivor(position=0, weight=1.0, steps=1)


def total(*values: float, weight: float = 1.0) -> WeightedSum:
    return WeightedSum(vector=np.array(values, np.float32), weight=weight)


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=5), st.integers(1, 1000))
def test_the_mean_of_equal_contributions_is_that_contribution(values, weight):
    contribution = np.array(values, np.float32)
    mean = WeightedSum(vector=np.float32(weight) * contribution, weight=weight).mean()
    assert mean == pytest.approx(contribution, rel=1e-6, abs=1e-12)
    assert mean.dtype == np.float32


@pytest.mark.parametrize("damage", [np.nan, np.inf, -np.inf])
def test_a_damaged_sum_aborts_the_round(damage):
    with pytest.raises(RoundAborted, match="NaN or infinity") as aborted:
        total(1.0, damage).mean()
    assert "learning_rate" in aborted.value.hint


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_a_weight_that_is_not_positive_aborts_the_round(weight):
    with pytest.raises(RoundAborted, match="not positive"):
        total(1.0, weight=weight).mean()


ONE_INPUT = StudyShape(
    task="binary",
    model="linear",
    columns=(ColumnShape(name="a", kind="numeric", start=0, width=1, minimum=0, maximum=1),),
    classes=(),
    gaps="refuse",
)


@pytest.mark.parametrize("name", sorted(BUILDERS))
class TestEveryStrategy:
    def build(self, name: str):
        strategy = build_strategy(name, optimiser=ServerOptimiser())
        return strategy.for_study(ONE_INPUT) if isinstance(strategy, OneExchange) else strategy

    def alone(self, strategy, *values: float) -> WeightedSum:
        """The sum of a lab that trains alone: of one number for each that it sends."""
        vector = np.resize(np.array(values, np.float32), strategy.width(len(values)))
        return WeightedSum(vector=vector, weight=1.0, survivors=(ALONE,), each={0: vector})

    def test_it_has_one_name(self, name):
        assert self.build(name).name == name

    def test_it_is_frozen(self, name):
        with pytest.raises(dataclasses.FrozenInstanceError):
            self.build(name).sees = "each"

    def test_it_starts_from_the_model_it_is_given(self, name):
        state = self.build(name).start(np.array([1, 2], np.float32))
        assert (state.round, state.model.tolist()) == (0, [1, 2])

    def test_a_model_that_is_no_vector_is_refused(self, name):
        with pytest.raises(InputError, match="one flat vector"):
            self.build(name).start(np.zeros((2, 2), np.float32))

    def test_a_damaged_sum_leaves_the_state_alone(self, name):
        strategy = self.build(name)
        state = strategy.start(np.array([1, 2], np.float32))
        with pytest.raises(RoundAborted):
            strategy.apply(state, self.alone(strategy, np.nan, 0))
        assert (state.round, state.model.tolist()) == (0, [1, 2])

    def test_rounds_are_counted(self, name):
        strategy = self.build(name)
        state = strategy.apply(strategy.start(np.zeros(2, np.float32)), self.alone(strategy, 1, 1))
        assert strategy.apply(state, self.alone(strategy, 1, 1)).round == 2

    def test_a_lab_alone_moves_its_model_where_its_update_points(self, name):
        strategy = self.build(name)
        if strategy.site_work == "statistics":
            pytest.skip("a lab sends no update")
        state = strategy.apply(strategy.start(np.zeros(2, np.float32)), self.alone(strategy, 1, -2))
        assert np.sign(state.model).tolist() == [1, -1]

    def test_what_it_sends_has_the_size_it_says(self, name):
        strategy = self.build(name)
        assert strategy.sends(strategy.start(np.zeros(3, np.float32))).shape == (strategy.sent(3),)

    def test_it_sees_sums_unless_it_must_tell_sites_apart(self, name):
        assert self.build(name).sees == ("each" if name in ("coordinate_median", "krum", "trimmed_mean") else "sum")


def test_a_strategy_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match="'fedsgd' does not exist") as refused:
        build_strategy("fedsgd", optimiser=ServerOptimiser())
    assert "dp_fedsgd" in refused.value.hint


@pytest.mark.parametrize(
    "name", ["mylab", "mylab..rules", ".rules", "mylab.rules()", "mylab.1", "my lab.rules", "a/b.c"]
)
def test_what_is_no_module_path_is_not_taken_for_one(name):
    with pytest.raises(InputError, match="does not exist"):
        build_strategy(name, optimiser=ServerOptimiser())


def test_a_module_that_is_not_there_or_builds_nothing_is_refused():
    with pytest.raises(InputError, match="no module 'no_such_lab' is installed here"):
        build_strategy("no_such_lab.rules", optimiser=ServerOptimiser())
    with pytest.raises(InputError, match=r"has no build\(\)"):
        build_strategy("os.path", optimiser=ServerOptimiser())
