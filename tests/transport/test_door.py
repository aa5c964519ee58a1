"""What a site with a good certificate can reach at SuperLink, and as whom."""

import asyncio
import ssl
import time
from base64 import b64encode

import httpx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, StartRunRequest
from flwr.proto.fleet_pb2 import DeactivateNodeRequest, PullMessagesResponse, PushMessagesRequest, PushMessagesResponse
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import AcquireTaskRequest, PullAppMessagesRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.inflatable.inflatable_object import get_object_id, get_object_tree
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from fedsci.transport import wire
from fedsci.transport.asgi import respond
from fedsci.transport.express import CALLER
from fedsci.transport.flower_coordinator import connect_grid
from fedsci.transport.frames import pack_frames, unpack_frames
from fedsci.transport.front import MAX_BODY_BYTES, Door
from fedsci.transport.superlink_client import inner_client
from fedsci.transport.superlink_sites import register_sites, unregister_site
from fedsci.transport.tls import SiteTls

BEGIN, RECEIVE, SEND = (wire.SITE + call for call in ("begin", "receive", "send"))


class Site:
    """A site's certificate and the calls that can be tried with it."""

    def __init__(self, deployment, name: str) -> None:
        self.deployment = deployment
        if not (deployment.authority.folder / name / "site.crt").exists():
            deployment.authority.site(name)
        self.folder = deployment.authority.folder / name
        self.tls = SiteTls.in_folder(self.folder)
        self.key = self.tls.private_key()
        self.public = public_key_to_bytes(self.key.public_key())

    def register(self) -> int:
        certificate = (self.folder / "site.crt").read_bytes()
        return next(n for s, n in register_sites(self.deployment.state, [certificate]).items() if s == self.folder.name)

    def client(self, kind: type = FleetHttpClient, *, signed_by: "Site | None" = None):
        key = (signed_by or self).key
        return kind(
            f"https://{self.deployment.address}",
            interceptors=[NodeAuthHttpInterceptor(key, key.public_key())],
            verify=self.tls.context(),
        )

    def begin(self, process: bytes = b"this", *, forerunner: bytes = b"", last: bytes = b"") -> int:
        return self.post(BEGIN, pack_frames([forerunner, process, last])).status_code

    def post(self, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> httpx.Response:
        mine = {FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(self.public).decode()} if headers is None else headers
        with httpx.Client(verify=self.tls.context(), trust_env=False) as client:
            return client.post(f"https://{self.deployment.address}{path}", content=body, headers=mine)


@pytest.fixture
def lab(shared_deployment):
    return Site(shared_deployment, "lab-11")


@pytest.fixture
def other(shared_deployment):
    return Site(shared_deployment, "lab-12")


def refused(call) -> int:
    with pytest.raises(httpx.HTTPStatusError) as caught:
        call()
    return caught.value.response.status_code


def test_control_and_runtime_calls_from_outside_find_nothing(lab):
    with lab.client(ControlHttpClient) as control:
        assert refused(lambda: control.ListNodes(ListNodesRequest())) == 404
        assert refused(lambda: control.StartRun(StartRunRequest())) == 404
        assert refused(lambda: control.RegisterNode(RegisterNodeRequest(public_key=lab.public))) == 404
    with lab.client(RuntimeHttpClient) as runtime:
        assert refused(lambda: runtime.AcquireTask(AcquireTaskRequest())) == 404


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/docs",
        "/openapi.json",
        "/health",
        "/v1/control/list-nodes",
        "/v1/runtime/fedsci-send",
        "/v1/runtime/fedsci-receive",
        "/v1/fleet/register-node",
        "/v1/fleet/activate-node",
        "/v1/fleet/get-run",
        "/v1/fleet/get-fab",
        "/v1/fleet/pull-object",
        "/v1/fleet/push-object",
        "/v1/fleet/fedsci-else",
        "/v1/fleet/pull-messages",
        "/v1/fleet/push-messages",
        "/v1/fleet/../control/list-nodes",
        "/v1/fleet/%2e%2e/control/list-nodes",
        "//v1/control/list-nodes",
        "/v1/fleet/fedsci-send/",
        "/V1/FLEET/pull-object",
    ],
)
def test_only_what_a_site_needs_is_there(lab, path):
    assert lab.post(path).status_code == 404


