"""Metrics from sums over sites, against scikit-learn on the pooled records."""

from functools import reduce
from operator import add

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from fedsci.errors import InputError
from fedsci.training.device import CPU
from fedsci.training.evaluation import evaluate
from fedsci.training.metrics import BINS, NAMES, MetricSums, finish, higher_is_better, mean_metrics
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
    return finish(reduce(add, sums)), np.concatenate(outputs), targets


def test_binary_metrics_are_scikit_learns(make_learner):
    found, outputs, targets = measure(make_learner, "binary")
    scores = 1 / (1 + np.exp(-outputs[:, 0].astype(np.float64)))
    assert found["accuracy"] == pytest.approx(sklearn.accuracy_score(targets, scores > 0.5))
    assert found["log_loss"] == pytest.approx(sklearn.log_loss(targets, scores), rel=1e-5)
    assert found["auroc"] == pytest.approx(sklearn.roc_auc_score(targets, scores), abs=0.01)


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


def test_regression_metrics_are_scikit_learns_in_the_targets_units(make_learner):
    found, outputs, targets = measure(make_learner, "regression")
    # the target column runs from 0 to 10, and is -1 to 1 inside
    truth, predicted = (5 * np.asarray(values, np.float64) + 5 for values in (targets, outputs[:, 0]))
    assert found["rmse"] == pytest.approx(np.sqrt(sklearn.mean_squared_error(truth, predicted)), rel=1e-6)
    assert found["mae"] == pytest.approx(sklearn.mean_absolute_error(truth, predicted), rel=1e-6)
    assert found["r2"] == pytest.approx(sklearn.r2_score(truth, predicted), abs=1e-6)


histograms = st.lists(st.integers(0, 50), min_size=BINS, max_size=BINS)


@settings(deadline=None, max_examples=25)
@given(histograms, histograms)
def test_auroc_of_any_histograms_is_the_mann_whitney_statistic(negative, positive):
    total = sum(negative) + sum(positive)
    found = finish(MetricSums(kind="binary", values=np.array([total, 0.0, 0.0, *negative, *positive], np.float64)))
    if not total:
        assert found == {}
    elif not sum(negative) or not sum(positive):
        assert found["auroc"] is None
    else:
        scores = np.concatenate([np.repeat(np.arange(BINS), negative), np.repeat(np.arange(BINS), positive)])
        labels = np.repeat([0, 1], [sum(negative), sum(positive)])
        assert found["auroc"] == pytest.approx(sklearn.roc_auc_score(labels, scores), abs=1e-9)


def test_r2_of_a_constant_target_is_not_defined():
    assert finish(MetricSums(kind="regression", values=np.array([2.0, 1.0, 1.0, 6.0, 18.0])))["r2"] is None


@pytest.mark.parametrize("kind", sorted(NAMES))
def test_no_records_have_no_metrics(kind):
    assert finish(MetricSums(kind=kind, values=np.zeros(len(NAMES[kind])))) == {}


@pytest.mark.parametrize(("kind", "size"), [("binary", 3), ("regression", 6), ("ranking", 3)])
def test_sums_that_do_not_fit_the_task_are_refused(kind, size):
    with pytest.raises(InputError, match="do not fit"):
        MetricSums(kind=kind, values=np.zeros(size))


def test_a_mean_over_sites_leaves_out_those_without_the_metric():
    per_site = [{"accuracy": 0.5, "auroc": None}, {"accuracy": 1.0, "auroc": 0.75}, {}]
    assert mean_metrics(per_site) == {"accuracy": 0.75, "auroc": 0.75}
    assert mean_metrics([{"r2": None}]) == {"r2": None}
    assert mean_metrics([]) == {}


def test_which_metrics_are_better_when_higher():
    names = {"accuracy", "auroc", "r2", "log_loss", "rmse", "mae"}
    assert {name for name in names if higher_is_better(name)} == {"accuracy", "auroc", "r2"}
