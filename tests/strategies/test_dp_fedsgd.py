import numpy as np
import pytest

from fedsci.strategies import ServerOptimiser
from fedsci.strategies.base import WeightedSum
from fedsci.strategies.dp_fedsgd import build


def test_with_momentum_it_is_gradient_descent_with_momentum_on_the_pooled_gradient():
    # f(x) = x^2 / 2 at every site, so a site's contribution is -x, times its 5 records
    strategy = build(optimiser=ServerOptimiser(learning_rate=0.1, momentum=0.5))
    state = strategy.start(np.array([1.0], np.float32))
    x, velocity = 1.0, 0.0
    for _ in range(4):
        state = strategy.apply(state, WeightedSum(vector=-10 * state.model, weight=10))
        velocity = 0.5 * velocity - x
        x += 0.1 * velocity
        assert state.model == pytest.approx([x], rel=1e-5)


def test_sites_send_gradients():
    assert build(optimiser=ServerOptimiser()).site_work == "gradient"
