"""Enrolment: tokens, certificates, what strangers send to the service and what a false service answers."""

import asyncio
import contextlib
import datetime
import json
import tempfile
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from fedsci import secagg
from fedsci.coordinator.enrolment import Enrolment
from fedsci.errors import EnrolmentRefused, InputError
from fedsci.identity.address import Address, parse_address
from fedsci.identity.certificates import (
    chain_pem,
    check_site_chain,
    key_pem,
    new_key,
    parse_chain,
    profile_of,
    read_key,
    requested_key,
    signing_request,
    site_of,
)
from fedsci.identity.messages import Answer, EnrolRequest, RenewRequest, decode
from fedsci.identity.token import Token
from fedsci.names import site_id
from fedsci.transport.clock import Clock
from fedsci.transport.enrolment_client import _refused, _seconds_ahead
from fedsci.transport.enrolment_server import EnrolmentApp, FailureLimit
from tests.fuzz.engine import Target, home

LAB = site_id("lab-1")
_ADDRESS = Address("127.0.0.1", 9443)
_TLS = new_key()
_IDENTITY = secagg.SigningKey(secagg.Seed(b"1" * 32))


@cache
def consortium() -> tuple[Enrolment, Answer]:
    """A consortium with one member, and what that one was answered."""
    folder = Path(tempfile.mkdtemp(dir=home())) / "coordinator"
    enrolment = Enrolment.create(folder, addresses=[_ADDRESS])
    token = enrolment.invite(LAB, who="fuzz")
    return enrolment, enrolment.enrol(_enrol(token.secret.reveal()))


def _enrol(secret: bytes = b"2" * 32, *, csr: bytes | None = None, site: str = LAB) -> EnrolRequest:
    request = signing_request(LAB, _TLS) if csr is None else csr
    return EnrolRequest(site=site, secret=secret, csr=request, verification_key=_IDENTITY.public).signed(_IDENTITY)


def _renew() -> RenewRequest:
    serial = parse_chain(consortium()[1].certificate.encode(), where="it")[0].serial_number
    now = int(datetime.datetime.now(datetime.UTC).timestamp())
    return RenewRequest(site=LAB, serial=f"{serial:x}", time=now, csr=signing_request(LAB, _TLS)).signed(
        _TLS, _IDENTITY
    )


def text_of(data: bytes) -> str:
    """Return bytes as the command line would hand them over."""
    return data.decode("utf-8", "surrogateescape")


def token(data: bytes) -> None:
    """A token as somebody pasted it."""
    read = Token.decode(text_of(data))
    assert Token.decode(read.encode()) == read
    assert "Seed(…)" in repr(read)


def token_fields(data: bytes) -> None:
    """What a token holds, packed as a token is."""
    token(b"fedsci1." + urlsafe_b64encode(data).rstrip(b"="))


def address(data: bytes) -> None:
    """An address as somebody wrote it."""
    read = parse_address(text_of(data), port=9443)
    assert parse_address(str(read), port=1) == read


def certificate(data: bytes) -> None:
    """Certificates in PEM, from a file or from the wire."""
    root = consortium()[0].authority.root
    chain = parse_chain(data, where="here")
    for one in chain:
        for look in (site_of, profile_of):
            with contextlib.suppress(InputError):
                look(one)
    now = datetime.datetime.now(datetime.UTC)
    check_site_chain(chain, root=root, site=LAB, key=_TLS.public_key(), now=now)


def private_key(data: bytes) -> None:
    """A key's file, with a passphrase and without."""
    with tempfile.TemporaryDirectory(dir=home()) as folder:
        path = Path(folder, "key.pem")
        path.write_bytes(data)
        try:
            read_key(path)
        except InputError:
            read_key(path, passphrase="fuzz")  # noqa: S106


def csr(data: bytes) -> None:
    """A signing request in a request with a token that is good, signed as it should be: nobody refuses it before."""
    requested_key(data, LAB)
    enrolment, _ = consortium()
    enrolment.enrol(_enrol(enrolment.invite(LAB, who="fuzz").secret.reveal(), csr=data))


