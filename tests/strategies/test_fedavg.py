import numpy as np
import pytest

from fedsci.strategies import ServerOptimiser
from fedsci.strategies.base import WeightedSum
from fedsci.strategies.fedavg import build


def test_the_new_model_is_the_mean_of_the_sites_models_by_record_count():
    model = np.array([1.0, 1.0], np.float32)
    sites = {10: np.array([2.0, 0.0], np.float32), 30: np.array([6.0, 4.0], np.float32)}
    updates = sum(np.float32(count) * (weights - model) for count, weights in sites.items())
    strategy = build(optimiser=ServerOptimiser())
    state = strategy.apply(strategy.start(model), WeightedSum(vector=updates, weight=40))
    # (10 * 2 + 30 * 6) / 40 and (10 * 0 + 30 * 4) / 40
    assert state.model == pytest.approx([5.0, 3.0])
    assert state.round == 1


def test_sites_train_locally():
    assert build(optimiser=ServerOptimiser()).site_work == "local_update"
