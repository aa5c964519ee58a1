"""Statements bind exactly what was signed, by whom and for what."""

import json
from base64 import b64decode, b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsci.audit.statement import (
    add_signature,
    canonical,
    digest_of,
    open_statement,
    peek,
    sign_statement,
)
from fedsci.errors import ProtocolError, VerificationFailed
from fedsci.secagg.keys import SigningKey, labelled
from fedsci.secagg.seed import Seed

LAB, OFFICER, OTHER = (SigningKey(Seed(bytes([n]) * 32)) for n in (1, 2, 3))
BODY = {"site": "lab-1", "epsilon": 3.5, "rounds": 10}


def test_what_was_signed_comes_back_with_its_digest():
    statement = open_statement("permit", sign_statement("permit", BODY, [LAB]), [LAB.public])
    assert statement.body == BODY
    assert statement.digest == digest_of(BODY)
    assert statement.signers == (LAB.public,)
    assert peek(statement.envelope) == ("permit", BODY)


def test_a_second_signature_leaves_the_digest():
    once = sign_statement("permit", BODY, [LAB])
    twice = add_signature(once, OFFICER)
    both = open_statement("permit", twice, [LAB.public, OFFICER.public])
    assert both.digest == open_statement("permit", once, [LAB.public]).digest


@pytest.mark.parametrize(
    ("kind", "keys", "why"),
    [
        ("decision", [LAB.public], "not a decision"),
        ("permit", [OTHER.public], "not signed by"),
        ("permit", [LAB.public, OFFICER.public], "not signed by"),
        ("permit", [LAB.public, LAB.public], "each once"),
        ("permit", [], "each once"),
    ],
)
def test_another_purpose_or_signer_is_refused(kind, keys, why):
    with pytest.raises(VerificationFailed, match=why):
        open_statement(kind, sign_statement("permit", BODY, [LAB]), keys)


def test_a_signature_under_another_name_is_refused():
    values = json.loads(sign_statement("permit", BODY, [OTHER]))
    values["signatures"][0]["keyid"] = json.loads(sign_statement("permit", BODY, [LAB]))["signatures"][0]["keyid"]
    with pytest.raises(VerificationFailed, match="not valid"):
        open_statement("permit", json.dumps(values).encode(), [LAB.public])


@given(st.data())
def test_no_changed_byte_passes(data):
    content = sign_statement("permit", BODY, [LAB])
    at = data.draw(st.integers(0, len(content) - 1))
    changed = bytearray(content)
    changed[at] ^= data.draw(st.integers(1, 255))
    try:
        opened = open_statement("permit", bytes(changed), [LAB.public])
    except VerificationFailed:
        return
    assert opened.body == BODY  # white space outside the payload


def test_a_payload_that_is_not_canonical_is_refused():
    payload = b'{"b":1, "a":2}'
    values = json.loads(sign_statement("permit", BODY, [LAB]))
    values["payload"] = b64encode(payload).decode()
    with pytest.raises(VerificationFailed, match="canonical"):
        peek(json.dumps(values).encode())


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"payload":1}', b"[" * 10_000, b"x" * (1 << 21)])
def test_what_is_no_envelope_is_refused(content):
    with pytest.raises(VerificationFailed):
        open_statement("permit", content, [LAB.public])


@pytest.mark.parametrize("values", [float("nan"), float("inf"), 2**60, {1: 2}, object()])
def test_what_has_no_canonical_form_is_refused(values):
    with pytest.raises(VerificationFailed):
        canonical(values)


def test_a_payload_of_the_other_protocol_is_never_signed():
    with pytest.raises(ProtocolError, match="label"):
        LAB.sign_exact(labelled("roster", b"x"))


def test_the_payload_is_readable_by_anyone():
    assert json.loads(b64decode(json.loads(sign_statement("permit", BODY, [LAB]))["payload"])) == BODY
