import numpy as np
import pytest

from fedsci.strategies import ServerOptimiser, fedavg
from fedsci.strategies.scaffold import build


@pytest.fixture
def strategy():
    return build(optimiser=ServerOptimiser())


def test_two_rounds_worked_by_hand(strategy, site, play):
    sites = [site(centre=4.0, steps=2), site(centre=-4.0, curvature=2.0, steps=2, learning_rate=0.5)]
    state = play(strategy, strategy.start(np.zeros(1, np.float32)), sites)
    # no controls yet. Site 1: 0, 2, 3. Site 2: 0, -4, -4. c_i = (0 - w) / (2 * 0.5): -3 and 4; c = 0.5
    assert state.model == pytest.approx([-0.5])
    assert [float(one.memory["control"][0]) for one in sites] == pytest.approx([-3.0, 4.0])
    assert state.memory["control"] == pytest.approx([0.5])
    state = play(strategy, state, sites)
    # site 1 steps along g + 3.5: -0.5 - 0.5 * (-4.5 + 3.5) = 0, 0 - 0.5 * (-4 + 3.5) = 0.25
    # site 2 steps along g - 3.5: -0.5 - 0.5 * (7 - 3.5) = -2.25, -2.25 - 0.5 * (3.5 - 3.5) = -2.25
    assert state.model == pytest.approx([-0.5 + (0.75 - 1.75) / 2])
    # c_1 = -3 - 0.5 - 0.75 = -4.25, c_2 = 4 - 0.5 + 1.75 = 5.25: the mean gradients of their steps
    assert [float(one.memory["control"][0]) for one in sites] == pytest.approx([-4.25, 5.25])
    assert state.memory["control"] == pytest.approx([0.5])


def test_a_control_is_the_mean_gradient_also_with_momentum(strategy, site, play):
    one = site(centre=4.0, curvature=1e-6, steps=5, momentum=0.9)
    state = strategy.start(np.zeros(1, np.float32))
    for _ in range(2):
        state = play(strategy, state, [one])
        assert one.memory["control"] == pytest.approx([-4e-6], rel=1e-3)


def test_it_ends_where_the_whole_loss_is_least_and_fedavg_does_not(site, play):
    ends = {}
    for name, module in {"scaffold": build, "fedavg": fedavg.build}.items():
        strategy = module(optimiser=ServerOptimiser())
        shape = {"steps": 20, "learning_rate": 0.1}
        sites = [site(centre=4.0, **shape), site(centre=-4.0, curvature=3.0, weight=2, **shape)]
        state = strategy.start(np.zeros(1, np.float32))
        for _ in range(100):
            state = play(strategy, state, sites)
        ends[name] = float(state.model[0])
    least = (1 * 1 * 4.0 - 2 * 3 * 4.0) / (1 * 1 + 2 * 3)
    assert ends["scaffold"] == pytest.approx(least, abs=1e-3)
    assert abs(ends["fedavg"] - least) > 0.5


def test_a_lost_upload_leaves_nothing_wrong_behind(strategy, site, play):
    sites = [site(centre=4.0, steps=3, weight=2), site(centre=-4.0, curvature=1.5, steps=3)]
    state = strategy.start(np.zeros(1, np.float32))
    for number in range(6):
        state = play(strategy, state, sites, lost=(1,) if number == 3 else ())
        mean = (2 * sites[0].memory["control"] + sites[1].memory["control"]) / 3
        if number == 3:
            assert state.memory["control"] != pytest.approx(mean, abs=1e-3), "the upload was lost, the control is kept"
        else:
            assert state.memory["control"] == pytest.approx(mean, abs=1e-5)


def test_a_missing_site_counts_as_if_its_control_were_everybodys(strategy, site, play):
    sites = [site(centre=4.0, steps=1, weight=3), site(centre=-4.0, steps=1)]
    state = play(strategy, strategy.start(np.zeros(1, np.float32)), sites, lost=(1,))
    # c_1 = -4, of 3/4 of the weight; c was 0
    assert state.memory["control"] == pytest.approx([-3.0])


def test_corrections_of_the_survivors_sum_to_nothing(strategy, site, play):
    sites = [site(centre=centre, steps=4, weight=weight) for centre, weight in ((1.0, 1), (5.0, 2), (-3.0, 4))]
    state = strategy.start(np.zeros(1, np.float32))
    for _ in range(3):
        state = play(strategy, state, sites)
    corrections = [one.weight * (state.memory["control"] - one.memory["control"]) for one in sites]
    assert sum(corrections) == pytest.approx([0.0], abs=1e-5)
