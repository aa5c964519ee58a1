"""What a cheating coordinator, cheating sites or both can try, and the rule that refuses each."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from fedsci import secagg
from fedsci.errors import RoundAborted
from fedsci.secagg.messages import Advert, AdvertSet, Envelopes
from fedsci.secagg.round_messages import Header, SurvivorList, SurvivorVote, UnmaskShares, VoteList

LENGTH = 4
pytestmark = pytest.mark.parametrize("profile", ["default", "fips"], indirect=True, scope="session")


class Uploaded:
    """A world in which every site of the call has uploaded in slot 0; the attacker holds all headers."""

    def __init__(self, worlds, sites=7):
        self.world = worlds.build(sites).set_up()
        self.call = self.world.call()
        self.inputs = self.world.inputs(LENGTH)
        self.masked = {s: self.world.mask(s, self.call, self.inputs[s]) for s in self.call.cohort}
        self.headers = {s: Header.decode(m.header) for s, m in self.masked.items()}

    def listing(self, survivors, **changes):
        headers = tuple(self.headers[s] for s in survivors)
        context = changes.pop("context", self.world.setup.context)
        profile = self.world.setup.profile
        return SurvivorList(
            context=context, profile=profile, slot=changes.pop("slot", 0), headers=changes.pop("headers", headers)
        )

    def votes(self, listing, voters, key_of):
        votes = tuple(
            SurvivorVote(
                context=listing.context, site=s, slot=0, bind=self.headers[s].bind, survivors=listing.digest
            ).signed_by(key_of(s))
            for s in voters
        )
        return VoteList(context=listing.context, profile=listing.profile, slot=0, votes=votes)


@pytest.fixture
def uploaded(worlds):
    return Uploaded(worlds)


# -- both secrets of one site


def test_no_answer_holds_both_shares_of_a_site(uploaded, key_of):
    listing = uploaded.listing((1, 2, 3, 4, 5))
    votes = uploaded.votes(listing, (1, 2, 3, 4, 5), key_of)
    uploaded.world.answer_survivors(1, listing.encode())
    answer = UnmaskShares.decode(uploaded.world.answer_votes(1, votes.encode()))
    assert tuple(dealer for dealer, _ in answer.self_mask) == (1, 2, 3, 4, 5)
    assert tuple(dealer for dealer, _ in answer.mask_key) == (6, 7)


def test_a_site_listed_alive_to_some_and_dropped_to_others_keeps_one_secret(uploaded, key_of, broken_rule):
    """Site 7 is shown as dropped to sites 1 to 5 and alive to 3 to 7: no two quorums form."""
    without, everyone = uploaded.listing((1, 2, 3, 4, 5)), uploaded.listing((3, 4, 5, 6, 7))
    for site in (1, 2, 3, 4, 5):
        uploaded.world.answer_survivors(site, without.encode())
    for site in (3, 4, 5):
        with broken_rule("two-survivor-sets"):
            uploaded.world.answer_survivors(site, everyone.encode())
    # Only 6 and 7 are left for the second list; corrupt sites may vote twice, and still fall short.
    terms = uploaded.world.setup.cohort.terms
    assert 2 + terms.corrupt < terms.threshold


def test_the_coordinator_refuses_shares_of_both_kinds(uploaded, key_of, broken_rule):
    world = uploaded.world
    collector = world.collector(uploaded.call, LENGTH)
    for masked in uploaded.masked.values():
        collector.add_input(masked.header, masked.payload)
    listed = collector.close_inputs()
    answer = UnmaskShares.decode(world.answer_survivors(1, listed))
    both = replace(answer, mask_key=((2, bytes(32)),)).signed_by(key_of(1))
    with broken_rule("wrong-share-set"):
        collector.add_shares(both.encode())


# -- dropouts without votes


def test_a_dropout_without_votes_reveals_nothing(uploaded, key_of, broken_rule):
    listing = uploaded.listing((1, 2, 3, 4, 5, 6))
    SurvivorVote.decode(uploaded.world.answer_survivors(1, listing.encode()))
    few = uploaded.votes(listing, (1, 2, 3, 4), key_of)
    assert len(few.votes) == uploaded.world.setup.cohort.terms.threshold - 1
    with broken_rule("too-few-votes"):
        uploaded.world.answer_votes(1, few.encode())


def test_votes_count_once_by_survivors_for_this_list(uploaded, key_of, broken_rule):
    world, listing = uploaded.world, uploaded.listing((1, 2, 3, 4, 5, 6))
    other = uploaded.listing((1, 2, 3, 4, 5))
    good = uploaded.votes(listing, (1, 2, 3, 4, 5), key_of).votes
    with broken_rule("votes-before-survivors"):
        world.answer_votes(1, VoteList(context=listing.context, profile=listing.profile, slot=0, votes=good).encode())
    world.answer_survivors(1, listing.encode())
    attempts = {
        "duplicate-site": (*good[:4], good[3]),
        "forged-vote": (*good[:4], replace(good[4], signature=good[3].signature)),
        "unknown-site": (*good[:4], uploaded.votes(listing, (7,), key_of).votes[0]),
        "two-survivor-sets": (*good[:4], uploaded.votes(other, (5,), key_of).votes[0]),
        "bind-mismatch": (*good[:4], replace(good[4], bind=bytes(32)).signed_by(key_of(5))),
        "other-setup": (*good[:4], replace(good[4], context=bytes(32)).signed_by(key_of(5))),
    }
    for rule, votes in attempts.items():
        with broken_rule(rule):
            world.answer_votes(
                1, VoteList(context=listing.context, profile=listing.profile, slot=0, votes=votes).encode()
            )
    UnmaskShares.decode(
        world.answer_votes(1, VoteList(context=listing.context, profile=listing.profile, slot=0, votes=good).encode())
    )


# -- small cohorts, false dropouts


def test_survivors_below_min_survivors_are_refused(uploaded, broken_rule):
    with broken_rule("too-few-survivors"):
        uploaded.world.answer_survivors(1, uploaded.listing((1, 2, 3, 4)).encode())


def test_a_cohort_below_min_survivors_is_refused(worlds, broken_rule):
    world = worlds.build(7).set_up()
    with broken_rule("cohort-too-small"):
        world.mask(1, world.call(cohort=(1, 2, 3, 4)), np.zeros(LENGTH, dtype=np.int64))
    with broken_rule("cohort-too-small"):
        world.collector(world.call(cohort=(1, 2, 3, 4)), LENGTH)


def test_a_setup_below_min_survivors_is_refused(worlds, broken_rule):
    world = worlds.build(7)
    adverts = {s: Advert.decode(world.advertise(s)) for s in world.members}
    few = AdvertSet(
        context=world.setup.context, profile=world.setup.profile, adverts=tuple(adverts[s] for s in (1, 2, 3, 4))
    )
    with broken_rule("cohort-too-small"):
        world.share(1, few.encode())
    collector = secagg.SetupCollector(world.setup)
    collector.add_advert(adverts[1].encode())
    with pytest.raises(RoundAborted):
        collector.close_adverts()


def test_a_delivery_that_withholds_most_envelopes_is_refused(worlds, broken_rule):
    world = worlds.build(7)
    deliveries = shared(world)
    few = replace(deliveries[1], sealed=deliveries[1].sealed[:3])
    with broken_rule("cohort-too-small"):
        world.accept(1, few.encode())


def test_a_present_site_that_is_declared_dropped_stays_silent(uploaded, broken_rule):
    listing = uploaded.listing((1, 2, 3, 4, 5, 6))
    with broken_rule("self-not-survivor"):
        uploaded.world.answer_survivors(7, listing.encode())


def test_a_site_that_did_not_upload_releases_nothing(worlds, broken_rule, key_of):
    other = Uploaded(worlds)
    fresh = worlds.build(7).set_up()
    with broken_rule("slot-not-open"):
        fresh.answer_survivors(1, other.listing((1, 2, 3, 4, 5)).encode())


# -- slots


def test_a_slot_is_used_once_and_never_backwards(worlds, broken_rule):
    world = worlds.build(4, slots=3).set_up()
    values = np.zeros(LENGTH, dtype=np.int64)
    world.mask(1, world.call(1), values)
    for slot in (0, 1):
        with broken_rule("slot-used"):
            world.mask(1, world.call(slot), values)
    with broken_rule("unknown-slot"):
        world.mask(1, world.call(3), values)


def test_a_header_replayed_from_another_slot_is_refused(uploaded, broken_rule):
    world = uploaded.world
    call = world.call(1)
    masked = {s: world.mask(s, call, uploaded.inputs[s]) for s in call.cohort}
    collector = world.collector(call, LENGTH)
    with broken_rule("other-slot"):
        collector.add_input(uploaded.masked[1].header, uploaded.masked[1].payload)
    new = {s: Header.decode(m.header) for s, m in masked.items()}
    mixed = (uploaded.headers[1], *(new[s] for s in (2, 3, 4, 5, 6, 7)))
    listing = SurvivorList(context=world.setup.context, profile=world.setup.profile, slot=1, headers=mixed)
    with broken_rule("other-slot"):
        world.answer_survivors(2, listing.encode())


def test_a_slot_that_was_left_releases_nothing_any_more(uploaded, broken_rule):
    world = uploaded.world
    world.mask(1, world.call(1), uploaded.inputs[1])
    with broken_rule("slot-not-open"):
        world.answer_survivors(1, uploaded.listing((1, 2, 3, 4, 5, 6, 7)).encode())


# -- two models in one round


def test_two_models_in_one_round_leave_noise_and_a_refusal(worlds, broken_rule):
    world = worlds.build(5).set_up()
    honest, crafted = world.call(), world.call(model=b"crafted for site 1")
    inputs = {s: np.zeros(2000, dtype=np.int64) for s in world.members}
    masked = {s: world.mask(s, crafted if s == 1 else honest, inputs[s]) for s in world.members}
    headers = {s: Header.decode(m.header) for s, m in masked.items()}
    collector = world.collector(honest, 2000)
    with broken_rule("bind-mismatch"):
        collector.add_input(masked[1].header, masked[1].payload)
    listing = SurvivorList(
        context=world.setup.context,
        profile=world.setup.profile,
        slot=0,
        headers=tuple(headers[s] for s in world.members),
    )
    for site in (1, 2):
        with broken_rule("bind-mismatch"):
            world.answer_survivors(site, listing.encode())
    # Even with every self-mask removed, the pair masks with site 1 stay.
    total = sum(m.payload.astype(np.int64) for m in masked.values())
    for site in world.members:
        mask_of_self(world, site, headers[site].bind, total)
    assert np.unique(total % 65536).size > 1500


def mask_of_self(world, site, bind, total):
    """Subtract the self-mask of ``site``, whose seed the test draws again."""
    from fedsci.secagg.masking import self_key
    from fedsci.secagg.prg import add_masks

    fresh = type(world)(setup=world.setup, name=world.name)
    fresh.advertise(site)
    seed = fresh.state(site).own[0].self_mask
    key = self_key(seed, context=world.setup.context, site=site, slot=0, bind=bind, profile=world.setup.profile)
    mask = np.zeros(total.size, "<u2")
    add_masks(mask, [(key, 1)])
    total -= mask


@pytest.mark.parametrize("what", ["config", "length", "cohort"])
def test_every_difference_in_the_call_is_a_bind_mismatch(worlds, broken_rule, what):
    world = worlds.build(6).set_up()
    call = world.call()
    other = {
        "config": replace(call, config_digest=hashlib.sha256(b"other").digest()),
        "length": call,
        "cohort": replace(call, cohort=(1, 2, 3, 4, 5)),
    }[what]
    masked = world.mask(1, other, np.zeros(LENGTH + (what == "length"), dtype=np.int64))
    with broken_rule("bind-mismatch"):
        world.collector(call, LENGTH).add_input(masked.header, masked.payload)


# -- forgeries


def test_a_forged_header_is_refused_by_sites_and_coordinator(uploaded, key_of, broken_rule):
    world = uploaded.world
    forged = replace(uploaded.headers[2], payload_digest=bytes(32))
    listing = uploaded.listing((), headers=(uploaded.headers[1], forged, *(uploaded.headers[s] for s in (3, 4, 5))))
    with broken_rule("forged-header"):
        world.answer_survivors(1, listing.encode())
    by_other = forged.signed_by(key_of(3))
    with broken_rule("forged-header"):
        world.collector(uploaded.call, LENGTH).add_input(by_other.encode(), uploaded.masked[2].payload)


def test_another_header_of_the_site_itself_is_refused(uploaded, key_of, broken_rule):
    mine = replace(uploaded.headers[1], payload_digest=bytes(32)).signed_by(key_of(1))
    listing = uploaded.listing((), headers=(mine, *(uploaded.headers[s] for s in (2, 3, 4, 5))))
    with broken_rule("forged-header"):
        uploaded.world.answer_survivors(1, listing.encode())


def test_a_payload_that_was_not_signed_is_refused(uploaded, broken_rule):
    wrong = uploaded.masked[1].payload.copy()
    wrong[0] += 1
    with broken_rule("payload-digest"):
        uploaded.world.collector(uploaded.call, LENGTH).add_input(uploaded.masked[1].header, wrong)
    with broken_rule("malformed-message"):
        uploaded.world.collector(uploaded.call, LENGTH).add_input(uploaded.masked[1].header, wrong[:-1])


def test_substituted_keys_are_refused(worlds, key_of, broken_rule):
    """The coordinator puts its own channel or mask key into a site's advert."""
    world = worlds.build(5)
    adverts = {s: Advert.decode(world.advertise(s)) for s in world.members}
    own = secagg.Seed(bytes(range(32)))
    from fedsci.secagg.keys import exchange_public

    mine = exchange_public(own, world.setup.profile)
    for forged in (
        replace(adverts[3], channel_key=mine),
        replace(adverts[3], mask_keys=(mine, *adverts[3].mask_keys[1:])),
        replace(adverts[3], channel_key=mine).signed_by(key_of(2)),
        replace(adverts[3], commitments=(bytes(32), *adverts[3].commitments[1:])),
    ):
        offered = AdvertSet(
            context=world.setup.context, profile=world.setup.profile, adverts=tuple({**adverts, 3: forged}.values())
        )
        with broken_rule("forged-advert"):
            world.share(1, offered.encode())
        with broken_rule("forged-advert"):
            secagg.SetupCollector(world.setup).add_advert(forged.encode())


