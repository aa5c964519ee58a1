"""Crypto profiles: each has its own primitives and no others, and neither takes what is the other's."""

import hashlib
import hmac
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsci import secagg
from fedsci.secagg import keys, prg
from fedsci.secagg.messages import AdvertSet, Envelopes
from fedsci.secagg.profile_fips import ORDER
from fedsci.secagg.profiles import DEFAULT, FIPS, PROFILES
from fedsci.secagg.round_messages import Header, SurvivorList
from fedsci.secagg.seed import Seed

BOTH = pytest.mark.parametrize("profile", ["default", "fips"], indirect=True, scope="session")
SEED = Seed(bytes(range(48)))
CURVE = ec.SECP384R1()


# The definitions of docs/protocol.md, written without the package.


def labelled(label: str, *parts: bytes) -> bytes:
    return b"fedsci/secagg/v1/" + label.encode() + b"\0" + b"".join(len(p).to_bytes(8, "big") + p for p in parts)


def hkdf(secret: bytes, salt: bytes, info: bytes, size: int) -> bytes:
    prk = hmac.new(salt or bytes(48), secret, hashlib.sha384).digest()
    first = hmac.new(prk, info + b"\1", hashlib.sha384).digest()
    return (first + hmac.new(prk, first + info + b"\2", hashlib.sha384).digest())[:size]


def private(seed: bytes, info: bytes) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(hkdf(seed, b"", info, 56), "big") % (ORDER - 1) + 1, CURVE)


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def test_keys_of_fips_follow_from_their_definition():
    low, high = bytes([1]) * 32, bytes([2]) * 32
    assert keys.exchange_public(Seed(low), FIPS) == point(private(low, labelled("exchange key")))
    shared = private(low, labelled("exchange key")).exchange(
        ec.ECDH(), private(high, labelled("exchange key")).public_key()
    )
    for one, other in ((low, high), (high, low)):
        (found,) = keys.exchange(Seed(one), (keys.exchange_public(Seed(other), FIPS),), FIPS)
        assert found.reveal() == shared
    derived = keys.derive(Seed(low), salt=b"salt", label="pair mask", parts=(b"x",), profile=FIPS)
    assert derived.reveal() == hkdf(low, b"salt", labelled("pair mask", b"x"), 32)
    assert secagg.SigningKey(SEED).public == point(private(SEED.reveal(), b"fedsci/fips/v1/signing key"))


def test_a_signature_of_fips_is_ecdsa_over_p384_with_sha384():
    key = secagg.SigningKey(SEED)
    signature = key.sign("vote", b"body")
    r, s = int.from_bytes(signature[:48], "big"), int.from_bytes(signature[48:], "big")
    public = ec.EllipticCurvePublicKey.from_encoded_point(CURVE, key.public)
    public.verify(encode_dss_signature(r, s), labelled("vote", b"body"), ec.ECDSA(SHA384()))
    assert len(signature) == 96
    assert s <= ORDER // 2
    assert key.profile is FIPS
    assert len(key.public) == 97


def test_the_other_spelling_of_a_signature_is_refused(broken_rule):
    """ECDSA holds for ``(r, n - s)``, too; a coordinator could show each site another transcript."""
    key = secagg.SigningKey(SEED)
    signature = key.sign("vote", b"body")
    other = signature[:48] + (ORDER - int.from_bytes(signature[48:], "big")).to_bytes(48, "big")
    with broken_rule("forged-vote"):
        keys.check_signature(key.public, "vote", b"body", other, rule="forged-vote", who="site 1")


@settings(max_examples=20, deadline=None)
@given(body=st.binary(max_size=100), at=st.integers(0, 95), bit=st.integers(0, 7))
def test_a_changed_signature_or_body_is_refused(broken_rule_session, body, at, bit):
    key = secagg.SigningKey(SEED)
    signature = bytearray(key.sign_exact(body))
    keys.check_exact(key.public, body, bytes(signature), rule="statement", who="x")
    signature[at] ^= 1 << bit
    check = lambda b, s: keys.check_exact(key.public, b, s, rule="statement", who="x")  # noqa: E731
    broken_rule_session("statement", check, body, bytes(signature))
    broken_rule_session("statement", check, body + b"!", key.sign_exact(body))


GOOD = keys.exchange_public(Seed(bytes(32)), FIPS)


@pytest.mark.parametrize(
    "public",
    [
        b"",
        b"\0",
        bytes(97),
        b"\4" + bytes(96),
        GOOD[:-1] + bytes([GOOD[-1] ^ 1]),
        b"\6" + GOOD[1:],
        b"\2" + GOOD[1:49],
        b"\4" + b"\xff" * 96,
        GOOD + b"\0",
        keys.exchange_public(Seed(bytes(32)), DEFAULT),
    ],
    ids=["empty", "infinity", "zeros", "origin", "off-curve", "hybrid", "compressed", "past-p", "longer", "x25519"],
)
def test_points_that_are_not_on_the_curve_or_otherwise_written_are_refused(broken_rule, public):
    with broken_rule("weak-key"):
        keys.check_exchange_key(public, FIPS)
    with broken_rule("weak-key"):
        keys.exchange(Seed(bytes(32)), (public,), FIPS)


def test_a_seed_of_no_profile_makes_no_key(broken_rule):
    for size in (0, 31, 33, 47, 49, 64):
        with broken_rule("weak-key"):
            secagg.SigningKey(Seed(bytes(size)))


