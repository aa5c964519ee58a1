"""What the enrolment service says to those who ask wrongly: a code, and nothing else."""

import asyncio
import json
import re
from pathlib import Path

import pytest

import fedsci
from fedsci.errors import ConnectionFailed, EnrolmentRefused
from fedsci.identity.address import Address
from fedsci.identity.messages import REQUEST_LIMIT, EnrolRequest
from fedsci.transport import enrolment_client, enrolment_server
from fedsci.transport.enrolment_server import EnrolmentApp, FailureLimit

REQUEST = EnrolRequest(
    site="lab-1", secret=b"s" * 32, csr=b"c", verification_key=b"v" * 32, signature=b"x" * 64
).encode()


def no(request):
    raise EnrolmentRefused("the token of lab-7 was used at noon", rule="token-used")


def crash(request):
    raise RuntimeError("secret path /srv/consortium")


class Reply:
    """What one request gets."""

    def __init__(self, app, method="POST", path="/enrol", body=REQUEST, *, client="10.0.0.1", pieces=1):
        size = -(-len(body) // pieces) or 1
        events = [
            {"type": "http.request", "body": body[at : at + size], "more_body": at + size < len(body)}
            for at in range(0, max(len(body), 1), size)
        ]
        sent = []

        async def receive():
            return events.pop(0) if events else await asyncio.Event().wait()

        async def send(event):
            sent.append(event)

        scope = {"type": "http", "method": method, "path": path, "client": (client, 1)}
        asyncio.run(app(scope, receive, send))
        self.status, self.body = sent[0]["status"], sent[1]["body"]
        self.unread = len(events)


@pytest.fixture
def noted():
    return []


@pytest.fixture
def app(noted):
    def make(enrol=no, renew=no, **rest):
        return EnrolmentApp(
            root=b"the root", enrol=enrol, renew=renew, note=lambda code, message: noted.append((code, message)), **rest
        )

    return make


def test_a_refusal_tells_the_coordinator_why_and_the_other_end_a_code(app, noted):
    reply = Reply(app())
    assert (reply.status, json.loads(reply.body)) == (403, {"code": "token-used"})
    assert noted == [("token-used", "10.0.0.1: the token of lab-7 was used at noon")]


def test_a_fault_of_ours_tells_nothing(app, noted):
    reply = Reply(app(enrol=crash))
    assert (reply.status, json.loads(reply.body)) == (500, {"code": "internal"})
    assert "secret path" in noted[0][1]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/enrol"), ("PUT", "/enrol"), ("POST", "/root"), ("GET", "/"), ("POST", "/enrol/"), ("GET", "/v1/fleet")],
)
def test_nothing_else_is_served(app, method, path):
    reply = Reply(app(enrol=crash, renew=crash), method, path)
    assert (reply.status, json.loads(reply.body)) == (404, {"code": "unknown"})


def test_the_root_is_public(app):
    reply = Reply(app(), "GET", "/root", b"")
    assert (reply.status, reply.body) == (200, b"the root")


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff\xfe", b"[" * 9000])
def test_what_is_no_request_reaches_no_rule(app, body):
    reply = Reply(app(enrol=crash), body=body)
    assert (reply.status, json.loads(reply.body)) == (403, {"code": "request"})


def test_a_long_body_is_not_read_to_its_end(app):
    reply = Reply(app(enrol=crash), body=b" " * (4 * REQUEST_LIMIT), pieces=16)
    assert (reply.status, json.loads(reply.body)) == (403, {"code": "request"})
    assert reply.unread > 8


def test_a_body_in_pieces_is_read_whole(app):
    assert json.loads(Reply(app(), pieces=7).body) == {"code": "token-used"}


def test_a_body_that_never_ends_is_given_up(app, monkeypatch):
    monkeypatch.setattr(enrolment_server, "_BODY_S", 0.01)

    async def main():
        sent, events = [], [{"type": "http.request", "body": b"{", "more_body": True}]

        async def receive():
            return events.pop(0) if events else await asyncio.Event().wait()

        async def send(event):
            sent.append(event)

        await app()({"type": "http", "method": "POST", "path": "/enrol", "client": ("a", 1)}, receive, send)
        return sent

    sent = asyncio.run(main())
    assert (sent[0]["status"], json.loads(sent[1]["body"])) == (408, {"code": "request"})


def test_an_address_that_keeps_failing_must_wait(app):
    now = [0.0]
    limited = app(limit=FailureLimit(allowed=3, clock=lambda: now[0]))
    codes = [json.loads(Reply(limited).body)["code"] for _ in range(5)]
    assert codes == ["token-used"] * 3 + ["too-many"] * 2
    assert json.loads(Reply(limited, client="10.0.0.2").body)["code"] == "token-used"
    assert Reply(limited, "GET", "/root", b"").status == 200
    now[0] += 601
    assert json.loads(Reply(limited).body)["code"] == "token-used"


def test_the_limit_remembers_so_many_addresses_and_no_more(app):
    limit = FailureLimit(allowed=1)
    for number in range(3000):
        limit.failed(str(number))
    assert len(limit._failures) == 1024
    assert limit.reached("2999")
    assert not limit.reached("0")


def test_every_rule_is_explained():
    """What may be refused, read from the source, against the page for operators."""
    root = Path(fedsci.__file__).parents[1]
    files = ("identity/messages.py", "identity/certificates.py", "coordinator/enrolment*.py", "site/identity.py")
    source = "".join(path.read_text() for name in files for path in sorted((root / "fedsci").glob(name)))
    rules = set(re.findall(r'(?:refuse\(|rule=)f?"([a-z{][^"]*)"', source)) - {"token-{found['state']}", "full"}
    page = (root / "docs" / "enrolment.md").read_text()
    assert len(rules) > 12
    assert {rule for rule in rules | {"token-used", "token-void"} if f"`{rule}`" not in page} == set()


def test_every_rule_has_a_hint_for_the_sites_operator():
    assert set(enrolment_client._SAY) <= set(enrolment_client.HINTS)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"code": 7}', b'{"code": "\\u001b[31m"}', b"[" * 9000])
def test_an_error_that_is_not_the_services_is_not_repeated(body):
    error = enrolment_client._refused(Address("a", 1), body, "")
    assert type(error) is ConnectionFailed
    assert "does not speak the enrolment protocol" in error.message