def test_adverts_that_copy_or_weaken_keys_are_refused(worlds, key_of, broken_rule):
    world = worlds.build(5)
    adverts = {s: Advert.decode(world.advertise(s)) for s in world.members}
    cases = {
        "duplicate-key": replace(adverts[3], channel_key=adverts[2].mask_keys[0]),
        "weak-key": replace(adverts[3], channel_key=bytes(world.setup.profile.exchange_bytes)),
        "batch-slots": replace(adverts[3], mask_keys=adverts[3].mask_keys[:1], commitments=adverts[3].commitments[:1]),
    }
    for rule, forged in cases.items():
        changed = {**adverts, 3: forged.signed_by(key_of(3))}
        with broken_rule(rule):
            world.share(
                1,
                AdvertSet(
                    context=world.setup.context, profile=world.setup.profile, adverts=tuple(changed.values())
                ).encode(),
            )
    copied = replace(adverts[3], commitments=adverts[2].commitments).signed_by(key_of(3))
    with broken_rule("duplicate-key"):
        changed = {**adverts, 3: copied}
        world.share(
            1,
            AdvertSet(
                context=world.setup.context, profile=world.setup.profile, adverts=tuple(changed.values())
            ).encode(),
        )


def test_an_advert_set_without_or_with_another_own_advert_is_refused(worlds, broken_rule):
    world = worlds.build(7)
    adverts = {s: Advert.decode(world.advertise(s)) for s in world.members}
    without = tuple(adverts[s] for s in (2, 3, 4, 5, 6))
    with broken_rule("own-advert-missing"):
        world.share(1, AdvertSet(context=world.setup.context, profile=world.setup.profile, adverts=without).encode())
    again = type(world)(setup=world.setup, name="another draw")
    older = Advert.decode(again.advertise(1))
    with broken_rule("own-advert-missing"):
        changed = {**adverts, 1: older}
        world.share(
            1,
            AdvertSet(
                context=world.setup.context, profile=world.setup.profile, adverts=tuple(changed.values())
            ).encode(),
        )


