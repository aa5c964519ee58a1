"""Whole messages in one call: SuperLink's own state, without a call and a transaction for every object.

Flower sends a message in about ten HTTP calls, each with its own authentication and its own database transactions.
Here a message with its small objects is one call and one transaction; large objects (the chunks of a model) follow as
they are, without a wrapping. What is stored, and when it is given away, is Flower's doing: the same methods in the same
order as its handlers call them.

Bodies are frames (``wire.frames``): a Flower protobuf, then the contents of objects, whose ids are their SHA-256.
"""

import asyncio
from collections.abc import Callable, Mapping, MutableMapping
from itertools import chain
from typing import Any, Protocol

import anyio.to_thread
from flwr.common.constant import Status
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesResponse, PushMessagesRequest, PushMessagesResponse
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.runtime_pb2 import (
    PullAppMessagesRequest,
    PullAppMessagesResponse,
    PushAppMessagesRequest,
    PushAppMessagesResponse,
)
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.server.superlink.utils import check_abort
from flwr.server.utils.validator import validate_message
from flwr.supercore.constant import TASK_TOKEN_HEADER
from flwr.supercore.inflatable.inflatable_object import get_object_id, iterate_object_tree
from flwr.supercore.object_store import NoObjectInStoreError
from flwr.supercore.state.schema.objectstore_models import StoredObject
from google.protobuf.message import DecodeError
from sqlalchemy import func, select

from fedsci.transport import wire
from fedsci.transport.asgi import App, Receive, Send, read_body, respond
from fedsci.transport.frames import pack_frames, unpack_frames
from fedsci.transport.object_files import IN_FILE, SMALL_BYTES

#: Where the door says who calls: the certificate's public key.
CALLER = "fedsci_caller"
MAX_WAIT_S = 20.0
_EXPIRED = "Message TTL has expired"  # as Flower's validator says it
_NOT_RUNNING = [Status.PENDING, Status.STARTING, Status.FINISHED]


class Refused(Exception):
    """A call that is not answered.

    Attributes:
        status: what HTTP calls it.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Bell:
    """Wakes everybody who waits."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake all; who comes later waits for the next ring."""
        self._event.set()
        self._event = asyncio.Event()

    def next_ring(self) -> asyncio.Event:
        """Return what is set by the next ring from now."""
        return self._event


class Actor(Protocol):
    """What one kind of caller may do with SuperLink's state; each call is one transaction."""

    def receive(self, caller: Any, body: bytes) -> bytes:
        """Take the caller's messages out of the state; empty if there are none."""

    def send(self, caller: Any, body: bytes) -> tuple[bytes, bool]:
        """Store messages; also say whether they are complete."""

    def put(self, caller: Any, run_id: int, object_id: str, session: str, body: bytes) -> None:
        """Store an object that a message is waiting for."""

    def get(self, caller: Any, run_id: int, object_id: str) -> bytes | None:
        """Return an object; empty if it has not arrived, None if there is none."""


