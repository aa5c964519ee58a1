import numpy as np
import pytest

from fedsci.strategies import ServerOptimiser, fedavg
from fedsci.strategies.fednova import build


def start(strategy):
    return strategy.start(np.zeros(1, np.float32))


def test_updates_are_divided_by_their_steps_and_multiplied_by_the_mean_number(site, play):
    strategy = build(optimiser=ServerOptimiser())
    sites = [site(centre=8.0, steps=3, weight=1, learning_rate=0.5), site(centre=-4.0, steps=1, weight=3)]
    # updates: 4, 6, 7 after three steps, so 7 / 3; and -2 / 1. Weights 1/4 and 3/4; tau_eff = 3/4 + 3/4 = 3/2
    assert play(strategy, start(strategy), sites).model == pytest.approx([1.5 * (7 / 3 / 4 - 2 * 3 / 4)])


def test_momentum_counts_as_the_steps_it_adds(site, play):
    strategy = build(optimiser=ServerOptimiser())
    sites = [site(centre=8.0, steps=2, momentum=0.5), site(centre=-4.0, steps=1, momentum=0.5)]
    # velocities 8 and 0.5 * 8 + 4 = 8, so an update of 8 over a mass of 1.5 + 1; and 2 over 1. tau_eff = 1.75
    assert play(strategy, start(strategy), sites).model == pytest.approx([1.75 * (8 / 2.5 - 2) / 2])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_where_all_take_the_same_steps_it_is_fedavg(site, play, momentum):
    models = []
    for module in (build, fedavg.build):
        strategy = module(optimiser=ServerOptimiser())
        sites = [site(centre=8.0, steps=3, weight=2, momentum=momentum), site(centre=1.0, steps=3, momentum=momentum)]
        models.append(play(strategy, start(strategy), sites).model)
    assert models[0] == pytest.approx(models[1], rel=1e-6)


def test_missing_sites_do_not_count_in_the_mean_number_of_steps(site, play):
    strategy = build(optimiser=ServerOptimiser())
    sites = [site(centre=8.0, steps=2), site(centre=-4.0, steps=50)]
    assert play(strategy, start(strategy), sites, lost=(1,)).model == pytest.approx([6.0])


def test_uneven_steps_do_not_move_the_optimum_as_they_do_under_fedavg(site, play):
    ends = {}
    for name, module in {"fednova": build, "fedavg": fedavg.build}.items():
        strategy = module(optimiser=ServerOptimiser())
        sites = [site(centre=1.0, steps=20, learning_rate=0.01), site(centre=-1.0, steps=1, learning_rate=0.01)]
        state = start(strategy)
        for _ in range(200):
            state = play(strategy, state, sites)
        ends[name] = float(state.model[0])
    assert abs(ends["fednova"]) < 0.06, "the mean of the centres is 0"
    assert ends["fedavg"] > 0.8
