"""Who gets through the handshake, tried without a network: both ends of TLS in memory."""

import contextlib
import ssl
import threading

import pytest
from cryptography import x509

from fedsci.errors import ConfigError, InputError
from fedsci.identity.files import replace_pair
from fedsci.identity.tls import client_context
from fedsci.transport.tls import CoordinatorTls, SiteTls, identity_of


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str = "127.0.0.1") -> tuple[ssl.SSLObject, ...]:
    """Carry bytes between the ends until both have accepted; an end that refuses raises."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=name)
    done: set[ssl.SSLObject] = set()
    for _ in range(10):
        for end in (theirs, ours):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
                done.add(end)
        if len(done) == 2:
            return ours, theirs
    raise AssertionError("the handshake does not end")


@pytest.fixture
def server(authority):
    return CoordinatorTls.in_folder(authority.folder).context()


def client(folder) -> ssl.SSLContext:
    return SiteTls.in_folder(folder).context()


def test_a_site_of_the_consortium_is_let_in_and_known_by_its_certificate(authority, server):
    folder = authority.site("lab-03")
    shown = shake_hands(server, client(folder))[0].getpeercert(binary_form=True)
    name, key = identity_of(x509.load_der_x509_certificate(shown))
    assert name == "lab-03"
    assert key == SiteTls.in_folder(folder).private_key().public_key().public_bytes(*_pem())


def _pem():
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return Encoding.PEM, PublicFormat.SubjectPublicKeyInfo


def test_without_a_certificate_nobody_is_let_in(authority, server):
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nobody.load_verify_locations(authority.folder / "ca.crt")
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        shake_hands(server, nobody)


def test_a_certificate_of_another_authority_is_refused(authority, server, tmp_path):
    stranger = authority.__class__(tmp_path / "other").site("lab-03")
    (stranger / "ca.crt").write_bytes((authority.folder / "ca.crt").read_bytes())
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, client(stranger))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"days": (-10, -1)}, "certificate has expired"),
        ({"days": (1, 10)}, "certificate is not yet valid"),
        ({"server": True}, "unsuitable certificate purpose"),
    ],
)
def test_a_certificate_out_of_its_time_or_use_is_refused(authority, server, changes, reason):
    with pytest.raises(ssl.SSLCertVerificationError, match=reason):
        shake_hands(server, client(authority.site("lab-03", **changes)))


def test_a_revoked_certificate_is_refused_at_the_next_connection(authority, server):
    one, two = authority.site("lab-01"), authority.site("lab-02")
    shake_hands(server, client(one))
    serial = x509.load_pem_x509_certificate((one / "site.crt").read_bytes()).serial_number
    assert not server.is_revoked(serial)
    authority.revoke("lab-01")
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate revoked"):
        shake_hands(server, client(one))
    assert server.is_revoked(serial)
    shake_hands(server, client(two))


def test_with_a_list_out_of_date_nobody_is_let_in(authority, server):
    folder = authority.site("lab-01")
    authority.publish(days=-1)
    with pytest.raises(ssl.SSLCertVerificationError, match="CRL has expired"):
        shake_hands(server, client(folder))


def test_with_a_list_of_another_authority_nobody_is_let_in(authority, server, tmp_path):
    folder = authority.site("lab-01")
    other = authority.__class__(tmp_path / "other")
    (other.folder / "crl").replace(authority.folder / "crl")
    with pytest.raises(ssl.SSLCertVerificationError, match="CRL signature failure"):
        shake_hands(server, client(folder))


@pytest.mark.parametrize("damage", ["missing", "nonsense"])
def test_without_a_list_nobody_is_let_in(authority, server, damage):
    folder = authority.site("lab-01")
    (authority.folder / "crl").unlink()
    if damage == "nonsense":
        (authority.folder / "crl").write_text("nothing")
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"cannot use .*crl for TLS"):
            shake_hands(server, client(folder))
    authority.publish()
    shake_hands(server, client(folder))


def test_a_renewed_server_certificate_is_used_without_a_restart(authority, server):
    folder = authority.site("lab-01")
    before = _server_certificate(server, folder)
    authority._leaf(authority.folder, "server", "coordinator", x509.oid.ExtendedKeyUsageOID.SERVER_AUTH)
    assert _server_certificate(server, folder) != before


def test_a_site_shows_its_renewed_certificate_at_the_next_connection(authority, server):
    folder = authority.site("lab-01")
    context = client(folder)
    first = shake_hands(server, context)[0].getpeercert(binary_form=True)
    assert authority.site("lab-01") == folder
    second = shake_hands(server, context)[0].getpeercert(binary_form=True)
    assert second != first
    (folder / "site.crt").write_text("half a file")
    assert shake_hands(server, context)[0].getpeercert(binary_form=True) == second


def _server_certificate(server, folder) -> bytes:
    return shake_hands(server, client(folder))[1].getpeercert(binary_form=True)


def test_a_site_refuses_a_coordinator_of_another_authority(authority, tmp_path):
    other = authority.__class__(tmp_path / "other")
    impostor = CoordinatorTls.in_folder(other.folder).context()
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
        shake_hands(impostor, client(authority.site("lab-01")))


def test_a_site_refuses_another_sites_certificate_as_the_coordinators(authority):
    one = authority.site("lab-01")
    tls = CoordinatorTls(
        certificate=one / "site.crt", key=one / "site.key", ca=one / "ca.crt", crl=authority.folder / "crl"
    )
    with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
        shake_hands(tls.context(), client(authority.site("lab-02")))


def test_a_site_refuses_a_coordinator_under_another_name(authority, server):
    with pytest.raises(ssl.SSLCertVerificationError, match="not valid for"):
        shake_hands(server, client(authority.site("lab-01")), name="elsewhere.example")


def test_older_versions_of_tls_are_refused(authority, server):
    folder = authority.site("lab-01")
    old = client_context((folder / "ca.crt").read_bytes(), certificate=folder / "site.crt", key=folder / "site.key")
    shake_hands(server, old)
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        shake_hands(server, old)


@pytest.mark.parametrize("name", ["Lab 3", "../lab-03", ""])
def test_a_certificate_that_names_no_site_is_none(authority, name):
    built = authority.site("lab-03")
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)] if name else [])
    key = SiteTls.in_folder(built).private_key()
    now = x509.load_pem_x509_certificate((built / "site.crt").read_bytes())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(5)
        .not_valid_before(now.not_valid_before_utc)
        .not_valid_after(now.not_valid_after_utc)
        .sign(key, now.signature_hash_algorithm)
    )
    with pytest.raises(InputError):
        identity_of(certificate)


@pytest.mark.parametrize("file", ["site.crt", "site.key", "ca.crt"])
def test_a_missing_file_is_named(authority, file):
    folder = authority.site("lab-01")
    (folder / file).unlink()
    with pytest.raises(ConfigError, match=r"site\.|ca\.crt"):
        client(folder)


def test_no_connection_fails_while_key_and_certificate_are_replaced(authority, server):
    folder, pair = authority.site("lab-01"), (authority.folder / "server.key", authority.folder / "server.crt")
    pairs = [[path.read_bytes() for path in pair]]
    authority._leaf(authority.folder, "server", "coordinator", x509.oid.ExtendedKeyUsageOID.SERVER_AUTH)
    pairs.append([path.read_bytes() for path in pair])
    over = threading.Event()

    def replace_again_and_again():
        for number in range(60):
            key, certificate = pairs[number % 2]
            replace_pair(pair[0], key, pair[1], certificate)
        over.set()

    thread = threading.Thread(target=replace_again_and_again)
    thread.start()
    while not over.is_set():
        shake_hands(server, client(folder))
    thread.join()
