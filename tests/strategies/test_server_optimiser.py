"""Update rules worked by hand, and against the server-side arithmetic of Flower's own strategies."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdagrad as FlowerFedAdagrad
from flwr.serverapp.strategy import FedAdam as FlowerFedAdam
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg
from flwr.serverapp.strategy import FedAvgM as FlowerFedAvgM
from flwr.serverapp.strategy import FedYogi as FlowerFedYogi
from hypothesis import given
from hypothesis import strategies as st

from fedsci.errors import InputError
from fedsci.strategies.server_optimiser import OptimiserState, ServerOptimiser, step
from fedsci.transport.in_memory import LocalGrid


def vector(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def walk(optimiser: ServerOptimiser, model: np.ndarray, directions: list[np.ndarray]) -> list[np.ndarray]:
    state, models = OptimiserState.zeros(model.size), []
    for direction in directions:
        model, state = step(optimiser, state, model, direction)
        models.append(model)
    return models


def test_sgd_moves_along_the_direction():
    models = walk(ServerOptimiser(learning_rate=0.5), vector(1, 2), [vector(2, -4), vector(1, 0)])
    # 1 + 0.5 * 2, 2 - 0.5 * 4; then + 0.5 * 1
    assert [m.tolist() for m in models] == [[2, 0], [2.5, 0]]


def test_momentum_is_a_heavy_ball():
    models = walk(ServerOptimiser(learning_rate=0.5, momentum=0.5), vector(0), [vector(4), vector(2), vector(0)])
    # velocity 4, then 0.5 * 4 + 2 = 4, then 0.5 * 4 + 0 = 2; each half a step
    assert [m.tolist() for m in models] == [[2], [4], [5]]


def test_adam_has_no_bias_correction():
    optimiser = ServerOptimiser(kind="adam", learning_rate=0.1, beta_1=0.5, beta_2=0.75, tau=1.0)
    models = walk(optimiser, vector(0), [vector(4), vector(0)])
    # m = 0.5 * 4 = 2, v = 0.25 * 16 = 4: 0.1 * 2 / (2 + 1); then m = 1, v = 3: 0.1 * 1 / (sqrt 3 + 1)
    assert models[0] == pytest.approx([0.2 / 3], rel=1e-6)
    assert models[1] == pytest.approx([0.2 / 3 + 0.1 / (np.sqrt(3) + 1)], rel=1e-6)


def test_yogi_moves_its_second_moment_by_a_share_of_the_square_whichever_is_larger():
    optimiser = ServerOptimiser(kind="yogi", learning_rate=0.1, beta_1=0.0, beta_2=0.75, tau=1.0)
    models = walk(optimiser, vector(0), [vector(4), vector(1), vector(0)])
    # v = 0.25 * 16 = 4; then 4 - 0.25 * 1 = 3.75: Adam would fall to 3.25
    assert models[1] - models[0] == pytest.approx([0.1 * 1 / (np.sqrt(3.75) + 1)], rel=1e-5)


def test_adagrad_adds_squares_up():
    optimiser = ServerOptimiser(kind="adagrad", learning_rate=0.1, beta_1=0.0, tau=1.0)
    models = walk(optimiser, vector(0), [vector(3), vector(4)])
    # v = 9, then 9 + 16 = 25
    assert models[0] == pytest.approx([0.3 / 4])
    assert models[1] - models[0] == pytest.approx([0.4 / 6])


@pytest.mark.parametrize("kind", ["sgd", "adam", "yogi", "adagrad"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_nothing_given_is_changed_and_float32_stays(kind, momentum):
    model, direction, state = vector(1, 2), vector(3, 4), OptimiserState.zeros(2)
    moved, after = step(ServerOptimiser(kind=kind, momentum=momentum), state, model, direction)
    assert (model.tolist(), direction.tolist()) == ([1, 2], [3, 4])
    assert state.first.tolist() == state.second.tolist() == [0, 0]
    assert {moved.dtype, after.first.dtype, after.second.dtype} == {np.dtype(np.float32)}


@given(st.sampled_from(["sgd", "adam", "yogi", "adagrad"]), st.floats(0, 0.99))
def test_no_direction_and_no_memory_is_no_move(kind, momentum):
    [moved] = walk(ServerOptimiser(kind=kind, momentum=momentum), vector(1, -2), [vector(0, 0)])
    assert moved.tolist() == [1, -2]


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"kind": "lamb"}, "'lamb' does not exist"),
        ({"learning_rate": 0.0}, "learning rate 0.0 is not positive"),
        ({"learning_rate": float("nan")}, "not positive"),
        ({"momentum": 1.0}, r"momentum 1.0 is not in \[0, 1\)"),
        ({"momentum": -0.1}, "momentum"),
        ({"beta_1": 1.0}, "beta_1"),
        ({"beta_2": -0.5}, "beta_2"),
        ({"beta_2": float("nan")}, "beta_2"),
        ({"tau": 0.0}, "tau 0.0 is not positive"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(wrong, text):
    with pytest.raises(InputError, match=text):
        ServerOptimiser(**wrong)


START = vector(0.5, -1.0, 2.0)
WEIGHTS = [10, 30, 60]
LOCAL = [
    [vector(1, 0, 2), vector(0, -1, 3), vector(0.5, 0.5, 1)],
    [vector(2, 1, 1), vector(1, -2, 2), vector(-0.5, 0.5, 0)],
    [vector(0, 1, 5), vector(3, 0, 2), vector(0.5, 1.5, -1)],
]
"""Three rounds of three sites' weights after local training."""


