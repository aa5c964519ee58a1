import numpy as np
import pytest
from flwr.serverapp.strategy import FedTrimmedAvg

from fedsci.errors import InputError
from fedsci.strategies import ServerOptimiser
from fedsci.strategies.trimmed_mean import build

ROWS = np.random.default_rng(3).normal(size=(9, 6)).astype(np.float32)


def rule(**options):
    return build(optimiser=ServerOptimiser(), **options)


@pytest.mark.parametrize(("count", "trim"), [(9, 0.2), (9, 0.34), (5, 0.2), (3, 0.2), (1, 0.4), (9, 0.0)])
def test_it_is_flowers(flowers, count, trim):
    expected = flowers(FedTrimmedAvg(beta=trim), ROWS[:count])
    assert rule(trim=trim).combine(ROWS[:count]) == pytest.approx(expected, abs=1e-6)


def test_as_many_bad_sites_as_are_trimmed_change_little(site, play):
    strategy = rule(trim=0.2)
    sites = [site(centre=float(centre)) for centre in (1, 2, 3, 4, 1e6)]
    state = play(strategy, strategy.start(np.zeros(1, np.float32)), sites)
    assert state.model == pytest.approx([(2 + 3 + 4) / 3 / 2])


@pytest.mark.parametrize("trim", [-0.1, 0.5, float("nan")])
def test_a_trim_that_leaves_nothing_is_refused(trim):
    with pytest.raises(InputError, match="not in"):
        rule(trim=trim)


def test_over_groups_it_is_the_rule_over_their_means_and_sees_sums(site, play):
    strategy = rule(groups=3, group_seed=1, trim=0.34)
    assert (strategy.sees, strategy.width(5), strategy.sent(5)) == ("sum", 15, 5)
    sites = [site(centre=centre) for centre in (1.0, 2.0, 3.0, 4.0, 5.0, 60.0)]
    state = play(strategy, strategy.start(np.zeros(1, np.float32)), sites)
    groups = [[s.centre / 2 for s in sites if strategy.groups.of(s.position) == group] for group in range(3)]
    assert state.model == pytest.approx(strategy.combine(np.array([[np.mean(group)] for group in groups])))
    assert state.model < 5, "one bad site spoils one group, and the others hold"
    assert state.model > 0
