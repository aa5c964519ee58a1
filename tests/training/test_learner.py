from dataclasses import replace

import numpy as np
import pytest
import torch

from fedsci.config.strategy import StrategyRecipe
from fedsci.errors import InputError
from fedsci.training.learner import Pull, module_for
from fedsci.training.losses import record_losses
from fedsci.training.models import entries_of, initial_vector, layout_of, load_vector, read_vector
from fedsci.vectors.layout import unflatten


def rng() -> np.random.Generator:
    return np.random.default_rng(9)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("model", ["linear", "mlp", "cnn"])
def test_a_local_update_is_sgd_written_by_hand(make_learner, model, momentum):
    learner = make_learner(model=model, kind="multiclass", rows=11)
    start = np.random.default_rng(2).normal(0, 0.3, initial_vector(learner.module, seed=0).size).astype(np.float32)
    update = learner.local_update(start, epochs=2, batch_size=4, learning_rate=0.1, momentum=momentum, rng=rng())

    module = module_for(learner.plan, inputs=learner.table.features.shape[1])
    load_vector(module, start)
    velocity, shuffles = np.zeros_like(start), rng()
    for _ in range(2):
        order = shuffles.permutation(11)
        for rows in (order[:4], order[4:8], order[8:]):
            module.zero_grad()
            record_losses("multiclass", module(learner.features[rows]), learner.targets[rows]).mean().backward()
            gradient = np.concatenate([p.grad.reshape(-1).numpy() for p in module.parameters()])
            velocity = momentum * velocity + gradient
            load_vector(module, read_vector(module) - 0.1 * velocity.astype(np.float32))
    assert update == pytest.approx(read_vector(module) - start, abs=1e-6)
    assert np.abs(update).max() > 1e-3


@pytest.mark.parametrize("rows", [7, 300])
def test_the_full_gradient_is_that_of_the_mean_loss(make_learner, rows):
    learner = make_learner(model="mlp", kind="regression", rows=rows)
    vector = initial_vector(learner.module, seed=1)
    gradient = learner.mean_gradient(vector, sample_rate=1.0, rng=rng())
    load_vector(learner.module, vector)
    loss = record_losses("regression", learner.module(learner.features), learner.targets).mean()
    expected = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(learner.module.parameters()))])
    assert gradient == pytest.approx(expected.numpy(), abs=1e-6)


def test_an_empty_sample_has_no_gradient(make_learner):
    learner = make_learner(rows=5)
    vector = np.ones(3, np.float32)
    assert learner.mean_gradient(vector, sample_rate=1e-12, rng=rng()).tolist() == [0, 0, 0]


def test_the_same_shuffles_give_the_same_bits(make_learner):
    learner = make_learner(model="mlp")
    vector = initial_vector(learner.module, seed=1)
    options = {"epochs": 1, "batch_size": 3, "learning_rate": 0.1, "momentum": 0.0}
    first, again = (learner.local_update(vector, **options, rng=rng()) for _ in range(2))
    other = learner.local_update(vector, **options, rng=np.random.default_rng(10))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_the_given_model_is_not_changed(make_learner):
    learner = make_learner()
    vector = np.ones(3, np.float32)
    learner.local_update(vector, epochs=1, batch_size=4, learning_rate=0.5, momentum=0.0, rng=rng())
    assert vector.tolist() == [1, 1, 1]


def test_one_thread_a_site(make_learner):
    assert make_learner().module is not None
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    ("kind", "outputs", "targets", "losses"),
    [
        ("binary", [[0.0], [2.0]], [1, 0], [np.log(2), np.log(1 + np.exp(2))]),
        ("multiclass", [[0.0, 0.0], [1.0, 0.0]], [1, 0], [np.log(2), np.log(1 + np.exp(-1))]),
        ("regression", [[1.0], [-1.0]], [0.0, 1.0], [0.5, 2.0]),
    ],
)
def test_losses_by_hand(kind, outputs, targets, losses):
    assert record_losses(kind, torch.tensor(outputs), torch.tensor(targets)).tolist() == pytest.approx(losses)


def layers(learner, vector) -> dict[str, np.ndarray]:
    return unflatten(vector, layout_of(learner.module))


@pytest.mark.parametrize(("rows", "sizes"), [(8, (4, 4)), (9, (4, 5)), (10, (4, 4, 2)), (3, (3,))])
def test_running_statistics_follow_the_batches_and_a_last_record_joins_the_batch_before(make_learner, rows, sizes):
    learner = make_learner(model="normalised", rows=rows, training={"batch_size": 4})
    start = initial_vector(learner.module, seed=1)
    # at learning rate 0 the weights stay, so that what the layer sees is a matrix product
    update = learner.local_update(start, epochs=1, batch_size=4, learning_rate=0.0, momentum=0.0, rng=rng())
    before, after = layers(learner, start), layers(learner, start + update)
    order, mean, variance = rng().permutation(rows), np.zeros(5), np.ones(5)
    seen = learner.table.features @ before["0.weight"].T + before["0.bias"]
    for size in sizes:
        batch, order = seen[order[:size]], order[size:]
        mean = 0.9 * mean + 0.1 * batch.mean(axis=0)
        variance = 0.9 * variance + 0.1 * batch.var(axis=0, ddof=1)
    assert after["1.running_mean"] == pytest.approx(mean, abs=1e-6)
    assert after["1.running_var"] == pytest.approx(variance, abs=1e-6)
    assert after["1.weight"].tolist() == [1.0] * 5
    study = learner.plan.study.model_copy(update={"strategy": "fedavg"})
    plan = replace(learner.plan, study=study, recipe=StrategyRecipe(name="fedavg")).without_privacy()
    assert plan.local_steps(rows) == len(sizes)


def test_a_batch_of_one_record_is_left_alone_where_nothing_is_normalised(make_learner):
    learner = make_learner(model="mlp", rows=9)
    start = initial_vector(learner.module, seed=1)
    found = [
        learner.local_update(start, epochs=1, batch_size=size, learning_rate=0.1, momentum=0.0, rng=rng())
        for size in (4, 5)
    ]
    assert found[0].tobytes() != found[1].tobytes()


def test_an_intercept_alone_moves_no_running_statistics(make_learner):
    learner = make_learner(model="normalised", rows=9)
    start = initial_vector(learner.module, seed=1)
    update = learner.local_update(
        start, epochs=2, batch_size=4, learning_rate=0.1, momentum=0.0, rng=rng(), intercept_only=True
    )
    moved = {name for name, values in layers(learner, update).items() if values.any()}
    assert moved == {"3.bias"}


def test_a_pull_finds_each_parameters_own_entries(make_learner):
    learner = make_learner(model="normalised")
    size = initial_vector(learner.module, seed=1).size
    correction = np.arange(size, dtype=np.float32)
    for p in learner.module.parameters():
        p.grad = torch.zeros_like(p)
    Pull(start=correction, correction=correction).add_to(learner.module)
    for name, tensor in entries_of(learner.module):
        if tensor.requires_grad:
            assert tensor.grad.numpy().tolist() == layers(learner, correction)[name].tolist()


@pytest.mark.parametrize("hidden", [[1_000_000, 1_000_000], [1_000_000] * 16])
def test_a_model_beyond_memory_is_refused_before_memory_is_taken(make_plan, hidden):
    plan = make_plan(model={"name": "mlp", "hidden": hidden}, strategy="fedavg", privacy={"mechanism": "none"})
    with pytest.raises(InputError, match="more than 1,000,000,000 parameters"):
        module_for(plan, inputs=2)