@BOTH
def test_a_round_with_a_dropout_ends_in_the_exact_sum(worlds, profile):
    world = worlds.build(5).set_up()
    assert world.setup.profile is profile
    inputs = world.inputs(300)
    result = world.run(world.call(), inputs, no_upload=[4])
    assert result.survivors == (1, 2, 3, 5)
    assert np.array_equal(result.total, sum(inputs[site] for site in result.survivors))
    assert secagg.ReadySetup.decode(world.ready.encode()).setup.context == world.setup.context


def test_the_profiles_of_one_consortium_share_no_context(roster_of):
    setups = [
        secagg.Setup(roster=r, cohort=secagg.choose_cohort(r, site_bound=9), run=bytes(32), batch=0)
        for r in (roster_of(5, profile=one) for one in (DEFAULT, FIPS))
    ]
    assert setups[0].context != setups[1].context
    assert [setup.profile.name for setup in setups] == ["default", "fips"]


@pytest.fixture
def two(worlds):
    base = worlds.__mro__[1]
    return {one.name: base.build(5, profile=one) for one in PROFILES.values()}


EACH_WAY = pytest.mark.parametrize(("own", "other"), [("fips", "default"), ("default", "fips")])


@EACH_WAY
def test_adverts_and_envelopes_of_the_other_profile_are_refused_by_name(two, own, other, broken_rule):
    mine, theirs = two[own], two[other].set_up()
    adverts = theirs.ready.transcript.adverts
    collector = secagg.SetupCollector(mine.setup)
    with broken_rule("wrong-profile"):
        collector.add_advert(adverts[0].encode())
    for site in mine.members:
        collector.add_advert(mine.advertise(site))
    for profile in (PROFILES[own], PROFILES[other]):  # the message itself, or what is in it
        shown = AdvertSet(context=mine.setup.context, adverts=adverts, profile=profile)
        with broken_rule("wrong-profile"):
            mine.share(1, shown.encode())
    mine.share(1, collector.close_adverts())
    delivery = Envelopes(
        context=mine.setup.context,
        delivered=True,
        site=1,
        transcript=mine.state(1).transcript,
        sealed=(),
        profile=PROFILES[other],
    )
    with broken_rule("wrong-profile"):
        mine.accept(1, delivery.encode())


@EACH_WAY
def test_headers_and_survivors_of_the_other_profile_are_refused_by_name(two, own, other, broken_rule):
    mine, theirs = two[own].set_up(), two[other].set_up()
    inputs = theirs.inputs(3)
    masked = {site: theirs.mask(site, theirs.call(), inputs[site]) for site in theirs.members}
    with broken_rule("wrong-profile"):
        mine.collector(mine.call(), 3).add_input(masked[1].header, masked[1].payload)
    headers = tuple(Header.decode(one.header) for one in masked.values())
    mine.mask(1, mine.call(), inputs[1])
    with broken_rule("wrong-profile"):
        shown = SurvivorList(context=mine.setup.context, slot=0, headers=headers, profile=PROFILES[other])
        mine.answer_survivors(1, shown.encode())


@pytest.mark.parametrize(("own", "other"), [(FIPS, DEFAULT), (DEFAULT, FIPS)], ids=["fips", "default"])
def test_a_roster_of_the_other_profile_is_refused_by_name(roster_of, key_of, own, other, broken_rule):
    mine, theirs = key_of(b"consortium", profile=own), key_of(b"consortium", profile=other)
    signed = secagg.sign_roster(roster_of(5, profile=other), theirs)
    with broken_rule("wrong-profile"):
        secagg.open_roster(signed, consortium_key=mine.public)
    with broken_rule("wrong-profile"):
        secagg.sign_roster(roster_of(5, profile=other), mine)
    roster = roster_of(5, profile=own)
    mixed = (*roster.sites[:4], replace(roster.sites[4], verification_key=key_of(5, profile=other).public))
    with broken_rule("wrong-profile"):
        replace(roster, sites=mixed)
    renamed = secagg.sign_roster(roster, mine)
    with broken_rule("wrong-profile"):  # the version byte alone
        secagg.open_roster(renamed[:3] + bytes((other.version,)) + renamed[4:], consortium_key=mine.public)


def test_a_signature_of_the_other_profile_is_refused_by_name(key_of, broken_rule):
    for own, other in ((FIPS, DEFAULT), (DEFAULT, FIPS)):
        mine, theirs = key_of(1, profile=own), key_of(1, profile=other)
        with broken_rule("wrong-profile"):
            keys.check_signature(mine.public, "vote", b"x", theirs.sign("vote", b"x"), rule="forged-vote", who="site 1")
        with broken_rule("wrong-profile"):
            keys.check_exact(mine.public, b"x", theirs.sign_exact(b"x"), rule="statement", who="site 1")


def test_masks_of_fips_come_from_counter_mode_by_name(monkeypatch, worlds):
    world = worlds.__mro__[1].build(4, profile=FIPS).set_up()
    assert prg.engine_of(FIPS) is prg.CTR

    def refuse(key: bytes) -> prg.Fill:
        raise AssertionError("GCM made a mask")

    monkeypatch.setattr(prg, "DEFAULT_ENGINE", prg.MaskEngine(name="none", open=refuse))
    inputs = world.inputs(10)
    assert np.array_equal(world.run(world.call(), inputs).total, sum(inputs.values()))


def test_an_advert_is_sent_again_byte_for_byte_where_signatures_are_random(monkeypatch, worlds, key_of):
    from fedsci.secagg import profile_fips

    monkeypatch.setattr(profile_fips, "_ecdsa", lambda: ec.ECDSA(SHA384()))
    world = worlds.__mro__[1].build(4, profile=FIPS)
    key = key_of(1, profile=FIPS)
    assert key.sign("x", b"y") != key.sign("x", b"y")
    advert = world.advertise(1)
    assert secagg.advertise_again(world.state(1), signing_key=key) == advert
