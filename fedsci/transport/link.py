"""The coordinator's way to the sites: one request each, the replies that came, and what it cost."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flwr.app import ArrayRecord, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from fedsci.errors import ConnectionFailed, FedsciError, InputError, LogBehind, SiteFailed
from fedsci.names import SiteId, site_id
from fedsci.transport.codec import decode_reply, encode, encode_vector
from fedsci.transport.messages import ACTIONS, BOUNDED, BUSY, Reply, Request

_POLL_S = 0.002
_BUSY_S = 0.1
_SHORTEST_S = 0.01
_EXPIRED = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE)
_CLOSE_S = 1.0  # SuperLink may find a little before we do that a request's time is over
_HELLO_S = 5.0  # the sites that are there can answer, however long the others were waited for


@dataclass(kw_only=True)
class Traffic:
    """Bytes of message bodies and arrays, as the coordinator sees them."""

    up: int = 0
    down: int = 0


@dataclass(kw_only=True)
class SiteLink:
    """Sends requests over a Flower Grid and waits for replies.

    Attributes:
        grid: Flower's.
        timeout_s: how long to wait for the slowest site.
        round_deadline_s: the same in the exchanges of a round (:data:`BOUNDED`), where it is less.
        registered: each site's node, where the connection itself proves which site a node is; else what the nodes
            say of themselves counts.
        check: called before anything is sent and while waiting; may raise to end it.
        riding: returns fields that go along with a request to a site.
        behind: told how many entries of the audit log a site has seen, where that is not what rode along; returns
            whether the site is to be asked once more.
        traffic: bytes so far.
        traffic_of: the same by site.
        virtual_seconds: what the rounds' exchanges would have taken, where a simulation reckons it.
        seconds_codec: time spent in turning requests and replies into Flower's messages and back.
    """

    grid: Grid
    timeout_s: float = 3600.0
    round_deadline_s: float | None = None
    registered: Mapping[SiteId, int] | None = None
    check: Callable[[], None] = lambda: None
    riding: Callable[[SiteId, Request], Mapping[str, Any]] = lambda site, request: {}
    behind: Callable[[SiteId, int], bool] = lambda site, size: False
    traffic: Traffic = field(default_factory=Traffic)
    traffic_of: dict[SiteId, Traffic] = field(default_factory=dict)
    virtual_seconds: float | None = None
    seconds_codec: float = 0.0
    _nodes: dict[SiteId, int] = field(default_factory=dict)

    @property
    def discovered(self) -> tuple[SiteId, ...]:
        """The sites that have answered to :meth:`discover`."""
        return tuple(sorted(self._nodes))

    def discover(self, expected: Iterable[SiteId], *, wait_s: float = 30.0) -> dict[SiteId, bytes]:
        """Learn which node is which site, and return each site's verification key as it states it.

        Raises:
            ConnectionFailed: an expected site did not answer, two nodes claim one name, or a node claims a name that is
                not its own.
        """
        wanted = set(expected)
        owner = None if self.registered is None else {node: site for site, node in self.registered.items()}
        deadline = time.monotonic() + wait_s
        nodes: list[int] = []
        while len(nodes) < len(wanted) and time.monotonic() < deadline:
            nodes = list(self.grid.get_node_ids())
            if owner is not None:
                nodes = [node for node in nodes if owner.get(node) in wanted]
            if len(nodes) < len(wanted):
                self.check()
                time.sleep(0.05)
        keys: dict[SiteId, bytes] = {}
        replies = self._exchange(
            {node: Request(action="hello") for node in nodes}, deadline=max(deadline, time.monotonic() + _HELLO_S)
        )
        for node, reply in replies.items():
            if isinstance(reply, FedsciError) or reply.error is not None:
                continue
            try:
                name = site_id(str(reply.fields.get("site", "")))
                key = bytes.fromhex(str(reply.fields.get("key", "")))
            except (InputError, ValueError):
                continue
            if owner is not None and name != owner[node]:
                raise ConnectionFailed(f"{owner[node]} says that it is {name}")
            if name in self._nodes:
                raise ConnectionFailed(f"two nodes say that they are {name}")
            self._nodes[name] = node
            keys[name] = key
        missing = sorted(wanted - set(self._nodes))
        if missing:
            raise ConnectionFailed(f"no answer from {', '.join(missing)}", hint="is the site's process running?")
        return keys

    def assume(self, expected: Iterable[SiteId]) -> None:
        """Address sites by their registered nodes, whether or not they answer now: a study taken up knows them."""
        self._nodes |= {site: self.registered[site] for site in expected if self.registered and site in self.registered}

    def ask(self, requests: Mapping[SiteId, Request]) -> dict[SiteId, Reply | SiteFailed]:
        """Send one request to each site and return what came back, in the order of the sites' names.

        A site that answered with an error, with nonsense, or not in time is a :class:`SiteFailed` value. A site that
        is still busy with an earlier request is asked again until the time is over; what reaches a site after that is
        not computed there.
        """
        started, limit = time.monotonic(), self.timeout_s
        if self.round_deadline_s is not None and any(request.action in BOUNDED for request in requests.values()):
            limit = min(limit, self.round_deadline_s)
        by_node = {self._nodes[site]: self._loaded(site, one) for site, one in requests.items() if site in self._nodes}
        replies = self._exchange(by_node, deadline=started + limit)
        again = {
            self._nodes[site]: site for site in requests if self._is_behind(replies.get(self._nodes.get(site, 0)), site)
        }
        if again:
            once_more = {node: self._loaded(site, requests[site]) for node, site in again.items()}
            replies = {node: reply for node, reply in replies.items() if node not in once_more}  # else it is late
            replies |= self._exchange(once_more, deadline=started + limit)
        results: dict[SiteId, Reply | SiteFailed] = {}
        for site in sorted(requests):
            reply = replies.get(self._nodes[site]) if site in self._nodes else None
            if site not in self._nodes:
                results[site] = SiteFailed(site, {"message": "is not registered", "exit_code": 7, "code": "away"})
            elif reply is None:
                silence = {"message": f"late: no answer within {limit:g} s", "exit_code": 5, "code": "silent"}
                results[site] = SiteFailed(site, silence)
            elif isinstance(reply, FedsciError):
                results[site] = SiteFailed(site, {"message": reply.message, "exit_code": 5, "code": "transport"})
            elif reply.error is not None:
                results[site] = SiteFailed(site, reply.error)
            else:
                results[site] = reply
        return results

    def _is_behind(self, reply: Reply | FedsciError | None, site: SiteId) -> bool:
        """Say whether a site refused only since it has seen another part of the log than it was taken to have."""
        error = reply.error if isinstance(reply, Reply) else None
        if error is None or error.get("code") != LogBehind.code:
            return False
        size = error.get("size")
        return type(size) is int and self.behind(site, size)

    def _loaded(self, site: SiteId, request: Request) -> Request:
        riding = self.riding(site, request)
        return replace(request, fields={**request.fields, **riding}) if riding else request

    def _exchange(self, requests: Mapping[int, Request], *, deadline: float) -> dict[int, Reply | FedsciError]:
        self.check()  # before anything is sent
        vectors: dict[int, ArrayRecord] = {}  # the model is encoded once, however many sites get it
        node_of = self._push(requests, vectors, deadline=deadline)
        pending, busy, again = set(node_of), set[int](), time.monotonic() + _BUSY_S
        replies: dict[int, Reply | FedsciError] = {}
        while pending or busy:
            self.check()
            got = list(self.grid.pull_messages(pending)) if pending else []
            now = time.monotonic()
            for message in got:
                sent = message.metadata.reply_to_message_id
                pending.discard(sent)
                if message.has_content():
                    self._count(node_of[sent], up=_size(message.content))
                reply = self._decode(message, left_s=deadline - now)
                if isinstance(reply, Reply) and reply.error is not None and reply.error.get("code") == BUSY["code"]:
                    busy.add(node_of[sent])
                elif reply is not None:
                    replies[node_of[sent]] = reply
            if now >= deadline:
                break
            if busy and now >= again:
                pushed = self._push({node: requests[node] for node in busy}, vectors, deadline=deadline)
                node_of |= pushed
                pending |= pushed.keys()
                busy, again = set(), now + _BUSY_S
            elif not got:
                time.sleep(_POLL_S)
        return replies

    def _push(
        self, requests: Mapping[int, Request], vectors: dict[int, ArrayRecord], *, deadline: float
    ) -> dict[str, int]:
        """Send requests; return the node of every message."""
        began = time.monotonic()
        messages = []
        for node, request in requests.items():
            records = encode(Request(action=request.action, fields=request.fields))
            if request.vector is not None:
                key = id(request.vector)
                if key not in vectors:
                    vectors[key] = encode_vector(request.vector)
                records["vector"] = vectors[key]
            self._count(node, down=_size(records))
            left_s = max(_SHORTEST_S, deadline - time.monotonic())
            messages.append(Message(records, node, ACTIONS[request.action], ttl=left_s))
        ids = list(self.grid.push_messages(messages))
        self.seconds_codec += time.monotonic() - began
        return dict(zip(ids, requests, strict=True))

    def _decode(self, message: Message, *, left_s: float) -> Reply | FedsciError | None:
        """Return a reply, or what went wrong; None if it is only that the request's time is over."""
        if not message.has_content():
            code = message.error.code
            if code in _EXPIRED and left_s < _CLOSE_S:
                return None
            if code == ErrorCode.NODE_UNAVAILABLE:
                return ConnectionFailed("not connected")
            return ConnectionFailed(f"the site's process failed (Flower error {code})")
        began = time.monotonic()
        try:
            return decode_reply(message.content)
        except FedsciError as error:
            return error
        finally:
            self.seconds_codec += time.monotonic() - began

    def _count(self, node: int, *, up: int = 0, down: int = 0) -> None:
        named = [self.traffic_of.setdefault(site, Traffic()) for site, its in self._nodes.items() if its == node]
        for traffic in (self.traffic, *named):  # before its hello a node has no name
            traffic.up += up
            traffic.down += down


def _size(records: RecordDict) -> int:
    arrays = sum(len(a.data) for record in records.array_records.values() for a in record.values())
    return arrays + sum(len(str(v)) for record in records.config_records.values() for v in record.values())
