"""Labs that lie: what they send is the lie, and everything around it is the real site."""

import numpy as np
import pytest

from fedsci.config.masking import grid_for
from fedsci.errors import InputError
from fedsci.redteam.deviating import deviating, multiplied, opened, turned_round, with_records, without_noise
from fedsci.redteam.real_run import run_for_real, short
from fedsci.redteam.together import Together

NONE = {"mechanism": "none"}


@pytest.fixture
def lab(small_study):
    def make(**changes):
        together = Together.of(small_study(**changes))
        site = together.plan.sites[0]
        return together.honest[site]

    return make


def sent(worker):
    model = np.zeros(worker.parameters, np.float32)
    return worker.contribution(model, 1, memory={})


def test_a_lab_that_turns_its_update_round_sends_minus_it(lab):
    worker = lab(privacy=NONE)
    np.testing.assert_allclose(sent(multiplied(worker, -3.0)), -3 * sent(worker), rtol=1e-6)


def test_no_multiple_passes_what_the_ring_has_room_for(lab):
    worker = lab()
    lie = sent(multiplied(worker, 1e12))
    assert lie.dtype == np.int64
    assert np.abs(lie).max() == grid_for(worker.plan).site_bound


def test_a_lab_can_turn_its_update_round_and_stay_within_an_honest_norm(lab):
    worker, totals = lab(), []
    worker = opened(worker, totals, noised=True)
    lie = sent(turned_round(worker)).astype(float)
    clipped = worker.learner.divisor * worker.plan.study.privacy.clipping_norm / worker.share.gamma
    assert np.linalg.norm(lie) == pytest.approx(clipped + worker.share.deviation * 3**0.5, rel=0.01)
    assert lie @ totals[0] < 0 or np.linalg.norm(totals[0]) < 10 * worker.share.gamma * worker.share.deviation
    np.testing.assert_array_equal(sent(turned_round(lab(privacy=NONE))), -sent(lab(privacy=NONE)))


def test_a_lab_without_noise_sends_its_clipped_sum_and_nothing_else(lab):
    worker, totals = lab(), []
    lie = sent(opened(worker, totals, noised=False))
    np.testing.assert_array_equal(lie, np.rint(totals[0] / worker.share.gamma))
    np.testing.assert_array_equal(lie, sent(without_noise(worker)))
    assert (sent(worker) != lie).any()


def test_an_opened_lab_sends_noise_as_it_should(lab):
    worker, totals = lab(), []
    told = opened(worker, totals, noised=True)
    noise = np.concatenate([sent(told) - totals[-1] / worker.share.gamma for _ in range(100)])
    assert abs(noise.std() / worker.share.deviation - 1) < 0.2
    assert abs(noise.std() / (0.5 * worker.share.deviation) - 1) > 0.5


def test_where_noise_is_not_shared_out_there_is_no_share_to_open(lab):
    with pytest.raises(InputError, match="not shared out"):
        opened(lab(privacy=NONE), [], noised=True)


def test_a_lab_with_other_records_keeps_to_the_protocol_all_the_same(lab):
    worker = lab()
    changed = with_records(worker, lambda table: table.where(table.target == 1))
    assert changed.private.learner.table.target.min() == 1
    assert worker.learner.table.target.min() == 0
    assert changed.share == worker.share


@pytest.mark.slow
def test_a_lie_passes_gate_ledger_and_masks(small_study):
    study = small_study()
    plan, seen = short(study.plan, rounds=2), []

    def act(asked):
        seen.append(asked.number)
        return np.full(3, 200, np.int64)  # more than honest sites would send, and no more than they could

    bad = dict.fromkeys(study.plan.sites, lambda worker: deviating(worker, act))
    run = run_for_real(study, plan, bad)
    assert run.summary["status"] == "completed"
    assert run.summary["secure_aggregation"]["dropped"] == []
    assert sorted(seen) == [1] * 6 + [2] * 6
    assert len(run.models) == 3
    steps = np.diff(run.models, axis=0)
    assert (steps > 0).all()
    assert np.ptp(steps[0]) < 1e-6 * steps[0].max()  # the sum holds what was sent: the same number everywhere
