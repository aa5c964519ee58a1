"""The coordinator's side of Flower: a SuperLink in a process of its own, and a Grid to the sites that hold a study.

A study runs in the coordinator's own process. Flower wants a run to belong to an app bundle and a task; the bundle
registered here is empty and nothing ever executes it: the task is taken by this process, with the secret that only
the coordinator's account can read.
"""

import contextlib
import fcntl
import os
import subprocess  # runs this package, nothing else
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar
from zipfile import ZipFile, ZipInfo

import httpx
from cryptography import x509
from flwr.app import Error, Message, Metadata
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode, SubStatus
from flwr.common.serde import message_to_proto, run_from_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    RegisterNodeRequest,
    StartRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.fab_pb2 import Fab
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    GetNodesRequest,
    PullAppMessagesRequest,
    PullAppMessagesResponse,
    PullTaskInputRequest,
    PushAppMessagesRequest,
    PushAppMessagesResponse,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.serverapp import Grid
from flwr.supercore.constant import SYSTEM_MESSAGE_TYPE, TASK_TOKEN_HEADER, TaskType
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.inflatable.inflatable_object import get_object_tree, no_object_id_recompute
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.interceptors.http.superexec_auth import SuperExecAuthHttpInterceptor
from flwr.supercore.protobuf.client import ProtobufClient
from flwr.supercore.run import Run
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity

from fedsci.errors import ConnectionFailed, InputError
from fedsci.names import SiteId, site_id
from fedsci.transport.superlink import listening, secret_of, socket_path
from fedsci.transport.tls import CoordinatorTls, identity_of
from fedsci.transport.wire import STUDY, Line, assemble, by_id, is_passing, push_large, small_and_large

_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"
_HEARTBEAT_S = 10.0
_OUTAGE_S = 50.0  # Flower gives a task up 60 s after its last heartbeat
_WAIT_S = 1.0
_OBJECTS_WAIT_S = 60.0
_MANIFEST = b"""[build-system]
requires = []
[project]
name = "study"
version = "1.0.0"
description = "Nothing is executed from this bundle"
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "fedsci"
[tool.flwr.app.components]
serverapp = "fedsci.nothing:app"
clientapp = "fedsci.nothing:app"
[tool.flwr.app.config]
"""
Result = TypeVar("Result")
Client = TypeVar("Client", bound=ProtobufClient)


class Superlink:
    """SuperLink behind its door, as a child process that ends with this one.

    Args:
        state: the coordinator's folder; database, socket, secret and log are kept there.
        tls: the coordinator's certificates.
        host: the address to listen on.
        port: the port to listen on; 0 takes a free one.
    """

    def __init__(self, state: Path, tls: CoordinatorTls, *, host: str = "0.0.0.0", port: int) -> None:  # noqa: S104
        self._state, self._tls, self._host, self._asked_port = state, tls, host, port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process, or None if it does not run."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    @property
    def port(self) -> int:
        """The port that sites connect to; 0 while it does not run."""
        return listening(self._state)[0]

    def start(self, *, timeout_s: float = 60.0) -> None:
        """Start it and return when sites can connect; its errors go to ``superlink.log``.

        Raises:
            ConnectionFailed: it did not start; the message holds the last line of its log.
        """
        self._state.mkdir(parents=True, exist_ok=True, mode=0o700)
        log = self._state / "superlink.log"
        command = [sys.executable, "-m", "fedsci.transport.superlink", "--with-parent", "--state", str(self._state)]
        command += ["--host", self._host, "--port", str(self._asked_port)]
        for name in ("certificate", "key", "ca", "crl"):
            command += [f"--{name}", str(getattr(self._tls, name))]
        with log.open("ab") as file:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file, stderr=file)  # noqa: S603
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self.pid is not None:
            if listening(self._state)[1] == self.pid and is_up(self._state):
                return
            time.sleep(0.05)
        self.stop()
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        said = lines[-1].removeprefix("fedsci: ") if lines else "it said nothing"
        raise ConnectionFailed(f"SuperLink did not start: {said}", hint=f"see {log}")

    def stop(self, *, timeout_s: float = 10.0) -> None:
        """Stop it; after ``timeout_s`` by force."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None

    def __enter__(self) -> "Superlink":
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


def is_up(state: Path) -> bool:
    """Say whether a SuperLink answers on a coordinator's folder."""
    try:
        with _client(ControlHttpClient, state) as client:
            client.ListNodes(ListNodesRequest())
    except (httpx.HTTPError, OSError):
        return False
    return True


