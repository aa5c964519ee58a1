"""What a stored state holds, and what it no longer holds."""

import numpy as np
import pytest

from fedsci import secagg
from fedsci.secagg import Phase, SiteState
from fedsci.secagg.seed import ERASED

pytestmark = pytest.mark.parametrize("profile", ["default", "fips"], indirect=True, scope="session")


def test_every_step_raises_the_revision_and_survives_storage(worlds):
    world = worlds.build(4)
    seen = []

    def check(site, state):
        seen.append(state.revision)
        assert SiteState.decode(state.encode()) == state

    keep = world.keep
    world.keep = lambda site, state: (check(site, state) if site == 1 else None, keep(site, state))
    world.set_up()
    world.run(world.call(), world.inputs(3), no_upload=(4,))
    assert seen == [1, 2, 3, 4, 5, 6]


def test_a_states_repr_shows_no_secret(worlds):
    world = worlds.build(4).set_up()
    world.run(world.call(), world.inputs(3))
    state = world.state(1)
    text = repr(state)
    assert "Seed(…)" in text
    for secret in (state.own[1].self_mask, state.own[1].mask_key, state.held[1]):
        assert not secret.erased
        assert repr(secret.reveal())[2:-1] not in text
    assert repr(state.open_slot.answer)[2:-1] not in text


def test_secrets_are_erased_when_they_are_spent(worlds):
    world = worlds.build(4, slots=3)
    world.set_up()
    before = world.state(1)
    assert before.phase is Phase.READY
    assert before.channel == ERASED
    call = world.call(1)
    own = [before.own[s].mask_key.reveal() for s in range(3)] + [before.own[s].self_mask.reveal() for s in range(3)]
    held = [before.held[s].reveal() for s in range(3)]

    world.run(call, world.inputs(3))
    stored = world.stored[1]
    for slot in (0, 1):
        assert own[slot] not in stored
        assert own[3 + slot] not in stored
        assert held[slot] not in stored
    assert own[2] in stored
    assert held[2] in stored


def test_the_upload_erases_the_sites_own_secrets_at_once(worlds):
    world = worlds.build(4).set_up()
    before = world.state(1)
    world.mask(1, world.call(), world.inputs(3)[1])
    after = world.state(1)
    assert after.own[0].mask_key.erased
    assert after.own[0].self_mask.erased
    assert before.own[0].mask_key.reveal() not in world.stored[1]
    assert not after.held[0].erased


def test_shares_that_were_not_released_are_erased_with_those_that_were(worlds):
    world = worlds.build(4).set_up()
    pairs = world.state(1).held[0].reveal()
    world.run(world.call(), world.inputs(3))
    for at in range(0, len(pairs), 64):
        assert pairs[at + 32 : at + 64] not in world.stored[1]


def test_masking_in_place_returns_the_vector_itself(worlds, key_of):
    world = worlds.build(4).set_up()
    ring = world.setup.cohort.ring
    for in_place in (True, False):
        vector = ring.zeros(10)
        _, masked = secagg.mask(world.state(1), world.call(), vector, signing_key=key_of(1), in_place=in_place)
        assert (masked.payload is vector) is in_place
        assert bool(vector.any()) is in_place


def test_a_step_out_of_order_is_refused(worlds, broken_rule):
    world = worlds.build(4)
    collector = secagg.SetupCollector(world.setup)
    for site in world.members:
        collector.add_advert(world.advertise(site))
    adverts = collector.close_adverts()
    envelopes = world.share(2, adverts)
    with broken_rule("wrong-phase"):
        world.accept(1, envelopes)
    ready = worlds.build(4, name="other").set_up()
    with broken_rule("wrong-phase"):
        world.mask(2, ready.call(), np.arange(3))
    with broken_rule("one-transcript"):
        ready.share(2, adverts)
    with broken_rule("wrong-phase"):
        secagg.SetupCollector(world.setup).add_envelopes(envelopes)
    with broken_rule("wrong-phase"):
        collector.add_advert(b"")


def test_a_coordinator_that_lost_an_advert_or_envelopes_gets_the_same_bytes(worlds, broken_rule, key_of):
    world = worlds.build(4)
    adverts = {site: world.advertise(site) for site in world.members}
    state = SiteState.decode(world.state(1).encode())
    assert secagg.advertise_again(state, signing_key=key_of(1)) == adverts[1]
    with broken_rule("wrong-signing-key"):
        secagg.advertise_again(state, signing_key=key_of(2))
    collector = secagg.SetupCollector(world.setup)
    for advert in adverts.values():
        collector.add_advert(advert)
    offered = collector.close_adverts()
    envelopes = world.share(1, offered)
    assert world.share(1, offered) == envelopes
    with broken_rule("one-transcript"):
        secagg.advertise_again(world.state(1), signing_key=key_of(1))
