import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsci.strategies.local_steps import step_mass


@given(st.integers(1, 40), st.floats(0, 0.95))
def test_it_is_what_steps_along_a_constant_gradient_add_up_to(steps, momentum):
    velocity, way = 0.0, 0.0
    for _ in range(steps):
        velocity = momentum * velocity + 1.0
        way += velocity
    assert step_mass(steps, momentum) == pytest.approx(way, rel=1e-9)


def test_without_momentum_it_is_the_steps():
    assert [step_mass(steps, 0.0) for steps in (1, 2, 7)] == [1, 2, 7]
    assert np.isclose(step_mass(1, 0.9), 1)
