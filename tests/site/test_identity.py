"""A site joins, renews and is shut out over real TLS on the loopback; and what meets those who pretend."""

import contextlib
import datetime
import functools
import hashlib
import http.client
import ssl
import stat
import threading
from dataclasses import dataclass, field, replace

import pytest
from cryptography.hazmat.primitives import serialization

from fedsci import secagg
from fedsci.coordinator.authority import utc_now
from fedsci.coordinator.enrolment import Enrolment
from fedsci.coordinator.enrolment_service import serve_enrolment
from fedsci.errors import ConnectionFailed, EnrolmentRefused, InputError, PolicyRefused, ProtocolError
from fedsci.identity.address import Address
from fedsci.identity.certificates import chain_pem, fingerprint, read_key
from fedsci.identity.tls import ServerTls, client_context
from fedsci.secagg.keys import check_signature
from fedsci.site.identity import SiteIdentity
from fedsci.transport import enrolment_client
from fedsci.transport.enrolment_server import EnrolmentApp, EnrolmentServer

DAY = datetime.timedelta(days=1)


@dataclass
class Clock:
    now: datetime.datetime = field(default_factory=utc_now)

    def __call__(self):
        return self.now


@dataclass
class Consortium:
    """A coordinator on the loopback; ``heard`` is every request that reached its rules."""

    enrolment: Enrolment
    clock: Clock
    server: EnrolmentServer | None = None
    heard: list = field(default_factory=list)
    refusals: list = field(default_factory=list)

    @functools.cached_property
    def fleet(self):
        """What listens where studies run; here it gives out the root, too."""
        authority = self.enrolment.authority
        certificate, key = authority.server_pair
        tls = ServerTls.of(certificate=certificate, key=key, root=authority.root_path, revoked=authority.crl_path)
        return EnrolmentServer(self.server.app, tls, host="127.0.0.1").start()

    def token(self, name="lab-1", **changes):
        token = self.enrolment.invite(name, who="test")
        return replace(token, address=Address("127.0.0.1", self.server.port), **changes)

    def dial(self, context, host="127.0.0.1"):
        """Connect where studies run; return the answer, or raise what the refusal looks like."""
        return dial(self.fleet.port, context, host)

    def admits(self, context, host="127.0.0.1"):
        try:
            return self.dial(context, host) == 200
        except (ssl.SSLError, ConnectionError):
            return False


def dial(port, context, host):
    with contextlib.closing(http.client.HTTPSConnection(host, port, context=context, timeout=10)) as connection:
        connection.request("GET", "/root")
        return connection.getresponse().status


@pytest.fixture(scope="module")
def stopping():
    """Servers that were told to stop; waited for together, since each takes a moment."""
    servers = []
    yield servers
    for server in servers:
        server.stop()


@pytest.fixture
def start(tmp_path, stopping):
    """Start a consortium with honest rules."""
    begun = []

    def begin(name="consortium", *, clock=None, addresses=("127.0.0.1",), host="127.0.0.1"):
        clock = clock or Clock()
        hosts = [Address(one, 9443) for one in addresses]
        found = Consortium(Enrolment.create(tmp_path / name, addresses=hosts, clock=clock), clock)
        found.server = serve_enrolment(
            found.enrolment, host=host, port=0, note=lambda code, message: found.refusals.append(code)
        ).start()
        begun.append(found)
        app = found.server.app
        app._enrol, app._renew = spy(found, app._enrol), spy(found, app._renew)
        return found

    yield begin
    for server in [one.server for one in begun] + [one.fleet for one in begun if "fleet" in vars(one)]:
        server._server.should_exit = True
        stopping.append(server)


def spy(found, call):
    def seen(request):
        found.heard.append(request)
        return call(request)

    return seen


@pytest.fixture
def consortium(start):
    return start()


@pytest.fixture
def site(tmp_path):
    """Make a site's keys and return the site."""

    def make(name="lab-1"):
        found = SiteIdentity(name, tmp_path / name)
        found.create()
        return found

    return make


