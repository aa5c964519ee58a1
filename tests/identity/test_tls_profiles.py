"""What a handshake may agree on in each crypto profile."""

import os
import ssl
import subprocess
import sys

import pytest

from fedsci.coordinator.authority import Authority
from fedsci.identity.certificates import profile_of, read_chain
from fedsci.identity.tls import ClientTls, ServerTls, client_context
from fedsci.secagg.profiles import DEFAULT, FIPS, PROFILES

CHACHA = """
openssl_conf = main
[main]
ssl_conf = tls
[tls]
system_default = defaults
[defaults]
Ciphersuites = TLS_CHACHA20_POLY1305_SHA256
"""


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> str:
    """Return the cipher that two contexts agree on."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    done: set[int] = set()
    while len(done) < 2:
        before = len(done), to_server.pending, to_client.pending
        for number, end in enumerate(ends):
            try:
                end.do_handshake()
                done.add(number)
            except ssl.SSLWantReadError:
                pass
        assert (len(done), to_server.pending, to_client.pending) != before, "nobody goes on"
    return ends[1].cipher()[0]


@pytest.fixture(scope="module")
def authorities(tmp_path_factory):
    return {
        name: Authority.create(tmp_path_factory.mktemp(name), hosts=["localhost"], profile=profile)
        for name, profile in PROFILES.items()
    }


def contexts(authority):
    certificate, key = authority.server_pair
    server = ServerTls.of(certificate=certificate, key=key)
    return server, client_context(authority.root_path.read_bytes())


@pytest.mark.parametrize("name", ["default", "fips"])
def test_both_profiles_shake_hands_in_aes_gcm(authorities, name):
    assert shake_hands(*contexts(authorities[name])) == "TLS_AES_256_GCM_SHA384"


def test_root_issuing_and_leaf_certificates_tell_the_profile(authorities):
    for name, authority in authorities.items():
        shown = [authority.root, authority.issuing, authority.server_certificate()]
        assert [profile_of(one).name for one in shown] == [name] * 3
    strict = authorities["fips"]
    keys = [strict.root, strict.issuing, strict.server_certificate()]
    assert {one.public_key().curve.name for one in keys} == {"secp384r1"}
    assert {one.signature_hash_algorithm.name for one in keys} == {"sha384"}
    assert strict.crl().signature_hash_algorithm.name == "sha384"


@pytest.mark.parametrize("strict", ["server", "client"])
def test_in_fips_no_end_agrees_on_keys_by_x25519(authorities, strict):
    server, client = contexts(authorities["fips"])
    other = server._current if strict == "client" else client
    other.set_ecdh_curve("X25519")
    with pytest.raises(ssl.SSLError):
        shake_hands(server, client)


def test_the_default_does_agree_by_x25519(authorities):
    server, client = contexts(authorities["default"])
    client.set_ecdh_curve("X25519")
    assert shake_hands(server, client)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["default", "fips"])
def test_in_fips_a_connection_by_chacha20_is_refused_by_name(authorities, name, tmp_path):
    """Python cannot choose among TLS 1.3's ciphers, so the file of OpenSSL's defaults does, for both ends."""
    (tmp_path / "openssl.cnf").write_text(CHACHA)
    script = (
        "import sys; from pathlib import Path; from fedsci.coordinator.authority import Authority\n"
        "from tests.identity.test_tls_profiles import contexts, shake_hands\n"
        "print(shake_hands(*contexts(Authority(Path(sys.argv[1])))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(authorities[name].folder)],
        env=os.environ | {"OPENSSL_CONF": str(tmp_path / "openssl.cnf")},
        capture_output=True,
        text=True,
        check=False,
    )
    if name == "default":
        assert done.stdout.strip() == "TLS_CHACHA20_POLY1305_SHA256", done.stderr
    else:
        assert "wrong-profile: the cipher TLS_CHACHA20_POLY1305_SHA256" in done.stderr


def test_a_socket_is_checked_like_what_has_none(authorities, monkeypatch):
    from fedsci.identity import tls

    for context in contexts(authorities["fips"]):
        inner = getattr(context, "_current", context)
        assert inner.sslsocket_class is tls._CheckedSocket
    monkeypatch.setattr(tls, "_AES_GCM", ())
    with pytest.raises(ssl.SSLError, match="wrong-profile"):
        shake_hands(*contexts(authorities["fips"]))
    assert shake_hands(*contexts(authorities["default"]))


def test_a_renewed_issuing_certificate_and_server_keep_the_profile(authorities):
    strict = authorities["fips"]
    strict.renew_issuing(strict.root_key())
    strict.renew_server(["localhost"])
    certificate, key = strict.server_pair
    assert profile_of(read_chain(certificate)[0]) is FIPS
    assert profile_of(strict.issuing) is FIPS
    site = ClientTls.of(root=strict.root_path, certificate=certificate, key=key)
    assert site._current.sslobject_class is not None
    assert profile_of(authorities["default"].root) is DEFAULT
