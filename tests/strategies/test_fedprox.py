import numpy as np
import pytest

from fedsci.errors import InputError
from fedsci.strategies import ServerOptimiser
from fedsci.strategies.fedprox import build


def test_local_steps_are_held_back_by_the_distance_from_the_shared_model(site, play):
    strategy = build(optimiser=ServerOptimiser(), mu=0.5)
    state = play(strategy, strategy.start(np.zeros(1, np.float32)), [site(centre=8.0, steps=2)])
    # w1 = 0 - 0.5 * (0 - 8) = 4; w2 = 4 - 0.5 * ((4 - 8) + 0.5 * 4) = 5; FedAvg: w2 = 4 + 2 = 6
    assert state.model == pytest.approx([5.0])


def test_without_a_spring_it_is_fedavg(site, play):
    strategy = build(optimiser=ServerOptimiser(), mu=0.0)
    sites = [site(centre=8.0, steps=2, weight=3), site(centre=0.0, weight=1)]
    assert play(strategy, strategy.start(np.zeros(1, np.float32)), sites).model == pytest.approx([6.0 * 3 / 4])


@pytest.mark.parametrize("mu", [-0.1, float("nan"), float("inf")])
def test_a_spring_that_pushes_is_refused(mu):
    with pytest.raises(InputError, match=r"mu .* is not a number >= 0"):
        build(optimiser=ServerOptimiser(), mu=mu)