def test_a_roster_with_one_changed_key_is_another_setup(worlds, key_of, broken_rule):
    world = worlds.build(5)
    roster = world.setup.roster
    swapped = replace(roster, sites=(*roster.sites[:4], replace(roster.sites[4], verification_key=key_of(99).public)))
    tampered = type(world)(setup=replace(world.setup, roster=swapped), name=world.name)
    for site in world.members:
        world.advertise(site)
    adverts = tuple(Advert.decode(tampered.advertise(s)) for s in (1, 2, 3, 4))
    with broken_rule("other-setup"):
        world.share(
            1, AdvertSet(context=tampered.setup.context, profile=tampered.setup.profile, adverts=adverts).encode()
        )
    with broken_rule("other-setup"):
        world.share(1, AdvertSet(context=world.setup.context, profile=world.setup.profile, adverts=adverts).encode())


def test_a_site_signs_only_with_the_key_in_the_roster(uploaded, key_of, broken_rule):
    world = uploaded.world
    with broken_rule("wrong-signing-key"):
        secagg.advertise(world.setup, site=1, signing_key=key_of(2), random_bytes=lambda n: bytes(n))
    with broken_rule("wrong-signing-key"):
        secagg.mask(world.state(1), world.call(1), np.zeros(2, "<u2"), signing_key=key_of(2))


