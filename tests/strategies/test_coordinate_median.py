import numpy as np
import pytest
from flwr.serverapp.strategy import FedMedian

from fedsci.errors import InputError
from fedsci.strategies import ServerOptimiser
from fedsci.strategies.coordinate_median import build

ROWS = np.random.default_rng(3).normal(size=(9, 6)).astype(np.float32)


def rule(**options):
    return build(optimiser=ServerOptimiser(), **options)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_it_is_flowers(flowers, count):
    assert rule().combine(ROWS[:count]) == pytest.approx(flowers(FedMedian(), ROWS[:count]), abs=1e-6)


def test_fewer_than_half_cannot_carry_it_outside_the_others(site, play):
    strategy = rule()
    sites = [site(centre=centre, weight=weight) for centre, weight in ((1, 1), (2, 1), (3, 1), (1e6, 50), (-1e6, 50))]
    state = play(strategy, strategy.start(np.zeros(1, np.float32)), sites)
    assert state.model == pytest.approx([1.0]), "half a step to the middle one, whatever records the bad ones claim"


@pytest.mark.parametrize("groups", [1, 2, 2.5, -3, float("nan")])
def test_groups_that_cannot_be_are_refused(groups):
    with pytest.raises(InputError):
        rule(groups=groups)


def test_over_groups_it_is_the_rule_over_their_means_and_sees_sums(site, play):
    strategy = rule(groups=3, group_seed=1)
    assert (strategy.sees, strategy.width(5), strategy.sent(5)) == ("sum", 15, 5)
    sites = [site(centre=centre) for centre in (1.0, 2.0, 3.0, 4.0, 5.0, 60.0)]
    state = play(strategy, strategy.start(np.zeros(1, np.float32)), sites)
    groups = [[s.centre / 2 for s in sites if strategy.groups.of(s.position) == group] for group in range(3)]
    assert state.model == pytest.approx(strategy.combine(np.array([[np.mean(group)] for group in groups])))
    assert state.model < 5, "one bad site spoils one group, and the others hold"
    assert state.model > 0