@pytest.mark.parametrize(
    ("method", "headers", "revoked", "status"),
    [
        ("POST", [("content-length", "5")], False, 200),
        ("POST", [("content-length", "5")], "expired", 421),
        ("POST", [("content-length", str(MAX_BODY_BYTES))], False, 200),
        ("GET", [("content-length", "0")], False, 405),
        ("POST", [], False, 411),
        ("POST", [("transfer-encoding", "chunked")], False, 411),
        ("POST", [("content-length", "5"), ("content-length", "6")], False, 411),
        ("POST", [("content-length", "-5")], False, 411),
        ("POST", [("content-length", str(MAX_BODY_BYTES + 1))], False, 413),
        ("POST", [("content-length", "9" * 5000)], False, 413),
        ("POST", [("content-length", "5")], True, 403),
    ],
)
def test_only_posts_of_a_sane_size_are_read(method, headers, revoked, status):
    statuses: list[int] = []

    async def app(scope, receive, send):
        assert scope[CALLER] == b"the key"
        await respond(send, 200)

    async def send(message):
        statuses.append(message.get("status", 0))

    signed = [(FLEET_HTTP_PUBLIC_KEY_HEADER, b64encode(b"the key").decode()), *headers]
    scope = {
        "type": "http",
        "method": method,
        "path": SEND,
        "headers": [(name.lower().encode(), value.encode()) for name, value in signed],
    }
    until = time.time() + (-1 if revoked == "expired" else 60)
    door = Door(app, site="lab-01", public_key=b"the key", until=until, is_revoked=lambda: revoked is True)
    asyncio.run(door(scope, None, send))
    assert statuses == [status, 0]


def test_without_a_certificate_there_is_no_answer(shared_deployment):
    nobody = ssl.create_default_context(cafile=str(shared_deployment.authority.folder / "ca.crt"))
    with httpx.Client(verify=nobody, trust_env=False) as client, pytest.raises(httpx.TransportError):
        client.post(f"https://{shared_deployment.address}{RECEIVE}")
    with httpx.Client(trust_env=False) as client, pytest.raises(httpx.TransportError):
        client.post(f"http://{shared_deployment.address}{RECEIVE}")


def test_a_site_that_is_not_registered_gets_nothing(shared_deployment):
    stranger = Site(shared_deployment, "lab-13")
    assert stranger.post(RECEIVE).status_code == 401
    assert stranger.begin() == 401
    with stranger.client() as client:
        request = SendNodeHeartbeatRequest(node=Node(node_id=1), heartbeat_interval=10)
        assert refused(lambda: client.SendNodeHeartbeat(request)) == 401


def test_a_site_cannot_sign_as_another(lab, other):
    lab.register()
    node = Node(node_id=other.register())
    request = SendNodeHeartbeatRequest(node=node, heartbeat_interval=10)
    with lab.client(signed_by=other) as client:  # a stolen key without its certificate
        assert refused(lambda: client.SendNodeHeartbeat(request)) == 403
        assert refused(lambda: client.DeactivateNode(DeactivateNodeRequest(node_id=node.node_id))) == 403
    with lab.client() as client:
        assert refused(lambda: client.SendNodeHeartbeat(request)) == 401
        assert refused(lambda: client.DeactivateNode(DeactivateNodeRequest(node_id=node.node_id))) == 401
    assert lab.post(RECEIVE, headers={}).status_code == 403
    both = [
        (FLEET_HTTP_PUBLIC_KEY_HEADER, b64encode(lab.public).decode()),
        (FLEET_HTTP_PUBLIC_KEY_HEADER, b64encode(other.public).decode()),
    ]
    assert lab.post(RECEIVE, headers=both).status_code == 403
    assert lab.post(RECEIVE, headers={FLEET_HTTP_PUBLIC_KEY_HEADER: "no base64"}).status_code == 403


