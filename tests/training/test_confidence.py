"""How sure a model is of single records."""

import numpy as np
import pytest

from fedsci.data.table import EncodingReport, Table
from fedsci.training.confidence import confidences

REPORT = EncodingReport(rows_read=4, rows_dropped_missing=0, clipped={}, unseen={}, missing={})


def table(target):
    features = np.array([[1.0, -1.0], [0.5, 0.25], [0.0, 0.0], [-1.0, 1.0]], np.float32)
    return Table(features=features, target=np.array(target), row_ids=np.arange(4), report=REPORT)


def test_of_a_yes_or_no_it_is_the_logit_of_what_is_true(make_plan):
    model = np.array([2.0, 1.0, 0.5], np.float32)  # weights, bias
    logits = np.array([1.5, 1.75, 0.5, -0.5])
    found = confidences(make_plan(), model, table([1, 0, 1, 0]))
    assert found == pytest.approx(logits * [1, -1, 1, -1])
    assert found != pytest.approx(logits)


def test_of_classes_it_is_the_logit_of_the_right_one(make_plan):
    plan = make_plan(task={"kind": "multiclass", "target": "above", "classes": [0, 1, 2]})
    rng = np.random.default_rng(1)
    model = rng.normal(size=9).astype(np.float32)
    records = table([0, 1, 2, 2])
    outputs = records.features.astype(float) @ model[:6].reshape(3, 2).T + model[6:]
    shares = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True)
    own = shares[np.arange(4), records.target]
    assert confidences(plan, model, records) == pytest.approx(np.log(own / (1 - own)), abs=1e-5)


def test_of_a_number_it_is_what_is_left(make_plan):
    plan = make_plan(
        task={"kind": "regression", "target": "above", "min": 0, "max": 1}, evaluation={"metrics": ["rmse"]}
    )
    model = np.array([2.0, 1.0, 0.5], np.float32)
    truth = np.array([0.5, -0.5, 0.0, 1.0], np.float32)
    assert confidences(plan, model, table(truth)) == pytest.approx(np.array([1.5, 1.75, 0.5, -0.5]) - truth)


def test_no_records_have_none(make_plan):
    assert confidences(make_plan(), np.zeros(3, np.float32), table([1, 0, 1, 0]).where(np.zeros(4, bool))).shape == (0,)
