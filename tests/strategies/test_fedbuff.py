import numpy as np
import pytest

from fedsci.errors import InputError
from fedsci.strategies import ServerOptimiser, fedavg
from fedsci.strategies.base import BufferedStrategy, Survivor, WeightedSum
from fedsci.strategies.fedbuff import build, staleness_weight


def buffered(strategy, updates, staleness, weights):
    """One buffer: every site ages its own update, the coordinator sees the weighted sum."""
    sent = [strategy.age(np.array([update], np.float32), tau) for update, tau in zip(updates, staleness, strict=True)]
    total = WeightedSum(
        vector=sum(np.float32(w) * one for w, one in zip(weights, sent, strict=True)),
        weight=sum(weights),
        survivors=tuple(Survivor(position=p, weight=w, steps=1) for p, w in enumerate(weights)),
    )
    return strategy.apply(strategy.start(np.array([10.0], np.float32)), total).model


def test_a_buffer_is_a_step_along_the_aged_updates_over_its_size():
    # (1 * 6 + 1/2 * 4 + 1/3 * -9) / 3 = 5 / 3, by algorithm 1 of the paper with K = 3
    model = buffered(build(optimiser=ServerOptimiser()), [6, 4, -9], [0, 3, 8], [1.0, 1.0, 1.0])
    assert model == pytest.approx([10 + 5 / 3])


def test_sites_count_by_their_records_and_the_optimiser_sets_the_stride():
    # (1 * 1 * 6 + 1/2 * 3 * 4) / 4 = 3, at a rate of 2
    model = buffered(build(optimiser=ServerOptimiser(learning_rate=2.0)), [6, 4], [0, 3], [1.0, 3.0])
    assert model == pytest.approx([16.0])


def test_a_buffer_of_old_updates_is_a_smaller_step():
    """The divisor is K, not the sum of what the updates count."""
    models = [buffered(build(optimiser=ServerOptimiser()), [4, 4], [tau, tau], [1.0, 1.0]) for tau in (0, 3, 15)]
    assert [float(model[0]) for model in models] == pytest.approx([14, 12, 11])


def test_where_nobody_is_late_it_is_fedavg(site, play):
    models = []
    for module in (build, fedavg.build):
        strategy = module(optimiser=ServerOptimiser())
        sites = [site(centre=8.0, steps=3, weight=2), site(centre=1.0, steps=3)]
        models.append(play(strategy, strategy.start(np.zeros(1, np.float32)), sites).model)
    assert models[0] == pytest.approx(models[1])


def test_what_an_update_counts_falls_with_its_age_and_never_passes_one():
    weights = [staleness_weight(tau) for tau in range(100)]
    assert weights[0] == 1
    assert weights == sorted(weights, reverse=True)
    assert weights[99] == pytest.approx(0.1)
    with pytest.raises(InputError, match="-1 models old"):
        staleness_weight(-1)


@pytest.mark.parametrize("options", [{"buffer": 1.5}, {"buffer": -1}, {"buffer": float("nan")}, {"together": 0},
                                     {"together": 2.5}, {"together": float("inf")}])  # fmt: skip
def test_options_that_are_no_number_of_sites_are_refused(options):
    with pytest.raises(InputError, match="is no number of sites"):
        build(optimiser=ServerOptimiser(), **options)


def test_it_says_of_how_few_a_sum_may_tell():
    strategy = build(optimiser=ServerOptimiser(), together=4)
    assert isinstance(strategy, BufferedStrategy)
    assert not isinstance(fedavg.build(optimiser=ServerOptimiser()), BufferedStrategy)
    assert strategy.smallest_sum(sites=17, survivors=12) == 4
    with pytest.raises(InputError, match="4 sites of a buffer must have one model, and it may hold 3"):
        strategy.smallest_sum(sites=4, survivors=3)
