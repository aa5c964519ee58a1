"""Flower's Grid inside one process: every node is a ClientApp answering in a thread pool.

Records are shared by reference unless ``serialise`` is set, which sends every message through Flower's own
wire format, as between machines.
"""

import os
import secrets
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

_CLIENT_APP_RAISED = 2  # flwr.common.constant.ErrorCode.CLIENT_APP_RAISED_EXCEPTION


def through_the_wire(message: Message) -> Message:
    """Return the message after Flower's own serialisation and parsing."""
    objects = get_all_nested_objects(message)
    contents = {object_id: item.deflate() for object_id, item in objects.items()}
    parsed = inflate_object_from_contents(message.object_id, contents)
    if not isinstance(parsed, Message):
        raise TypeError("Flower parsed a message into something else")
    parsed.metadata.__dict__["_message_id"] = message.metadata.message_id
    return parsed


class LocalGrid(Grid):
    """A Grid over ``nodes`` copies of one ClientApp; node ids are 1 to ``nodes``.

    One run a process at a time: Flower keeps the task's identity in a global.
    """

    def __init__(self, app: ClientApp, nodes: int, *, workers: int | None = None, serialise: bool = False) -> None:
        TaskIdentity.task_id = TaskIdentity.run_id = secrets.randbits(62) + 1
        TaskIdentity.node_id = 1
        self._run = Run.create_empty(run_id=TaskIdentity.run_id)
        self._app = app
        self._serialise = serialise
        self._contexts = {
            # Flower's SuperLink is node 1, so sites start at 2
            number + 2: Context(
                run_id=self._run.run_id,
                node_id=number + 2,
                node_config={"partition-id": number, "num-partitions": nodes},
                state=RecordDict(),
                run_config={},
            )
            for number in range(nodes)
        }
        self._pool = ThreadPoolExecutor(workers or min(nodes, os.cpu_count() or 1), thread_name_prefix="site")
        self._pending: dict[str, Future[Message]] = {}
        self._until: dict[str, float] = {}

    def close(self) -> None:
        """Stop the threads; work that has not begun is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def set_run(self, run: Run) -> None:
        """Set Flower's run."""
        self._run = run

    @property
    def run(self) -> Run:
        """Flower's run."""
        return self._run

    def create_message(self, *_: Any, **__: Any) -> Message:
        """Deprecated in Flower; use ``Message(...)``."""
        raise TypeError("use flwr.app.Message(...)")

    def get_node_ids(self) -> Iterable[int]:
        """Return the node ids."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Hand the messages to the nodes' threads and return their ids."""
        for over in [number for number, until in self._until.items() if until < time.time()]:
            del self._until[over]
            self._pending.pop(over, None)  # nobody waits for it any more
        ids = []
        for message in messages:
            message_id = secrets.token_hex(16)
            message.metadata.__dict__["_message_id"] = message_id
            self._until[message_id] = message.metadata.created_at + message.metadata.ttl
            self._pending[message_id] = self._pool.submit(self._answer, message)
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there."""
        ready = [i for i in message_ids if i in self._pending and self._pending[i].done()]
        return [self._pending.pop(i).result() for i in ready]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push, wait for all, return the replies."""
        ids = list(self.push_messages(messages))
        return [self._pending.pop(i).result(timeout) for i in ids]

    def _answer(self, message: Message) -> Message:
        try:
            incoming = through_the_wire(message) if self._serialise else message
            reply = self._app(incoming, self._contexts[message.metadata.dst_node_id])
            reply.metadata.__dict__["_message_id"] = secrets.token_hex(16)
            return through_the_wire(reply) if self._serialise else reply
        except Exception:  # as SuperNode does: the coordinator gets a code
            return Message(Error(_CLIENT_APP_RAISED, "the site's process failed"), reply_to=message)