@pytest.fixture
def flower_run():
    """Flower's messages can be made inside a run only."""
    grid = LocalGrid(ClientApp(), 1)
    yield
    grid.close()


def flowers_replies(local: list[np.ndarray]) -> list[Message]:
    replies = []
    for node, (weights, count) in enumerate(zip(local, WEIGHTS, strict=True), start=2):
        arrays = ArrayRecord({"w": Array(weights.astype(np.float64))})
        content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": count})})
        replies.append(Message(content, reply_to=Message(RecordDict(), node, "train")))
    return replies


def mean_update(model: np.ndarray, local: list[np.ndarray]) -> np.ndarray:
    total = sum(count * (weights - model) for weights, count in zip(local, WEIGHTS, strict=True))
    return (total / sum(WEIGHTS)).astype(np.float32)


def the_next(strategy, number: int, local: list[np.ndarray]) -> np.ndarray:
    arrays, _ = strategy.aggregate_train(number, flowers_replies(local))
    return arrays["w"].numpy()


def test_sgd_at_rate_1_is_flowers_fedavg(flower_run):
    flower, model, state = FlowerFedAvg(), START, OptimiserState.zeros(3)
    for number, local in enumerate(LOCAL, start=1):
        model, state = step(ServerOptimiser(), state, model, mean_update(model, local))
        assert model == pytest.approx(the_next(flower, number, local), abs=1e-6)


def test_momentum_is_flowers_fedavgm(flower_run):
    flower, model, state = FlowerFedAvgM(server_learning_rate=0.5, server_momentum=0.9), START, OptimiserState.zeros(3)
    flower.current_arrays = ArrayRecord({"w": Array(START.astype(np.float64))})
    for number, local in enumerate(LOCAL, start=1):
        optimiser = ServerOptimiser(learning_rate=0.5, momentum=0.9)
        model, state = step(optimiser, state, model, mean_update(model, local))
        assert model == pytest.approx(the_next(flower, number, local), abs=1e-6)


def test_adam_is_flowers_fedadam_but_for_its_bias_correction(flower_run):
    flower, model, state = FlowerFedAdam(eta=0.1, beta_1=0.9, beta_2=0.99, tau=1e-3), START, OptimiserState.zeros(3)
    for number, local in enumerate(LOCAL, start=1):
        flower.current_arrays = {"w": model.astype(np.float64)}
        # Flower scales its rate as Kingma and Ba do; Reddi et al. do not
        corrected = 0.1 * np.sqrt(1 - 0.99 ** (number + 1.0)) / (1 - 0.9 ** (number + 1.0))
        optimiser = ServerOptimiser(kind="adam", learning_rate=corrected, beta_1=0.9, beta_2=0.99, tau=1e-3)
        model, state = step(optimiser, state, model, mean_update(model, local))
        assert model == pytest.approx(the_next(flower, number, local), abs=1e-5)


def test_yogi_is_flowers_fedyogi(flower_run):
    flower, model, state = FlowerFedYogi(eta=0.1, beta_1=0.9, beta_2=0.99, tau=1e-3), START, OptimiserState.zeros(3)
    for number, local in enumerate(LOCAL, start=1):
        flower.current_arrays = {"w": model.astype(np.float64)}
        optimiser = ServerOptimiser(kind="yogi", learning_rate=0.1, beta_1=0.9, beta_2=0.99, tau=1e-3)
        model, state = step(optimiser, state, model, mean_update(model, local))
        assert model == pytest.approx(the_next(flower, number, local), abs=1e-5)


def test_adagrad_without_a_first_moment_is_flowers_fedadagrad(flower_run):
    flower, model, state = FlowerFedAdagrad(eta=0.1, tau=1e-3), START, OptimiserState.zeros(3)
    for number, local in enumerate(LOCAL, start=1):
        flower.current_arrays = {"w": model.astype(np.float64)}
        optimiser = ServerOptimiser(kind="adagrad", learning_rate=0.1, beta_1=0.0, tau=1e-3)
        model, state = step(optimiser, state, model, mean_update(model, local))
        assert model == pytest.approx(the_next(flower, number, local), abs=1e-5)