def register_sites(state: Path, certificates: Iterable[bytes]) -> dict[SiteId, int]:
    """Let the sites of these certificates connect; return every registered site's node.

    A site that was registered with another key is registered anew. Call it when sites are enrolled and whenever
    SuperLink starts: it changes nothing that is right already.

    Args:
        state: the coordinator's folder.
        certificates: PEM; whoever calls this has checked that the consortium issued them.

    Raises:
        InputError: a certificate names no site.
        ConnectionFailed: SuperLink does not answer.
    """
    wanted = dict(_read_certificate(content) for content in certificates)
    with _client(ControlHttpClient, state) as client:

        def nodes() -> dict[SiteId, Any]:
            found = _reach(lambda: client.ListNodes(ListNodesRequest())).nodes_info
            return {site_id(node.name): node for node in found if node.name and node.status != "unregistered"}

        known = nodes()
        for site, key in wanted.items():
            if site in known and known[site].public_key == key:
                continue
            if site in known:
                _reach(lambda site=site: client.UnregisterNode(UnregisterNodeRequest(node_id=known[site].node_id)))  # type: ignore[misc]
            _reach(lambda site=site, key=key: client.RegisterNode(RegisterNodeRequest(public_key=key, name=site)))  # type: ignore[misc]
        return {site: node.node_id for site, node in nodes().items()}


def unregister_site(state: Path, site: SiteId) -> None:
    """Let a site connect no more, whatever certificate it shows; nothing happens if it is not registered.

    Raises:
        ConnectionFailed: SuperLink does not answer.
    """
    with _client(ControlHttpClient, state) as client:
        for node in _reach(lambda: client.ListNodes(ListNodesRequest())).nodes_info:
            if node.name == site and node.status != "unregistered":
                _reach(lambda number=node.node_id: client.UnregisterNode(UnregisterNodeRequest(node_id=number)))  # type: ignore[misc]


def site_status(state: Path) -> dict[SiteId, str]:
    """Return for every registered site ``online``, ``offline`` or ``registered`` (never seen).

    Raises:
        ConnectionFailed: SuperLink does not answer.
    """
    with _client(ControlHttpClient, state) as client:
        found = _reach(lambda: client.ListNodes(ListNodesRequest())).nodes_info
        return {site_id(node.name): node.status for node in found if node.name and node.status != "unregistered"}