# -- transcripts and envelopes


def shared(world):
    """Run the setup up to the deliveries, which are returned decoded."""
    collector = secagg.SetupCollector(world.setup)
    for site in world.members:
        collector.add_advert(world.advertise(site))
    adverts = collector.close_adverts()
    for site in world.members:
        collector.add_envelopes(world.share(site, adverts))
    return {s: Envelopes.decode(d, delivered=True) for s, d in collector.close_envelopes()[1].items()}


def test_a_share_for_another_transcript_is_refused(worlds, broken_rule):
    world = worlds.build(5)
    deliveries = shared(world)
    with broken_rule("other-transcript"):
        world.accept(1, replace(deliveries[1], transcript=bytes(32)).encode())


def test_sites_that_saw_different_adverts_cannot_open_each_others_envelopes(worlds, broken_rule):
    world = worlds.build(7)
    adverts = {s: Advert.decode(world.advertise(s)) for s in world.members}
    context = world.setup.context
    all_seen = AdvertSet(context=context, profile=world.setup.profile, adverts=tuple(adverts.values()))
    some_seen = AdvertSet(
        context=context, profile=world.setup.profile, adverts=tuple(adverts[s] for s in (1, 2, 3, 4, 5))
    )
    first = Envelopes.decode(world.share(1, all_seen.encode()), delivered=False)
    rest = {s: dict(Envelopes.decode(world.share(s, some_seen.encode()), delivered=False).sealed) for s in (2, 3, 4, 5)}
    sealed = tuple((s, rest[s][1]) for s in (2, 3, 4, 5))
    delivery = replace(first, delivered=True, sealed=sealed)
    with broken_rule("bad-envelope"):
        world.accept(1, delivery.encode())


