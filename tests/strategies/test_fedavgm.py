"""The rule itself is held against Flower's in test_server_optimiser.py."""

import numpy as np
import pytest

from fedsci.strategies import ServerOptimiser
from fedsci.strategies.base import WeightedSum
from fedsci.strategies.fedavgm import build


def test_the_mean_update_is_the_direction():
    strategy = build(optimiser=ServerOptimiser(learning_rate=0.1, momentum=0.5))
    total = WeightedSum(vector=np.array([20.0], np.float32), weight=10)  # mean update 2
    state = strategy.apply(strategy.start(np.zeros(1, np.float32)), total)
    # v = 2
    assert state.model == pytest.approx([0.2])
    # v = 0.5 * 2 + 2
    assert strategy.apply(state, total).model == pytest.approx([0.2 + 0.3])


def test_its_kind_is_its_own_whatever_is_asked():
    assert build(optimiser=ServerOptimiser(kind="adam")).optimiser.kind == "sgd"
