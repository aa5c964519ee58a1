"""What a contributor computes with: the numbers of a private or of a plain training."""

import os

import numpy as np
import pytest

from fedsci.data.table import EncodingReport, Table
from fedsci.site.round import contributor, train_alone
from fedsci.training.accountant import cost_of
from fedsci.training.device import CPU

RECIPE = {"training": {"learning_rate": 0.5}, "private_learning_rate": {"per_epsilon": 0.25, "most": 2.5}}


@pytest.fixture
def train(make_plan):
    """Train alone over a small table, with or without privacy; return the worker and the model."""
    report = EncodingReport(rows_read=40, rows_dropped_missing=0, clipped={}, unseen={}, missing={})
    features = np.random.default_rng(1).uniform(-1, 1, (40, 2)).astype(np.float32)
    table = Table(features=features, target=(features[:, 0] > 0).astype(np.int64), row_ids=np.arange(40), report=report)

    def run(*, private: bool, **training: float):
        plan = make_plan(
            strategy="dp_fedsgd",
            recipe=RECIPE,
            training={"learning_rate": None} | training,
            privacy={"mechanism": "local", "epsilon": 4.0},
        )
        cost = cost_of(plan, dimension=3, alone=True) if private else None
        worker = contributor(plan, "lab-1", table, cost=cost, device=CPU, random_bytes=os.urandom)
        return worker, train_alone(worker)

    return run


def test_private_training_takes_the_rate_of_its_epsilon(train):
    worker, _ = train(private=True)
    assert worker.plan.strategy.optimiser.learning_rate == 1.0


def test_a_baseline_without_privacy_trains_at_the_plain_rate(train):
    worker, model = train(private=False)
    assert worker.plan.strategy.optimiser.learning_rate == 0.5
    assert np.array_equal(model, train(private=False, learning_rate=0.5)[1])
    assert not np.array_equal(model, train(private=False, learning_rate=1.0)[1])
