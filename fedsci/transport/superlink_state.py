"""What sites and a study may do with SuperLink's state, one transaction a call.

What is stored, and when it is given away, is Flower's doing: the same methods in the same order as its handlers call
them.
"""

import time
from collections.abc import Callable
from datetime import timedelta
from itertools import chain
from typing import Any, Protocol

from flwr.app import Error, Message
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL, HEARTBEAT_PATIENCE, ErrorCode, Status
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
from flwr.server.superlink.linkstate.utils import convert_sint64_values_in_dict_to_uint64, dict_to_message
from flwr.server.superlink.utils import check_abort
from flwr.server.utils.validator import validate_message
from flwr.supercore.constant import NodeStatus
from flwr.supercore.date import now
from flwr.supercore.inflatable.inflatable_object import (
    get_object_id,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.object_store import NoObjectInStoreError
from flwr.supercore.state.schema.corestate_models import Task
from flwr.supercore.state.schema.linkstate_models import MessageIns, MessageRes, Node
from flwr.supercore.state.schema.objectstore_models import StoredObject
from flwr.supercore.utils import uint64_to_int64
from sqlalchemy import func, select, update

from fedsci.transport.frames import pack_frames, unpack_frames
from fedsci.transport.object_files import IN_FILE, SMALL_BYTES
from fedsci.transport.wire import HEARTBEAT_S, small_and_large

_EXPIRED = "Message TTL has expired"  # as Flower's validator says it
_NOT_RUNNING = [Status.PENDING, Status.STARTING, Status.FINISHED]
_ABSENCE_S = 5.0


class Refused(Exception):
    """A call that is not answered.

    Attributes:
        status: what HTTP calls it.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Actor(Protocol):
    """What one kind of caller may do with SuperLink's state; each call is one transaction."""

    def begin(self, caller: Any, body: bytes) -> tuple[bytes, bool]:
        """Be known as present; also say whether messages were completed by that."""

    def receive(self, caller: Any, body: bytes) -> bytes:
        """Take the caller's messages out of the state; empty if there are none."""

    def send(self, caller: Any, body: bytes) -> tuple[bytes, bool]:
        """Store messages; also say whether they are complete."""

    def put(self, caller: Any, run_id: int, object_id: str, session: str, body: bytes) -> None:
        """Store an object that a message is waiting for."""

    def get(self, caller: Any, run_id: int, object_id: str) -> bytes | None:
        """Return an object; empty if it has not arrived, None if there is none."""


class Sites:
    """What sites may do with SuperLink's state. A caller is the public key of a certificate."""

    def __init__(self, state: Callable[[], SqlLinkState]) -> None:
        self._state = state
        self._serving: dict[bytes, bytes] = {}  # the process that serves a site

    def begin(self, public_key: bytes, body: bytes) -> tuple[bytes, bool]:
        """Let a site's process be the one that serves it; return its node.

        It has nothing in work: what was handed out for the site and not answered is lost, and whoever asked is told
        so; unless this process was here before and did not get it, as the number of the last message that it got says:
        then it is given out again. A process that does not know its forerunner (a copy of the site's folder) must wait
        until that one is gone.
        """
        forerunner, process, last = unpack_frames(body)
        state = self._state()
        with state.session():
            node_id = _node_of(state, public_key)
            [node] = state.get_node_info(node_ids=[node_id])
            if self._serving.get(public_key, forerunner) != forerunner and node.status == NodeStatus.ONLINE:
                raise Refused(409)
            state.acknowledge_node_heartbeat(node_id, HEARTBEAT_S)
            if forerunner == process:
                _give_out_again(state, node_id, last.decode("ascii"))
            lost = _answer_lost(state, node_id)
        self._serving[public_key] = process
        return str(node_id).encode(), lost

    def receive(self, public_key: bytes, process: bytes) -> bytes:
        """Take the site's next message: its envelope and the small objects that are there."""
        if self._serving.get(public_key, process) != process:
            raise Refused(409)
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
                contents, _ = _small_objects(state, tree)
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
            _delete_answered(state, node_id, message.metadata.reply_to_message_id)
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
        self._handed_out: dict[str, dict[str, str | None]] = {}  # a study's messages, and the reply if it went whole

    def begin(self, token: str, body: bytes) -> tuple[bytes, bool]:
        """Refuse: a study begins with a run and its task."""
        raise Refused(404)

    def receive(self, token: str, body: bytes) -> bytes:
        """Return the replies that are there to the messages asked about.

        What is asked about again did not arrive, and is given out again; a reply is done with when it is not.
        """
        state = self._state()
        with state.session() as session:
            run_id = _run_of(state, token)
            asked = set(PullAppMessagesRequest.FromString(body).message_ids)
            handed_out = self._handed_out.setdefault(token, {})
            arrived = {number: handed_out.pop(number) for number in handed_out.keys() - asked}
            state.delete_messages(message_ins_ids=set(arrived))
            for reply in filter(None, arrived.values()):
                state.object_store.delete(reply)
            session.execute(
                update(MessageRes)
                .where(MessageRes.reply_to_message_id.in_(asked), MessageRes.delivered_at != "")
                .values(delivered_at="")
            )
            messages = state.get_message_res(message_ids=asked, run_id=run_id)
            found, trees, contents = [], [], []
            for message in messages:
                sent = message.metadata.reply_to_message_id
                handed_out[sent] = None
                try:
                    tree = state.object_store.get_object_tree(message.metadata.message_id)
                except NoObjectInStoreError:
                    continue
                small, whole = _small_objects(state, tree)
                if whole:
                    handed_out[sent] = tree.object_id
                found.append(message_to_proto(message))
                trees.append(tree)
                contents += small
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


class Absence:
    """Forgives sites and studies that they were not heard while SuperLink itself was away.

    It may have been killed, or the whole machine suspended; a clock set forward looks the same. Without this, Flower
    would give up every study after a minute and every message in work after two heartbeats.
    """

    def __init__(self, state: Callable[[], SqlLinkState], *, clock: Callable[[], float] = time.time) -> None:
        self._state, self._clock = state, clock
        self._seen = clock()

    def notice(self) -> None:
        """To be called at every call and every second: the time between two of them should be short."""
        seen, self._seen = self._seen, self._clock()
        if self._seen - seen > _ABSENCE_S:
            self.forgive()

    def forgive(self) -> None:
        """Count everybody who was there as heard of now."""
        state, moment = self._state(), now()
        task_s = HEARTBEAT_PATIENCE * HEARTBEAT_DEFAULT_INTERVAL
        with state.session() as session:
            session.execute(
                update(Node)
                .where(Node.status == NodeStatus.ONLINE)
                .values(online_until=moment.timestamp() + HEARTBEAT_PATIENCE * HEARTBEAT_S)
            )
            session.execute(
                update(Task)
                .where(Task.token.is_not(None), Task.finished_at.is_(None))
                .values(active_until=moment + timedelta(seconds=task_s))
            )


def end_runs(state: SqlLinkState) -> None:
    """End every run: the process that had them is gone. Sites get nothing more from them."""
    for run in state.get_run_info(statuses=[Status.PENDING, Status.STARTING, Status.RUNNING]):
        state.stop_run(run.run_id)


def _give_out_again(state: SqlLinkState, node_id: int, last: str) -> None:
    """Let a site's process have what was handed out and never got there: all that is not answered but ``last``."""
    with state.session() as session:
        answered = select(MessageRes.message_id).where(MessageRes.reply_to_message_id == MessageIns.message_id)
        session.execute(
            update(MessageIns)
            .where(
                MessageIns.dst_node_id == uint64_to_int64(node_id),
                MessageIns.delivered_at != "",
                MessageIns.message_id != last,
                ~answered.exists(),
            )
            .values(delivered_at="")
        )


def _delete_answered(state: SqlLinkState, node_id: int, number: str) -> None:
    """Forget the content of a message that this site has answered."""
    with state.session() as session:
        mine = select(MessageIns.message_id).where(
            MessageIns.message_id == number, MessageIns.dst_node_id == uint64_to_int64(node_id)
        )
        if session.scalar(mine) is not None:
            state.object_store.delete(number)


def _answer_lost(state: SqlLinkState, node_id: int) -> bool:
    """Answer the messages that a site got and will not answer with an error; say whether there were any."""
    with state.session() as session, no_object_id_recompute():
        answered = select(MessageRes.message_id).where(MessageRes.reply_to_message_id == MessageIns.message_id)
        lost = session.scalars(
            select(MessageIns.message_id).where(
                MessageIns.dst_node_id == uint64_to_int64(node_id),
                MessageIns.delivered_at != "",
                ~answered.exists(),
            )
        ).all()
        for number in lost:
            row = state.get_valid_message_ins(number or "")
            if row is None:
                continue
            convert_sint64_values_in_dict_to_uint64(row, ["run_id", "src_node_id", "dst_node_id"])
            asked = dict_to_message(row)
            if check_abort(asked.metadata.run_id, _NOT_RUNNING, state):
                continue
            error = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "the site lost it")
            reply = Message(error, reply_to=asked)
            reply.metadata.__dict__["_message_id"] = reply.object_id
            run_id = asked.metadata.run_id
            push = state.start_session(run_id)
            _, missing = state.store_message_and_object_tree(reply, get_object_tree(reply), push)
            _store(state, run_id, push, missing, small_and_large([reply])[0])
    return bool(lost)


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


def _small_objects(state: SqlLinkState, tree: ObjectTree) -> tuple[list[bytes], bool]:
    """Return the small objects of a message that are there, and whether that is all of them."""
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
    return contents, len(contents) == len(ids)