def test_envelopes_swapped_damaged_or_misdelivered_are_refused(worlds, broken_rule):
    world = worlds.build(5)
    deliveries = shared(world)
    mine = deliveries[1].sealed
    damaged = mine[0][1][:-1] + bytes([mine[0][1][-1] ^ 1])
    cases = {
        "bad-envelope": [
            ((2, mine[1][1]), (3, mine[0][1]), *mine[2:]),
            ((2, damaged), *mine[1:]),
            ((2, b""), *mine[1:]),
            ((2, dict(deliveries[3].sealed)[2]), *mine[1:]),
        ],
        "unknown-site": [((1, mine[0][1]), *mine[1:]), (*mine, (9, mine[0][1]))],
        "malformed-message": [(mine[0], *mine)],
    }
    for rule, attempts in cases.items():
        for sealed in attempts:
            with broken_rule(rule):
                world.accept(1, replace(deliveries[1], sealed=sealed).encode())
    with broken_rule("other-recipient"):
        world.accept(1, deliveries[2].encode())
    world.accept(1, deliveries[1].encode())


def test_a_site_shares_under_one_transcript_only(worlds, broken_rule):
    world = worlds.build(7)
    adverts = {s: Advert.decode(world.advertise(s)) for s in world.members}
    context = world.setup.context
    world.share(1, AdvertSet(context=context, profile=world.setup.profile, adverts=tuple(adverts.values())).encode())
    with broken_rule("one-transcript"):
        world.share(
            1, AdvertSet(context=context, profile=world.setup.profile, adverts=tuple(adverts.values())[:5]).encode()
        )


