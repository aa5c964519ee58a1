"""Metrics from sums over sites, against scikit-learn on the pooled records."""

from functools import reduce
from operator import add

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from fedsci.config.study import METRICS
from fedsci.errors import InputError
from fedsci.training.device import CPU
from fedsci.training.evaluation import evaluate
from fedsci.training.metrics import (
    BINS,
    GAP_BINS,
    MetricSums,
    caps,
    classes_of,
    finish,
    half_range,
    higher_is_better,
    mean_site,
    names_of,
    of_one_site,
)
from fedsci.training.models import initial_vector, load_vector


def measure(make_learner, kind: str, *, model: str = "mlp", sites: int = 3, rows: int = 60):
    """Metrics of one model from the sums of several sites, and its pooled outputs, targets and tables."""
    learners = [make_learner(model=model, kind=kind, rows=rows, seed=number) for number in range(sites)]
    vector = 3 * initial_vector(learners[0].module, seed=2)
    sums = [evaluate(learner.plan, vector, learner.table, device=CPU) for learner in learners]
    outputs = []
    for learner in learners:
        load_vector(learner.module, vector)
        with torch.no_grad():
            outputs.append(learner.module(learner.features).numpy())
    targets = np.concatenate([learner.table.target for learner in learners])
    return finish(reduce(add, sums), half_range=half_range(learners[0].plan.study)), np.concatenate(outputs), targets


def test_binary_metrics_are_scikit_learns(make_learner):
    found, outputs, targets = measure(make_learner, "binary")
    scores = 1 / (1 + np.exp(-outputs[:, 0].astype(np.float64)))
    assert found["accuracy"] == pytest.approx(sklearn.accuracy_score(targets, scores > 0.5))
    assert found["log_loss"] == pytest.approx(sklearn.log_loss(targets, scores), rel=1e-5)
    assert found["auroc"] == pytest.approx(sklearn.roc_auc_score(targets, scores), abs=0.01)
    assert found["balanced_accuracy"] == pytest.approx(sklearn.balanced_accuracy_score(targets, scores > 0.5))
    assert found["calibration_error"] == pytest.approx(calibration_error(scores, targets), abs=1e-6)


def calibration_error(sure, right):
    """Naeini et al. 2015, as written: over bins, their share of records times |mean confidence - share of right|."""
    bins = np.minimum((np.asarray(sure) * GAP_BINS).astype(int), GAP_BINS - 1)
    inside = [bins == each for each in range(GAP_BINS)]
    return sum(w.mean() * abs(sure[w].mean() - right[w].mean()) for w in inside if w.any())


def test_auroc_is_exactly_scikit_learns_on_binned_scores(make_learner):
    found, outputs, targets = measure(make_learner, "binary")
    scores = torch.sigmoid(torch.from_numpy(outputs[:, 0])).numpy()
    binned = np.minimum((scores * BINS).astype(int), BINS - 1)
    assert found["auroc"] == pytest.approx(sklearn.roc_auc_score(targets, binned), abs=1e-12)


def test_multiclass_metrics_are_scikit_learns(make_learner):
    found, outputs, targets = measure(make_learner, "multiclass")
    chances = torch.softmax(torch.from_numpy(outputs).double(), 1).numpy()
    assert found["accuracy"] == pytest.approx(sklearn.accuracy_score(targets, outputs.argmax(1)))
    assert found["log_loss"] == pytest.approx(sklearn.log_loss(targets, chances, labels=[0, 1, 2]), rel=1e-5)
    assert found["balanced_accuracy"] == pytest.approx(sklearn.balanced_accuracy_score(targets, outputs.argmax(1)))
    right = (outputs.argmax(1) == targets).astype(float)
    assert found["calibration_error"] == pytest.approx(calibration_error(chances.max(1), right), abs=1e-9)


def test_regression_metrics_are_scikit_learns_in_the_targets_units(make_learner):
    found, outputs, targets = measure(make_learner, "regression")
    # the target column runs from 0 to 10, and is -1 to 1 inside
    truth, predicted = (5 * np.asarray(values, np.float64) + 5 for values in (targets, outputs[:, 0]))
    assert found["rmse"] == pytest.approx(np.sqrt(sklearn.mean_squared_error(truth, predicted)), rel=1e-6)
    assert found["mae"] == pytest.approx(sklearn.mean_absolute_error(truth, predicted), rel=1e-6)
    assert found["r2"] == pytest.approx(sklearn.r2_score(truth, predicted), abs=1e-6)