def service(data: bytes) -> None:
    """A body that a stranger sends; the answer is a code, never an internal error, and the service goes on."""
    path, _, body = data.partition(b"\n")
    enrolment, _ = consortium()
    said: list[tuple[str, str]] = []
    app = EnrolmentApp(
        root=chain_pem(enrolment.authority.root),
        enrol=enrolment.enrol,
        renew=enrolment.renew,
        note=lambda code, message: said.append((code, message)),
        limit=FailureLimit(allowed=10**6),
    )
    status, answer = call(app, "/" + path.decode("latin-1"), body)
    assert status in (200, 403, 404), (status, answer, said)
    if status == 403:
        code = json.loads(answer)["code"]
        assert isinstance(code, str)
        assert code.replace("-", "").isalpha()
    if status == 200:
        decode(Answer, answer)


def call(app: EnrolmentApp, path: str, body: bytes) -> tuple[int, bytes]:
    """Return status and body of a POST."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "client": ("127.0.0.1", 1)}
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], sent[1]["body"]


def answer(data: bytes) -> None:
    """What a false service answers; a site takes no certificate, address or roster from it that does not check out."""
    said = decode(Answer, data)
    try:
        chain = parse_chain(said.certificate.encode("utf-8"), where="the coordinator's answer")
        parse_address(said.fleet_address, port=0)
    except InputError as error:
        raise EnrolmentRefused(error.message, rule="certificate") from None
    root = consortium()[0].authority.root
    now = datetime.datetime.now(datetime.UTC)
    check_site_chain(chain, root=root, site=LAB, key=_TLS.public_key(), now=now)
    if said.roster is not None:
        secagg.open_roster(said.roster, consortium_key=consortium()[0].consortium_key)


def refusal(data: bytes) -> None:
    """The body and the date of a refusal; what is told to a person is one line."""
    date, _, body = data.partition(b"\n")
    error = _refused(_ADDRESS, body, date.decode("latin-1"))
    assert "\n" not in error.message + error.hint
    _seconds_ahead(date.decode("latin-1"))
    clock = Clock()
    clock.learn(date.decode("latin-1"), began=0.0, ended=1.0)
    datetime.datetime.fromtimestamp(clock.now(), datetime.UTC)


def _service_seeds() -> Mapping[str, bytes]:
    return {"enrol": b"enrol\n" + _enrol().encode(), "renew": b"renew\n" + _renew().encode()}


def _certificates() -> Mapping[str, bytes]:
    enrolment, said = consortium()
    return {"site": said.certificate.encode(), "root": chain_pem(enrolment.authority.root)}


def _tokens() -> Mapping[str, bytes]:
    held = consortium()[0].invite(site_id("lab-2"), who="fuzz").encode()
    return {"valid": held.encode()}


def _token_fields() -> Mapping[str, bytes]:
    return {"valid": urlsafe_b64decode(_tokens()["valid"].removeprefix(b"fedsci1.") + b"==")}


_PEM = (b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n")
_DATE = b"Tue, 03 Nov 2026 10:00:00 GMT"

TARGETS = [
    Target(name="token", run=token, seeds=_tokens, tokens=(b"fedsci1.",), fresh=True),
    Target(name="token-fields", run=token_fields, seeds=_token_fields, fresh=True, tries=100),
    Target(
        name="address",
        run=address,
        seeds=lambda: {"host": b"coordinator.example.org:9443", "ipv6": b"[::1]:7000", "ipv4": b"10.0.0.1"},
        tokens=(b":", b"[", b"]", b"::", b"%eth0", "²".encode(), "٣".encode(), b"."),
        tries=200,
    ),
    Target(
        name="certificate",
        run=certificate,
        seeds=_certificates,
        tokens=_PEM,
        fresh=True,
        tries=40,
        refused={"root": EnrolmentRefused},
    ),
    Target(
        name="private-key",
        run=private_key,
        seeds=lambda: {"plain": key_pem(_TLS), "encrypted": key_pem(_TLS, passphrase="fuzz")},  # noqa: S106
        fresh=True,
        tries=40,
    ),
    Target(name="signing-request", run=csr, seeds=lambda: {"valid": signing_request(LAB, _TLS)}, fresh=True, tries=25),
    Target(name="enrolment-service", run=service, seeds=_service_seeds, headed=True, fresh=True, tries=25),
    Target(
        name="enrolment-answer",
        run=answer,
        seeds=lambda: {"valid": consortium()[1].encode()},
        fresh=True,
        tries=50,
    ),
    Target(
        name="enrolment-refusal",
        run=refusal,
        seeds=lambda: {"valid": _DATE + b'\n{"code": "clock"}', "other": b'\n{"code": "revoked"}'},
        tokens=(_DATE, b" 9999 ", b" 0001 ", b"+9999", b"-0000"),
        tries=60,
    ),
]