# -- crashes and restarts


def test_a_site_that_crashed_after_its_commitment_keeps_it(uploaded, broken_rule):
    """The state was stored before the vote left; a fresh process repeats the vote, nothing else."""
    world = uploaded.world
    first, second = uploaded.listing((1, 2, 3, 4, 5, 6)), uploaded.listing((1, 2, 3, 4, 5))
    vote = world.answer_survivors(1, first.encode())
    world.stored[1] = bytes(bytearray(world.stored[1]))
    with broken_rule("two-survivor-sets"):
        world.answer_survivors(1, second.encode())
    with broken_rule("two-survivor-sets"):
        world.answer_survivors(1, uploaded.listing((1, 2, 3, 4, 5, 6, 7)).encode())
    assert world.answer_survivors(1, first.encode()) == vote


def test_a_site_repeats_its_released_shares_and_nothing_else(uploaded, broken_rule):
    world, everyone = uploaded.world, uploaded.listing((1, 2, 3, 4, 5, 6, 7))
    answer = world.answer_survivors(1, everyone.encode())
    before = world.stored[1]
    assert world.answer_survivors(1, everyone.encode()) == answer
    assert world.stored[1] == before
    with broken_rule("two-survivor-sets"):
        world.answer_survivors(1, uploaded.listing((1, 2, 3, 4, 5)).encode())


def test_a_coordinator_restarted_mid_round_cannot_run_the_slot_again(uploaded, broken_rule):
    world = uploaded.world
    with broken_rule("slot-used"):
        world.mask(1, world.call(0, cohort=(1, 2, 3, 4, 5)), uploaded.inputs[1])
    with broken_rule("slot-used"):
        world.mask(1, world.call(0), uploaded.inputs[1])


def test_a_burnt_batch_refuses_every_step_and_holds_no_secret(uploaded, broken_rule, key_of):
    world = uploaded.world
    secret = world.state(1).held[1].reveal()
    assert secret in world.stored[1]
    world.keep(1, secagg.burn(world.state(1)))
    assert secret not in world.stored[1]
    with broken_rule("batch-burnt"):
        world.mask(1, world.call(1), uploaded.inputs[1])
    with broken_rule("batch-burnt"):
        world.answer_survivors(1, uploaded.listing((1, 2, 3, 4, 5, 6, 7)).encode())


# -- overflow, indices


@pytest.mark.parametrize("value", [1001, -1001, 32767, -32768])
def test_a_vector_past_the_site_bound_is_refused_before_anything_is_used(worlds, broken_rule, value):
    world = worlds.build(5, site_bound=1000).set_up()
    before = world.stored[1]
    with broken_rule("ring-overflow"):
        world.mask(1, world.call(), np.array([0, value]))
    assert world.stored[1] == before


def test_vectors_of_another_ring_or_of_nothing_are_refused(worlds, broken_rule, key_of):
    world = worlds.build(5).set_up()
    for vector, rule in ((np.zeros(3, "<u4"), "wrong-ring"), (np.zeros(0, "<u2"), "wrong-length")):
        with broken_rule(rule):
            secagg.mask(world.state(1), world.call(), vector, signing_key=key_of(1))