def test_regression_sums_are_in_scaled_units_that_bounds_make_public(make_learner):
    learner = make_learner(kind="regression")
    vector = initial_vector(learner.module, seed=2)
    sums = evaluate(learner.plan, vector, learner.table, device=CPU)
    assert half_range(learner.plan.study) == 5.0
    scaled = finish(sums)
    for name, value in finish(sums, half_range=5.0).items():
        assert value == pytest.approx(scaled[name] * (5.0 if name in ("rmse", "mae") else 1.0))


@pytest.mark.parametrize("kind", METRICS)
@pytest.mark.parametrize("scale", [0, 1, 1e3, 1e37])
def test_no_site_outgrows_the_caps_whatever_the_model(make_learner, kind, scale):
    learner = make_learner(kind=kind, rows=7)
    vector = np.float32(scale) * initial_vector(learner.module, seed=2)
    sums = evaluate(learner.plan, vector, learner.table, device=CPU)
    assert np.isfinite(sums.values).all()
    assert (np.abs(sums.values) <= caps(kind, records=7, classes=classes_of(learner.plan.study))).all()
    assert sums.records == 7


histograms = st.lists(st.integers(0, 50), min_size=BINS, max_size=BINS)


@settings(deadline=None, max_examples=25)
@given(histograms, histograms)
def test_auroc_of_any_histograms_is_the_mann_whitney_statistic(negative, positive):
    total = sum(negative) + sum(positive)
    found = finish(
        of_one_site("binary", np.array([total, *[0.0] * 4, *negative, *positive, *[0.0] * GAP_BINS], np.float64))
    )
    if not total:
        assert found == {}
    elif not sum(negative) or not sum(positive):
        assert found["auroc"] is None
    else:
        scores = np.concatenate([np.repeat(np.arange(BINS), negative), np.repeat(np.arange(BINS), positive)])
        labels = np.repeat([0, 1], [sum(negative), sum(positive)])
        assert found["auroc"] == pytest.approx(sklearn.roc_auc_score(labels, scores), abs=1e-9)


def binary_site(*, negative, positive):
    bins = [np.bincount((np.array(scores) * BINS).astype(int), minlength=BINS) for scores in (negative, positive)]
    correct = sum(score <= 0.5 for score in negative) + sum(score > 0.5 for score in positive)
    records, found = len(negative) + len(positive), sum(score > 0.5 for score in positive)
    first, gaps = [records, 0.3 * records, correct, 0.1 * records / 2500, found], [0.1] * GAP_BINS
    return of_one_site("binary", np.concatenate([first, *bins, gaps]).astype(np.float64))


def test_r2_of_a_constant_target_is_not_defined():
    assert finish(of_one_site("regression", np.array([2.0, 1.0, 1.0, 6.0, 18.0, 0.5])))["r2"] is None


@pytest.mark.parametrize("kind", METRICS)
def test_no_records_have_no_metrics(kind):
    assert finish(MetricSums(kind=kind, values=np.zeros(len(names_of(kind))))) == {}


@pytest.mark.parametrize(("kind", "size"), [("binary", 3), ("regression", 6), ("ranking", 3)])
def test_sums_that_do_not_fit_the_task_are_refused(kind, size):
    with pytest.raises(InputError, match="do not fit"):
        MetricSums(kind=kind, values=np.zeros(size))


def test_a_mean_over_sites_leaves_out_those_without_the_metric():
    one_class = binary_site(negative=[], positive=[0.9, 0.1])
    both = binary_site(negative=[0.1], positive=[0.4, 0.9])
    nothing = MetricSums(kind="binary", values=np.zeros(len(names_of("binary"))))
    assert finish(one_class)["auroc"] is None
    means = mean_site(one_class + both + nothing)
    for name in ("accuracy", "log_loss"):
        assert means[name] == pytest.approx((finish(one_class)[name] + finish(both)[name]) / 2)
    assert means["auroc"] == finish(both)["auroc"] == 1.0
    assert mean_site(one_class)["auroc"] is None
    assert mean_site(nothing) == dict.fromkeys(METRICS["binary"])


def test_a_mean_over_sites_is_in_the_targets_units():
    sites = [of_one_site("regression", np.array([2.0, 1.0, 1.0, t, 18.0, 0.5])) for t in (0.0, 1.0)]
    means = mean_site(sites[0] + sites[1], half_range=5.0)
    singles = [finish(site, half_range=5.0) for site in sites]
    for name in METRICS["regression"]:
        assert means[name] == pytest.approx(np.mean([single[name] for single in singles]))


def test_which_metrics_are_better_when_higher():
    names = {name for kind in METRICS.values() for name in kind}
    assert {name for name in names if higher_is_better(name)} == {"accuracy", "auroc", "r2", "balanced_accuracy"}
