import numpy as np
import pytest
from flwr.serverapp.strategy import MultiKrum

from fedsci.errors import InputError
from fedsci.strategies import ServerOptimiser
from fedsci.strategies.krum import build

ROWS = np.random.default_rng(3).normal(size=(9, 6)).astype(np.float32)


def rule(**options):
    return build(optimiser=ServerOptimiser(), **options)


@pytest.mark.parametrize(("bad", "multi"), [(0, 1), (1, 1), (2, 3), (3, 6)])
def test_it_is_flowers(flowers, bad, multi):
    expected = flowers(MultiKrum(num_malicious_nodes=bad, num_nodes_to_select=multi), ROWS)
    assert rule(byzantine=bad, multi=multi).combine(ROWS) == pytest.approx(expected, abs=1e-6)


def test_it_follows_those_who_agree(site, play):
    strategy = rule(byzantine=1, multi=2)
    sites = [site(centre=float(centre)) for centre in (1.0, 1.5, 2.5, 9.0, -1e6)]
    # scores over the 2 nearest: .25 + 2.25, .25 + 1, 1 + 2.25, ... halved and squared alike
    assert play(strategy, strategy.start(np.zeros(1, np.float32)), sites).model == pytest.approx([(1.0 + 1.5) / 4])


def test_one_row_is_followed():
    assert rule(byzantine=3, multi=8).combine(ROWS[:1]) == pytest.approx(ROWS[0])


@pytest.mark.parametrize(("bad", "multi", "survivors"), [(3, 1, 8), (1, 5, 5), (2, 4, 6), (1, 12, 12)])
def test_more_bad_ones_than_the_rule_stands_are_refused(bad, multi, survivors):
    strategy = rule(byzantine=bad, multi=multi)
    with pytest.raises(InputError, match="krum cannot stand"):
        strategy.smallest_sum(sites=17, survivors=survivors)


def test_as_many_as_it_stands_pass():
    assert rule(byzantine=3, multi=6).smallest_sum(sites=17, survivors=9) == 9
    assert rule(byzantine=1, multi=3, groups=5).smallest_sum(sites=17, survivors=17) == 3


@pytest.mark.parametrize("wrong", [{"byzantine": -1}, {"byzantine": 0.5}, {"multi": 0}, {"multi": float("inf")}])
def test_counts_that_are_none_are_refused(wrong):
    with pytest.raises(InputError, match=r"is (-1|0.5|0|inf)") as refused:
        rule(**wrong)
    assert "whole number" in refused.value.hint


def test_over_groups_it_is_the_rule_over_their_means_and_sees_sums(site, play):
    strategy = rule(groups=3, group_seed=1, byzantine=0)
    assert (strategy.sees, strategy.width(5), strategy.sent(5)) == ("sum", 15, 5)
    sites = [site(centre=centre) for centre in (1.0, 2.0, 3.0, 4.0, 5.0, 60.0)]
    state = play(strategy, strategy.start(np.zeros(1, np.float32)), sites)
    groups = [[s.centre / 2 for s in sites if strategy.groups.of(s.position) == group] for group in range(3)]
    assert state.model == pytest.approx(strategy.combine(np.array([[np.mean(group)] for group in groups])))
    assert state.model < 5, "one bad site spoils one group, and the others hold"
    assert state.model > 0
