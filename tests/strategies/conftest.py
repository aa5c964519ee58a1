"""Sites whose data is one point: the loss is ``curvature / 2 * |w - centre|^2``, so a round can be worked by hand."""

from collections.abc import MutableMapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from fedsci.strategies.base import Strategy, StrategyState, Survivor, WeightedSum


@dataclass(kw_only=True)
class Site:
    """A site; local training is gradient descent with momentum from rest."""

    centre: float
    curvature: float = 1.0
    steps: int = 1
    weight: float = 1.0
    position: int = 0
    size: int = 1
    number: int = 1
    learning_rate: float = 0.5
    momentum: float = 0.0
    received: np.ndarray = field(default_factory=lambda: np.zeros(1, np.float32))
    memory: MutableMapping[str, np.ndarray] = field(default_factory=dict)

    def update(self, model, *, proximal=0.0, correction=None):
        w, velocity = model.astype(np.float64), 0.0
        for _ in range(self.steps):
            slope = self.curvature * (w - self.centre) + proximal * (w - model)
            velocity = self.momentum * velocity + slope + (0.0 if correction is None else correction)
            w = w - self.learning_rate * velocity
        return (w - model).astype(np.float32)

    def gradient(self, model):
        return (self.curvature * (self.centre - model)).astype(np.float32)


def one_round(strategy: Strategy, state: StrategyState, sites: list[Site], lost: tuple[int, ...] = ()) -> StrategyState:
    """A round over sites in order; those at ``lost`` positions compute, and what they send does not arrive."""
    each = {}
    for position, site in enumerate(sites):
        site.position, site.number, site.received = position, state.round + 1, strategy.sends(state)
        each[position] = strategy.contribute(site)
        assert each[position].shape == (strategy.width(site.size),)
    there = [position for position in each if position not in lost]
    whole = sum(site.weight for site in sites)
    survivors = tuple(Survivor(position=p, weight=sites[p].weight / whole, steps=sites[p].steps) for p in there)
    vector = sum(np.float32(one.weight) * each[one.position] for one in survivors)
    total = WeightedSum(
        vector=vector,
        weight=sum(one.weight for one in survivors),
        survivors=survivors,
        each={p: each[p] for p in there},
        momentum=sites[0].momentum,
    )
    return strategy.apply(state, total)


@pytest.fixture
def site():
    """Make a site."""
    return Site


@pytest.fixture
def play():
    """Play one round."""
    return one_round


@pytest.fixture
def flowers():
    """What a Flower strategy makes of rows of numbers, all of equal weight."""
    # imported late: Flower imports typer, which imports names that click has deprecated
    from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp

    from fedsci.transport.in_memory import LocalGrid

    grid = LocalGrid(ClientApp(), 1)  # Flower's messages can be made inside a run only

    def direction(strategy, rows: np.ndarray) -> np.ndarray:
        replies = []
        for node, row in enumerate(rows, start=2):
            arrays = ArrayRecord({"w": Array(row.astype(np.float64))})
            content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})})
            replies.append(Message(content, reply_to=Message(RecordDict(), node, "train")))
        arrays, _ = strategy.aggregate_train(1, replies)
        return arrays["w"].numpy()

    yield direction
    grid.close()