def refused(rule):
    return pytest.raises(EnrolmentRefused, check=lambda error: error.rule == rule and error.exit_code == 7)


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_init_makes_keys_that_only_their_owner_may_read(site):
    lab = site()
    files = files_of(lab.state)
    names = {str(path.relative_to(lab.state)) for path in files}
    assert {"identity.key", "tls/site.key"} <= names
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (lab.state, lab.state / "tls")} == {0o700}


def test_init_keeps_keys_that_are_there(site):
    before = files_of(site().state)
    assert files_of(site().state) == before


def test_two_sites_do_not_share_a_folder(site):
    with pytest.raises(InputError, match="is the state folder of lab-1, not of lab-2"):
        SiteIdentity("lab-2", site("lab-1").state).create()


def test_a_site_that_joined_gets_in(consortium, site):
    lab = site()
    facts = lab.join(consortium.token())
    assert facts.enrolled
    assert (facts.index, facts.roster) == (1, None)
    assert facts.root == fingerprint(consortium.enrolment.authority.root).hex()
    assert facts.consortium_key == consortium.enrolment.consortium_key.hex()
    assert consortium.dial(lab.tls_context()) == 200
    assert consortium.dial(lab.tls_context(), "localhost") == 200
    listed = consortium.enrolment.sites()[0]
    assert listed.verification_key.hex() == facts.verification_key
    assert {stat.S_IMODE(path.stat().st_mode) for path in files_of(lab.state)} == {0o600}


