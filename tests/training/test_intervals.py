"""Intervals from sums: they are as wide as the metric really varies, and a wrong width is told from a right one."""

from functools import reduce
from operator import add

import numpy as np
import pytest

from fedsci.config.study import METRICS
from fedsci.data.table import Table
from fedsci.training.device import CPU
from fedsci.training.evaluation import evaluate
from fedsci.training.intervals import bootstrap_variances, mean_site_intervals, pooled_intervals
from fedsci.training.metrics import bare_sums, finish, mean_site, of_one_site
from fedsci.training.models import initial_vector

DRAWS, ROWS, SITES = 250, 120, 3


def unit(_: str) -> float:
    return 1.0


def width(ends) -> float:
    return ends[1] - ends[0]


@pytest.fixture(scope="module")
def draws(request):
    """Metrics and intervals of one model on many draws of three sites' holdouts from the same population."""

    def of(make_learner, kind):
        learner = make_learner(model="mlp", kind=kind, rows=4000, seed=1)
        vector = 3 * initial_vector(learner.module, seed=2)
        rng, found = np.random.default_rng(5), []
        for number in range(DRAWS):
            sites = [
                evaluate(
                    learner.plan, vector, rows_of(learner.table, rng.integers(0, 4000, ROWS)), device=CPU,
                    resample=f"lab-{site}" if number < 20 else None,
                )
                for site in range(SITES)
            ]  # fmt: skip
            found.append(reduce(add, sites))
        return found

    return of


def rows_of(table, chosen):
    return Table(features=table.features[chosen], target=table.target[chosen], row_ids=chosen, report=table.report)


@pytest.mark.slow
@pytest.mark.parametrize("kind", METRICS)
def test_intervals_are_as_wide_as_the_metrics_vary_over_holdouts(make_learner, draws, kind):
    sums = draws(make_learner, kind)
    for measure, intervals in ((finish, pooled_intervals), (mean_site, mean_site_intervals)):
        values = [measure(each) for each in sums]
        ends = [intervals(each, value, unit=unit) for each, value in zip(sums[:20], values, strict=False)]
        known = set(METRICS[kind]) if measure is mean_site else set(METRICS[kind]) - {"r2", "calibration_error"}
        for name in known:
            half = np.mean([width(each[name]) for each in ends]) / 2
            true = 1.96 * np.std([value[name] for value in values])
            # 250 draws know a deviation to 4.5 %, 20 intervals of 200 resamples their mean to a few per cent more
            assert half == pytest.approx(true, rel=0.22), name
            assert half != pytest.approx(1.5 * true, rel=0.22)
            assert half != pytest.approx(true / np.sqrt(SITES), rel=0.22)


@pytest.mark.slow
def test_a_pooled_variance_is_what_many_resamples_give(make_learner):
    """The delta method and DeLong against a bootstrap of 4,000 resamples, for metrics over all records."""
    for kind in METRICS:
        learner = make_learner(model="mlp", kind=kind, rows=400, seed=1)
        vector, rng, seen = 3 * initial_vector(learner.module, seed=2), np.random.default_rng(3), []
        for _ in range(600):
            chosen = rows_of(learner.table, rng.integers(0, 400, 400))
            seen.append(finish(evaluate(learner.plan, vector, chosen, device=CPU)))
        whole = evaluate(learner.plan, vector, learner.table, device=CPU)
        for name, ends in pooled_intervals(whole, finish(whole), unit=unit).items():
            assert width(ends) / 2 == pytest.approx(1.96 * np.std([each[name] for each in seen]), rel=0.12), name


def test_resamples_are_the_same_for_the_same_study_and_site_and_others_elsewhere(make_learner):
    learner = make_learner(kind="binary", rows=60)
    vector = initial_vector(learner.module, seed=2) + np.float32(0.3)
    one, again, other = (
        evaluate(learner.plan, vector, learner.table, device=CPU, resample=name).own("var")
        for name in ("lab-1", "lab-1", "lab-2")
    )
    assert one.tolist() == again.tolist() != other.tolist()
    assert not evaluate(learner.plan, vector, learner.table, device=CPU).own("var").any()


def test_one_record_tells_nothing_of_how_it_varies_and_counts_as_the_most_it_can():
    rng = np.random.default_rng(1)
    assert np.isnan(bootstrap_variances("regression", lambda counts: counts, 1, rng)).all()
    single = np.array([1.0, 0.5, 0.25, 0.3, 0.09, 0.06])
    site = of_one_site("regression", single, variances=np.full(3, np.nan))
    assert site.own("var").tolist() == [0.25, 0.25, 0.0]  # and R2 is not defined
    assert width(mean_site_intervals(site, mean_site(site), unit=unit)["rmse"]) > 1


@pytest.mark.parametrize("kind", METRICS)
def test_where_no_site_resampled_or_nothing_varies_there_is_no_interval(kind, make_learner):
    learner = make_learner(kind=kind, rows=30)
    sums = evaluate(learner.plan, initial_vector(learner.module, seed=2), learner.table, device=CPU)
    assert mean_site_intervals(sums, mean_site(sums), unit=unit) == {}
    nothing = bare_sums(kind, np.zeros(len(sums.values) - 3 * len(METRICS[kind])))
    assert pooled_intervals(nothing, finish(nothing), unit=unit) == {}


def test_intervals_stay_within_what_a_metric_can_be():
    sums = np.array([10.0, 0.1, 9.0, 0.00001, 4.0, *[0.0] * 512, *[0.0] * 16])
    sums[5], sums[5 + 256 + 255] = 5, 5
    site = of_one_site("binary", sums, variances=np.full(5, 0.01))
    ends = pooled_intervals(site, finish(site), unit=unit)["accuracy"]
    assert ends[1] == 1.0
    assert ends[0] == pytest.approx(0.9 - 1.96 * 0.1, abs=1e-3)
