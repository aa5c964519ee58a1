"""Who gets a certificate and who does not, and what a crash or a thief finds; no network."""

import datetime
import sqlite3
import stat
import threading
from contextlib import closing
from dataclasses import dataclass, field, replace

import pytest
from cryptography import x509
from cryptography.x509 import verification

from fedsci import secagg
from fedsci.config.masking import setup_for
from fedsci.coordinator.authority import utc_now
from fedsci.coordinator.enrolment import Enrolment
from fedsci.errors import EnrolmentRefused, InputError
from fedsci.identity.address import Address
from fedsci.identity.certificates import (
    check_site_chain,
    fingerprint,
    is_due,
    new_key,
    parse_chain,
    public_der,
    signing_request,
    site_of,
)
from fedsci.identity.messages import EnrolRequest, RenewRequest

ADDRESS = Address("127.0.0.1", 9443)
DAY = datetime.timedelta(days=1)
HORSE = "correct horse"


@dataclass
class Clock:
    """A clock that tests set."""

    now: datetime.datetime = field(default_factory=utc_now)

    def __call__(self):
        return self.now


@dataclass
class Lab:
    """A site's keys, and what it would send."""

    name: str
    identity: secagg.SigningKey
    tls: object = field(default_factory=new_key)

    def ask(self, token, **changes):
        request = EnrolRequest(
            site=self.name,
            secret=token.secret.reveal(),
            csr=signing_request(self.name, self.tls),
            verification_key=self.identity.public,
        )
        return request.model_copy(update=changes).signed(self.identity)

    def ask_again(self, answer, now, **changes):
        request = RenewRequest(
            site=self.name,
            serial=f"{leaf_of(answer).serial_number:x}",
            time=int(now.timestamp()),
            csr=signing_request(self.name, self.tls),
        )
        return request.model_copy(update=changes).signed(self.tls, self.identity)


def make_lab(name):
    seed = secagg.Seed(name.encode().ljust(32, b"-"))
    return Lab(name=name, identity=secagg.SigningKey(seed))


def leaf_of(answer):
    return parse_chain(answer.certificate.encode(), where="the answer")[0]


def refused(rule):
    return pytest.raises(EnrolmentRefused, check=lambda error: error.rule == rule)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "consortium"


@pytest.fixture
def enrolment(folder, clock):
    return Enrolment.create(folder, addresses=[ADDRESS], clock=clock)


@pytest.fixture
def enrolled(enrolment):
    """Enrol a lab and return it with the answer it got."""

    def enrol(name, lab=None):
        lab = lab or make_lab(name)
        return lab, enrolment.enrol(lab.ask(enrolment.invite(lab.name, who="test")))

    return enrol


def test_an_enrolled_site_has_a_certificate_that_checks_out(enrolment, enrolled, clock):
    lab, answer = enrolled("lab-1")
    chain = parse_chain(answer.certificate.encode(), where="the answer")
    check_site_chain(chain, root=enrolment.authority.root, site="lab-1", key=lab.tls.public_key(), now=clock.now)
    assert site_of(chain[0]) == "lab-1"
    assert (answer.index, answer.fleet_address) == (1, "127.0.0.1:9444")
    assert enrolment.site_with_certificate(chain[0].serial_number) == "lab-1"
    assert chain[0].not_valid_after_utc - clock.now == 90 * DAY


def test_a_certificate_under_another_root_is_refused(enrolled, clock, tmp_path):
    other = Enrolment.create(tmp_path / "other", addresses=[ADDRESS], clock=clock)
    lab, answer = enrolled("lab-1")
    chain = parse_chain(answer.certificate.encode(), where="the answer")
    with refused("certificate"):
        check_site_chain(chain, root=other.authority.root, site="lab-1", key=lab.tls.public_key(), now=clock.now)


