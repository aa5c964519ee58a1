"""Whole rounds in memory: the sum is exact whoever leaves, and when too many leave nothing is revealed."""

import hashlib
import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsci import secagg
from fedsci.errors import RoundAborted


def test_four_labs_sum_three_updates_and_learn_nothing_else():
    """The whole protocol, readable: four labs, one of which disappears after the setup."""
    lab_keys = {i: secagg.SigningKey(secagg.Seed(os.urandom(32))) for i in (1, 2, 3, 4)}
    consortium = secagg.SigningKey(secagg.Seed(os.urandom(32)))
    roster = secagg.Roster(
        serial=1,
        sites=tuple(
            secagg.RosterSite(index=i, name=f"lab-{i}", verification_key=key.public) for i, key in lab_keys.items()
        ),
        terms=secagg.default_terms(4),
    )
    signed = secagg.sign_roster(roster, consortium)

    # Every site and the coordinator open the signed roster and agree on the setup.
    roster = secagg.open_roster(signed, consortium_key=consortium.public)
    grid = secagg.plan_quantisation(bound=1.0, sites=4, ring_bits=16)
    cohort = secagg.choose_cohort(roster, site_bound=grid.site_bound)
    setup = secagg.Setup(roster=roster, cohort=cohort, run=os.urandom(32), batch=0)

    # Setup, two exchanges. `stored` is what each site writes to its disk before it sends.
    stored: dict[int, bytes] = {}
    coordinator = secagg.SetupCollector(setup)
    for i, key in lab_keys.items():
        state, advert = secagg.advertise(setup, site=i, signing_key=key, random_bytes=os.urandom)
        stored[i] = state.encode()
        coordinator.add_advert(advert)
    adverts = coordinator.close_adverts()
    for i in lab_keys:
        state, envelopes = secagg.share(secagg.SiteState.decode(stored[i]), adverts, random_bytes=os.urandom)
        stored[i] = state.encode()
        coordinator.add_envelopes(envelopes)
    ready, deliveries = coordinator.close_envelopes()
    for i in lab_keys:
        stored[i] = secagg.accept_shares(secagg.SiteState.decode(stored[i]), deliveries[i]).encode()

    # A round. Lab 3 never answers again.
    updates = {i: np.full(10, i / 10.0) for i in lab_keys}
    call = secagg.RoundCall(
        slot=0,
        cohort=(1, 2, 3, 4),
        model_digest=hashlib.sha256(b"the model as received").digest(),
        config_digest=hashlib.sha256(b"the configuration as run").digest(),
    )
    round_ = secagg.RoundCollector(ready, call, length=10)
    for i in (1, 2, 4):
        vector = secagg.quantise(updates[i], grid).vector
        state, masked = secagg.mask(secagg.SiteState.decode(stored[i]), call, vector, signing_key=lab_keys[i])
        stored[i] = state.encode()
        round_.add_input(masked.header, masked.payload.data)
    survivors = round_.close_inputs()
    assert round_.needs_votes
    for i in (1, 2, 4):
        state, vote = secagg.answer_survivors(secagg.SiteState.decode(stored[i]), survivors, signing_key=lab_keys[i])
        stored[i] = state.encode()
        round_.add_vote(vote)
    votes = round_.close_votes()
    for i in (1, 2, 4):
        state, shares = secagg.answer_votes(secagg.SiteState.decode(stored[i]), votes, signing_key=lab_keys[i])
        stored[i] = state.encode()
        round_.add_shares(shares)
    result = round_.finish()

    assert result.survivors == (1, 2, 4)
    assert result.dropped == (3,)
    total = secagg.dequantise(result.total.view(grid.ring.dtype), grid)
    np.testing.assert_allclose(total, 0.7, atol=3 * grid.error_bound)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_the_sum_of_the_survivors_is_exact_whoever_leaves_when(worlds, data):
    sites = data.draw(st.integers(3, 8), label="sites")
    terms = secagg.default_terms(sites)
    spare = sites - terms.min_survivors
    world = worlds.build(sites, slots=2, ring_bits=data.draw(st.sampled_from((16, 32, 64)), label="bits"))
    leaving = list(data.draw(st.permutations(world.members), label="order"))[:spare]
    step = [data.draw(st.sampled_from(("advert", "share", "upload", "vote", "shares", "stays"))) for _ in leaving]
    at = {name: [s for s, x in zip(leaving, step, strict=True) if x == name] for name in step}
    world.set_up(no_advert=at.get("advert", ()), no_share=at.get("share", ()))
    length = data.draw(st.integers(1, 40), label="length")
    for slot in range(2):
        inputs = world.inputs(length, seed=slot)
        call = world.call(slot)
        result = world.run(
            call,
            inputs,
            no_upload=at.get("upload", ()),
            no_vote=at.get("vote", ()),
            no_shares=at.get("shares", ()),
        )
        expected = sum(inputs[site] for site in result.survivors)
        np.testing.assert_array_equal(result.total, expected)
        assert set(result.survivors) == set(call.cohort) - set(at.get("upload", ()))
        assert result.suspicions == ()


