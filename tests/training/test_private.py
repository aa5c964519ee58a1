"""DP-SGD: the clipped sum against one backward pass a record, and the scale of the noise."""

import hashlib
from itertools import count

import numpy as np
import pytest
import torch

from fedsci.errors import ConfigError, InputError
from fedsci.training.losses import record_losses
from fedsci.training.models import initial_vector, load_vector
from fedsci.training.private import PrivateLearner


def private(learner, *, clipping_norm=0.3, noise_multiplier=1.0, sample_rate=1.0, label="x") -> PrivateLearner:
    numbers = count()
    return PrivateLearner(
        learner=learner,
        clipping_norm=clipping_norm,
        noise_multiplier=noise_multiplier,
        sample_rate=sample_rate,
        random_bytes=lambda size: hashlib.shake_256(f"{label}/{next(numbers)}".encode()).digest(size),
    )


def weights_for(learner) -> np.ndarray:
    size = initial_vector(learner.module, seed=0).size
    return np.random.default_rng(5).normal(0, 0.5, size).astype(np.float32)


def one_by_one(learner, vector, rows, clipping_norm) -> tuple[np.ndarray, int]:
    """The clipped sum as the definition has it, and how many records were clipped."""
    module, kind = learner.module, learner.plan.study.task.kind
    load_vector(module, vector)
    total, clipped = np.zeros(vector.size), 0
    for row in rows:
        loss = record_losses(kind, module(learner.features[row : row + 1]), learner.targets[row : row + 1])
        gradients = torch.autograd.grad(loss.sum(), list(module.parameters()))
        gradient = torch.cat([g.reshape(-1) for g in gradients]).double().numpy()
        norm = np.linalg.norm(gradient)
        if np.isfinite(norm):
            total += gradient * min(1.0, clipping_norm / norm)
            clipped += norm > clipping_norm
    return total, clipped


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("model", ["linear", "mlp", "cnn"])
def test_the_clipped_sum_is_the_sum_of_clipped_gradients_record_by_record(make_learner, model, kind):
    vector = weights_for(make_learner(model=model, kind=kind))
    rows = np.array([0, 3, 4, 7, 11, 12, 18])
    norm = {"cnn": 1.5, "mlp": 0.8, "linear": 0.8}[model]
    expected, clipped = one_by_one(make_learner(model=model, kind=kind), vector, rows, norm)
    learner = make_learner(model=model, kind=kind)
    worker = private(learner, clipping_norm=norm)
    load_vector(learner.module, vector)
    total = worker.clipped_sum(rows)
    assert clipped > 0
    assert total.dtype == np.float64
    # relative to how much could be summed; clipping keeps 1e-5 in reserve
    assert np.abs(total - expected).max() <= (1e-6 + 1e-5) * norm * len(rows)


