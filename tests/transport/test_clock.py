"""How a site's clock stands beside the coordinator's, and what is signed where it is off."""

import datetime
import time
from base64 import b64decode
from email.utils import format_datetime

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_HEADER, TIMESTAMP_TOLERANCE
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature
from flwr.supercore.protobuf.client import ProtobufRequestContext

from fedsci.transport.clock import Clock, Signature, said_of


def date(at: float) -> str:
    return format_datetime(datetime.datetime.fromtimestamp(int(at), datetime.UTC), usegmt=True)


def learn(clock: Clock, *, there: float, took: float = 0.1) -> bool:
    return clock.learn(date(there), began=time.time(), ended=time.time() + took)


@pytest.mark.parametrize("off", [0, 0.9, -0.9])
def test_clocks_that_may_agree_are_left_alone(off):
    clock = Clock(lambda ahead_s: pytest.fail("nothing changed"))
    for _ in range(20):
        assert not learn(clock, there=time.time() - off)
    assert clock.ahead_s == 0


@pytest.mark.parametrize("off", [300, -300, 7200, -86400])
def test_a_clock_that_is_off_is_known_to_a_second_and_told_once(off):
    told = []
    clock = Clock(told.append)
    assert learn(clock, there=time.time() - off)
    for _ in range(20):
        assert not learn(clock, there=time.time() - off)
    assert told == [pytest.approx(off, abs=2)]
    assert clock.ahead_s == pytest.approx(off, abs=2)
    assert clock.now() == pytest.approx(time.time() - off, abs=2)
    assert learn(clock, there=time.time())  # somebody set it
    assert told[1:] == [0.0]


def test_an_answer_that_took_long_says_little():
    clock = Clock()
    assert not learn(clock, there=time.time() + 20, took=30)
    assert not learn(clock, there=time.time() + 29, took=30)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "Mon, 99 Foo 2026 00:00:00 GMT",
        "1795461897",
        "Fri, 31 Dec 9999 23:59:59 GMT",  # a second later there is no date to sign
        "Wed, 31 Dec 1969 23:59:59 GMT",
        "Mon, 01 Jan 2024 00:00:00 +99999999999999999999",
    ],
)
def test_what_is_no_date_teaches_nothing(text):
    clock = Clock(lambda ahead_s: pytest.fail("nothing changed"))
    assert not clock.learn(text, began=0.0, ended=0.1)


@pytest.mark.parametrize(
    ("ahead_s", "words"),
    [
        (0.4, "0 s ahead"),
        (-7, "7 s behind"),
        (95, "1 min 35 s ahead"),
        (3599, "1 h ahead"),
        (-2999, "50 min behind"),
        (7199, "2 h ahead"),
    ],
)
def test_it_is_said_in_words(ahead_s, words):
    assert words in said_of(ahead_s)


@pytest.mark.parametrize("off", [0, 300, -300, 5400, -5400])
def test_whatever_this_machines_clock_says_a_call_is_signed_with_the_coordinators_time(off):
    """The other end judges as SuperLink does."""
    key, calls = ec.generate_private_key(ec.SECP256R1()), []

    def superlink(context: ProtobufRequestContext) -> httpx.Response:
        now, headers = time.time() - off, context.request.headers
        signed = headers[TIMESTAMP_HEADER]
        age = now - datetime.datetime.fromisoformat(signed).timestamp()
        public = bytes_to_public_key(b64decode(headers[FLEET_HTTP_PUBLIC_KEY_HEADER]))
        assert verify_signature(public, signed.encode(), b64decode(headers[FLEET_HTTP_SIGNATURE_HEADER]))
        taken = -SYSTEM_TIME_TOLERANCE < age < TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE
        calls.append(taken)
        return httpx.Response(200 if taken else 401, headers={"date": date(now)})

    signature = Signature(key, Clock())
    for _ in range(3):
        context = ProtobufRequestContext("call", None, httpx.Request("POST", "https://coordinator"))
        assert signature.intercept(context, superlink).status_code == 200
    assert calls.count(False) <= 1  # the first, from which it learns


def test_a_refusal_that_is_not_the_clocks_stays_one():
    calls = []

    def superlink(context: ProtobufRequestContext) -> httpx.Response:
        calls.append(context)
        return httpx.Response(401, headers={"date": date(time.time())})

    signature = Signature(ec.generate_private_key(ec.SECP256R1()), Clock())
    context = ProtobufRequestContext("call", None, httpx.Request("POST", "https://coordinator"))
    assert signature.intercept(context, superlink).status_code == 401
    assert len(calls) == 1