@pytest.mark.parametrize("wrong", ["name", "key", "time", "no chain"])
def test_a_certificate_that_is_not_the_sites_is_refused(enrolment, enrolled, clock, wrong):
    lab, answer = enrolled("lab-1")
    chain = parse_chain(answer.certificate.encode(), where="the answer")
    key = new_key().public_key() if wrong == "key" else lab.tls.public_key()
    now = clock.now + 91 * DAY if wrong == "time" else clock.now
    site = "lab-2" if wrong == "name" else "lab-1"
    with refused("certificate"):
        check_site_chain(
            chain[:1] if wrong == "no chain" else chain, root=enrolment.authority.root, site=site, key=key, now=now
        )


def test_the_servers_certificate_is_no_sites(enrolment, clock):
    chain = parse_chain(enrolment.authority.server_pair[0].read_bytes(), where="server.crt")
    with refused("certificate"):
        check_site_chain(chain, root=enrolment.authority.root, site="lab-1", key=chain[0].public_key(), now=clock.now)


def test_everything_in_the_folder_is_for_its_owner_only(enrolment, enrolled, folder):
    for number in range(1, 4):
        enrolled(f"lab-{number}")
    enrolment.revoke("lab-1", who="test")
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_tokens_secret_is_not_stored(enrolment, folder):
    token = enrolment.invite("lab-1", who="test")
    secret = token.secret.reveal()
    for path in folder.iterdir():
        content = path.read_bytes()
        assert secret not in content
        assert secret.hex().encode() not in content


def test_a_token_enrols_once(enrolment):
    token, lab = enrolment.invite("lab-1", who="test"), make_lab("lab-1")
    enrolment.enrol(lab.ask(token))
    with refused("token-used"):
        enrolment.enrol(lab.ask(token))


