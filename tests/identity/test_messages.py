"""Requests for certificates: signed as a whole, and refused if anything in them was changed."""

import base64
import json

import pytest

from fedsci import secagg
from fedsci.errors import EnrolmentRefused
from fedsci.identity.certificates import new_key, requested_key, signing_request
from fedsci.identity.messages import EnrolRequest, RenewRequest, decode

IDENTITY = secagg.SigningKey(secagg.Seed(b"1" * 32))
STRANGER = secagg.SigningKey(secagg.Seed(b"2" * 32))
TLS = new_key()


def enrol_request():
    return EnrolRequest(
        site="lab-1",
        secret=b"s" * 32,
        csr=signing_request("lab-1", TLS),
        verification_key=IDENTITY.public,
    ).signed(IDENTITY)


def renew_request(tls=TLS, identity=IDENTITY):
    return RenewRequest(site="lab-1", serial="a1", time=1_800_000_000, csr=signing_request("lab-1", new_key())).signed(
        tls, identity
    )


def refused(rule):
    return pytest.raises(EnrolmentRefused, check=lambda error: error.rule == rule)


def test_a_request_is_read_back_and_checks_out():
    request = decode(EnrolRequest, enrol_request().encode())
    request.check()
    renewal = decode(RenewRequest, renew_request().encode())
    renewal.check(TLS.public_key(), IDENTITY.public)


@pytest.mark.parametrize(
    "change",
    [
        {"site": "lab-2"},
        {"secret": b"t" * 32},
        {"csr": signing_request("lab-1", new_key())},
        {"verification_key": STRANGER.public},
        {"signature": bytes(64)},
        {"signature": b""},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_changed_enrolment_is_refused(change):
    with refused("signature"):
        enrol_request().model_copy(update=change).check()


@pytest.mark.parametrize(
    "change",
    [
        {"site": "lab-2"},
        {"serial": "a2"},
        {"time": 1_800_000_001},
        {"csr": signing_request("lab-1", new_key())},
        {"tls_signature": b""},
        {"signature": bytes(64)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_changed_renewal_is_refused(change):
    with refused("signature"):
        renew_request().model_copy(update=change).check(TLS.public_key(), IDENTITY.public)


def test_a_stolen_tls_key_alone_renews_nothing():
    with refused("signature"):
        renew_request(identity=STRANGER).check(TLS.public_key(), IDENTITY.public)


def test_a_stolen_identity_alone_renews_nothing():
    with refused("signature"):
        renew_request(tls=new_key()).check(TLS.public_key(), IDENTITY.public)


def test_a_request_does_not_print_its_secret():
    assert "ssss" not in repr(enrol_request())


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[" * 100_000, b"\xff", b"null", enrol_request().encode()[:-2]],
    ids=["empty", "no fields", "deep", "no text", "null", "cut"],
)
def test_what_is_not_a_request(content):
    with refused("request"):
        decode(EnrolRequest, content)


@pytest.mark.parametrize(
    ("field", "value"),
    [("version", 2), ("more", 1), ("site", "x" * 65), ("csr", base64.b64encode(bytes(5000)).decode()), ("csr", "%%")],
)
def test_a_request_with_a_wrong_field(field, value):
    values = json.loads(enrol_request().encode()) | {field: value}
    with refused("request"):
        decode(EnrolRequest, json.dumps(values).encode())


def test_a_tampered_signing_request_is_refused():
    good = signing_request("lab-1", TLS)
    assert requested_key(good, "lab-1").public_numbers() == TLS.public_key().public_numbers()
    for place in range(3, 117, 7):  # what its key signed
        bad = bytearray(good)
        bad[place] ^= 1
        with refused("csr"):
            requested_key(bytes(bad), "lab-1")


def test_a_signing_request_for_another_name_is_refused():
    with refused("csr"):
        requested_key(signing_request("lab-2", TLS), "lab-1")


def test_only_p256_keys_are_taken():
    from cryptography.hazmat.primitives.asymmetric import ec

    weak = ec.generate_private_key(ec.SECP224R1())
    with refused("csr"):
        requested_key(signing_request("lab-1", weak), "lab-1")
