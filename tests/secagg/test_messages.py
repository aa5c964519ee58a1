"""Decoders under hostile bytes: exactly one typed error, never a crash, never more memory than the input."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedsci import secagg
from fedsci.errors import ProtocolError
from fedsci.secagg.messages import Advert, AdvertSet, Envelopes
from fedsci.secagg.round_messages import Header, SurvivorList, SurvivorVote, UnmaskShares, VoteList
from fedsci.secagg.wire import Reader, blob, number, numbers

DECODERS = {
    "roster": secagg.Roster.decode,
    "setup": secagg.Setup.decode,
    "advert": Advert.decode,
    "adverts": AdvertSet.decode,
    "envelopes": lambda content: Envelopes.decode(content, delivered=False),
    "delivery": lambda content: Envelopes.decode(content, delivered=True),
    "header": Header.decode,
    "survivors": SurvivorList.decode,
    "vote": SurvivorVote.decode,
    "votes": VoteList.decode,
    "shares": UnmaskShares.decode,
    "state": secagg.SiteState.decode,
    "ready": secagg.ReadySetup.decode,
}


@pytest.fixture(scope="module")
def samples(worlds):
    """One honest message of every kind, from a round with a dropout."""
    world = worlds.build(4)
    found = {"roster": world.setup.roster.encode(), "setup": world.setup.encode()}
    collector = secagg.SetupCollector(world.setup)
    for site in world.members:
        found["advert"] = world.advertise(site)
        collector.add_advert(found["advert"])
    found["adverts"] = collector.close_adverts()
    for site in world.members:
        found["envelopes"] = world.share(site, found["adverts"])
        collector.add_envelopes(found["envelopes"])
    world.ready, deliveries = collector.close_envelopes()
    found["delivery"], found["ready"] = deliveries[1], world.ready.encode()
    for site, delivery in deliveries.items():
        world.accept(site, delivery)
    call = world.call()
    round_ = world.collector(call, 3)
    for site in (1, 2, 3):
        masked = world.mask(site, call, np.arange(3))
        found["header"] = masked.header
        round_.add_input(masked.header, masked.payload)
    found["survivors"] = round_.close_inputs()
    for site in (1, 2, 3):
        found["vote"] = world.answer_survivors(site, found["survivors"])
        round_.add_vote(found["vote"])
    found["votes"] = round_.close_votes()
    found["state"] = world.stored[1]
    found["shares"] = world.answer_votes(1, found["votes"])
    return found


def decode_or_refuse(kind: str, content: bytes) -> object:
    """Decode; anything but a ``ProtocolError`` escapes and fails the test."""
    try:
        return DECODERS[kind](content)
    except ProtocolError:
        return None


@pytest.mark.parametrize("kind", DECODERS)
def test_every_message_survives_the_wire(samples, kind):
    assert DECODERS[kind](samples[kind]).encode() == samples[kind]


@pytest.mark.parametrize("kind", DECODERS)
@settings(max_examples=60)
@given(content=st.binary(max_size=400))
def test_random_bytes_are_refused(broken_rule_session, kind, content):
    broken_rule_session("malformed-message", DECODERS[kind], content)


@pytest.mark.parametrize("kind", DECODERS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_truncated_or_longer_messages_are_refused(broken_rule_session, samples, kind, data):
    content = samples[kind]
    cut = data.draw(st.integers(0, len(content) - 1))
    broken_rule_session("malformed-message", DECODERS[kind], content[:cut])
    extra = data.draw(st.binary(min_size=1, max_size=5))
    broken_rule_session("malformed-message", DECODERS[kind], content + extra)


@pytest.mark.parametrize("kind", DECODERS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_flipped_bytes_decode_to_themselves_or_are_refused(samples, kind, data):
    content = bytearray(samples[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    decoded = decode_or_refuse(kind, bytes(content))
    if decoded is not None and kind != "state":
        assert decoded.encode() == bytes(content)


@pytest.mark.parametrize("kind", DECODERS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_huge_counts_allocate_nothing(samples, kind, data):
    """Any four bytes set to the largest number: the claim is refused from the bytes at hand."""
    content = bytearray(samples[kind])
    at = data.draw(st.integers(5, len(content) - 4))
    content[at : at + 4] = b"\xff" * 4
    tracemalloc.start()
    try:
        decode_or_refuse(kind, bytes(content))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 50 * len(content) + 2_000_000


@pytest.mark.parametrize("kind", DECODERS)
def test_one_kind_is_never_read_as_another(samples, kind, broken_rule):
    for other, content in samples.items():
        if other != kind:
            with broken_rule("malformed-message"):
                DECODERS[kind](content)


@pytest.mark.parametrize("kind", DECODERS)
def test_another_version_is_refused(samples, kind, broken_rule):
    content = bytearray(samples[kind])
    content[3] = 2
    with broken_rule("malformed-message"):
        DECODERS[kind](bytes(content))


def test_messages_past_their_limit_or_not_bytes_are_refused(broken_rule):
    with broken_rule("malformed-message"):
        Header.decode(bytes(178))
    with broken_rule("malformed-message"):
        Reader("text", limit=10)
    with broken_rule("malformed-message"):
        Reader(bytes(11), limit=10)


@given(st.lists(st.integers(0, 65535), max_size=20), st.binary(max_size=50))
def test_lists_and_blobs_round_trip(values, content):
    reader = Reader(numbers(values) + blob(content), limit=1000)
    assert reader.numbers() == tuple(values)
    assert reader.blob() == content
    reader.end()


def test_numbers_that_do_not_fit_are_refused(broken_rule):
    for value in (-1, 256):
        with broken_rule("malformed-message"):
            number(value, 1)


def test_shares_do_not_print(samples):
    message = UnmaskShares.decode(samples["shares"])
    assert message.self_mask[0][1].hex() not in repr(message)
    assert repr(message) == "UnmaskShares(site=1, slot=0, …)"
    assert replace(message, slot=1).slot == 1


@pytest.mark.parametrize(
    ("kind", "size"), [("header", 177), ("vote", 169), ("advert", 5 + 32 + 2 + 32 + 2 + 2 * 64 + 64)]
)
def test_sizes_are_those_of_the_document(samples, kind, size):
    assert len(samples[kind]) == size