def test_of_two_at_once_with_one_token_one_is_refused(enrolment):
    token, lab, start = enrolment.invite("lab-1", who="test"), make_lab("lab-1"), threading.Barrier(4)
    outcomes = []

    def enrol():
        request = lab.ask(token)
        start.wait()
        try:
            enrolment.enrol(request)
            outcomes.append("enrolled")
        except EnrolmentRefused as error:
            outcomes.append(error.rule)

    threads = [threading.Thread(target=enrol) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["enrolled", "token-used", "token-used", "token-used"]


def test_a_token_expires_by_the_coordinators_clock(enrolment, clock):
    token = enrolment.invite("lab-1", who="test", hours=2)
    clock.now += datetime.timedelta(hours=2)
    with refused("token-expired"):
        enrolment.enrol(make_lab("lab-1").ask(token))


def test_a_forged_expiry_changes_nothing(enrolment, clock):
    token = enrolment.invite("lab-1", who="test")
    clock.now += 2 * DAY
    with refused("token-expired"):
        enrolment.enrol(make_lab("lab-1").ask(replace(token, expires=token.expires + 10**6)))


def test_a_token_is_for_one_name(enrolment):
    token = enrolment.invite("lab-1", who="test")
    with refused("token-of-another-site"):
        enrolment.enrol(make_lab("lab-2").ask(token))


def test_a_made_up_token_is_unknown(enrolment):
    token = enrolment.invite("lab-1", who="test")
    with refused("token-unknown"):
        enrolment.enrol(make_lab("lab-1").ask(token, secret=bytes(32)))


def test_a_new_token_voids_the_last(enrolment):
    first = enrolment.invite("lab-1", who="test")
    second = enrolment.invite("lab-1", who="test")
    with refused("token-void"):
        enrolment.enrol(make_lab("lab-1").ask(first))
    enrolment.enrol(make_lab("lab-1").ask(second))


@pytest.mark.parametrize("hours", [0, -1, 721, float("nan")])
def test_a_token_lives_for_a_sensible_time(enrolment, hours):
    with pytest.raises(InputError, match="cannot be good"):
        enrolment.invite("lab-1", who="test", hours=hours)


def test_a_request_that_somebody_changed_is_refused_and_spends_no_token(enrolment):
    token, lab, stranger = enrolment.invite("lab-1", who="test"), make_lab("lab-1"), make_lab("mallory")
    good = lab.ask(token)
    with refused("signature"):
        enrolment.enrol(good.model_copy(update={"verification_key": stranger.identity.public}))
    with refused("signature"):
        enrolment.enrol(good.model_copy(update={"csr": signing_request("lab-1", new_key())}))
    with refused("csr"):
        enrolment.enrol(lab.ask(token, csr=signing_request("lab-2", lab.tls)))
    with refused("request"):
        enrolment.enrol(lab.ask(token, site="../lab-1"))
    enrolment.enrol(good)


def test_an_enrolment_happens_whole_or_not_at_all(enrolment, enrolled, monkeypatch, folder):
    for name in ("lab-2", "lab-3"):
        enrolled(name)
    token, lab = enrolment.invite("lab-1", who="test"), make_lab("lab-1")
    before = enrolment.sites()

    def crash(*_, **__):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("fedsci.coordinator.enrolment_roster.sign_members", crash)
        with pytest.raises(OSError, match="disk full"):
            enrolment.enrol(lab.ask(token))
    assert enrolment.sites() == before
    assert not (folder / "roster").exists()
    assert enrolment.enrol(lab.ask(token)).roster is not None


def test_an_answer_that_was_lost_spends_the_token(enrolment):
    """The coordinator dies after the transaction: the site has nothing, and asks for another token."""
    token, lab = enrolment.invite("lab-1", who="test"), make_lab("lab-1")
    lost = enrolment.enrol(lab.ask(token))
    with refused("token-used"):
        enrolment.enrol(lab.ask(token))
    again = enrolment.enrol(lab.ask(enrolment.invite("lab-1", who="test")))
    assert again.index == lost.index


def test_a_site_enrols_again_under_its_own_verification_key_only(enrolment, enrolled):
    lab, first = enrolled("lab-1")
    _, second = enrolled("lab-1", lab)
    assert second.index == first.index
    assert crl_serials(enrolment) == set()
    with refused("keys-changed"):
        enrolled("lab-1", replace(lab, identity=make_lab("other").identity))


def test_certificates_over_a_tls_key_that_a_site_gave_up_are_revoked(enrolment, enrolled):
    lab, first = enrolled("lab-1")
    _, second = enrolled("lab-1", replace(lab, tls=new_key()))
    assert second.index == first.index
    assert crl_serials(enrolment) == {leaf_of(first).serial_number}


def test_no_key_serves_two_sites(enrolled):
    lab, _ = enrolled("lab-1")
    for same in ("identity", "tls"):
        with refused("keys-used"):
            enrolled("lab-2", replace(make_lab("lab-2"), **{same: getattr(lab, same)}))


def test_a_revoked_site_comes_back_with_new_keys_and_another_number(enrolment, enrolled):
    lab, first = enrolled("lab-1")
    enrolment.revoke("lab-1", who="test")
    with refused("keys-used"):
        enrolled("lab-1", lab)
    fresh = replace(lab, identity=make_lab("new").identity, tls=new_key())
    with refused("keys-used"):
        enrolled("lab-1", replace(fresh, tls=lab.tls))
    _, second = enrolled("lab-1", fresh)
    assert second.index == first.index + 1
    assert [(site.name, site.state) for site in enrolment.sites()] == [("lab-1", "revoked"), ("lab-1", "active")]


def crl_serials(enrolment):
    return {entry.serial_number for entry in enrolment.authority.crl()}


def test_revoking_lists_every_certificate_and_voids_tokens(enrolment, enrolled, clock):
    lab, first = enrolled("lab-1")
    renewal = lab.ask_again(first, clock.now)
    second = enrolment.renew(renewal)
    token = enrolment.invite("lab-1", who="test")
    enrolment.revoke("lab-1", who="test", reason="laptop stolen")
    serials = {leaf_of(first).serial_number, leaf_of(second).serial_number}
    assert crl_serials(enrolment) == serials
    assert {enrolment.site_with_certificate(serial) for serial in serials} == {None}
    with refused("token-void"):
        enrolment.enrol(make_lab("lab-1").ask(token))
    enrolment.revoke("lab-1", who="test")
    assert crl_serials(enrolment) == serials


def test_a_damaged_revocation_list_is_refused_by_its_file(enrolment, enrolled):
    enrolled("lab-1")
    path = enrolment.authority.crl_path
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=rf"{path.name} is damaged") as found:
        enrolment.revoke("lab-1", who="test")
    assert "backup" in found.value.hint