class Express:
    """SuperLink's app with the calls that carry whole messages and large objects, for one kind of caller.

    Attributes:
        app: SuperLink's; answers everything else.
        prefix: of the paths of ``receive`` (which may wait), ``send``, ``put`` and ``get``.
        actor: does it.
        awaits: rung when messages for these callers are complete.
        rings: rung when one of these callers has completed messages.
    """

    def __init__(self, app: App, *, prefix: str, actor: Actor, awaits: Bell, rings: Bell) -> None:
        self._app, self._prefix, self._actor, self._awaits, self._rings = app, prefix, actor, awaits, rings

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one call."""
        if scope["type"] != "http" or not scope["path"].startswith(self._prefix):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        caller = scope.get(CALLER, headers.get(TASK_TOKEN_HEADER, ""))
        try:
            body = await read_body(receive)
            status, answer = await self._answer(
                scope["path"].removeprefix(self._prefix), caller, headers, body, receive
            )
        except Refused as refused:
            status, answer = refused.status, b""
        except (DecodeError, ValueError):
            status, answer = 400, b""
        await respond(send, status, answer)

    async def _answer(
        self, call: str, caller: Any, headers: Mapping[str, str], body: bytes, receive: Receive
    ) -> tuple[int, bytes]:
        actor, run = self._actor, anyio.to_thread.run_sync
        if call == "receive":
            return 200, await self._wait(caller, body, receive, float(headers.get(wire.WAIT, "0")))
        if call == "send":
            answer, complete = await run(actor.send, caller, body)
            if complete:
                self._rings.ring()
            return 200, answer
        if call not in ("put", "get"):
            raise Refused(404)
        run_id, object_id = int(headers.get(wire.RUN, "")), headers.get(wire.OBJECT, "")
        if call == "put":
            await run(actor.put, caller, run_id, object_id, headers.get(wire.SESSION, ""), body)
            if wire.WAKE in headers:
                self._rings.ring()
            return 200, b""
        content = await run(actor.get, caller, run_id, object_id)
        return (404, b"") if content is None else (200, content) if content else (202, b"")

    async def _wait(self, caller: Any, body: bytes, receive: Receive, wait_s: float) -> bytes:
        deadline = asyncio.get_running_loop().time() + min(max(wait_s, 0.0), MAX_WAIT_S)
        gone = asyncio.ensure_future(receive())  # the caller hangs up: then no message may be taken for it
        try:
            while True:
                ring = self._awaits.next_ring()
                answer = await anyio.to_thread.run_sync(self._actor.receive, caller, body)
                left = deadline - asyncio.get_running_loop().time()
                if answer or left <= 0:
                    return answer
                rung = asyncio.ensure_future(ring.wait())
                await asyncio.wait({rung, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                rung.cancel()
                if gone.done():
                    return b""
        finally:
            gone.cancel()


class Sites:
    """What sites may do with SuperLink's state. A caller is the public key of a certificate."""

    def __init__(self, state: Callable[[], SqlLinkState]) -> None:
        self._state = state

    def receive(self, public_key: bytes, body: bytes) -> bytes:
        """Take the site's next message: its envelope and the small objects that are there."""
        state = self._state()
        with state.session():
            node_id = _node_of(state, public_key)
            for message in state.get_message_ins(node_id=node_id, limit=1):
                run_id, number = message.metadata.run_id, message.metadata.message_id
                if check_abort(run_id, _NOT_RUNNING, state):
                    continue
                try:
                    tree = state.object_store.get_object_tree(number)
                except NoObjectInStoreError:
                    state.delete_messages(message_ins_ids={number})
                    continue
                response = PullMessagesResponse(messages_list=[message_to_proto(message)], message_object_trees=[tree])
                contents = _small_objects(state, tree)
                return pack_frames([response.SerializeToString(), *contents])
        return b""

    def send(self, public_key: bytes, body: bytes) -> tuple[bytes, bool]:
        """Store a site's reply and the objects that came with it."""
        state = self._state()
        with state.session():
            node_id = _node_of(state, public_key)
            head, *contents = unpack_frames(body)
            request = PushMessagesRequest.FromString(head)
            if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
                raise Refused(400)
            message = message_from_proto(request.messages_list[0])
            # Flower's own call does not check that who sends a reply is who it says it comes from
            if message.metadata.src_node_id != node_id:
                raise Refused(403)
            run_id = message.metadata.run_id
            if check_abort(run_id, _NOT_RUNNING, state):
                raise Refused(403)
            session = state.start_session(run_id)
            _, missing = state.store_message_and_object_tree(message, request.message_object_trees[0], session)
            missing = _store(state, run_id, session, missing, contents)
        response = PushMessagesResponse(objects_to_push=missing, session_id=session)
        return response.SerializeToString(), not missing

    def put(self, public_key: bytes, run_id: int, object_id: str, session: str, body: bytes) -> None:
        """Store a large object of a site's reply; the session says which reply."""
        state = self._state()
        with state.session():
            _node_of(state, public_key)
            if check_abort(run_id, _NOT_RUNNING, state):
                raise Refused(403)
            _store_one(state, run_id, object_id, session, body)

    def get(self, public_key: bytes, run_id: int, object_id: str) -> bytes | None:
        """Return a large object; who knows its SHA-256 has been sent a message with it."""
        state = self._state()
        with state.session():
            _node_of(state, public_key)
            if check_abort(run_id, _NOT_RUNNING, state):
                raise Refused(403)
            return state.get_object(run_id, object_id)


