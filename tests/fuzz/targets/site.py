"""A hostile coordinator against a site in the middle of a real, admitted study.

Whatever it asks, the answer is a reply with a public error; nothing of the site's data, folders or code is in it; what
the ledger holds is only added to; and the honest request that was due is still answered.
"""

import json
import re
from base64 import b64decode
from collections.abc import Mapping
from functools import partial
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedsci.errors import ConnectionFailed, FedsciError
from fedsci.site.service import SiteService
from fedsci.transport.codec import decode_request, encode
from fedsci.transport.messages import Reply, Request
from tests.fuzz.engine import Target, home
from tests.fuzz.world import body_text, recorded

_CODES = {"config", "input", "data", "budget", "policy", "aborted", "protocol", "verification", "behind", "connection"}
_DATA = re.compile(r"0\.\d{6}\b")
_FORKED = "the coordinator signed two histories of this run"


def request_of(data: bytes) -> Request:
    """Return what arrives where an input is sent, with any array.

    Raises:
        ConnectionFailed: the codec takes it for no request.
    """
    try:
        body = json.loads(data)
        vector = body.pop("vector", None)
        array = None
        if vector is not None:
            shape = tuple(size for size in vector["shape"] if type(size) is int and abs(size) < 2**62)
            content = b64decode(vector["data"], validate=True)
            array = Array(dtype=str(vector["dtype"]), shape=shape, stype="fedsci.raw.v1", data=content)
        text = json.dumps(body)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ConnectionFailed("no request") from None
    records = RecordDict({"fedsci": ConfigRecord({"body": text})})
    if array is not None:
        records["vector"] = ArrayRecord({"v": array})
    return decode_request(records)


def check_public(reply: Reply, service: SiteService) -> None:
    """Refuse a reply with anything in it that is the site's own, or that says that the site stumbled."""
    encode(reply)
    text = json.dumps({"fields": reply.fields, "error": reply.error})
    for private in (str(home()), "Traceback", "site-packages", ".py", "/dev/shm"):  # noqa: S108
        assert private not in text, f"{private} in {text[:300]}"
    if reply.error is None:
        return
    message = reply.error["message"]
    assert reply.error["code"] in _CODES, f"{reply.error}: {_stumbled(service)}"
    assert isinstance(message, str)
    assert not _DATA.search(message), message


def _stumbled(service: SiteService) -> str:
    """Return the end of what the site's own log says of an error that nobody expected."""
    return str(json.loads(service.log.path.read_text().splitlines()[-1]).get("text"))[-900:]


def spent(service: SiteService) -> tuple[list[str], dict[str, float]]:
    """Return the hashes of a ledger's entries, and what is charged by data set."""
    seen = service.ledger.inspect()
    assert seen.problem is None, seen.problem
    books = {name: one.rdp for name, one in seen.books.everything_spent().items()}
    return [entry.hash for entry in service.ledger.entries()], books


def hostile(data: bytes, *, kind: str) -> None:
    """Ask the site at one moment of its study."""
    head, _, body = data.partition(b"\n")
    world = recorded(kind)
    name = head.decode("ascii", "replace")
    name = name if name in world.moments else "train-0"
    request = request_of(body)
    service = world.restore(name)
    before, charged = spent(service)
    reply = service.handle(request)
    check_public(reply, service)
    after, now = spent(service)
    assert after[: len(before)] == before, "the ledger lost entries"
    if request.action not in ("finish", "prepare"):
        for dataset, rdp in charged.items():
            assert now[dataset] >= rdp, "the ledger went down"
    due = world.moments[name].body
    done = reply.error is None and request.action == due["action"]
    if reply.error is not None and reply.error["message"] == _FORKED:
        done = True  # a signed note with a proof that fails: nothing of this log is believed any more, as documented
    if not done and not (request.action == due["action"] and after != before) and request.action != "finish":
        good = service.handle(request_of(body_text(due)))
        assert good.error is None, f"after {reply.error} the honest {due['action']} was refused: {good.error}"
    if reply.error is not None:
        raise _Answered(str(reply.error["message"]))


class _Answered(FedsciError):
    """The site answered with an error, as it may."""


def _moments(kind: str) -> Mapping[str, bytes]:
    return {name: name.encode() + b"\n" + body_text(moment.body) for name, moment in recorded(kind).moments.items()}


def _of(kind: str) -> Any:
    return partial(_moments, kind)


TARGETS = [
    Target(name=f"site-{kind}", run=partial(hostile, kind=kind), seeds=_of(kind), headed=True, fresh=True, tries=25)
    for kind in ("masked", "plain")
]