def test_every_revocation_list_is_later_than_the_last_one(enrolment, enrolled):
    """OpenSSL goes by the later of two lists, and knows seconds only."""
    seen = [enrolment.authority.crl()]
    for number in range(1, 4):
        enrolled(f"lab-{number}")
        enrolment.revoke(f"lab-{number}", who="test")
        seen.append(enrolment.authority.crl())
    times = [crl.last_update_utc for crl in seen]
    numbers = [crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for crl in seen]
    assert times == sorted(set(times))
    assert numbers == [1, 2, 3, 4]
    assert len(crl_serials(enrolment)) == 3


def test_a_revocation_that_cannot_be_published_is_not_recorded(enrolment, enrolled, monkeypatch):
    _, answer = enrolled("lab-1")

    def full(*_, **__):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("fedsci.coordinator.authority.replace_private", full)
        with pytest.raises(OSError, match="disk full"):
            enrolment.revoke("lab-1", who="test")
    assert enrolment.sites()[0].state == "active"
    enrolment.revoke("lab-1", who="test")
    assert crl_serials(enrolment) == {leaf_of(answer).serial_number}


def test_revoking_nobody_names_the_nearest(enrolment, enrolled):
    enrolled("lab-1")
    with pytest.raises(InputError, check=lambda error: error.hint == "did you mean lab-1?"):
        enrolment.revoke("lab1", who="test")


def test_a_renewal_leaves_the_site_as_it_was_but_for_its_certificate(enrolment, enrolled, clock):
    lab, first = enrolled("lab-1")
    clock.now += 61 * DAY
    request = lab.ask_again(first, clock.now)
    second = enrolment.renew(request)
    assert second.index == first.index
    assert leaf_of(second).public_key() == lab.tls.public_key()
    assert enrolment.sites()[0].until == leaf_of(second).not_valid_after_utc == clock.now + 90 * DAY
    assert enrolment.sites()[0].certificate.decode() == second.certificate
    with refused("replayed"):
        enrolment.renew(request)  # somebody on the way plays it again
    enrolment.renew(lab.ask_again(first, clock.now))  # the site, whose answer was lost


@pytest.mark.parametrize(
    ("rule", "changes"),
    [("unknown-site", {"serial": "abc"}), ("unknown-site", {"site": "lab-2"}), ("clock", {"time": 1_000_000_000})],
)
def test_a_renewal_with_a_wrong_field_is_refused(enrolment, enrolled, clock, rule, changes):
    enrolled("lab-2")
    lab, answer = enrolled("lab-1")
    request = lab.ask_again(answer, clock.now, **changes)
    with refused(rule):
        enrolment.renew(request)


def test_a_renewal_without_the_sites_keys_is_refused(enrolment, enrolled, clock):
    lab, answer = enrolled("lab-1")
    with refused("csr"):
        enrolment.renew(replace(lab, tls=new_key()).ask_again(answer, clock.now))
    with refused("signature"):
        enrolment.renew(replace(lab, identity=make_lab("mallory").identity).ask_again(answer, clock.now))


def test_a_revoked_or_expired_certificate_is_not_renewed(enrolment, enrolled, clock):
    lab, answer = enrolled("lab-1")
    other, revoked = enrolled("lab-2")
    enrolment.revoke("lab-2", who="test")
    request = other.ask_again(revoked, clock.now)
    with refused("revoked"):
        enrolment.renew(request)
    clock.now += 90 * DAY
    request = lab.ask_again(answer, clock.now)
    with refused("expired"):
        enrolment.renew(request)
    assert enrolment.site_with_certificate(leaf_of(answer).serial_number) is None