def test_private_keys_never_leave_the_site(consortium, site):
    lab = site()
    lab.join(consortium.token())
    lab.renew()
    sent = b"".join(request.encode() for request in consortium.heard)
    kept = b"".join(files_of(consortium.enrolment.folder).values())
    seed = (lab.state / "identity.key").read_bytes()
    secrets = [seed, seed.hex().encode()]
    key = read_key(lab.state / "tls" / "site.key")
    scalar = key.private_numbers().private_value.to_bytes(32, "big")
    pkcs8 = (serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    secrets += [scalar, scalar.hex().encode(), key.private_bytes(*pkcs8)]
    assert len(consortium.heard) == 2
    for request in consortium.heard:
        raw = b"".join(value for value in request.model_dump().values() if isinstance(value, bytes))
        assert not any(secret in raw for secret in secrets)
    assert b"PRIVATE" not in sent
    assert not any(secret in sent or secret in kept for secret in secrets)


def test_the_third_site_gets_a_roster_and_the_first_gets_it_when_it_renews(consortium, site):
    labs = [site(f"lab-{number}") for number in range(1, 4)]
    facts = [lab.join(consortium.token(lab.site)) for lab in labs]
    assert [fact.roster for fact in facts] == [None, None, 3]
    labs[0].renew()
    assert labs[0].describe().roster == 3
    assert labs[0].roster() == labs[2].roster()


def test_a_token_used_before_is_refused(consortium, site):
    token = consortium.token()
    site().join(token)
    with refused("token-used"):
        site().join(token)
    assert consortium.refusals == ["token-used"]


def test_a_token_for_another_name_is_refused_before_it_is_sent(consortium, site):
    with pytest.raises(InputError, match="the token is for lab-2, and this site is lab-1"):
        site("lab-1").join(consortium.token("lab-2"))
    assert consortium.heard == []


def test_a_token_with_another_name_written_on_it_is_refused(consortium, site):
    with refused("token-of-another-site"):
        site("lab-1").join(replace(consortium.token("lab-2"), site="lab-1"))


def test_an_expired_token_is_refused(consortium, site):
    token = consortium.token()
    consortium.clock.now += 2 * DAY
    with refused("token-expired"):
        site().join(token)


def test_somebody_elses_authority_at_the_address_hears_nothing_secret(start, consortium, site):
    impostor = start("impostor")
    token = replace(consortium.token(), address=Address("127.0.0.1", impostor.server.port))
    lab = site()
    before = files_of(lab.state)
    with pytest.raises(ConnectionFailed, match="is not the coordinator that made this token"):
        lab.join(token)
    assert impostor.heard == impostor.refusals == []
    assert files_of(lab.state) == before


def test_an_impostor_that_shows_the_right_root_hears_nothing_secret(start, consortium, site):
    """The root is public; but only the coordinator has a certificate under it."""
    impostor = start("impostor")
    impostor.server.app._root = chain_pem(consortium.enrolment.authority.root)
    token = replace(consortium.token(), address=Address("127.0.0.1", impostor.server.port))
    with pytest.raises(ConnectionFailed, match="could not be authenticated"):
        site().join(token)
    assert impostor.heard == impostor.refusals == []


def test_another_members_certificate_does_not_make_it_the_coordinator(consortium, site):
    """A site that was let in, at the coordinator's address, with its own certificate as the server's."""
    mallory, lab = site("mallory"), site("lab-1")
    mallory.join(consortium.token("mallory"))
    heard = []
    app = EnrolmentApp(root=chain_pem(consortium.enrolment.authority.root), enrol=heard.append, renew=heard.append)
    tls = ServerTls.of(certificate=mallory.state / "tls/site.crt", key=mallory.state / "tls/site.key")
    with EnrolmentServer(app, tls, host="127.0.0.1") as server:
        token = replace(consortium.token("lab-1"), address=Address("127.0.0.1", server.port))
        with pytest.raises(ConnectionFailed, match="could not be authenticated"):
            lab.join(token)
    assert heard == []


def test_the_secret_is_sent_on_no_connection_but_the_authenticated_one(consortium, site, monkeypatch):
    """What the first, open connection carries is a path, and no body."""
    carried = []
    call = enrolment_client._call

    def listen(address, context, method, path, body):
        carried.append((context.verify_mode, context.check_hostname, method, path, bool(body)))
        return call(address, context, method, path, body)

    monkeypatch.setattr(enrolment_client, "_call", listen)
    site().join(consortium.token())
    assert carried == [
        (ssl.CERT_NONE, False, "GET", "/root", False),
        (ssl.CERT_REQUIRED, True, "POST", "/enrol", True),
    ]


def test_a_coordinator_at_an_address_it_has_no_certificate_for_is_refused(start, site):
    consortium = start(addresses=("fl.example.org",), host="0.0.0.0")  # noqa: S104
    token = consortium.token()
    consortium.enrolment.authority.renew_server([])
    site().join(token)
    with pytest.raises(ConnectionFailed, match="could not be authenticated"):
        enrolment_client.enrol(
            replace(token.address, host="127.0.0.2"), consortium.enrolment.authority.root, lambda: pytest.fail("sent")
        )


def test_nobody_at_the_address(site, consortium):
    token = consortium.token()
    consortium.server.stop()
    with pytest.raises(ConnectionFailed, match="no answer from"):
        site().join(token)


def test_a_site_belongs_to_one_consortium(start, consortium, site):
    lab, other = site(), start("other")
    lab.join(consortium.token())
    with pytest.raises(PolicyRefused, match="belongs to another consortium"):
        lab.join(other.token())
    assert other.heard == []


def test_a_site_moves_to_another_consortium_by_hand_alone(start, consortium, three):
    """What docs/enrolment.md says to delete is enough."""
    other, lab = start("other"), three[2]
    for name in ("consortium.pub", "roster", "roster.serial", "tls/site.crt"):
        (lab.state / name).unlink()
    assert lab.join(other.token("lab-3")).index == 1
    assert other.admits(lab.tls_context())
    assert not consortium.admits(lab.tls_context())


def signs_another_key(consortium, name):
    """Make the coordinator answer with a roster that names a key of its own for a site."""
    own = secagg.SigningKey(secagg.Seed(b"m" * 32))
    signer = secagg.SigningKey(secagg.Seed((consortium.enrolment.folder / "consortium.key").read_bytes()))
    app = consortium.server.app
    honest = app._enrol, app._renew

    def swap(call):
        def answer(request):
            given = call(request)
            members = tuple(
                secagg.RosterSite(
                    index=site.index,
                    name=site.name,
                    verification_key=own.public if site.name == name else site.verification_key,
                )
                for site in consortium.enrolment.sites()
            )
            roster = secagg.Roster(serial=99, sites=members, terms=secagg.default_terms(len(members)))
            return given.model_copy(update={"roster": secagg.sign_roster(roster, signer)})

        return answer

    app._enrol, app._renew = map(swap, honest)


def test_a_coordinator_that_swaps_the_sites_key_is_found_out(consortium, site):
    for number in range(1, 4):
        site(f"lab-{number}").join(consortium.token(f"lab-{number}"))
    signs_another_key(consortium, "lab-4")
    lab = site("lab-4")
    with refused("own-key"):
        lab.join(consortium.token("lab-4"))
    assert not lab.describe().enrolled
    assert not (lab.state / "consortium.pub").exists()


def test_a_swapped_key_is_found_out_at_renewal_too(consortium, site):
    for number in range(1, 4):
        site(f"lab-{number}").join(consortium.token(f"lab-{number}"))
    lab = site("lab-3")
    before = files_of(lab.state)
    signs_another_key(consortium, "lab-3")
    with refused("own-key"):
        lab.renew()
    assert files_of(lab.state) == before


@pytest.fixture
def three(consortium, site):
    labs = [site(f"lab-{number}") for number in range(1, 4)]
    for lab in labs:
        lab.join(consortium.token(lab.site))
    return labs


@pytest.mark.parametrize("rule", ["roster-signature", "old-roster", "unknown-site", "own-key"])
def test_a_roster_is_accepted_only_if_it_is_the_consortiums_newer_and_names_this_site(three, consortium, rule):
    lab, held = three[2], three[2].roster()
    signer = secagg.SigningKey(secagg.Seed((consortium.enrolment.folder / "consortium.key").read_bytes()))
    stranger = secagg.SigningKey(secagg.Seed(b"m" * 32))
    members = {
        "unknown-site": (*held.sites[:2], replace(held.sites[2], name="lab-9")),
        "own-key": (*held.sites[:2], replace(held.sites[2], verification_key=stranger.public)),
    }.get(rule, held.sites)
    roster = replace(held, serial=held.serial - 1 if rule == "old-roster" else 9, sites=members)
    with pytest.raises(ProtocolError, check=lambda error: error.rule == rule):
        lab.accept_roster(secagg.sign_roster(roster, stranger if rule == "roster-signature" else signer))
    assert lab.roster() == held
    newer = replace(held, serial=9)
    assert lab.accept_roster(secagg.sign_roster(newer, signer)) == newer == lab.roster()


def test_a_revoked_site_is_refused_at_its_next_connection(three, consortium):
    contexts = [lab.tls_context() for lab in three]
    assert all(consortium.admits(context) for context in contexts)
    consortium.enrolment.revoke("lab-2", who="test")
    assert [consortium.admits(context) for context in contexts] == [True, False, True]
    assert not consortium.admits(three[1].tls_context(), "localhost")
    with refused("revoked"):
        three[1].renew()
    consortium.enrolment.revoke("lab-3", who="test")
    assert [consortium.admits(context) for context in contexts] == [True, False, False]


def test_a_revoked_sites_session_is_not_resumed(three, consortium):
    """A resumed session would not be checked against the list."""
    context = three[0].tls_context()
    with contextlib.closing(http.client.HTTPSConnection("127.0.0.1", consortium.fleet.port, context=context)) as first:
        first.request("GET", "/root")
        first.getresponse().read()
        session = first.sock.session if first.sock is not None else None
    assert session is None or not session.has_ticket


def test_strangers_do_not_get_in(consortium, start, site, tmp_path):
    root = chain_pem(consortium.enrolment.authority.root)
    assert not consortium.admits(client_context(root)), "no certificate"
    other, lab = start("other"), site("lab-7")
    lab.join(other.token("lab-7"))
    foreign = client_context(root, certificate=lab.state / "tls/site.crt", key=lab.state / "tls/site.key")
    assert not consortium.admits(foreign), "another authority's certificate"
    certificate, key = consortium.enrolment.authority.server_pair
    assert not consortium.admits(client_context(root, certificate=certificate, key=key)), "the server's own"


def test_a_stolen_certificate_without_its_key_is_useless(consortium, site, tmp_path):
    lab = site()
    lab.join(consortium.token())
    (tmp_path / "own.key").write_bytes((site("lab-2").state / "tls/site.key").read_bytes())
    with pytest.raises(ssl.SSLError):
        client_context(
            (lab.state / "tls/ca.crt").read_bytes(), certificate=lab.state / "tls/site.crt", key=tmp_path / "own.key"
        )


def test_a_site_does_not_talk_to_a_server_under_another_root(consortium, start, site):
    lab, other = site(), start("other")
    lab.join(consortium.token())
    with pytest.raises(ssl.SSLCertVerificationError):
        other.dial(lab.tls_context())


def test_an_expired_certificate_does_not_get_in(start, site, monkeypatch):
    clock = Clock(utc_now() - 100 * DAY)
    consortium, lab = start(clock=clock), site()
    answer = consortium.enrolment.enrol(lab._request(consortium.token()))
    (lab.state / "tls/site.crt").write_text(answer.certificate)
    root = chain_pem(consortium.enrolment.authority.root)
    context = client_context(root, certificate=lab.state / "tls/site.crt", key=lab.state / "tls/site.key")
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        consortium.dial(context)  # the server's, too, and the site says so
    clock.now = utc_now()
    consortium.enrolment.maintain()
    consortium.admits(context)  # this handshake reads the server's new certificate, the next one uses it
    with pytest.raises((ssl.SSLError, ConnectionError)) as refusal:
        consortium.dial(context)
    assert "expired" in str(refusal.value).lower() or isinstance(refusal.value, ConnectionError)
    lab.join(consortium.token())
    assert consortium.admits(lab.tls_context())


def test_an_expired_server_certificate_speaks_of_clocks(start, site):
    consortium = start(clock=Clock(utc_now() - 100 * DAY))
    with pytest.raises(ConnectionFailed, match=r"ran out, if it is .* UTC now") as error:
        enrolment_client.enrol(
            Address("127.0.0.1", consortium.server.port),
            consortium.enrolment.authority.root,
            lambda: pytest.fail("sent"),
        )
    assert "clock" in error.value.hint


def test_a_certificate_from_the_future_speaks_of_clocks(start, site):
    consortium = start(clock=Clock(utc_now() + DAY))
    with pytest.raises(ConnectionFailed, match="is not valid yet, if it is") as error:
        enrolment_client.enrol(
            Address("127.0.0.1", consortium.server.port),
            consortium.enrolment.authority.root,
            lambda: pytest.fail("sent"),
        )
    assert "clock" in error.value.hint


@pytest.mark.parametrize(("ahead", "way"), [(7200.0, "120 minutes ahead of"), (-7200.0, "120 minutes behind")])
def test_a_clock_that_is_off_is_said_before_a_token_is_spent(consortium, site, monkeypatch, ahead, way):
    token, lab = consortium.token(), site()
    with monkeypatch.context() as patch:
        patch.setattr(enrolment_client, "_seconds_ahead", lambda date: ahead)
        with pytest.raises(ConnectionFailed, check=lambda error: way in error.hint):
            lab.join(token)
    assert consortium.heard == []
    lab.join(token)


def test_half_an_hours_difference_is_tolerated(start, site):
    for name, minutes in (("early", -30), ("late", 30)):
        consortium = start(name, clock=Clock(utc_now() + datetime.timedelta(minutes=minutes)))
        lab = site(name)
        lab.join(consortium.token(name))
        assert consortium.admits(lab.tls_context())


def test_a_certificate_is_renewed_when_a_third_of_its_life_is_left(consortium, site):
    lab = site()
    lab.join(consortium.token())
    first, identity = lab.describe(), lab._keystore.signing_key()
    signature = identity.sign("statement", b"what was released")
    key = (lab.state / "tls/site.key").read_bytes()
    assert not lab.renew_if_due()
    assert not lab.renew_if_due(utc_now() + 59 * DAY)
    assert lab.renew_if_due(utc_now() + 61 * DAY)
    second = lab.describe()
    assert second.certificate != first.certificate
    assert (lab.state / "tls/site.key").read_bytes() == key, "Flower knows the site by it"
    assert consortium.admits(lab.tls_context())
    assert second.verification_key == first.verification_key
    known = consortium.enrolment.sites()[0].verification_key
    check_signature(known, "statement", b"what was released", signature, rule="signature", who="lab-1")


def test_a_renewal_that_fails_leaves_the_old_certificate(consortium, site):
    lab = site()
    lab.join(consortium.token())
    before = files_of(lab.state)
    consortium.server.stop()
    with pytest.raises(ConnectionFailed):
        lab.renew_if_due(utc_now() + 80 * DAY)
    assert files_of(lab.state) == before


def test_a_lost_renewal_is_done_again(consortium, site, monkeypatch):
    """The coordinator issued, and the site died before it stored the certificate."""
    lab = site()
    lab.join(consortium.token())
    with monkeypatch.context() as patch:
        patch.setattr(SiteIdentity, "_keep", lambda *_, **__: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            lab.renew()
    lab.renew()
    assert consortium.admits(lab.tls_context())


def test_a_site_that_is_not_enrolled_says_what_to_do(site):
    lab = site()
    for call in (lab.tls_context, lab.renew_if_due, lab.renew):
        with pytest.raises(InputError, check=lambda error: "site join" in error.hint):
            call()


def test_after_a_theft_new_keys_come_with_a_new_number(consortium, site):
    lab = site()
    first = lab.join(consortium.token())
    consortium.enrolment.revoke("lab-1", who="test")
    with refused("keys-used"):
        lab.join(consortium.token())
    key = (lab.state / "tls/site.key").read_bytes()
    lab.create(new_keys=True)
    second = lab.join(consortium.token())
    assert second.verification_key != first.verification_key
    assert (lab.state / "tls/site.key").read_bytes() != key
    assert second.index == 2
    assert consortium.admits(lab.tls_context())


def test_the_servers_new_certificate_is_used_without_a_restart(consortium, site):
    lab = site()
    lab.join(consortium.token())
    consortium.enrolment.authority.renew_server(["127.0.0.1"])
    expected = fingerprint(consortium.enrolment.authority.server_certificate())
    assert consortium.admits(lab.tls_context())
    with contextlib.closing(
        http.client.HTTPSConnection("127.0.0.1", consortium.fleet.port, context=lab.tls_context())
    ) as connection:
        connection.connect()
        shown = connection.sock.getpeercert(binary_form=True)
    assert hashlib.sha256(shown).digest() == expected


def test_a_revocation_list_that_is_damaged_lets_nobody_in(consortium, site):
    lab = site()
    lab.join(consortium.token())
    assert consortium.admits(lab.tls_context())
    good = consortium.enrolment.authority.crl_path.read_bytes()
    consortium.enrolment.authority.crl_path.write_bytes(b"nonsense")
    assert not consortium.admits(lab.tls_context())
    consortium.enrolment.authority.crl_path.write_bytes(good)
    assert consortium.admits(lab.tls_context())


def test_sites_may_join_at_the_same_time(consortium, site):
    labs = [site(f"lab-{number}") for number in range(1, 7)]
    tokens = [consortium.token(lab.site) for lab in labs]
    threads = [threading.Thread(target=lab.join, args=(token,)) for lab, token in zip(labs, tokens, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    roster = secagg.open_roster(consortium.enrolment.roster(), consortium_key=consortium.enrolment.consortium_key)
    assert {member.name: member.verification_key.hex() for member in roster.sites} == {
        lab.site: lab.describe().verification_key for lab in labs
    }
    assert all(consortium.admits(lab.tls_context()) for lab in labs)
