"""Groups of records: what one group adds to a sum is bounded, whatever its records are and whoever else is there."""

import numpy as np
import pytest

from fedsci.data.table import EncodingReport, Table, concatenate
from fedsci.privacy.clipping import clip_rows
from fedsci.training.device import CPU
from fedsci.training.learner import CHUNK, Learner
from fedsci.training.models import load_vector
from fedsci.training.private import PrivateLearner

C = 0.05


def hostile(make_plan, *, others):
    """2,560 groups whose gradients cancel to nothing or to 1e20, as they are added up; with others, or without."""
    count = 2560
    plan = make_plan(model={"name": "mlp", "hidden": [2]})
    features = np.tile(np.array([[1, 0], [1, 0], [1, 1], [1, 1]], np.float32), (count, 1))
    target = np.tile(np.array([1, 0, 0, 0]), count)
    groups = np.repeat(np.arange(count), 4)
    if others:
        features = np.concatenate([np.ones((3, 2), np.float32), features])
        target, groups = np.concatenate([[0, 0, 0], target]), np.concatenate([[0, 0, 0], groups + 1])
    report = EncodingReport(rows_read=len(features), rows_dropped_missing=0, clipped={}, unseen={}, missing={})
    table = Table(features=features, target=target, row_ids=np.arange(len(features)), report=report).grouped(groups)
    worker = PrivateLearner(
        learner=Learner(plan=plan, table=table, device=CPU),
        clipping_norm=C,
        noise_multiplier=1.0,
        sample_rate=1.0,
        random_bytes=bytes,
    )
    weights = np.array([0, 0, 0, 20, 0, 0, 1e20, -40, 0], np.float32)
    return group_sum(worker, range(worker.learner.units), weights)


@pytest.mark.slow
def test_weights_that_cancel_cannot_make_a_groups_part_depend_on_others(make_plan):
    moved = np.linalg.norm(hostile(make_plan, others=True) - hostile(make_plan, others=False))
    assert moved <= C


@pytest.fixture
def private(make_learner):
    def make(groups, **changes):
        learner = make_learner(rows=len(groups), **changes)
        object.__setattr__(learner, "table", learner.table.grouped(np.array(groups)))
        return PrivateLearner(
            learner=learner, clipping_norm=C, noise_multiplier=1.0, sample_rate=1.0, random_bytes=bytes
        )

    return make


def group_sum(private, groups, vector=None):
    size = sum(p.numel() for p in private.learner.module.parameters())
    rng = np.random.default_rng(3)
    load_vector(private.learner.module, rng.normal(0, 0.3, size).astype(np.float32) if vector is None else vector)
    return private.clipped_group_sum(np.array(groups, dtype=np.int64))


@pytest.mark.parametrize("model", ["linear", "mlp", "cnn"])
def test_a_sum_is_that_of_every_groups_clipped_mean_gradient(private, model):
    groups = np.array([0, 1, 2, 1, 0, 2, 2, 3, 1, 0])
    worker = private(groups.tolist(), model=model)
    clipped = group_sum(worker, range(4))
    object.__setattr__(worker, "clipping_norm", 1e6)
    worker.__dict__.pop("_clipped", None)
    means = [worker.clipped_sum(np.flatnonzero(groups == g)) / (groups == g).sum() for g in range(4)]
    assert max(np.linalg.norm(mean) for mean in means) > C
    np.testing.assert_allclose(clipped, sum(clip_rows(mean[None], C)[0] for mean in means), atol=1e-6 * C)


def test_a_groups_part_does_not_depend_on_the_others_even_across_passes(private):
    sizes = [CHUNK - 3, 7, CHUNK + 11, 1, 5]
    groups = np.repeat(np.arange(5), sizes)
    worker = private(groups.tolist())
    everybody = group_sum(worker, range(5))
    parts = [group_sum(worker, [group]) for group in range(5)]
    np.testing.assert_allclose(everybody, sum(parts), atol=1e-12)
    assert all(np.linalg.norm(part) <= C for part in parts)
    for left_out in range(5):
        others = group_sum(worker, [group for group in range(5) if group != left_out])
        np.testing.assert_allclose(everybody - others, parts[left_out], atol=1e-12)


def test_many_copies_of_a_record_in_one_group_weigh_no_more_than_one(private):
    worker = private([0] * 50)
    features = worker.learner.table.features
    features[:] = features[0]
    worker.learner.table.target[:] = worker.learner.table.target[0]
    once = private([0])
    once.learner.table.features[:] = features[0]
    once.learner.table.target[:] = worker.learner.table.target[0]
    np.testing.assert_allclose(group_sum(worker, [0]), group_sum(once, [0]), atol=1e-9)


def test_a_group_with_a_gradient_that_is_not_finite_adds_nothing(private):
    worker = private([0, 0, 1, 1])
    clean = group_sum(worker, [1])
    worker.learner.table.features[0] = np.nan
    worker.learner.__dict__.pop("features", None)
    np.testing.assert_array_equal(group_sum(worker, [0, 1]), clean)
    np.testing.assert_array_equal(group_sum(worker, [0]), np.zeros_like(clean))


def test_groups_are_what_is_sampled_and_divided_by(private):
    assert private([0, 1, 2, 1, 0, 2]).learner.units == 3
    assert private([0, 1, 2, 1, 0, 2]).learner.divisor == 3


def test_no_group_spans_two_tables(private):
    table = private([0, 1, 1]).learner.table
    assert concatenate([table, table]).groups.tolist() == [0, 1, 1, 2, 3, 3]
    assert table.where(np.array([False, True, True])).groups.tolist() == [0, 0]
