"""What a contributor computes with: the numbers of a private or of a plain training."""

import os

import numpy as np
import pytest

from fedsci.data.table import EncodingReport, Table
from fedsci.errors import InputError
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


@pytest.fixture
def normalised(make_plan):
    """A worker of a study with normalisation layers, over so many records."""

    def build(rows: int, strategy: str = "fedbn"):
        report = EncodingReport(rows_read=rows, rows_dropped_missing=0, clipped={}, unseen={}, missing={})
        features = np.random.default_rng(1).uniform(-1, 1, (rows, 2)).astype(np.float32)
        target = (features[:, 0] > 0).astype(np.int64)
        table = Table(features=features, target=target, row_ids=np.arange(rows), report=report)
        plan = make_plan(
            strategy=strategy,
            model={"name": "mlp", "hidden": [3], "normalisation": "batch"},
            privacy={"mechanism": "none"},
            training={"rounds": 3, "batch_size": 4},
        )
        return contributor(plan, "lab-1", table, cost=None, device=CPU, random_bytes=os.urandom)

    return build


def test_a_single_record_cannot_be_normalised(normalised):
    with pytest.raises(InputError, match="needs two training records") as refused:
        normalised(1)
    assert "normalisation: none" in refused.value.hint


@pytest.mark.parametrize("rows", [2, 5, 9])
def test_a_lab_alone_ends_with_its_own_layers_which_are_those_that_fedavg_gives_it(normalised, rows):
    model = train_alone(normalised(rows))
    assert model[-3:].tolist() != [1.0] * 3
    # for one lab, what is kept and what is shared move as one
    assert model == pytest.approx(train_alone(normalised(rows, "fedavg")), abs=1e-5)