@pytest.mark.slow
def test_a_site_cannot_answer_for_another(lab, other):
    nodes = {lab: lab.register(), other: other.register()}
    for site, node in nodes.items():
        assert site.post(BEGIN, pack_frames([b"", b"this", b""])).content == str(node).encode()
    with connect_grid(lab.deployment.state) as grid:
        asked = Message(RecordDict({"c": ConfigRecord({"question": 1})}), nodes[other], "query.hello", ttl=60)
        [sent] = grid.push_messages([asked])

        def answer(content: int) -> bytes:
            reply = Message(RecordDict({"c": ConfigRecord({"answer": content})}), reply_to=asked)
            reply.metadata.__dict__["_message_id"] = reply.object_id
            request = PushMessagesRequest(
                node=Node(node_id=nodes[lab]),
                messages_list=[message_to_proto(remove_content_from_message(reply))],
                message_object_trees=[get_object_tree(reply)],
            )
            return pack_frames([request.SerializeToString(), *wire.small_and_large([reply])[0]])

        assert lab.post(SEND, answer(666)).status_code == 403
        assert list(grid.pull_messages([sent])) == []
        assert other.post(SEND, answer(42)).status_code == 200
        [got] = grid.pull_messages([sent])
        assert got.content["c"]["answer"] == 42
        assert got.metadata.reply_to_message_id == sent


@pytest.mark.parametrize("body", [b"", b"\x00", b"\xff\xff\xff\xff", pack_frames([b"\xff\xff"]), pack_frames([b""])])
def test_nonsense_is_refused(lab, body):
    lab.register()
    assert lab.post(SEND, body).status_code == 400


@pytest.mark.slow
def test_a_call_for_messages_waits_and_hanging_up_takes_none(shared_deployment):
    lab = Site(shared_deployment, "lab-17")
    node = lab.register()
    assert lab.begin() == 200
    headers = {FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(lab.public).decode(), "fedsci-wait": "20"}
    url = f"https://{lab.deployment.address}{RECEIVE}"
    with (
        httpx.Client(verify=lab.tls.context(), trust_env=False, timeout=1.0) as client,
        pytest.raises(httpx.ReadTimeout),
    ):
        client.post(url, content=b"this", headers=headers)
    time.sleep(0.2)
    with connect_grid(lab.deployment.state) as grid:
        grid.push_messages([Message(RecordDict({"c": ConfigRecord({"n": 1})}), node, "query.hello", ttl=60)])
        time.sleep(0.2)
        assert lab.post(RECEIVE, b"this").content != b""
        assert lab.post(RECEIVE, b"this").content == b""


def test_one_process_serves_a_site_and_only_its_heir_takes_over_at_once(shared_deployment):
    lab = Site(shared_deployment, "lab-18")
    lab.register()
    assert lab.begin(b"first") == 200
    assert lab.begin(b"first", forerunner=b"first") == 200
    assert lab.begin(b"copy", forerunner=b"") == 409
    assert lab.begin(b"copy", forerunner=b"older") == 409
    assert lab.post(RECEIVE, b"first").status_code == 200
    assert lab.begin(b"heir", forerunner=b"first") == 200
    assert lab.post(RECEIVE, b"first").status_code == 409
    assert lab.post(RECEIVE, b"heir").status_code == 200
    for body in (b"", pack_frames([b"one", b"two"]), pack_frames([b"one", b"two", b"three", b"four"])):
        assert lab.post(BEGIN, body).status_code == 400


