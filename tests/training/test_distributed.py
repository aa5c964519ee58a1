"""The distributed mechanism: what the sites add up to is the clipped sum with the noise that was charged."""

import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from fedsci.config.masking import grid_for
from fedsci.data.table import EncodingReport, Table
from fedsci.errors import InputError
from fedsci.privacy.calibration import epsilon_with_distance, gaussian_plan
from fedsci.secagg import plan_quantisation
from fedsci.site.round import contributor
from fedsci.training.accountant import cost_of
from fedsci.training.device import CPU
from fedsci.training.models import load_vector
from fedsci.training.sums import LARGEST_NOISE, room_for_noise

SITES, DIMENSION = 5, 401


def table_of(rows, rng):
    report = EncodingReport(rows_read=rows, rows_dropped_missing=0, clipped={}, unseen={}, missing={})
    features = rng.uniform(-1, 1, (rows, DIMENSION - 1)).astype(np.float32)
    return Table(features=features, target=rng.integers(0, 2, rows), row_ids=np.arange(rows), report=report)


@pytest.fixture
def plan(make_plan):
    columns = {f"c{number}": {"min": 0, "max": 1} for number in range(DIMENSION - 1)}
    privacy = {"mechanism": "distributed", "colluding_sites": 1, "epsilon": 2.0}
    return make_plan(sites=SITES, features=columns, privacy=privacy)


@pytest.fixture
def released(plan):
    """The sum over all sites, in gradient units, less the exact clipped sum: the noise that protects."""
    rng = np.random.default_rng(5)
    cost = cost_of(plan, dimension=DIMENSION)
    model = rng.normal(0, 0.1, DIMENSION).astype(np.float32)
    total, exact = np.zeros(DIMENSION, np.int64), np.zeros(DIMENSION)
    for number in range(SITES):
        table = table_of(20 + number, rng)
        worker = contributor(plan, f"lab-{number}", table, cost=cost, device=CPU, random_bytes=os.urandom)
        total += worker.contribution(model, 1, memory={})
        load_vector(worker.learner.module, model)
        exact -= worker.private.clipped_sum(np.arange(table.rows))
    return total * cost.share.gamma - exact


def fits(noise, deviation):
    """Whether the noise has this deviation and mean zero, at a chance of one in 10,000 to say no wrongly."""
    square = (noise**2).sum() / deviation**2
    low, high = stats.chi2.ppf([2.5e-5, 1 - 2.5e-5], len(noise))
    centre = abs(noise.mean()) / (deviation / np.sqrt(len(noise)))
    return bool(low < square < high and centre < stats.norm.ppf(1 - 2.5e-5))


def test_the_noise_of_all_sites_is_that_of_their_shares_and_no_other(plan, released):
    share = cost_of(plan, dimension=DIMENSION).share
    deviation = share.deviation * share.gamma * np.sqrt(SITES)
    assert fits(released, deviation)
    for wrong in (0.75, 1.33):
        assert not fits(released, wrong * deviation)
    assert not fits(released + 0.4 * deviation, deviation)


def test_the_sites_that_count_make_up_the_charged_noise(plan):
    cost = cost_of(plan, dimension=DIMENSION)
    honest = plan.min_survivors - plan.study.privacy.colluding_sites
    assert cost.share.sites == honest
    counted = cost.share.deviation * cost.share.gamma * np.sqrt(honest) / plan.study.privacy.clipping_norm
    assert cost.noise_multiplier == pytest.approx(counted)
    assert 0.97 * counted < cost.charged < counted


def test_the_price_is_the_studys_epsilon_and_fewer_sites_noise_would_pass_it(plan):
    cost, rounds = cost_of(plan, dimension=DIMENSION), plan.training.rounds
    assert 1.9 < cost.epsilon(rounds) <= 2.0
    one_less = cost.charged * np.sqrt((cost.share.sites - 1) / cost.share.sites)
    weaker = gaussian_plan(noise_multiplier=one_less, sample_rate=1.0, steps=rounds)
    assert epsilon_with_distance(weaker, delta=1e-5, distance=rounds * cost.distance) > 2.0


def test_no_share_can_pass_the_ring_however_large_the_sum(plan):
    share = cost_of(plan, dimension=DIMENSION).share
    rng = np.random.default_rng(1)
    table = table_of(30, rng)
    cost = cost_of(plan, dimension=DIMENSION)
    worker = contributor(plan, "lab-1", table, cost=cost, device=CPU, random_bytes=os.urandom)
    grid = SimpleNamespace(site_bound=300)  # far too small for this sum
    sent = worker.private.noised_share(np.zeros(DIMENSION, np.float32), share, grid)
    assert np.abs(sent).max() <= 300
    whole = room_for_noise(grid_for(plan), deviation=share.deviation)
    assert 0 < whole + LARGEST_NOISE * share.deviation <= grid_for(plan).site_bound
    with pytest.raises(InputError, match="no room for the noise"):
        room_for_noise(grid_for(plan), deviation=grid_for(plan).site_bound / LARGEST_NOISE)


def test_a_wide_ring_does_not_let_a_large_sum_be_refused(plan):
    """A refusal that depends on the records would tell of them; what is too large for the sampler is limited."""
    cost = cost_of(plan, dimension=DIMENSION)
    table = table_of(30, np.random.default_rng(1))
    worker = contributor(plan, "lab-1", table, cost=cost, device=CPU, random_bytes=os.urandom)
    tiny = replace(cost.share, gamma=1e-12)  # sums of 10^12 steps
    grid = plan_quantisation(bound=16.0, sites=SITES, ring_bits=64)
    sent = worker.private.noised_share(np.zeros(DIMENSION, np.float32), tiny, grid)
    assert 2**31 < np.abs(sent).max() <= 2**32


def test_more_records_than_a_float64_sum_is_exact_for_are_refused(plan, monkeypatch):
    table, cost = table_of(30, np.random.default_rng(1)), cost_of(plan, dimension=DIMENSION)
    monkeypatch.setattr("fedsci.training.per_record.clipped.most_summed", lambda *_, **__: 30)
    assert contributor(plan, "lab-1", table, cost=cost, device=CPU, random_bytes=os.urandom)
    monkeypatch.setattr("fedsci.training.per_record.clipped.most_summed", lambda *_, **__: 29)
    with pytest.raises(InputError, match="more than 29"):
        contributor(plan, "lab-1", table, cost=cost, device=CPU, random_bytes=os.urandom)
    assert contributor(plan, "lab-1", table, cost=None, device=CPU, random_bytes=os.urandom)


def test_two_answers_to_one_model_differ_in_nearly_every_number(plan):
    cost = cost_of(plan, dimension=DIMENSION)
    table = table_of(30, np.random.default_rng(1))
    worker = contributor(plan, "lab-1", table, cost=cost, device=CPU, random_bytes=os.urandom)
    model = np.zeros(DIMENSION, np.float32)
    first, second = worker.contribution(model, 1, memory={}), worker.contribution(model, 2, memory={})
    assert (first != second).mean() > 0.8


def test_alone_a_lab_adds_all_noise_itself(plan):
    assert cost_of(plan, dimension=DIMENSION, alone=True).share is None
