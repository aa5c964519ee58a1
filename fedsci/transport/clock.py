"""This machine's clock beside the coordinator's: how far it is off, and what is signed where it is.

Flower takes a site's call if its signed time is less than 5 s ahead of SuperLink's clock and less than 305 s behind. So
calls are signed with the coordinator's time, as far as its answers tell it: who may sign is settled by the keys.
"""

import contextlib
import datetime
import http.client
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from email.utils import parsedate_to_datetime

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext

from fedsci.identity.tls import client_context
from fedsci.transport.tls import SiteTls

_DATE_S = 2.0  # a date has whole seconds, and a server makes a new one every second
_LAST_S = (
    2.0**33
)  # in 2242: what is later, or before 1970, is no clock, and at the ends of the calendar nothing is signed
_CALL_S = 10.0
_EXACT_S = 240  # from here on a person is told minutes


class Clock:
    """The coordinator's clock, as far as the dates of its answers tell it.

    Args:
        changed: told, whenever that changes, by how many seconds this machine's clock is ahead (behind: negative).

    Attributes:
        ahead_s: the same; 0 where the clocks may agree.
    """

    def __init__(self, changed: Callable[[float], None] = lambda ahead_s: None) -> None:
        self.ahead_s = 0.0
        self._changed = changed
        self._least, self._most = -_DATE_S, _DATE_S
        self._lock = threading.Lock()  # heartbeats learn beside the calls

    def now(self) -> float:
        """Return the coordinator's time, UTC seconds, to within two seconds."""
        return time.time() - self.ahead_s

    def learn(self, date: str, began: float, ended: float) -> bool:
        """Take the ``Date`` of an answer; return whether it tells something new.

        Args:
            date: as the answer has it; anything else teaches nothing.
            began, ended: when the call did, by this machine's clock.
        """
        try:
            there = parsedate_to_datetime(date).timestamp()
        except (ValueError, TypeError, OverflowError):
            return False
        if not 0 <= there <= _LAST_S:
            return False
        with self._lock:
            return self._narrow(began - there - _DATE_S, ended - there)

    def _narrow(self, least: float, most: float) -> bool:
        """Take that this machine's clock is between ``least`` and ``most`` seconds ahead."""
        if max(least, self._least) <= min(most, self._most):  # the same clocks: each answer narrows it down
            self._least, self._most = max(least, self._least), min(most, self._most)
            if self.ahead_s:
                self.ahead_s = (self._least + self._most) / 2
            return False
        self._least, self._most = least, most
        self.ahead_s = 0.0 if least <= 0 <= most else (least + most) / 2
        self._changed(self.ahead_s)
        return True


def said_of(ahead_s: float) -> str:
    """Say in words how a clock is off.

    >>> said_of(300.4)
    "this machine's clock is 5 min ahead of the coordinator's"
    >>> said_of(-7260)
    "this machine's clock is 2 h 1 min behind the coordinator's"
    """
    off_s = round(abs(ahead_s))
    minutes, seconds = divmod(off_s if off_s < _EXACT_S else round(off_s / 60) * 60, 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (seconds, "s")]
    amount = " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"
    return f"this machine's clock is {amount} {'ahead of' if ahead_s > 0 else 'behind'} the coordinator's"


class Signature:
    """Signs a site's Flower calls with its key and the coordinator's time; in place of Flower's, which signs this
    machine's.

    Args:
        key: the site's.
        clock: read, and set by what every answer says.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey, clock: Clock) -> None:
        self._key, self._clock = key, clock
        self._public_key = b64encode(public_key_to_bytes(key.public_key())).decode("ascii")

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Make one call; again, if it was refused and the clock turned out to be off."""
        response, learned = self._call(context, call_next)
        if response.status_code == httpx.codes.UNAUTHORIZED and learned:
            response, _ = self._call(context, call_next)
        return response

    def _call(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> tuple[httpx.Response, bool]:
        signed = datetime.datetime.fromtimestamp(self._clock.now(), datetime.UTC).isoformat()
        context.request.headers.update(
            {
                FLEET_HTTP_PUBLIC_KEY_HEADER: self._public_key,
                TIMESTAMP_HEADER: signed,
                FLEET_HTTP_SIGNATURE_HEADER: b64encode(sign_message(self._key, signed.encode("ascii"))).decode("ascii"),
            }
        )
        began = time.time()
        response = call_next(context)
        return response, self._clock.learn(response.headers.get("date", ""), began=began, ended=time.time())


def ask_time(address: str, tls: SiteTls, clock: Clock) -> None:
    """Learn a time from whoever answers at ``address``, whose certificate this machine's clock finds out of date.

    Nothing is sent, and what comes back is not trusted: it is only told to a person.

    Args:
        address: ``host:port``.
        tls: the site's; its certificate is shown.
        clock: set if there is an answer; not one that anything is signed or reckoned with.
    """
    context = client_context(tls.ca.read_bytes(), certificate=tls.certificate, key=tls.key)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    host, _, port = address.rpartition(":")
    began = time.time()
    with (
        contextlib.suppress(OSError, http.client.HTTPException),
        contextlib.closing(
            http.client.HTTPSConnection(host.strip("[]"), int(port), context=context, timeout=_CALL_S)
        ) as connection,
    ):
        connection.request("POST", "/", b"")
        date = connection.getresponse().getheader("Date", "")
        clock.learn(date, began=began, ended=time.time())