def test_records_within_the_norm_are_summed_exactly(make_learner):
    vector = weights_for(make_learner())
    expected, clipped = one_by_one(make_learner(), vector, range(20), 1e3)
    learner = make_learner()
    worker = private(learner, clipping_norm=1e3)
    load_vector(learner.module, vector)
    assert clipped == 0
    assert worker.clipped_sum(np.arange(20)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("rows", [1, 256, 257, 600])
def test_chunks_make_no_difference(make_learner, rows):
    vector = weights_for(make_learner(rows=rows))
    expected, _ = one_by_one(make_learner(rows=rows), vector, range(rows), 0.3)
    learner = make_learner(rows=rows)
    worker = private(learner)
    load_vector(learner.module, vector)
    assert worker.clipped_sum(np.arange(rows)) == pytest.approx(expected, abs=1.1e-5 * rows * 0.3)


@pytest.mark.parametrize("model", ["linear", "mlp", "cnn"])
@pytest.mark.parametrize("damage", [np.nan, np.inf])
def test_a_damaged_record_contributes_nothing(make_learner, model, damage):
    learner = make_learner(model=model)
    vector = weights_for(learner)
    learner.table.features[3] = damage
    worker = private(learner)
    load_vector(learner.module, vector)
    others = worker.clipped_sum(np.array([1, 2, 5]))
    assert np.isfinite(others).all()
    assert worker.clipped_sum(np.array([1, 2, 3, 5])) == pytest.approx(others, abs=1e-7)
    assert worker.clipped_sum(np.array([3])).tolist() == [0.0] * vector.size


@pytest.mark.parametrize("model", ["linear", "mlp", "cnn"])
def test_one_record_more_moves_the_sum_by_no_more_than_the_norm(make_learner, model):
    learner = make_learner(model=model)
    vector = weights_for(learner)
    worker = private(learner, clipping_norm=0.05)
    load_vector(learner.module, vector)
    rows = np.arange(20)
    whole = worker.clipped_sum(rows)
    for row in rows:
        assert np.linalg.norm(whole - worker.clipped_sum(np.delete(rows, row))) <= 0.05


def spread(samples: np.ndarray) -> float:
    """By how many standard errors the variance of the samples differs from 1."""
    return float(abs(samples.var() - 1) / np.sqrt(2 / samples.size))


def noise_of(learner, *, noise_multiplier, clipping_norm, sample_rate, releases=400) -> np.ndarray:
    """The releases minus the sum that they hold, where the sample is the full batch."""
    vector = weights_for(learner)
    worker = private(
        learner, noise_multiplier=noise_multiplier, clipping_norm=clipping_norm, sample_rate=sample_rate, label="noise"
    )
    load_vector(learner.module, vector)
    total = worker.clipped_sum(np.arange(learner.records)) if sample_rate == 1.0 else 0.0
    released = np.array([worker.noisy_mean_gradient(vector) for _ in range(releases)], np.float64)
    return released * (sample_rate * learner.records) - total


def test_the_noise_has_the_promised_deviation_and_the_test_would_notice_another(make_learner):
    noise = noise_of(make_learner(), noise_multiplier=2.0, clipping_norm=0.3, sample_rate=1.0)
    assert spread(noise / 0.6) < 5
    assert abs(noise.mean()) < 5 * 0.6 / np.sqrt(noise.size)
    for wrong in (0.8, 1.2, 2.0, 0.5):
        assert spread(noise / (0.6 * wrong)) > 5


def test_an_empty_sample_releases_pure_noise_of_the_same_scale(make_learner):
    # at this rate all of 400 samples of 20 records are empty, bar one in a thousand runs; the seed is fixed
    noise = noise_of(make_learner(), noise_multiplier=1.0, clipping_norm=0.3, sample_rate=1e-7)
    assert spread(noise / 0.3) < 5
    assert spread(noise / 0.24) > 5
    assert (noise != 0).all()


def test_the_divisor_is_the_expected_sample_not_the_realised_one(make_learner):
    learner = make_learner(rows=50)
    worker = private(learner, noise_multiplier=1e-4, sample_rate=0.5)
    vector = weights_for(learner)
    means = np.array([worker.noisy_mean_gradient(vector) for _ in range(300)])
    load_vector(learner.module, vector)
    full = worker.clipped_sum(np.arange(50)) / 50
    assert means.mean(axis=0) == pytest.approx(full, abs=0.01)
    assert means.std(axis=0).max() > 1e-3


def test_a_private_update_is_its_releases_times_the_learning_rate(make_learner):
    vector = weights_for(make_learner())
    first = private(make_learner(), label="same").noisy_mean_gradient(vector)
    update = private(make_learner(), label="same").private_update(vector, steps=1, learning_rate=0.5, momentum=0.9)
    assert update == pytest.approx(-0.5 * first, abs=1e-6)


def test_two_releases_never_share_noise(make_learner):
    learner = make_learner()
    worker = private(learner)
    vector = weights_for(learner)
    assert not np.array_equal(worker.noisy_mean_gradient(vector), worker.noisy_mean_gradient(vector))


def test_a_layer_that_mixes_records_is_refused(make_learner):
    learner = make_learner()
    learner.__dict__["module"] = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    with pytest.raises(ConfigError, match="per-record gradients") as refused:
        private(learner).clipped_sum(np.arange(2))
    assert "GroupNorm" in refused.value.hint


@pytest.mark.parametrize("wrong", [{"clipping_norm": 0.0}, {"noise_multiplier": 0.0}, {"noise_multiplier": np.nan}])
def test_no_noise_and_no_clipping_are_refused(make_learner, wrong):
    learner = make_learner()
    with pytest.raises(InputError):
        private(learner, **wrong).noisy_mean_gradient(weights_for(learner))