def opened(enrolment):
    signed = enrolment.roster()
    return None if signed is None else secagg.open_roster(signed, consortium_key=enrolment.consortium_key)


def test_the_roster_names_the_active_sites_and_its_serial_rises(enrolment, enrolled, folder):
    labs, serials = [], []
    for number in range(1, 6):
        lab, answer = enrolled(f"lab-{number}")
        labs.append(lab)
        assert (answer.roster is None) == (number < 3), "two sites have no sum to hide in"
        assert answer.roster == enrolment.roster()
        serials += [opened(enrolment).serial] if answer.roster else []
    roster = opened(enrolment)
    assert [site.verification_key for site in roster.sites] == [lab.identity.public for lab in labs]
    enrolment.revoke("lab-2", who="test")
    serials.append(opened(enrolment).serial)
    assert [site.name for site in opened(enrolment).sites] == ["lab-1", "lab-3", "lab-4", "lab-5"]
    assert serials == sorted(set(serials))
    assert (folder / "roster").read_bytes() == enrolment.roster()


def test_a_roster_that_names_a_revoked_site_is_not_given_out(enrolment, enrolled, folder):
    for number in range(1, 4):
        enrolled(f"lab-{number}")
    assert enrolment.roster_is_current()
    enrolment.revoke("lab-2", who="test")
    assert enrolment.roster() is None
    assert not enrolment.roster_is_current()
    assert not (folder / "roster").exists()


def test_old_rosters_are_kept_so_that_old_signatures_can_be_checked(enrolment, enrolled, folder):
    labs = [enrolled(f"lab-{number}")[0] for number in range(1, 5)]
    enrolment.revoke("lab-1", who="test")
    with closing(sqlite3.connect(folder / "enrolment.sqlite")) as db:
        kept = [row[0] for row in db.execute("SELECT content FROM rosters ORDER BY serial")]
    rosters = [secagg.open_roster(signed, consortium_key=enrolment.consortium_key) for signed in kept]
    assert [len(roster.sites) for roster in rosters] == [3, 4, 3]
    assert rosters[0].site(1).verification_key == labs[0].identity.public


def test_with_the_consortiums_key_elsewhere_rosters_wait_for_it(enrolment, enrolled, folder, tmp_path):
    away = tmp_path / "stick"
    (folder / "consortium.key").rename(away)
    for number in range(1, 4):
        assert enrolled(f"lab-{number}")[1].roster is None
    assert enrolment.roster() is None
    with pytest.raises(InputError, match="is not at"):
        enrolment.sign_roster(who="test")
    (tmp_path / "wrong").write_bytes(bytes(32))
    with pytest.raises(InputError, match="not this consortium's key"):
        enrolment.sign_roster(who="test", key=tmp_path / "wrong")
    signed = enrolment.sign_roster(who="test", key=away)
    assert opened(enrolment) == signed
    assert enrolled("lab-4")[1].roster == enrolment.roster()
    assert len(opened(enrolment).sites) == 3, "an older roster serves the sites that it names"
    assert not enrolment.roster_is_current()
    enrolment.revoke("lab-3", who="test")
    assert enrolment.roster() is None


def test_the_roster_serves_studies_of_all_sites_and_of_some(enrolment, enrolled, make_plan):
    for number in range(1, 6):
        enrolled(f"lab-{number}")
    for sites in (3, 5):
        setup = setup_for(make_plan(sites=sites), opened(enrolment), run="a" * 32, batch=0)
        assert setup.cohort.members == tuple(range(1, sites + 1))


def test_too_few_sites_are_not_signed(enrolment, enrolled):
    enrolled("lab-1")
    with pytest.raises(InputError, match="too few"):
        enrolment.sign_roster(who="test")


def test_another_process_sees_the_same_state(enrolment, enrolled, folder, clock):
    lab, _ = enrolled("lab-1")
    token = enrolment.invite("lab-2", who="test")
    other = Enrolment(folder, clock=clock)
    assert other.sites() == enrolment.sites()
    other.enrol(make_lab("lab-2").ask(token))
    assert [(site.name, site.state) for site in enrolment.sites()] == [("lab-1", "active"), ("lab-2", "active")]
    assert enrolment.sites()[0].verification_key == lab.identity.public


