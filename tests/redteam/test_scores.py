"""Scores that tell two kinds apart, and the intervals of how well."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from fedsci.redteam.scores import auc, auc_interval, mean_interval, roc, share_interval, threshold_for


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def test_the_area_is_that_of_scikit_learn_with_ties_too(rng):
    for digits in (8, 0):
        of, other = rng.normal(0.7, 1, 90).round(digits), rng.normal(0, 1, 60).round(digits)
        truth = roc_auc_score([1] * 90 + [0] * 60, [*of, *other])
        assert auc(of, other) == pytest.approx(truth, abs=1e-12)


def test_intervals_hold_the_truth_as_often_as_they_say(rng):
    truth = stats.norm.cdf(1 / np.sqrt(2))
    drawn = [auc_interval(rng.normal(1, 1, 40), rng.normal(0, 1, 40)) for _ in range(300)]
    assert np.mean([each.low <= truth <= each.high for each in drawn]) > 0.91
    assert np.mean([each.low <= truth + 0.15 <= each.high for each in drawn]) < 0.5  # a wrong value is outside
    shares = [share_interval(int(rng.binomial(50, 0.3)), 50) for _ in range(300)]
    assert np.mean([each.low <= 0.3 <= each.high for each in shares]) > 0.91
    means = [mean_interval(rng.uniform(0, 1, 40).tolist()) for _ in range(300)]
    assert np.mean([each.low <= 0.5 <= each.high for each in means]) > 0.91


def test_nobody_is_certain_after_a_few_trials():
    perfect = auc_interval(np.arange(10.0) + 100, np.arange(10.0))
    assert perfect.value == perfect.high == 1
    assert 0.7 < perfect.low < 0.95
    assert share_interval(10, 10).low < 0.8
    assert (mean_interval([0.9]).low, mean_interval([0.9]).high) == (0, 1)


def test_a_threshold_lets_through_the_share_it_says(rng):
    other = rng.normal(size=1000)
    for rate in (0.0, 0.01, 0.1):
        assert (other > threshold_for(other, false_alarms=rate)).sum() == round(rate * 1000)


def test_a_roc_starts_at_one_false_alarm_and_ends_at_all(rng):
    line = roc(rng.normal(1, 1, 500), rng.normal(0, 1, 1000))
    assert line[0][0] == pytest.approx(-3)
    assert line[-1] == (0, pytest.approx(0, abs=1e-2))
    assert np.isfinite(line).all()
    assert all(found >= alarms - 0.3 for alarms, found in line)
