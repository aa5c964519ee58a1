"""A site's calls to the enrolment service. Nothing secret is sent before the other end showed the right root."""

import base64
import contextlib
import datetime
import email.utils
import hmac
import http.client
import json
import ssl
import urllib.parse
import urllib.request
from collections.abc import Callable

from cryptography import x509

from fedsci.errors import ConnectionFailed, EnrolmentRefused, InputError
from fedsci.identity.address import Address
from fedsci.identity.certificates import chain_pem, fingerprint, parse_chain
from fedsci.identity.messages import ANSWER_LIMIT, Answer, EnrolRequest, RenewRequest, decode
from fedsci.identity.tls import client_context, restrict
from fedsci.secagg.profile import Profile
from fedsci.secagg.profiles import DEFAULT

TIMEOUT_S = 30.0
_CLOCK_SLACK_S, _CLOCK_LIMIT_S = 300.0, 2700.0
_EXPIRED, _NOT_YET = 10, 9  # X509_V_ERR_CERT_HAS_EXPIRED, X509_V_ERR_CERT_NOT_YET_VALID

HINTS = {
    "token-unknown": "ask the coordinator for a new token",
    "token-used": "a token enrols once; ask the coordinator for a new one, and whether it was this site that used it",
    "token-void": "a newer token replaced it, or the site was revoked; ask the coordinator",
    "token-expired": "ask the coordinator for a new token",
    "token-of-another-site": "each token enrols one name; ask the coordinator for one with this site's",
    "keys-changed": "the coordinator knows this site by other keys: restore them, or have it revoke the site first",
    "keys-used": "make new keys with: fedsci site init SITE_FILE --new-keys",
    "revoked": "the coordinator has shut this site out; ask why",
    "expired": "the certificate ran out before it was renewed; ask the coordinator for a new token",
    "unknown-site": "the coordinator does not know this certificate; ask for a new token",
    "clock": "set this machine's clock; the coordinator's differs by more than an hour",
    "wrong-profile": "make keys of the consortium's crypto profile: fedsci site init SITE_FILE --new-keys "
    "--crypto-profile default or fips",
    "too-many": "too many refused requests came from this address; wait ten minutes",
    "internal": "the coordinator had an error; its operator finds it in its log",
}
_SAY = {
    "token-unknown": "it knows no such token",
    "token-used": "the token was used before",
    "token-void": "the token is void",
    "token-expired": "the token has expired",
    "token-of-another-site": "the token is for another site",
    "keys-changed": "the site is enrolled with another verification key",
    "keys-used": "these keys belong to another site, or to one that was revoked",
    "revoked": "the site was revoked",
    "expired": "the certificate ran out",
    "clock": "this machine's clock is off",
    "wrong-profile": "the site's keys are of another crypto profile than the consortium",
}