def test_who_did_what_is_written_down(enrolment, enrolled, folder):
    enrolled("lab-1")
    enrolment.revoke("lab-1", who="officer", reason="left")
    with closing(sqlite3.connect(folder / "enrolment.sqlite")) as db:
        events = db.execute("SELECT who, what, site FROM events").fetchall()
    assert events == [
        ("test", "invite", "lab-1"),
        ("service", "enrol", "lab-1"),
        ("officer", "revoke: left", "lab-1"),
    ]


def test_what_runs_out_is_renewed_before_it_does(enrolment, clock):
    authority = enrolment.authority
    assert enrolment.maintain() == []
    first = authority.server_certificate()
    clock.now += 4 * DAY
    assert enrolment.maintain() == []
    clock.now += 7 * DAY
    assert enrolment.maintain() == ["renewed the server's certificate", "renewed the revocation list"]
    second = authority.server_certificate()
    assert second.not_valid_after_utc - clock.now == 7 * DAY
    assert public_der(first.public_key()) != public_der(second.public_key())
    names = [cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value for cert in (first, second)]
    assert names[0] == names[1]
    assert enrolment.maintain() == []


@pytest.mark.parametrize(
    ("days", "server_days", "look_s"), [(90, 7, 3042), (365, 7, 3042), (1, 1, 450), (0.0005, 0.0005, 1)]
)
def test_a_consortium_may_choose_how_long_certificates_live(tmp_path, clock, days, server_days, look_s):
    founded = Enrolment.create(tmp_path / "c", addresses=[ADDRESS], site_days=days, clock=clock)
    enrolment = Enrolment(founded.folder, clock=clock)  # as another process opens it
    lab = make_lab("lab-1")
    leaf = leaf_of(enrolment.enrol(lab.ask(enrolment.invite("lab-1", who="test"))))
    server = enrolment.authority.server_certificate()
    second = datetime.timedelta(seconds=1)
    assert abs(leaf.not_valid_after_utc - clock.now - days * DAY) <= second
    assert abs(server.not_valid_after_utc - clock.now - server_days * DAY) <= second
    assert enrolment.look_every_s == pytest.approx(look_s, abs=1)
    for certificate in (leaf, server):
        assert not is_due(certificate, clock.now)
        assert is_due(certificate, certificate.not_valid_after_utc - second)
    enrolment.new_root(who="test")
    assert abs(enrolment.authority.server_certificate().not_valid_after_utc - clock.now - server_days * DAY) <= second


def test_the_issuing_certificate_is_renewed_with_the_roots_key(enrolment, clock, folder, tmp_path):
    away = tmp_path / "stick"
    (folder / "ca.key").rename(away)
    before = enrolment.authority.issuing
    clock.now += 500 * DAY
    assert "bring the root's key" in enrolment.maintain()[0]
    with pytest.raises(InputError, match="is not at"):
        enrolment.authority.root_key()
    (tmp_path / "other").write_bytes((folder / "server.key").read_bytes())
    with pytest.raises(InputError, match="is not the key of"):
        enrolment.authority.root_key(tmp_path / "other")
    enrolment.authority.renew_issuing(enrolment.authority.root_key(away))
    assert enrolment.authority.issuing.not_valid_after_utc - clock.now == 730 * DAY
    assert enrolment.authority.issuing.serial_number != before.serial_number
    assert enrolment.maintain() == []


def test_with_the_roots_key_in_place_the_issuing_certificate_renews_itself(enrolment, clock):
    clock.now += 500 * DAY
    assert "renewed the issuing certificate" in enrolment.maintain()


