"""A site learns its consortium's crypto profile as it joins, keeps it for life, and never goes back to a laxer one."""

import contextlib
from dataclasses import replace

import pytest

from fedsci.coordinator.enrolment import Enrolment
from fedsci.coordinator.enrolment_service import serve_enrolment
from fedsci.errors import BudgetRefused, EnrolmentRefused, InputError, PolicyRefused, ProtocolError, VerificationFailed
from fedsci.identity.address import Address
from fedsci.identity.messages import EnrolRequest
from fedsci.identity.token import Token
from fedsci.secagg import Seed, SigningKey
from fedsci.secagg.profiles import DEFAULT, FIPS, PROFILES
from fedsci.site.identity import SiteIdentity
from fedsci.site.keystore import Keystore
from fedsci.site.ledger import Ledger
from fedsci.site.officer import officer_key


@contextlib.contextmanager
def refused_as(rule):
    with pytest.raises((ProtocolError, EnrolmentRefused)) as caught:
        yield
    assert caught.value.rule == rule


@pytest.fixture(scope="module")
def consortia(tmp_path_factory):
    """One of each profile, served; ``invite(profile, name)`` gives a token."""
    made, servers = {}, []
    for name, profile in PROFILES.items():
        folder = tmp_path_factory.mktemp(name) / "consortium"
        made[name] = Enrolment.create(folder, addresses=[Address("127.0.0.1", 9443)], profile=profile)
        servers.append(serve_enrolment(made[name], host="127.0.0.1", port=0).start())
    ports = dict(zip(made, [server.port for server in servers], strict=True))

    def invite(profile, name):
        return replace(made[profile].invite(name, who="test"), address=Address("127.0.0.1", ports[profile]))

    yield made, invite
    for server in servers:
        server.stop()


@pytest.fixture
def lab(tmp_path, request):
    name = f"lab-{abs(hash(request.node.name)) % 10**8}"
    return SiteIdentity(name, tmp_path / name)


def test_three_labs_join_in_fips_and_accept_a_roster_of_p384(consortia, tmp_path):
    made, invite = consortia
    for number in range(1, 4):
        lab = SiteIdentity(f"fips-{number}", tmp_path / str(number))
        before = lab.create()
        assert before.crypto_profile == "default"
        facts = lab.join(Token.decode(invite("fips", lab.site).encode()))
        assert facts.crypto_profile == "fips"
        assert len(facts.verification_key) == 2 * 97
        assert len(facts.consortium_key) == 2 * 97
    assert lab.roster().profile is FIPS
    assert made["fips"].profile is FIPS
    lab.renew()
    assert lab.tls_context().sslobject_class is not None
    made["fips"].new_root(who="test")
    assert b"fips" in made["fips"].authority.root.subject.rfc4514_string().encode()


def test_a_site_made_for_fips_joins_no_other(consortia, lab):
    _, invite = consortia
    lab.create(profile=FIPS)
    with refused_as("wrong-profile"):
        lab.join(invite("default", lab.site))
    assert lab.describe().crypto_profile == "fips"


def test_a_member_of_the_default_stays_one(consortia, lab):
    _, invite = consortia
    lab.create()
    key = lab.join(invite("default", lab.site)).verification_key
    with refused_as("wrong-profile"):
        lab.create(new_keys=True, profile=FIPS)
    with pytest.raises(PolicyRefused, match="another consortium"):
        lab.join(invite("fips", lab.site))
    assert lab.describe().crypto_profile == "default"
    assert lab.describe().verification_key == key  # nothing was thrown away


def test_an_identity_of_another_profile_than_the_pinned_one_signs_nothing(tmp_path):
    keystore = Keystore(tmp_path)
    keystore.signing_key()
    keystore.pin_consortium(SigningKey(Seed(bytes(48))).public)
    with refused_as("wrong-profile"):
        keystore.signing_key()


def test_the_service_takes_no_key_of_another_profile(consortia):
    made, _ = consortia
    for name, size in (("default", 48), ("fips", 32)):
        key = SigningKey(Seed(bytes(size)))
        request = EnrolRequest(site="lab-x", secret=bytes(32), csr=b"", verification_key=key.public).signed(key)
        with refused_as("wrong-profile"):
            made[name].enrol(request)


def test_a_root_that_names_another_profile_than_the_token_is_refused(consortia, lab):
    made, invite = consortia
    lab.create()
    mixed = replace(invite("default", lab.site), consortium_key=made["fips"].consortium_key)
    with refused_as("wrong-profile"):
        lab.join(mixed)
    assert lab.describe().crypto_profile == "default"


def test_a_token_with_a_key_of_no_profile_is_no_token(consortia):
    _, invite = consortia
    with pytest.raises(InputError, match="not a whole join token"):
        Token.decode(replace(invite("fips", "lab-y"), consortium_key=bytes(33)).encode())


def test_the_officers_key_is_of_the_sites_profile(tmp_path):
    strict, _ = officer_key(tmp_path / "fips.key", FIPS)
    usual, _ = officer_key(tmp_path / "default.key")
    assert (strict.profile, usual.profile) == (FIPS, DEFAULT)
    for path, profile in ((tmp_path / "fips.key", DEFAULT), (tmp_path / "default.key", FIPS)):
        with refused_as("wrong-profile"):
            officer_key(path, profile)


def test_a_ledger_in_fips_changes_by_a_signature_of_p384_and_no_other(tmp_path):
    state = tmp_path / "lab-1"
    key, other = SigningKey(Seed(bytes(48))), SigningKey(Seed(bytes(32)))
    ledger = Ledger(state, profile=FIPS)
    ledger.register("heart", epsilon=8.0, delta=1e-5, unit="record")
    with refused_as("wrong-profile"):
        ledger.change_budget("heart", epsilon=9.0, delta=None, reason="vote", key=other)
    ledger.change_budget("heart", epsilon=10.0, delta=None, reason="vote", key=key)
    assert Ledger(state, profile=FIPS).inspect().problem is None
    found = Ledger(state).inspect().problem  # read as if the site were of the default
    assert isinstance(found, VerificationFailed)
    assert "key: it is not of the crypto profile default" in found.message
    with pytest.raises(BudgetRefused, match="not of the crypto profile default"):
        Ledger(state).entries()