class Coordinator:
    """What a study may do with SuperLink's state. A caller is the token of the study's task."""

    def __init__(self, state: Callable[[], SqlLinkState]) -> None:
        self._state = state

    def receive(self, token: str, body: bytes) -> bytes:
        """Take the replies that are there to the messages asked about."""
        state = self._state()
        with state.session():
            run_id = _run_of(state, token)
            request = PullAppMessagesRequest.FromString(body)
            messages = state.get_message_res(message_ids=set(request.message_ids), run_id=run_id)
            state.delete_messages(message_ins_ids={message.metadata.reply_to_message_id for message in messages})
            found, trees, contents = [], [], []
            for message in messages:
                try:
                    tree = state.object_store.get_object_tree(message.metadata.message_id)
                except NoObjectInStoreError:
                    continue
                found.append(message_to_proto(message))
                trees.append(tree)
                contents += _small_objects(state, tree)
        if not found:
            return b""
        response = PullAppMessagesResponse(messages_list=found, message_object_trees=trees)
        return pack_frames([response.SerializeToString(), *contents])

    def send(self, token: str, body: bytes) -> tuple[bytes, bool]:
        """Store messages to sites and the objects that came with them."""
        state = self._state()
        ids: list[str] = []
        lists: list[list[str]] = []
        with state.session():
            run_id = _run_of(state, token)
            head, *contents = unpack_frames(body)
            request = PushAppMessagesRequest.FromString(head)
            session = state.start_session(run_id)
            for proto, tree in zip(request.messages_list, request.message_object_trees, strict=True):
                message = message_from_proto(proto)
                problems = validate_message(message, is_reply_message=False)
                if problems == [_EXPIRED]:  # it took longer to send than it lives: as if it had been late at the site
                    ids.append("")
                    continue
                if problems or message.metadata.run_id != run_id:
                    raise Refused(400)
                stored, missing = state.store_message_and_object_tree(message, tree, session)
                ids.append(message.metadata.message_id if stored else "")
                lists.append(missing)
            left = _store(state, run_id, session, list(dict.fromkeys(chain(*lists))), contents)
        response = PushAppMessagesResponse(message_ids=ids, objects_to_push=left, session_id=session)
        return response.SerializeToString(), not left

    def put(self, token: str, run_id: int, object_id: str, session: str, body: bytes) -> None:
        """Store a large object of a message to sites."""
        state = self._state()
        with state.session():
            _store_one(state, _run_of(state, token), object_id, session, body)

    def get(self, token: str, run_id: int, object_id: str) -> bytes | None:
        """Return a large object of a reply."""
        state = self._state()
        with state.session():
            return state.get_object(_run_of(state, token), object_id)


def _node_of(state: SqlLinkState, public_key: bytes) -> int:
    node_id = state.get_node_id_by_public_key(public_key)
    if node_id is None:
        raise Refused(401)
    return node_id


def _run_of(state: SqlLinkState, token: str) -> int:
    task = state.get_task_by_token(token) if token else None
    if task is None:
        raise Refused(401)
    return int(task.run_id)


def _store(state: SqlLinkState, run_id: int, session: str, missing: list[str], contents: list[bytes]) -> list[str]:
    """Store the contents that are missing; return what is still missing."""
    here = {get_object_id(content): content for content in contents}
    for object_id in missing:
        if object_id in here and not state.store_object(run_id, session, object_id, here[object_id]):
            raise Refused(409)
    return [object_id for object_id in missing if object_id not in here]


def _store_one(state: SqlLinkState, run_id: int, object_id: str, session: str, content: bytes) -> None:
    # what is there already was put by a call whose answer was lost
    if not state.store_object(run_id, session, object_id, content) and not state.object_store.get(object_id):
        raise Refused(409)


def _small_objects(state: SqlLinkState, tree: ObjectTree) -> list[bytes]:
    """Return the small objects of a message that are there; if that is all of them, the message is done with."""
    ids = {node.object_id for node in iterate_object_tree(tree)}
    # not `state.get_object`: it would read whole models to find out that they are large
    small = select(StoredObject.content).where(
        StoredObject.object_id.in_(ids),
        StoredObject.is_available == 1,
        StoredObject.content != IN_FILE,
        func.length(StoredObject.content) <= SMALL_BYTES,
    )
    with state.session() as session:
        contents = [content for content in session.scalars(small) if content is not None]
    if len(contents) == len(ids):
        state.object_store.delete(tree.object_id)
    return contents
