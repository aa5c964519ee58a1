"""Sums of per-record statistics: clipped, sampled, noised and charged as a sum of gradients is."""

import os
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedsci.config.plan_checks import check_plan
from fedsci.data.table import EncodingReport, Table
from fedsci.errors import ConfigError, InputError
from fedsci.names import SiteId
from fedsci.privacy.calibration import epsilon_of
from fedsci.privacy.clipping import clip_rows
from fedsci.privacy.local_noise import release_distance
from fedsci.simulation.pooled import train_with_local_noise
from fedsci.simulation.weather import work
from fedsci.site.dataset import SiteData
from fedsci.site.round import contributor, train_alone
from fedsci.strategies import BUILDERS, ServerOptimiser
from fedsci.strategies.one_exchange import ColumnShape, OneExchange, StudyShape
from fedsci.training.accountant import cost_of, epsilon_against, noise_of_sum, noise_over_update
from fedsci.training.device import CPU
from fedsci.training.statistics import PER_PASS, ClippedStatistics

NUMBERS = 400


@dataclass(frozen=True, kw_only=True)
class Powers(OneExchange):
    """A record's inputs to the powers 0, 1, 2, ..., not scaled: some are clipped."""

    name: str = field(default="powers", init=False)

    @property
    def numbers(self):
        return NUMBERS

    def statistics(self, records):
        x = records.features.astype(np.float64)
        powers = np.ones((len(x), NUMBERS))
        for at in range(2, NUMBERS):
            powers[:, at] = powers[:, at - 2] * x[:, at % 2]
        return powers

    def finish(self, state, mean, *, noise):
        return mean[: state.model.size]


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(BUILDERS, "powers", lambda *, optimiser: Powers(optimiser=optimiser))


@pytest.fixture
def plan_of(make_plan):
    def make(**changes):
        privacy = {"mechanism": "distributed", "colluding_sites": 1, "epsilon": 2.0} | changes.pop("privacy", {})
        return make_plan(**{"strategy": "powers", "training": {"rounds": 1}, "sites": 5, "privacy": privacy} | changes)

    return make


def table_of(rows, seed=1, groups=None):
    rng = np.random.default_rng(seed)
    report = EncodingReport(rows_read=rows, rows_dropped_missing=0, clipped={}, unseen={}, missing={})
    features = rng.uniform(-1, 1, (rows, 2)).astype(np.float32)
    table = Table(features=features, target=rng.integers(0, 2, rows), row_ids=np.arange(rows), report=report)
    return table if groups is None else table.grouped(groups)


def rows_of(table, strategy):
    """Every row's vector, each computed by itself."""
    side = ClippedStatistics(strategy=strategy, table=replace(table, groups=None), clipping_norm=1.0, one_by_one=True)
    return side._vectors(np.arange(table.rows))


def worker_of(plan, table, name="lab-1", *, private=True, **more):
    cost = cost_of(plan, dimension=3) if private else None
    return contributor(plan, name, table, cost=cost, device=CPU, random_bytes=os.urandom, **more)


def fits(noise, deviation):
    """Whether the noise has this deviation, at a chance of one in 10,000 to say no wrongly."""
    low, high = stats.chi2.ppf([5e-5, 1 - 5e-5], len(noise))
    return bool(low < (noise**2).sum() / deviation**2 < high)