def fetch_root(address: Address, *, expected: bytes, profile: Profile = DEFAULT) -> x509.Certificate:
    """Return the root certificate that the other end shows, if it is the expected one.

    The connection is not authenticated, and nothing but the public path is sent on it.

    Args:
        address: the enrolment service.
        expected: SHA-256 of the certificate, from the token.
        profile: the consortium's crypto profile, from the token.

    Raises:
        ConnectionFailed: nobody answers, or somebody else does, or the clocks are 45 minutes apart.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    restrict(context, profile)
    context.verify_mode = ssl.CERT_NONE  # what is fetched is checked against the token
    body, date = _call(address, context, "GET", "/root", b"")
    try:
        root = parse_chain(body, where=str(address))[0]
    except InputError:
        raise _stranger(address) from None
    if not hmac.compare_digest(fingerprint(root), expected):
        raise _stranger(address)
    ahead = _seconds_ahead(date)
    if abs(ahead) > _CLOCK_LIMIT_S:  # certificates made now would not be valid here: say so before a token is spent
        raise ConnectionFailed(f"the clocks of this machine and {address} differ too much", hint=_clock_hint(ahead))
    return root


def enrol(address: Address, root: x509.Certificate, make: Callable[[], EnrolRequest]) -> Answer:
    """Send a request to a server that the root vouches for; ``make`` is called once it has.

    Raises:
        ConnectionFailed: no connection, or the other end is not the coordinator.
        EnrolmentRefused: it said no; ``rule`` says why.
    """
    body, _ = _call(address, client_context(chain_pem(root)), "POST", "/enrol", lambda: make().encode())
    return decode(Answer, body)


def renew(address: Address, root: x509.Certificate, request: RenewRequest) -> Answer:
    """Send a renewal; errors as in :func:`enrol`."""
    body, _ = _call(address, client_context(chain_pem(root)), "POST", "/renew", request.encode())
    return decode(Answer, body)


def _call(
    address: Address, context: ssl.SSLContext, method: str, path: str, body: bytes | Callable[[], bytes]
) -> tuple[bytes, str]:
    connection = _connection(address, context)
    try:
        with contextlib.closing(connection):
            connection.connect()  # the handshake: from here on the other end is who the context trusts
            content = body if isinstance(body, bytes) else body()
            connection.request(method, path, content, {"Content-Type": "application/json", "Connection": "close"})
            response = connection.getresponse()
            date = response.getheader("Date", "")
            answer = response.read(ANSWER_LIMIT + 1)
    except ssl.SSLCertVerificationError as error:
        raise _untrusted(address, error) from None
    except ssl.SSLError as error:
        raise ConnectionFailed(
            f"no TLS 1.3 connection to {address}: {error.reason or error}",
            hint="is this the enrolment service's address and port?",
        ) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ConnectionFailed(
            f"no answer from {address}: {reason}",
            hint="is the coordinator running, and does a firewall let you through?",
        ) from None
    if response.status != 200:
        raise _refused(address, answer, date)
    if len(answer) > ANSWER_LIMIT:
        raise ConnectionFailed(f"{address} answers too much", hint="is this the enrolment service's address and port?")
    return answer, date


def _connection(address: Address, context: ssl.SSLContext) -> http.client.HTTPSConnection:
    """Return a connection, not opened yet; through a tunnel where HTTPS_PROXY names a proxy, as studies have it."""
    proxy = urllib.request.getproxies().get("https", "")
    if not proxy or urllib.request.proxy_bypass(address.host):
        return http.client.HTTPSConnection(address.host, address.port, context=context, timeout=TIMEOUT_S)
    place = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if place.scheme != "http" or not place.hostname:
        raise ConnectionFailed(
            "HTTPS_PROXY names no HTTP proxy", hint="write HTTPS_PROXY=http://proxy.example.org:3128"
        )
    connection = http.client.HTTPSConnection(place.hostname, place.port or 80, context=context, timeout=TIMEOUT_S)
    user = urllib.parse.unquote(f"{place.username}:{place.password or ''}") if place.username else ""
    login = {"Proxy-Authorization": f"Basic {base64.b64encode(user.encode()).decode('ascii')}"} if user else {}
    connection.set_tunnel(address.host, address.port, headers=login)
    return connection


def _refused(address: Address, body: bytes, date: str) -> ConnectionFailed:
    try:
        code = json.loads(body)["code"]
    except (ValueError, TypeError, KeyError, RecursionError):
        code = None
    if not isinstance(code, str) or len(code) > 40 or not code.replace("-", "").isalpha():
        return ConnectionFailed(
            f"{address} does not speak the enrolment protocol", hint="is this the enrolment service's address and port?"
        )
    hint = HINTS.get(code, "fedsci may differ in version between here and the coordinator")
    if code in ("clock", "expired") and abs(_seconds_ahead(date)) > _CLOCK_SLACK_S:
        hint = _clock_hint(_seconds_ahead(date))
    return EnrolmentRefused(f"{address} refused: {_SAY.get(code, code)}", rule=code, hint=hint)


def _untrusted(address: Address, error: ssl.SSLCertVerificationError) -> ConnectionFailed:
    if error.verify_code in (_EXPIRED, _NOT_YET):
        now = datetime.datetime.now(datetime.UTC)
        what = "ran out" if error.verify_code == _EXPIRED else "is not valid yet"
        return ConnectionFailed(
            f"the certificate of {address} {what}, if it is {now:%Y-%m-%d %H:%M} UTC now",
            hint="if that time is wrong set this machine's clock; if it is right tell the coordinator",
        )
    return ConnectionFailed(
        f"{address} could not be authenticated: {error.verify_message}",
        hint="nothing secret was sent; check the address, and tell the coordinator",
    )


def _stranger(address: Address) -> ConnectionFailed:
    return ConnectionFailed(
        f"{address} is not the coordinator that made this token: it shows another root certificate",
        hint="nothing secret was sent; check the address, and ask the coordinator for the fingerprint of its root",
    )


def _seconds_ahead(date: str) -> float:
    """Return how far this clock is ahead of the one in an HTTP date; 0 if there is none to compare with."""
    try:
        return (datetime.datetime.now(datetime.UTC) - email.utils.parsedate_to_datetime(date)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _clock_hint(ahead: float) -> str:
    way = "ahead of" if ahead > 0 else "behind"
    return f"this machine's clock is {abs(ahead) / 60:.0f} minutes {way} the coordinator's: set it and try again"
