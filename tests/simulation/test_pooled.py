"""What local noise would have cost: the study's model when every lab adds all the noise itself."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fedsci.data.table import EncodingReport, Table
from fedsci.names import SiteId
from fedsci.simulation.pooled import pooled_baselines, train_with_local_noise
from fedsci.site.dataset import SiteData
from fedsci.training.accountant import cost_of
from fedsci.training.learner import module_for
from fedsci.training.models import initial_vector

SITES, DIMENSION, RATE = 4, 801, 0.5


def lab(rows, rng):
    report = EncodingReport(rows_read=rows, rows_dropped_missing=0, clipped={}, unseen={}, missing={})
    features = rng.uniform(-1, 1, (rows, DIMENSION - 1)).astype(np.float32)
    table = Table(features=features, target=rng.integers(0, 2, rows), row_ids=np.arange(rows), report=report)
    return SiteData(train=table, holdout=table, train_count=rows, holdout_count=rows, report=report)


@pytest.fixture
def plan(make_plan):
    columns = {f"c{number}": {"min": 0, "max": 1} for number in range(DIMENSION - 1)}
    privacy = {"mechanism": "distributed", "colluding_sites": 1, "epsilon": 2.0}
    training = {"rounds": 1, "learning_rate": RATE, "momentum": 0.0}
    return make_plan(sites=SITES, features=columns, privacy=privacy, training=training)


@pytest.fixture
def noise(plan):
    """The noise in the mean gradient after one round over labs of unlike size, in gradient units."""
    rng = np.random.default_rng(3)
    labs = {SiteId(f"lab-{number}"): lab(20 * number, rng) for number in range(1, SITES + 1)}
    cost = cost_of(plan, dimension=DIMENSION, alone=True)
    start = initial_vector(module_for(plan, inputs=DIMENSION - 1), seed=plan.study.seed)
    noisy, quiet = (
        train_with_local_noise(plan, labs, used) - start for used in (cost, replace(cost, noise_multiplier=1e-6))
    )
    return (noisy - quiet) / RATE, sum(each.train_count for each in labs.values()), cost


def fits(noise, deviation):
    square = (noise.astype(np.float64) ** 2).sum() / deviation**2
    low, high = stats.chi2.ppf([2.5e-5, 1 - 2.5e-5], len(noise))
    return bool(low < square < high)


def test_every_labs_full_noise_is_in_the_mean_and_no_less(plan, noise):
    drawn, records, cost = noise
    deviation = cost.noise_multiplier * plan.study.privacy.clipping_norm * math.sqrt(SITES) / records
    assert fits(drawn, deviation)
    for wrong in (1 / math.sqrt(SITES), 0.8, 1.25):  # the first is the noise of pooled data
        assert not fits(drawn, wrong * deviation)


@pytest.mark.parametrize(
    ("mechanism", "labels"),
    [
        ("distributed", {"pooled", "pooled_dp", "local_noise"}),
        ("local", {"pooled", "pooled_dp"}),
        ("none", {"pooled"}),
    ],
)
def test_only_shared_noise_is_compared_with_local_noise(make_plan, make_lab, mechanism, labels):
    files = tuple(make_lab(number) for number in (1, 2, 3))
    epsilon = None if mechanism == "none" else 4.0
    plan = make_plan(privacy={"mechanism": mechanism, "epsilon": epsilon, "colluding_sites": 1})
    found = pooled_baselines(plan, files, lambda site: b"")
    assert set(found) == labels
    for metrics in found.values():
        assert 0 <= metrics["accuracy"] <= 1