@pytest.mark.slow
def test_what_a_site_was_given_and_lost_is_answered_when_it_begins_anew(shared_deployment):
    lab = Site(shared_deployment, "lab-19")
    node = lab.register()
    assert lab.begin(b"first") == 200
    with connect_grid(lab.deployment.state) as grid:
        both = [Message(RecordDict({"c": ConfigRecord({"n": n})}), node, "query.hello", ttl=60) for n in (1, 2)]
        ids = list(grid.push_messages(both))
        assert lab.post(RECEIVE, b"first").content != b""  # and then its process dies
        assert list(grid.pull_messages(ids)) == []
        assert lab.begin(b"second", forerunner=b"first") == 200
        [lost] = grid.pull_messages(ids)
        assert lost.has_error()
        assert lost.metadata.reply_to_message_id in ids
        assert lab.post(RECEIVE, b"second").content != b""  # the other one is still there to be taken
        assert lab.post(RECEIVE, b"second").content == b""


def test_what_a_site_was_given_and_never_got_is_given_again_to_the_same_process(shared_deployment):
    lab = Site(shared_deployment, "lab-24")
    node = lab.register()
    assert lab.begin(b"first") == 200
    with connect_grid(lab.deployment.state) as grid:
        both = [Message(RecordDict({"c": ConfigRecord({"n": n})}), node, "query.hello", ttl=60) for n in (1, 2)]
        ids = list(grid.push_messages(both))
        first, second = lab.post(RECEIVE, b"first").content, lab.post(RECEIVE, b"first").content
        got = PullMessagesResponse.FromString(unpack_frames(first)[0]).messages_list[0].metadata.message_id
        assert lab.begin(b"first", forerunner=b"first", last=got.encode()) == 200  # the second answer never came
        [lost] = grid.pull_messages(ids)  # what it got it does not work on any more
        assert lost.metadata.reply_to_message_id == got
        assert lab.post(RECEIVE, b"first").content == second
        assert lab.post(RECEIVE, b"first").content == b""


def test_a_reply_whose_delivery_was_cut_off_is_delivered_again(shared_deployment):
    lab = Site(shared_deployment, "lab-25")
    node = lab.register()
    assert lab.begin(b"this") == 200
    with connect_grid(shared_deployment.state) as grid:
        [sent] = grid.push_messages([Message(RecordDict({"c": ConfigRecord({"n": 1})}), node, "query.hello", ttl=60)])
        received = PullMessagesResponse.FromString(unpack_frames(lab.post(RECEIVE, b"this").content)[0])
        asked = message_from_proto(received.messages_list[0])
        reply = Message(RecordDict({"c": ConfigRecord({"answer": 42})}), reply_to=asked)
        reply.metadata.__dict__["_message_id"] = reply.object_id
        request = PushMessagesRequest(
            node=Node(node_id=node),
            messages_list=[message_to_proto(remove_content_from_message(reply))],
            message_object_trees=[get_object_tree(reply)],
        )
        assert lab.post(SEND, pack_frames([request.SerializeToString(), *wire.small_and_large([reply])[0]])).is_success
        question = PullAppMessagesRequest(message_ids=[sent]).SerializeToString()
        assert grid._line.receive(question, wait_s=1) != []  # and then the connection breaks
        [again] = grid.pull_messages([sent])
        assert again.content["c"]["answer"] == 42
        assert grid._line.receive(b"", wait_s=0) == []  # nothing is asked for: it has arrived
        [gone] = grid.pull_messages([sent])
        assert gone.has_error()


def test_a_revoked_site_is_refused_on_the_connection_it_has_and_on_a_new_one(shared_deployment):
    site = Site(shared_deployment, "lab-14")
    site.register()
    headers = {FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(site.public).decode()}
    url = f"https://{shared_deployment.address}{RECEIVE}"
    with httpx.Client(verify=site.tls.context(), trust_env=False) as client:
        assert client.post(url, headers=headers).status_code == 200
        shared_deployment.authority.revoke("lab-14")
        assert client.post(url, headers=headers).status_code == 403
    with pytest.raises(httpx.TransportError):
        site.post(RECEIVE)


