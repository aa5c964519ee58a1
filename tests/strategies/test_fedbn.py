from dataclasses import dataclass, replace

import numpy as np
import pytest

from fedsci.errors import InputError, RoundAborted
from fedsci.strategies import ServerOptimiser, fedavg
from fedsci.strategies.fedbn import build

START = np.array([1.0, 5.0, 7.0], np.float32)


@pytest.fixture
def strategy():
    """For a model of one shared number and two of its normalisation."""
    return build(optimiser=ServerOptimiser()).for_model(2)


def test_two_rounds_worked_by_hand(strategy, site, play):
    # learning rate 0.5, one step: half of the way to the site's centre
    sites = [site(centre=9.0, size=3, weight=3), site(centre=-3.0, size=3)]
    state = play(strategy, strategy.start(START), sites)
    # shared: 1 -> 5 and 1 -> -1, so 1 + (3 * 4 - 2) / 4; own: 5, 7 -> 7, 8 and 1, 2
    assert state.model == pytest.approx([3.5, 5.0, 7.0])
    assert [one.memory["normalisation"].tolist() for one in sites] == [[7.0, 8.0], [1.0, 2.0]]
    state = play(strategy, state, sites)
    # shared: 3.5 -> 6.25 and 0.25; own from where they were left: 8, 8.5 and -1, -0.5
    assert state.model == pytest.approx([3.5 + (3 * 2.75 - 3.25) / 4, 5.0, 7.0])
    assert [one.memory["normalisation"].tolist() for one in sites] == [[8.0, 8.5], [-1.0, -0.5]]


def test_where_no_entry_is_local_it_is_fedavg(site, play):
    models = []
    for module in (build(optimiser=ServerOptimiser()), fedavg.build(optimiser=ServerOptimiser())):
        sites = [site(centre=centre, size=3, steps=3, weight=weight) for centre, weight in ((2.0, 1), (-7.0, 4))]
        state = module.start(START)
        for _ in range(4):
            state = play(module, state, sites)
        models.append(state.model)
    assert models[0].tobytes() == models[1].tobytes()


def test_what_is_sent_leaves_the_local_entries_out(strategy):
    @dataclass
    class Site:
        """Local training whose update does not depend on where it starts."""

        own: float
        received = START
        size = 3

        def __post_init__(self):
            self.memory = {"normalisation": np.full(2, self.own, np.float32)}

        def update(self, model):
            assert model.tolist() == [1.0, self.own, self.own]
            return np.array([0.5, self.own * 3, -self.own], np.float32)

    sent = {strategy.contribute(Site(own)).tobytes() for own in (0.0, 2.0, -1e6)}
    assert sent == {np.array([0.5], np.float32).tobytes()}


@pytest.mark.parametrize("kind", ["sgd", "adam", "yogi", "adagrad"])
def test_the_shared_models_layers_stay_whatever_the_optimiser(site, play, kind):
    strategy = build(optimiser=ServerOptimiser(kind=kind, momentum=0.9)).for_model(2)
    sites, state = [site(centre=9.0, size=3)], strategy.start(START)
    for _ in range(3):
        state = play(strategy, state, sites)
    assert state.model[0] != START[0]
    assert state.model[1:].tolist() == START[1:].tolist()


def test_a_site_uses_the_shared_model_with_its_own_layers(strategy):
    own = {"normalisation": np.array([2.0, 3.0], np.float32)}
    assert strategy.site_model(START, own).tolist() == [1.0, 2.0, 3.0]
    assert strategy.site_model(START, {}) is START


def test_a_lost_upload_loses_no_layers(strategy, site, play):
    sites = [site(centre=9.0, size=3), site(centre=-3.0, size=3)]
    state = play(strategy, strategy.start(START), sites, lost=(1,))
    assert state.model == pytest.approx([5.0, 5.0, 7.0])
    assert sites[1].memory["normalisation"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("at", [0, 2])
def test_training_that_diverged_leaves_the_sites_layers_alone(strategy, site, at):
    one = site(centre=0.0, size=3, received=START)
    one.memory["normalisation"] = kept = np.array([2.0, 3.0], np.float32)
    damage = np.zeros(3, np.float32)
    damage[at] = np.inf
    one.update = lambda model: damage
    with pytest.raises(RoundAborted):
        strategy.contribute(one)
    assert one.memory["normalisation"] is kept


def test_a_model_without_normalisation_is_refused():
    with pytest.raises(InputError, match="the model has none") as refused:
        build(optimiser=ServerOptimiser()).for_model(0)
    assert "model.normalisation: batch" in refused.value.hint


def test_it_sends_less_than_the_model(strategy):
    assert (strategy.width(3), strategy.sent(3)) == (1, 3)
    assert replace(strategy, normalised=0).width(3) == 3
