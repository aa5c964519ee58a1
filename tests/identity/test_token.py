"""A join token survives mail programs, and nothing else passes for one."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsci import secagg
from fedsci.errors import InputError
from fedsci.identity.address import Address, parse_address
from fedsci.identity.token import PREFIX, Token, secret_digest

TOKEN = Token(
    address=Address("coordinator.example.org", 9443),
    site="lab-03",
    root=bytes(range(32)),
    consortium_key=b"k" * 32,
    secret=secagg.Seed(b"s" * 32),
    expires=1_800_000_000,
)


def test_a_token_is_read_back_whole():
    assert Token.decode(TOKEN.encode()) == TOKEN


def test_a_token_broken_over_lines_is_read():
    text = TOKEN.encode()
    broken = "  " + "\n  ".join(text[at : at + 40] for at in range(0, len(text), 40)) + "\r\n"
    assert Token.decode(broken) == TOKEN


def test_a_token_does_not_print_its_secret():
    shown = repr(TOKEN)
    assert "ssss" not in shown
    assert "Seed(…)" in shown


def test_what_is_stored_of_a_token_is_not_its_secret():
    assert TOKEN.digest == secret_digest(b"s" * 32)
    assert TOKEN.digest != b"s" * 32


@given(cut=st.integers(0, len(TOKEN.encode()) - 1))
def test_a_token_cut_short_is_refused(cut):
    with pytest.raises(InputError, match="not a whole join token"):
        Token.decode(TOKEN.encode()[:cut])


@given(st.text(max_size=200))
def test_other_text_is_refused(text):
    for candidate in (text, PREFIX + text):
        with pytest.raises(InputError, match="not a whole join token"):
            Token.decode(candidate)


def repacked(**changes):
    packed = TOKEN.encode().removeprefix(PREFIX)
    fields = json.loads(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4))) | changes
    text = json.dumps({key: value for key, value in fields.items() if value is not None})
    return PREFIX + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "changes",
    [
        {"site": "../etc"},
        {"site": 3},
        {"root": "AAAA"},
        {"root": None},
        {"secret": "!" * 43},
        {"consortium": ""},
        {"expires": "soon"},
        {"expires": True},
        {"address": "no port"},
        {"address": "host"},
        {"more": 1},
    ],
)
def test_a_token_with_a_wrong_field_is_refused(changes):
    assert Token.decode(repacked()) == TOKEN
    with pytest.raises(InputError, match="not a whole join token"):
        Token.decode(repacked(**changes))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("example.org", Address("example.org", 9443)),
        ("EXAMPLE.org:1", Address("example.org", 1)),
        ("10.0.0.1:80", Address("10.0.0.1", 80)),
        ("::1", Address("::1", 9443)),
        ("[::1]", Address("::1", 9443)),
        ("[::1]:80", Address("::1", 80)),
    ],
)
def test_addresses(text, address):
    assert parse_address(text, port=9443) == address
    assert parse_address(str(address), port=1) == address


@pytest.mark.parametrize(
    "text", ["", "https://a.org", "a.org:", "a.org:0", "a.org:65536", "a b", "a.org/x", "-a", "[x]:1"]
)
def test_what_is_no_address(text):
    with pytest.raises(InputError, match="is not usable"):
        parse_address(text, port=9443)