def test_a_site_taken_off_the_register_gets_nothing(shared_deployment):
    site = Site(shared_deployment, "lab-15")
    site.register()
    assert site.post(RECEIVE).status_code == 200
    unregister_site(shared_deployment.state, "lab-15")
    assert site.post(RECEIVE).status_code == 401


def test_a_site_with_a_new_key_is_registered_anew(shared_deployment):
    before = Site(shared_deployment, "lab-16")
    first = before.register()
    shared_deployment.authority.site("lab-16")
    after = Site(shared_deployment, "lab-16")
    assert after.public != before.public
    assert after.register() != first
    assert after.post(RECEIVE).status_code == 200
    assert before.post(RECEIVE).status_code in (401, 403)


def test_inside_a_task_needs_the_secret_and_a_study_its_token(shared_deployment):
    with inner_client(RuntimeHttpClient, shared_deployment.state) as runtime:
        assert refused(lambda: runtime.AcquireTask(AcquireTaskRequest(supported_task_types=["flwr-serverapp"]))) == 401
        body = pack_frames([b""])
        for call in ("receive", "send", "put", "get"):
            for headers in ({}, {"flwr-task-token": "guess"}):
                line = wire.Line(runtime, wire.STUDY, headers)
                assert refused(lambda c=call, x=line: x._post(c, body, {wire.RUN: "1"}, 5)) == 401


def broken(reply: Message, how: str) -> tuple[ObjectTree, list[bytes]]:
    """A reply's tree and its objects, made up so that SuperLink passes them on and nobody can read them."""
    tree, contents = get_object_tree(reply), wire.small_and_large([reply])[0]
    by_id = {get_object_id(content): content for content in contents}
    if how == "another kind of object":
        config = ConfigRecord({"a": 1})
        return get_object_tree(config), [config.deflate()]
    if how == "objects that the tree leaves out":
        return ObjectTree(object_id=tree.object_id), [by_id[tree.object_id]]
    if how == "an answer to something else":
        reply.metadata.__dict__["_reply_to_message_id"] = "f" * 64
        reply.metadata.__dict__["_message_id"] = ""
        return get_object_tree(reply), wire.small_and_large([reply])[0]
    nonsense = b"ConfigRecord  3\x00\xff\xff\xff"  # a record that is no record
    records = f'{{"c": "{get_object_id(nonsense)}"}}'.encode()
    records = f"RecordDict {get_object_id(nonsense)} {len(records)}".encode() + b"\x00" + records
    message = by_id[tree.object_id].replace(tree.children[0].object_id.encode(), get_object_id(records).encode())
    record = ObjectTree(object_id=get_object_id(records), children=[ObjectTree(object_id=get_object_id(nonsense))])
    return ObjectTree(object_id=get_object_id(message), children=[record]), [message, records, nonsense]


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        "no record",
        "another kind of object",
        "objects that the tree leaves out",
        "an answer to something else",
    ],
)
def test_a_reply_that_cannot_be_read_is_one_sites_failure_and_ends_no_study(shared_deployment, how):
    lab, honest = Site(shared_deployment, "lab-20"), Site(shared_deployment, "lab-21")
    nodes = {site: site.register() for site in (lab, honest)}
    for site in nodes:
        assert site.begin(forerunner=b"this") == 200
    with connect_grid(shared_deployment.state) as grid:
        asked = {
            site: Message(RecordDict({"c": ConfigRecord({"question": 1})}), node, "query.hello", ttl=60)
            for site, node in nodes.items()
        }
        sent = list(grid.push_messages(asked.values()))
        for site, message in asked.items():
            reply = Message(RecordDict({"c": ConfigRecord({"answer": 42})}), reply_to=message)
            envelope = Message(RecordDict({"c": ConfigRecord({"answer": 42})}), reply_to=message)
            if site is lab:
                tree, contents = broken(reply, how)
            else:
                tree, contents = get_object_tree(reply), wire.small_and_large([reply])[0]
            envelope.metadata.__dict__["_message_id"] = tree.object_id
            request = PushMessagesRequest(
                node=Node(node_id=nodes[site]),
                messages_list=[message_to_proto(remove_content_from_message(envelope))],
                message_object_trees=[tree],
            )
            assert site.post(SEND, pack_frames([request.SerializeToString(), *contents])).status_code == 200
        got = {message.metadata.reply_to_message_id: message for message in grid.pull_messages(sent)}
        assert set(got) == set(sent)
        assert got[sent[0]].has_error()
        assert got[sent[1]].content["c"]["answer"] == 42


