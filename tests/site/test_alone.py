"""What a lab that does not join may use: nothing that was measured with others."""

import numpy as np
import pytest

from fedsci.config.scaling import pass_before, scaled
from fedsci.data.table import EncodingReport, Table
from fedsci.site.alone import alone_with
from fedsci.site.dataset import SiteData

COLUMNS = {"a": {"min": 0, "max": 1}, "b": {"min": 0, "max": 1}, "scaling": "federated"}
MEASURED = {"a": (0.25, 0.1), "b": (0.5, 0.2)}
OWN = np.array([[0.2, 0.9], [0.4, 0.5], [0.6, 0.1]])


@pytest.fixture
def data():
    report = EncodingReport(rows_read=3, rows_dropped_missing=0, clipped={}, unseen={}, missing={})
    features = ((OWN - [0.25, 0.5]) / [0.1, 0.2]).astype(np.float32)
    table = Table(features=features, target=np.array([0, 1, 0]), row_ids=np.arange(3), report=report)
    return SiteData(train=table, holdout=table.where(np.array([True, False, False])), train_count=3,
                    holdout_count=1, report=report)  # fmt: skip


@pytest.fixture
def plan(make_plan):
    asked = make_plan(features=COLUMNS, privacy={"mechanism": "local", "epsilon": 2.0})
    return scaled(asked, pass_before(asked), MEASURED)


def test_with_privacy_it_scales_by_bounds_and_has_all_of_epsilon(plan, data):
    own, records = alone_with(plan, data, private=True)
    assert own.study.privacy.epsilon == pytest.approx(2.0)
    assert own.study.privacy.delta == pytest.approx(1e-5)
    assert own.study.unmeasured == ("a", "b")
    assert records.train.features == pytest.approx(2 * OWN - 1, abs=1e-6)
    assert records.holdout.features == pytest.approx(2 * OWN[:1] - 1, abs=1e-6)


def test_without_privacy_it_scales_by_its_own_training_records(plan, data):
    own, records = alone_with(plan, data, private=False)
    assert own.study.features["a"].mean == pytest.approx(0.4)
    assert own.study.features["b"].deviation == pytest.approx(np.std([0.9, 0.5, 0.1]))
    assert records.train.features.mean(axis=0) == pytest.approx([0, 0], abs=1e-6)
    assert records.train.features.std(axis=0) == pytest.approx([1, 1], abs=1e-5)
    assert records.holdout.features == pytest.approx(records.train.features[:1])


def test_a_study_that_measured_nothing_is_as_it_is(make_plan, data):
    plan = make_plan()
    assert alone_with(plan, data, private=False) == (plan, data)