class SuperlinkGrid(Grid):
    """Flower's Grid over a SuperLink on this machine, for one study.

    Calls outlive a SuperLink that is restarted within 50 s. Replies are waited for at SuperLink, not polled.

    Attributes:
        nodes: the node of every registered site, by its certificate.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="grid")
        self._lost: dict[str, Message] = {}
        self._closed = threading.Event()
        self.nodes: Mapping[SiteId, int] = register_sites(state, [])
        token, self._run, self._task = _begin(state)
        self._node = Node(node_id=SUPERLINK_NODE_ID)
        self._client = _client(RuntimeHttpClient, state, RuntimeTokenHttpInterceptor(token=token), _version())
        self._line = Line(self._client, STUDY, {TASK_TOKEN_HEADER: token})
        self._pulse = _client(RuntimeHttpClient, state, RuntimeTokenHttpInterceptor(token=token), _version())
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def close(self, *, completed: bool = True) -> None:
        """End the run: sites get nothing more from it."""
        if self._closed.is_set():
            return
        self._closed.set()
        request = PushTaskOutputRequest(sub_status=SubStatus.COMPLETED if completed else SubStatus.FAILED)
        with contextlib.suppress(httpx.HTTPError):  # Flower ends the run when its heartbeats stop
            self._client.PushTaskOutput(request)
        self._pool.shutdown()
        self._client.close()
        self._pulse.close()

    def __enter__(self) -> "SuperlinkGrid":
        return self

    def __exit__(self, kind: object, *exc_info: object) -> None:
        self.close(completed=kind is None)

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
        """Return the nodes of the sites that are connected."""
        response = self._again(lambda: self._client.GetNodes(GetNodesRequest()))
        ours = set(self.nodes.values())
        return [node.node_id for node in response.nodes if node.node_id in ours]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Hand messages over and return their ids; they become this study's, whichever study began last.

        Raises:
            ConnectionFailed: SuperLink did not come back, or gave the study up.
        """
        messages = list(messages)
        if not messages:
            return []
        with no_object_id_recompute():
            for message in messages:
                about = message.metadata.__dict__  # Flower's own identity is one for the whole process
                about |= {"_run_id": self._run.run_id, "_src_task_id": self._task, "_src_node_id": SUPERLINK_NODE_ID}
                about["_message_id"] = message.object_id
            request = PushAppMessagesRequest(
                messages_list=[message_to_proto(remove_content_from_message(message)) for message in messages],
                message_object_trees=[get_object_tree(message) for message in messages],
            )
            small, large = small_and_large(messages)
            answer = self._again(lambda: self._line.send([request.SerializeToString(), *small]))
            response = PushAppMessagesResponse.FromString(answer)
            if response.objects_to_push:
                session, run_id = response.session_id, self._run.run_id

                def put(number: str, content: bytes, last: bool) -> None:
                    self._again(lambda: self._line.put(run_id, session, number, content, last=last))

                push_large(large, response.objects_to_push, put, self._pool)
        for message, taken in zip(messages, response.message_ids, strict=True):
            if not taken:
                self._lost[message.metadata.message_id] = _no_reply(message.metadata.message_id, self._run.run_id)
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there; waits up to a second for the first.

        Raises:
            ConnectionFailed: SuperLink did not come back, or gave the study up.
        """
        wanted = set(message_ids)
        lost = [self._lost.pop(number) for number in wanted & self._lost.keys()]
        if lost:
            return lost
        asked = PullAppMessagesRequest(message_ids=wanted).SerializeToString()
        head, *contents = self._again(lambda: self._line.receive(asked, wait_s=_WAIT_S)) or [b""]
        response, here = PullAppMessagesResponse.FromString(head), by_id(contents)

        def pull(object_id: str) -> bytes:
            return self._again(lambda: self._line.get(self._run.run_id, object_id))

        replies = []
        for envelope, tree in zip(response.messages_list, response.message_object_trees, strict=True):
            number = envelope.metadata.message_id
            try:
                message, pulled = assemble(number, tree, here, pull, wait_s=_OBJECTS_WAIT_S)
            except ObjectPullError:
                message, pulled = _no_reply(envelope.metadata.reply_to_message_id, self._run.run_id), False
            replies.append(message)
            if pulled:
                confirm = ConfirmMessageReceivedRequest(
                    node=self._node, run_id=self._run.run_id, message_object_id=number
                )
                self._again(lambda confirm=confirm: self._client.ConfirmMessageReceived(confirm))  # type: ignore[misc]
        return replies

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push, wait for all or for ``timeout`` seconds, return the replies."""
        pending = set(self.push_messages(messages))
        deadline = time.monotonic() + (3600.0 if timeout is None else timeout)
        replies: list[Message] = []
        while pending and time.monotonic() < deadline:
            got = list(self.pull_messages(pending))
            replies += got
            pending -= {message.metadata.reply_to_message_id for message in got}
        return replies

    def _again(self, call: Callable[[], Result]) -> Result:
        """Make a call until it works; SuperLink may be restarted meanwhile."""
        deadline, pause = time.monotonic() + _OUTAGE_S, 0.1
        while True:
            try:
                return call()
            except httpx.HTTPError as error:
                if isinstance(error, httpx.HTTPStatusError) and error.response.status_code in (401, 403):
                    raise ConnectionFailed(
                        "SuperLink has given this study up",
                        hint="it was away for over a minute, or the run was stopped; submit the study again",
                    ) from None
                if not is_passing(error):
                    raise ConnectionFailed(f"SuperLink refused a call: {error}") from None
                if time.monotonic() >= deadline:
                    raise ConnectionFailed(
                        f"SuperLink has not answered for {_OUTAGE_S:g} s", hint=f"see {self._state / 'superlink.log'}"
                    ) from None
            time.sleep(pause)
            pause = min(2 * pause, 2.0)

    def _beat(self) -> None:
        pause = _HEARTBEAT_S
        while not self._closed.wait(pause):
            try:
                self._pulse.SendTaskHeartbeat(SendTaskHeartbeatRequest())
                pause = _HEARTBEAT_S
            except (httpx.HTTPError, RuntimeError):  # RuntimeError: closed meanwhile
                pause = 1.0