@pytest.fixture
def large_replies(shared_deployment):
    """Two sites that were asked, and the replies of three large objects that they send piece by piece."""
    sites = [Site(shared_deployment, name) for name in ("lab-22", "lab-23")]
    nodes = [site.register() for site in sites]
    for site in sites:
        assert site.begin(forerunner=b"this") == 200
    with connect_grid(shared_deployment.state) as grid:
        asked = [Message(RecordDict({"c": ConfigRecord({"n": 1})}), node, "query.hello", ttl=60) for node in nodes]
        sent = list(grid.push_messages(asked))

        def begin(at):
            """Send all but the large objects; return what sends the next of them."""
            arrays = {f"{n}": Array(np.random.default_rng([at, n]).random(20_000)) for n in range(3)}
            reply = Message(RecordDict({"v": ArrayRecord(arrays)}), reply_to=asked[at])
            reply.metadata.__dict__["_message_id"] = reply.object_id
            request = PushMessagesRequest(
                node=Node(node_id=nodes[at]),
                messages_list=[message_to_proto(remove_content_from_message(reply))],
                message_object_trees=[get_object_tree(reply)],
            )
            small, large = wire.small_and_large([reply])
            got = sites[at].post(SEND, pack_frames([request.SerializeToString(), *small]))
            response = PushMessagesResponse.FromString(got.content)
            assert len(response.objects_to_push) == 3
            left = sorted(response.objects_to_push)

            def put():
                headers = {
                    FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(sites[at].public).decode(),
                    wire.RUN: str(asked[at].metadata.run_id),
                    wire.SESSION: response.session_id,
                    wire.OBJECT: left[0],
                }
                body = large[left.pop(0)].deflate()
                assert sites[at].post(wire.SITE + "put", body, headers | ({} if left else {wire.WAKE: "1"})).is_success

            return put

        yield grid, sent, begin


def pulled(grid, sent, *, seconds):
    deadline, got = time.monotonic() + seconds, {}
    while time.monotonic() < deadline and len(got) < len(sent):
        got |= {one.metadata.reply_to_message_id: one for one in grid.pull_messages(set(sent) - got.keys())}
    return got


@pytest.mark.slow
def test_a_reply_that_stays_half_sent_keeps_no_other_back(large_replies):
    grid, sent, begin = large_replies
    begin(0)
    assert pulled(grid, sent, seconds=0.5) == {}
    put = begin(1)
    for _ in range(3):
        put()
    got = pulled(grid, sent, seconds=4)  # the other is waited for, but not by this one
    assert list(got) == [sent[1]]
    assert len(got[sent[1]].content["v"]) == 3


@pytest.mark.slow
def test_a_large_reply_may_take_as_long_as_its_objects_keep_coming(large_replies, monkeypatch):
    monkeypatch.setattr("fedsci.transport.flower_coordinator._OBJECTS_WAIT_S", 4.0)
    monkeypatch.setattr("fedsci.transport.flower_coordinator._WAIT_S", 0.2)  # else a look takes a second too long
    grid, sent, begin = large_replies
    put = begin(0)
    for _ in range(3):  # longer in all than an object may take, and each a good deal less
        assert pulled(grid, sent[:1], seconds=1.6) == {}
        put()
    [whole] = pulled(grid, sent[:1], seconds=8).values()
    assert len(whole.content["v"]) == 3
    begin(1)
    [lost] = pulled(grid, sent[1:], seconds=12).values()  # one that stops is lost
    assert lost.has_error()
