"""A regression's target in deviations from its mean: what models learn, and that measures stay in its own units."""

import numpy as np
import pytest
import torch

from fedsci.data.table import EncodingReport, Table
from fedsci.training.device import CPU
from fedsci.training.evaluation import bounded_sums, evaluate
from fedsci.training.learner import Learner
from fedsci.training.metrics import finish, half_range
from fedsci.training.scaling import moments_of, noise_of_pass
from fedsci.training.schema import learned_scale

MILLIVOLTS = {"kind": "regression", "target": "above", "min": 300, "max": 800}
TRUTH = np.array([400.0, 420.0, 440.0, 500.0])


@pytest.fixture
def table():
    report = EncodingReport(rows_read=4, rows_dropped_missing=0, clipped={}, unseen={}, missing={})
    scaled = ((TRUTH - 550) / 250).astype(np.float32)
    return Table(features=np.zeros((4, 2), np.float32), target=scaled, row_ids=np.arange(4), report=report)


@pytest.fixture
def plan(make_plan):
    return make_plan(task=MILLIVOLTS | {"mean": 440.0, "deviation": 40.0}, privacy={"mechanism": "local"})


def test_models_learn_deviations_from_the_mean(plan, table):
    learner = Learner(plan=plan, table=table, device=torch.device("cpu"))
    assert learner.targets.numpy() == pytest.approx((TRUTH - 440) / 40, abs=1e-5)


def test_without_them_models_learn_what_the_bounds_make(make_plan, table):
    learner = Learner(plan=make_plan(task=MILLIVOLTS), table=table, device=torch.device("cpu"))
    assert learner.targets.numpy().tolist() == table.target.tolist()
    assert learned_scale(learner.plan.study).unit == 1.0


def test_what_a_model_says_is_measured_in_the_targets_own_units(plan, table):
    says_one = np.array([0, 0, 1.0], np.float32)  # mean + 1 deviation, whatever the record
    metrics = finish(evaluate(plan, says_one, table, device=CPU), half_range=half_range(plan.study))
    assert metrics["mae"] == pytest.approx(np.abs(TRUTH - 480).mean(), abs=1e-3)
    assert metrics["rmse"] == pytest.approx(np.sqrt(((TRUTH - 480) ** 2).mean()), abs=1e-3)


def test_sums_that_noise_is_added_to_are_of_the_same_errors(plan, make_plan, table):
    said = (480 - 550) / 250
    ours = bounded_sums(plan, np.array([0, 0, 1.0], np.float32), table, site_weight=1.0, device=CPU)
    plain = make_plan(task=MILLIVOLTS, privacy={"mechanism": "local"})
    right = bounded_sums(plain, np.array([0, 0, said], np.float32), table, site_weight=1.0, device=CPU)
    assert ours == pytest.approx(right, abs=1e-5)


def released(plan, rows):
    """What a pass over these records releases: the mean of their vectors."""
    learner = Learner(plan=plan, table=rows, device=torch.device("cpu"))
    return learner.mean_statistics(clipping_norm=1.0, sample_rate=1.0, rng=np.random.default_rng(0))


def test_a_target_is_scaled_by_its_histogram(make_plan, table):
    plan = make_plan(strategy="feature_statistics", training={"rounds": 1}, task=MILLIVOLTS)
    mean, deviation = moments_of(plan, released(plan, table), records=[4], noise=0.0)["above"]
    bin_width = 500 / 16
    assert mean == pytest.approx(TRUTH.mean(), abs=bin_width / 2)
    assert deviation == pytest.approx(TRUTH.std(), abs=bin_width / 2)


@pytest.mark.parametrize(("noise", "trust"), [(0.0, 1.0), (0.01, 0.99), (100.0, 0.0)])
def test_the_more_noise_the_more_a_number_is_drawn_to_the_usual(make_plan, table, noise, trust):
    plan = make_plan(strategy="feature_statistics", training={"rounds": 1})
    rows = Table(
        features=np.array([[0.5, -0.8]] * 4, np.float32) + np.array([[0.1], [-0.1], [0.1], [-0.1]], np.float32),
        target=np.array([0, 1, 0, 1]),
        row_ids=table.row_ids,
        report=table.report,
    )
    found = moments_of(plan, released(plan, rows), records=[4], noise=noise)
    for name, centre in (("a", 0.5), ("b", -0.8)):
        mean, deviation = found[name]
        assert mean == pytest.approx(0.5 + trust * centre / 2, abs=0.01)
        usual = np.sqrt(0.12)
        assert deviation == pytest.approx(np.sqrt(trust * 0.01 + (1 - trust) * usual**2) / 2, abs=0.02)


def test_a_column_of_gaps_is_scaled_by_the_usual(make_plan, table):
    plan = make_plan(
        strategy="feature_statistics", training={"rounds": 1}, missing="impute", features={"a": {"min": 0, "max": 10}}
    )
    rows = Table(
        features=np.array([[0.0, 1.0]] * 4, np.float32),
        target=np.array([0, 1, 0, 1]),
        row_ids=table.row_ids,
        report=table.report,
        gaps=np.ones((4, 1), np.bool_),
    )
    mean, deviation = moments_of(plan, released(plan, rows), records=[4], noise=0.0)["a"]
    assert (mean, deviation) == pytest.approx((5.0, np.sqrt(0.12) * 5))


def test_there_is_no_noise_without_privacy(make_plan):
    plan = make_plan(strategy="feature_statistics", training={"rounds": 1}, privacy={"mechanism": "none"})
    assert noise_of_pass(plan, None, [10, 20]) == 0.0