def connect_grid(state: Path) -> SuperlinkGrid:
    """Return a Grid for one study over the SuperLink of a coordinator's folder; close it when the study is over.

    Several studies of one process may have one each, in threads of their own.

    Raises:
        ConnectionFailed: SuperLink does not answer.
    """
    return SuperlinkGrid(state)


def _begin(state: Path) -> tuple[str, Run, int]:
    """Make a Flower run and take its task, before anybody else's study does; return token, run and task."""
    bundle = BytesIO()
    with ZipFile(bundle, "w") as archive:
        archive.writestr(ZipInfo("pyproject.toml"), _MANIFEST)
    interceptor = SuperExecAuthHttpInterceptor(master_secret=secret_of(state), protected_methods={_ACQUIRE})
    with os.fdopen(os.open(state / "begin.lock", os.O_WRONLY | os.O_CREAT, 0o600), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with _client(ControlHttpClient, state) as control:
            started = _reach(lambda: control.StartRun(StartRunRequest(fab=Fab(content=bundle.getvalue()))))
        with _client(RuntimeHttpClient, state, interceptor, _version()) as runtime:
            wanted = AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP])
            while True:
                acquired = _reach(lambda: runtime.AcquireTask(wanted))
                if not acquired.token:
                    raise ConnectionFailed("SuperLink gave the run's task to somebody else")
                with _client(
                    RuntimeHttpClient, state, RuntimeTokenHttpInterceptor(token=acquired.token), _version()
                ) as task:
                    given = _reach(lambda task=task: task.PullTaskInput(PullTaskInputRequest()))  # type: ignore[misc]
                    if given.run.run_id == started.run_id:
                        break
                    # left over from a study that ended before it began
                    task.PushTaskOutput(PushTaskOutputRequest(sub_status=SubStatus.FAILED))
    # what Flower puts into every new message; a study's own comes in when it is handed over
    TaskIdentity.task_id, TaskIdentity.run_id = given.task_id, given.run.run_id
    TaskIdentity.node_id = given.context.node_id
    return acquired.token, run_from_proto(given.run), given.task_id


def _client(kind: type[Client], state: Path, *interceptors: Any) -> Client:
    """Return one of Flower's clients, talking over the Unix socket."""
    # no TLS on a Unix socket that only this account can open; Flower's own connection is never used
    client = kind("http://superlink", interceptors=interceptors, verify=False)
    client._client.close()
    transport = httpx.HTTPTransport(uds=str(socket_path(state)))
    client._client = httpx.Client(transport=transport, timeout=30.0, trust_env=False)
    return client


def _version() -> RuntimeVersionHttpInterceptor:
    return RuntimeVersionHttpInterceptor(component_name="flwr-serverapp")


def _reach(call: Callable[[], Result]) -> Result:
    try:
        return call()
    except httpx.HTTPStatusError as error:
        raise ConnectionFailed(f"SuperLink refused a call ({error.response.status_code})") from None
    except (httpx.HTTPError, OSError):
        raise ConnectionFailed("SuperLink does not answer", hint="is the coordinator's daemon running?") from None


def _no_reply(sent: str, run_id: int) -> Message:
    metadata = Metadata(
        run_id=run_id,
        message_id="",
        src_node_id=SUPERLINK_NODE_ID,
        dst_node_id=SUPERLINK_NODE_ID,
        message_type=SYSTEM_MESSAGE_TYPE,
        group_id="",
        ttl=0,
        reply_to_message_id=sent,
        created_at=time.time(),
    )
    return make_message(metadata=metadata, error=Error(ErrorCode.MESSAGE_UNAVAILABLE, "lost on the way"))


def _read_certificate(content: bytes) -> tuple[SiteId, bytes]:
    try:
        return identity_of(x509.load_pem_x509_certificate(content))
    except ValueError:
        raise InputError("a site's certificate is not PEM") from None