def test_what_the_old_issuing_certificate_signed_stays_good(enrolment, enrolled, clock):
    lab, answer = enrolled("lab-1")
    leaf, old = parse_chain(answer.certificate.encode(), where="the answer")
    clock.now += 30 * DAY
    enrolment.authority.renew_issuing(enrolment.authority.root_key())
    for issuing in (old, enrolment.authority.issuing):
        check_site_chain(
            [leaf, issuing], root=enrolment.authority.root, site="lab-1", key=lab.tls.public_key(), now=clock.now
        )
    enrolment.revoke("lab-1", who="test")
    assert enrolment.authority.crl().is_signature_valid(old.public_key())


def test_an_issuing_certificate_that_ran_out_issues_nothing(enrolment, clock, folder):
    (folder / "ca.key").unlink()
    token = enrolment.invite("lab-1", who="test")
    clock.now += 731 * DAY
    token = enrolment.invite("lab-1", who="test")
    with pytest.raises(InputError, check=lambda error: "renew-ca" in error.hint):
        enrolment.enrol(make_lab("lab-1").ask(token))


def test_no_certificate_outlives_the_one_that_issued_it(enrolment, enrolled, clock, folder):
    (folder / "ca.key").unlink()
    clock.now += 700 * DAY
    _, answer = enrolled("lab-1")
    assert leaf_of(answer).not_valid_after_utc == enrolment.authority.issuing.not_valid_after_utc


def test_the_roots_key_is_encrypted_under_a_passphrase(tmp_path, clock):
    enrolment = Enrolment.create(tmp_path / "c", addresses=[ADDRESS], passphrase=HORSE, clock=clock)
    assert b"ENCRYPTED" in (tmp_path / "c" / "ca.key").read_bytes()
    with pytest.raises(InputError, match="is encrypted"):
        enrolment.authority.root_key()
    with pytest.raises(InputError, match="cannot read the key"):
        enrolment.authority.root_key(passphrase=HORSE + "!")
    enrolment.authority.renew_issuing(enrolment.authority.root_key(passphrase=HORSE))


def test_a_second_consortium_does_not_overwrite_the_first(enrolment, folder, clock):
    before = fingerprint(enrolment.authority.root)
    with pytest.raises(InputError, match="is not empty"):
        Enrolment.create(folder, addresses=[ADDRESS], clock=clock)
    assert fingerprint(Enrolment(folder).authority.root) == before


def test_the_server_is_who_its_addresses_say(tmp_path, clock):
    addresses = [Address("fl.example.org", 9443), Address("10.1.2.3", 9443)]
    authority = Enrolment.create(tmp_path / "c", addresses=addresses, clock=clock).authority
    chain = parse_chain(authority.server_pair[0].read_bytes(), where="server.crt")
    builder = verification.PolicyBuilder().store(verification.Store([authority.root])).time(clock.now)
    for name in ("fl.example.org", "localhost"):
        builder.build_server_verifier(x509.DNSName(name)).verify(chain[0], chain[1:])
    with pytest.raises(verification.VerificationError):
        builder.build_server_verifier(x509.DNSName("evil.example.org")).verify(chain[0], chain[1:])


def test_a_new_root_leaves_the_members_and_voids_what_the_old_one_vouched_for(enrolment, enrolled, clock, folder):
    labs = [enrolled(f"lab-{number}") for number in range(1, 4)]
    roster, token, old = enrolment.roster(), enrolment.invite("lab-4", who="test"), enrolment.authority.root
    enrolment.new_root(who="test")
    new = Enrolment(folder, clock=clock).authority.root
    assert fingerprint(new) != fingerprint(old)
    assert enrolment.roster() == roster
    with refused("token-void"):
        enrolment.enrol(make_lab("lab-4").ask(token))
    with refused("revoked"):
        enrolment.renew(labs[0][0].ask_again(labs[0][1], clock.now))
    lab, answer = enrolled("lab-1", labs[0][0])
    assert (answer.index, answer.roster) == (1, roster)
    chain = parse_chain(answer.certificate.encode(), where="the answer")
    check_site_chain(chain, root=new, site="lab-1", key=lab.tls.public_key(), now=clock.now)
    with refused("certificate"):
        check_site_chain(chain, root=old, site="lab-1", key=lab.tls.public_key(), now=clock.now)