@pytest.mark.parametrize("ring_bits", [16, 32, 64])
def test_seventeen_labs_survive_five_killed_and_abort_with_six(worlds, ring_bits):
    world = worlds.build(17, ring_bits=ring_bits, site_bound=1000).set_up()
    inputs = world.inputs(100)
    result = world.run(world.call(0), inputs, no_upload=(1, 5, 9, 13, 17))
    np.testing.assert_array_equal(result.total, sum(inputs[s] for s in result.survivors))
    assert len(result.survivors) == 12
    with pytest.raises(RoundAborted, match="11 of 17 sites uploaded"):
        world.run(world.call(1), inputs, no_upload=(1, 5, 9, 12, 13, 17))


def test_five_killed_after_their_upload_are_still_in_the_sum(worlds):
    world = worlds.build(17).set_up()
    inputs = world.inputs(10)
    result = world.run(world.call(0), inputs, no_shares=(2, 3, 4, 5, 6))
    np.testing.assert_array_equal(result.total, sum(inputs.values()))
    with pytest.raises(RoundAborted):
        world.run(world.call(1), inputs, no_shares=(2, 3, 4, 5, 6, 7))


def test_without_dropouts_one_exchange_follows_the_upload(worlds):
    world = worlds.build(5).set_up()
    call = world.call()
    collector = world.collector(call, 3)
    for site in call.cohort:
        masked = world.mask(site, call, np.arange(3))
        collector.add_input(masked.header, masked.payload)
    listed = collector.close_inputs()
    assert not collector.needs_votes
    for site in call.cohort:
        collector.add_shares(world.answer_survivors(site, listed))
    np.testing.assert_array_equal(collector.finish().total, 5 * np.arange(3))


def test_a_slots_cohort_may_be_smaller_than_the_setup(worlds):
    world = worlds.build(6).set_up()
    inputs = world.inputs(7)
    result = world.run(world.call(0, cohort=(1, 2, 4, 5, 6)), inputs)
    assert result.survivors == (1, 2, 4, 5, 6)
    np.testing.assert_array_equal(result.total, sum(inputs[s] for s in (1, 2, 4, 5, 6)))


def test_a_restarted_coordinator_continues_with_the_next_slot(worlds):
    world = worlds.build(4).set_up()
    world.run(world.call(0), world.inputs(4))
    world.ready = secagg.ReadySetup.decode(world.ready.encode())
    inputs = world.inputs(4, seed=9)
    np.testing.assert_array_equal(world.run(world.call(1), inputs).total, sum(inputs.values()))


def test_indices_need_not_be_contiguous(worlds):
    world = worlds.build(4, indices=(3, 77, 1000, 65535)).set_up()
    inputs = world.inputs(4)
    result = world.run(world.call(0), inputs, no_upload=(77,))
    np.testing.assert_array_equal(result.total, inputs[3] + inputs[1000] + inputs[65535])


def test_a_liars_share_is_worked_around_and_named(worlds, key_of):
    from fedsci.secagg.round_messages import UnmaskShares

    world = worlds.build(7).set_up()
    call, inputs = world.call(), world.inputs(5)
    collector = world.collector(call, 5)
    for site in call.cohort:
        masked = world.mask(site, call, inputs[site])
        collector.add_input(masked.header, masked.payload)
    listed = collector.close_inputs()
    for site in call.cohort:
        answer = UnmaskShares.decode(world.answer_survivors(site, listed))
        if site == 2:
            wrong = tuple((dealer, bytes([0, share[1] ^ 1]) + share[2:]) for dealer, share in answer.self_mask)
            answer = replace(answer, self_mask=wrong).signed_by(key_of(2))
        collector.add_shares(answer.encode())
    result = collector.finish()
    np.testing.assert_array_equal(result.total, sum(inputs.values()))
    assert {s.holder for s in result.suspicions} == {2}
    assert {s.dealer for s in result.suspicions} == set(call.cohort)
