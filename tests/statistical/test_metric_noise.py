"""The noise on decoded metric sums, made by the sites' own code, has the deviation that is charged and reported."""

import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from fedsci.config.masking import grid_for
from fedsci.coordinator.aggregation import Collected
from fedsci.coordinator.evaluation import Meter
from fedsci.data.table import EncodingReport, Table
from fedsci.site.round import contributor
from fedsci.site.upload import ActiveRun
from fedsci.training.accountant import cost_of
from fedsci.training.device import CPU
from fedsci.training.evaluation import bounded_sums
from fedsci.training.noised_metrics import sensitivity
from fedsci.training.sums import SumEncoding, step_of

SITES, REPEATS = 5, 60
MODEL = np.array([1.0, -1.0, 0.1], np.float32)


def table_of(rows, seed):
    rng = np.random.default_rng(seed)
    report = EncodingReport(rows_read=rows, rows_dropped_missing=0, clipped={}, unseen={}, missing={})
    features = rng.uniform(-1, 1, (rows, 2)).astype(np.float32)
    return Table(features=features, target=rng.integers(0, 2, rows), row_ids=np.arange(rows), report=report)


@pytest.fixture(params=["distributed", "local"])
def measured(request, make_plan):
    """Decoded noise of many measurements over the first so many sites, and the coordinator's view of one of them."""
    plan = make_plan(sites=SITES, privacy={"mechanism": request.param, "colluding_sites": 1, "epsilon": 2.0})
    cost = cost_of(plan, dimension=3)
    holdouts = {site: 30 + 10 * number for number, site in enumerate(plan.sites)}
    runs = []
    for number, (site, rows) in enumerate(holdouts.items()):
        train, holdout = table_of(40, number), table_of(rows, 100 + number)
        worker = contributor(plan, site, train, cost=cost, device=CPU, random_bytes=os.urandom)
        data = SimpleNamespace(train=train, holdout=holdout, train_count=40, holdout_count=rows)
        runs.append(ActiveRun(plan=plan, policy=None, data=data, cost=cost, worker=worker, masking=None, permit=None))
    meter = Meter(plan=plan, cost=cost, holdouts=holdouts, noised=True)
    encoding = SumEncoding(grid=grid_for(plan), dimension=0, tables=[meter.table], step=step_of(plan, cost))

    def measure(survivors, *, cheat=1.0):
        share = replace(cost.metric_noise.share, deviation=cheat * cost.metric_noise.share.deviation)
        dishonest = replace(cost, metric_noise=replace(cost.metric_noise, share=share))
        chosen = [replace(run, cost=dishonest) for run in runs[:survivors]]
        exact = sum(
            bounded_sums(plan, MODEL, run.data.holdout, site_weight=30 / run.data.holdout_count, device=CPU)
            for run in chosen
        )
        noise = []
        for _ in range(REPEATS):
            vectors = [encoding.encode(None, [run.measure_noised(MODEL, smallest=30)], weight=1.0)[0] for run in chosen]
            _, [values] = encoding.decode(encoding.grid.ring.to_signed(np.sum(vectors, axis=0, dtype=np.uint32)))
            noise.append(values - exact)
        collected = Collected(
            contribution=np.zeros(0, np.float32), weight=1.0, metrics=[values], survivors=plan.sites[:survivors],
            own={}, dropped={}, seconds_sites=0, seconds_masking=0, seconds_aggregation=0,
        )  # fmt: skip
        return np.concatenate(noise), meter.read(collected, "federated").sums

    return SimpleNamespace(plan=plan, cost=cost, measure=measure)


def fits(noise, deviation):
    """Whether the noise has this deviation and mean zero; a chance of one in a million to say no wrongly."""
    square = (noise**2).sum() / deviation**2
    low, high = stats.chi2.ppf([2.5e-7, 1 - 2.5e-7], len(noise))
    centre = abs(noise.mean()) / (deviation / np.sqrt(len(noise)))
    return bool(low < square < high and centre < stats.norm.ppf(1 - 2.5e-7))


@pytest.mark.slow
@pytest.mark.parametrize("survivors", [SITES, 4])
def test_decoded_metric_sums_carry_the_noise_that_is_charged_and_reported(measured, survivors):
    plan, cost = measured.plan, measured.cost
    noise, read = measured.measure(survivors)
    assert fits(noise, read.deviation)
    for wrong in (0.5, 0.9, 1.1, 2.0):
        assert not fits(noise, wrong * read.deviation)
    # what is charged is the part of it that survives the worst that is allowed for
    distributed = plan.study.privacy.mechanism == "distributed"
    honest = plan.min_survivors - plan.study.privacy.colluding_sites if distributed else 1
    assert survivors >= plan.min_survivors
    charged = cost.metric_noise.charged * sensitivity(plan) * np.sqrt(survivors / honest)
    assert charged < read.deviation < 1.03 * charged
    assert noise.std() > 0.97 * charged
    half, _ = measured.measure(survivors, cheat=0.5)
    assert not fits(half, read.deviation)
    assert half.std() < 0.6 * charged


@pytest.mark.slow
def test_no_two_measurements_share_their_noise(measured):
    noise, _ = measured.measure(4)
    each = noise.reshape(REPEATS, -1)
    correlation = np.corrcoef(each)[~np.eye(REPEATS, dtype=bool)]
    assert np.abs(correlation).max() < 0.75
    assert abs(correlation.mean()) < 0.02