@given(st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_a_record_is_the_same_whoever_else_is_there(rows, seed):
    table = table_of(rows, seed)
    columns = tuple(ColumnShape(name=name, kind="numeric", start=at, width=1) for at, name in enumerate("ab"))
    study = StudyShape(task="binary", model="linear", columns=columns, classes=(), gaps="refuse")
    strategy = Powers(optimiser=ServerOptimiser()).for_study(study)
    side = ClippedStatistics(strategy=strategy, table=table, clipping_norm=1.0)
    chosen = np.flatnonzero(np.random.default_rng(seed).random(rows) < 0.5)
    if len(chosen):
        with_others = np.concatenate([side._vectors(np.arange(rows)[at : at + 7]) for at in range(0, rows, 7)])
        assert (side._vectors(chosen) == with_others[chosen]).all()


def test_the_sum_is_that_of_the_clipped_rows(plan_of):
    table, plan = table_of(PER_PASS + 30), plan_of()
    clipped = clip_rows(rows_of(table, plan.strategy), 1.0)
    assert np.linalg.norm(clipped, axis=1).max() <= 1
    for one_by_one in (False, True):
        side = ClippedStatistics(strategy=plan.strategy, table=table, clipping_norm=1.0, one_by_one=one_by_one)
        assert side.sum_of(np.arange(table.rows)) == pytest.approx(clipped.sum(axis=0), rel=1e-12)
        assert side.sum_of(np.array([3, 280])) == pytest.approx(clipped[[3, 280]].sum(axis=0), rel=1e-12)
        assert not side.sum_of(np.array([], np.int64)).any()


def test_a_group_counts_as_the_mean_of_its_records_clipped_as_one(plan_of):
    groups = np.array([4, 7, 4, 4, 9] + [1] * 600)
    table, plan = table_of(605, groups=groups), plan_of()
    rows = rows_of(table, plan.strategy)
    side = ClippedStatistics(strategy=plan.strategy, table=table, clipping_norm=1.0)
    wanted = [clip_rows(rows[groups == key].mean(axis=0)[None], 1.0)[0] for key in (1, 4, 7, 9)]  # numbered 0 to 3
    assert side.sum_of(np.arange(4)) == pytest.approx(np.sum(wanted, axis=0), rel=1e-12)
    assert side.sum_of(np.array([1])) == pytest.approx(wanted[1], rel=1e-12)
    assert side.most_units < replace(side, table=replace(table, groups=None)).most_units


def test_one_groups_sum_does_not_depend_on_the_others(plan_of):
    groups = np.concatenate([np.full(300, 5), np.arange(10, 200)])
    table, strategy = table_of(490, groups=groups), plan_of().strategy
    whole = ClippedStatistics(strategy=strategy, table=table, clipping_norm=1.0)
    part = replace(whole, table=table.where(groups == 5))
    assert (whole.sum_of(np.array([0])) == part.sum_of(np.array([0]))).all()


def test_how_many_records_fit_is_asked_of_the_public_count(plan_of, monkeypatch):
    # a plan chooses the limit by its width: asked of the usable rows, a refusal would tell of gaps, for free
    monkeypatch.setattr(ClippedStatistics, "most_units", 11)
    worker_of(plan_of(), table_of(11), public_records=11)
    for usable in (10, 11):
        with pytest.raises(InputError, match="12 training records are more than 11"):
            worker_of(plan_of(), table_of(usable), public_records=12)


def test_a_damaged_vector_counts_as_zeros(plan_of):
    table = table_of(4)
    table.features[1, 0], table.features[2, 1] = np.nan, np.inf
    side = ClippedStatistics(strategy=plan_of().strategy, table=table, clipping_norm=1.0)
    with np.errstate(all="ignore"):
        assert (side.sum_of(np.arange(4)) == side.sum_of(np.array([0, 3]))).all()
        grouped = replace(side, table=table.grouped(np.array([0, 0, 1, 1])))
        assert not grouped.sum_of(np.arange(2)).any()


def test_vectors_written_into_one_array_stay_each_records_own(plan_of, monkeypatch):
    # else the last record of a pass would count as often as the pass has records
    table, strategy, own = table_of(9), plan_of().strategy, Powers.statistics
    side = ClippedStatistics(strategy=strategy, table=table, clipping_norm=1.0, one_by_one=True)
    wanted, place = side.sum_of(np.arange(9)), np.empty((1, NUMBERS))

    def written(self, records):
        place[:] = own(self, records)
        return place

    monkeypatch.setattr(Powers, "statistics", written)
    assert (side.sum_of(np.arange(9)) == wanted).all()
    moved = side.sum_of(np.arange(9)) - side.sum_of(np.arange(8))
    assert np.linalg.norm(moved) <= 1


def test_statistics_of_another_shape_are_refused(plan_of, monkeypatch):
    side = ClippedStatistics(strategy=plan_of().strategy, table=table_of(5), clipping_norm=1.0)
    for wrong in (lambda _, r: np.ones((1, NUMBERS)), lambda _, r: np.ones((len(r.features), NUMBERS), np.float32)):
        monkeypatch.setattr(Powers, "statistics", wrong)
        with pytest.raises(InputError, match="the statistics of 5 records are float"):
            side.sum_of(np.arange(5))


def test_the_noise_of_all_sites_is_that_of_their_shares_and_no_other(plan_of):
    plan = plan_of()
    cost, total, exact = cost_of(plan, dimension=3), np.zeros(NUMBERS, np.int64), np.zeros(NUMBERS)
    for number in range(5):
        table = table_of(20 + number, number)
        total += worker_of(plan, table).contribution(np.zeros(3, np.float32), 1, memory={})
        exact += clip_rows(rows_of(table, plan.strategy), 1.0).sum(axis=0)
    deviation = noise_of_sum(cost, clipping_norm=1.0, contributions=[(1.0, 20)] * 5)
    assert deviation == pytest.approx(cost.share.deviation * cost.share.gamma * 5**0.5)
    noise = total * cost.share.gamma - exact
    assert fits(noise, deviation)
    for wrong in (0.75, 1.33):
        assert not fits(noise, wrong * deviation)


def test_under_the_local_mechanism_a_site_adds_all_of_it(plan_of):
    plan, table = plan_of(privacy={"mechanism": "local"}), table_of(40)
    cost, worker = cost_of(plan, dimension=3), worker_of(plan, table, public_records=50)
    sent = worker.contribution(np.zeros(3, np.float32), 1, memory={})
    noise = sent * 50.0 - clip_rows(rows_of(table, plan.strategy), 1.0).sum(axis=0)
    assert fits(noise, cost.noise_multiplier)
    assert not fits(noise, 1.33 * cost.noise_multiplier)
    assert worker.noise() == pytest.approx(cost.noise_multiplier / 50)
    # two sites, weights 1/4 and 3/4: (z / 4 / 50)^2 + (3 z / 4 / 150)^2
    both = noise_of_sum(cost, clipping_norm=1.0, contributions=[(0.25, 50), (0.75, 150)])
    assert both == pytest.approx(cost.noise_multiplier / 200 * 2**0.5)


def test_without_privacy_it_is_the_mean(plan_of):
    table, plan = table_of(30), plan_of(privacy={"mechanism": "none", "epsilon": None})
    sent = worker_of(plan, table, private=False).contribution(np.zeros(3, np.float32), 1, memory={})
    assert sent == pytest.approx(clip_rows(rows_of(table, plan.strategy), 1.0).mean(axis=0), rel=1e-6)
    assert noise_of_sum(None, clipping_norm=1.0, contributions=[(1.0, 30)]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", ["none", "local"])
def test_sampling_takes_about_its_share_of_the_records(plan_of, mechanism):
    epsilon = None if mechanism == "none" else 8.0
    privacy = {"mechanism": mechanism, "epsilon": epsilon}
    plan = plan_of(privacy=privacy, training={"rounds": 1, "sample_rate": 0.25})
    table = replace(table_of(4000), features=np.zeros((4000, 2), np.float32))  # every vector is (1, 1, 0, 0, ...)
    worker = worker_of(plan, table, private=mechanism != "none")
    mean = worker.contribution(np.zeros(3, np.float32), 1, memory={})[0] * 2**0.5
    assert 0.85 < mean < 1.15  # the divisor is the expected number: 5.5 deviations
    assert mean != pytest.approx(1, abs=1e-4)


def test_a_whole_site_sends_its_mean_clipped_as_one(plan_of):
    plan = plan_of(privacy={"unit": "site"})
    check_plan(plan)
    table, cost = table_of(30), cost_of(plan, dimension=3)
    sent = worker_of(plan, table).contribution(np.zeros(3, np.float32), 1, memory={})
    mean = clip_rows(rows_of(table, plan.strategy), 1.0).mean(axis=0)
    assert fits(sent * cost.share.gamma - mean, cost.share.deviation * cost.share.gamma)


def test_what_is_priced_is_the_size_of_a_release_and_not_of_the_model(plan_of):
    plan = plan_of(privacy={"mechanism": "local"})
    cost = cost_of(plan, dimension=3)
    told = {"noise_multiplier": cost.noise_multiplier, "delta": 1e-5, "sample_rate": 1.0, "steps": 1}
    assert cost.epsilon(1) == pytest.approx(epsilon_of(**told, dimension=NUMBERS))
    assert cost.distance == pytest.approx(release_distance(NUMBERS))
    assert cost.steps_per_round == plan.local_steps(30) == 1
    shared = plan_of()
    known = cost_of(shared, dimension=3)
    survivors = {5: 1}
    seen = epsilon_against(shared, known, dimension=3, survivors=survivors, colluding=1)
    assert seen == epsilon_against(shared, known, dimension=NUMBERS, survivors=survivors, colluding=1)
    whole = plan_of(privacy={"unit": "site"})
    share = cost_of(whole, dimension=3).share
    assert noise_over_update(whole, dimension=3) == pytest.approx(
        share.deviation * share.gamma * (5 * NUMBERS) ** 0.5 / 5
    )


def test_baselines_go_the_same_way(plan_of):
    plan = plan_of(privacy={"epsilon": 8.0})
    tables = {SiteId(f"lab-{number}"): table_of(50 + 10 * number, number) for number in (1, 2)}
    both = np.concatenate([clip_rows(rows_of(table, plan.strategy), 1.0) for table in tables.values()])
    alone = train_alone(worker_of(plan, tables[SiteId("lab-1")], private=False))
    assert alone == pytest.approx(both[:60].mean(axis=0)[:3], rel=1e-6)
    labs = {
        site: SiteData(train=table, holdout=table, train_count=table.rows, holdout_count=1, report=table.report)
        for site, table in tables.items()
    }
    noised = train_with_local_noise(plan, labs, cost_of(plan, dimension=3, alone=True))
    assert noised == pytest.approx(both.mean(axis=0)[:3], abs=0.05)


def test_a_round_is_one_pass_over_the_records(plan_of):
    assert work(plan_of(), 30) == 30


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": {"rounds": 2}}, "powers sums statistics in one exchange, and training.rounds is 2"),
        ({"privacy": {"clipping_norm": 0.5}}, "scales a record's statistics to norm 1, and privacy.clipping_norm is 0"),
    ],
)
def test_what_does_not_go_with_one_exchange_is_refused(plan_of, changes, message):
    with pytest.raises(ConfigError, match=message):
        check_plan(plan_of(**changes))


def test_a_strategy_that_only_says_so_is_refused(plan_of, monkeypatch):
    class Says:
        name, sees, site_work, plain, keeps = "powers", "sum", "statistics", True, 0

        def smallest_sum(self, *, sites, survivors):
            return survivors

    monkeypatch.setitem(BUILDERS, "powers", lambda *, optimiser: Says())
    with pytest.raises(ConfigError, match="not built on"):
        check_plan(plan_of())


def test_without_a_study_it_has_no_statistics(make_plan):
    with pytest.raises(InputError, match="no study is known"):
        _ = Powers(optimiser=ServerOptimiser()).shape
    plan = make_plan()
    with pytest.raises(InputError, match="dp_fedsgd has no statistics"):
        worker_of(plan, table_of(5)).learner.statistics(1.0)