def test_duplicate_and_unknown_sites_are_refused_everywhere(uploaded, key_of, broken_rule):
    world, headers = uploaded.world, uploaded.headers
    twice = (headers[1], headers[1], *(headers[s] for s in (2, 3, 4, 5)))
    stranger = replace(headers[7], site=8).signed_by(key_of(8))
    for rule, offered in (
        ("duplicate-site", twice),
        ("unknown-site", (*(headers[s] for s in (1, 2, 3, 4, 5)), stranger)),
    ):
        with broken_rule(rule):
            world.answer_survivors(1, uploaded.listing((), headers=offered).encode())
    collector = world.collector(uploaded.call, LENGTH)
    collector.add_input(uploaded.masked[1].header, uploaded.masked[1].payload)
    with broken_rule("duplicate-site"):
        collector.add_input(uploaded.masked[1].header, uploaded.masked[1].payload)
    with broken_rule("unknown-site"):
        collector.add_input(stranger.encode(), uploaded.masked[1].payload)
    for cohort in ((1, 2, 3, 4, 5, 8), (2, 3, 4, 5, 6)):
        with broken_rule("unknown-site" if 8 in cohort else "not-in-cohort"):
            world.mask(1, world.call(1, cohort=cohort), uploaded.inputs[1])
    for cohort in ((1, 1, 2, 3, 4), (0, 1, 2, 3, 4), (5, 4, 3, 2, 1)):
        with broken_rule("malformed-message"):
            world.call(1, cohort=cohort)


def test_a_member_that_never_shared_cannot_be_in_a_slots_cohort(worlds, broken_rule):
    world = worlds.build(7).set_up(no_share=(7,))
    with broken_rule("no-shares"):
        world.mask(1, world.call(0, cohort=(1, 2, 3, 4, 5, 6, 7)), np.zeros(LENGTH, dtype=np.int64))
    with broken_rule("unknown-site"):
        world.collector(world.call(0, cohort=(1, 2, 3, 4, 5, 6, 7)), LENGTH)


# -- lying sites


def test_a_dealer_whose_secret_does_not_open_is_named(worlds, monkeypatch, broken_rule):
    """Site 3 commits to one self-mask seed and shares another; the sum does not open and site 3 is named."""
    from fedsci.errors import ProtocolError

    world = worlds.build(5)
    collector = secagg.SetupCollector(world.setup)
    for site in world.members:
        collector.add_advert(world.advertise(site))
    adverts = collector.close_adverts()
    state = world.state(3)
    own = (replace(state.own[0], self_mask=secagg.Seed(bytes(31) + b"\1")), *state.own[1:])
    world.keep(3, replace(state, own=own))
    for site in world.members:
        collector.add_envelopes(world.share(site, adverts))
    world.ready, deliveries = collector.close_envelopes()
    for site, delivery in deliveries.items():
        world.accept(site, delivery)
    with pytest.raises(ProtocolError, match="the shares of site 3 do not open") as caught:
        world.run(world.call(), world.inputs(LENGTH))
    assert caught.value.rule == "wrong-shares"


def test_answers_of_others_rounds_and_twice_are_refused(uploaded, key_of, broken_rule):
    world = uploaded.world
    collector = world.collector(uploaded.call, LENGTH)
    for site in (1, 2, 3, 4, 5, 6):
        collector.add_input(uploaded.masked[site].header, uploaded.masked[site].payload)
    with broken_rule("wrong-phase"):
        collector.add_vote(uploaded.votes(uploaded.listing((1, 2)), (1,), key_of).votes[0].encode())
    listed = SurvivorList.decode(collector.close_inputs())
    with broken_rule("wrong-phase"):
        collector.add_input(uploaded.masked[7].header, uploaded.masked[7].payload)
    vote = uploaded.votes(listed, (1,), key_of).votes[0]
    collector.add_vote(vote.encode())
    for rule, bad in {
        "duplicate-site": vote,
        "unknown-site": uploaded.votes(listed, (7,), key_of).votes[0],
        "bind-mismatch": replace(vote, site=2, bind=bytes(32)).signed_by(key_of(2)),
        "two-survivor-sets": replace(vote, site=2, survivors=bytes(32)).signed_by(key_of(2)),
        "forged-vote": replace(vote, site=2),
    }.items():
        with broken_rule(rule):
            collector.add_vote(bad.encode())
    with pytest.raises(RoundAborted):
        collector.close_votes()
    assert collector.lacking_shares() == (1, 2, 3, 4, 5, 6, 7)
    with pytest.raises(RoundAborted):
        collector.finish()
