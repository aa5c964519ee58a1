"""What fedsci uses of Flower 1.41, so that a new Flower fails here and not in a lab."""

import inspect

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedsci.transport import in_memory
from fedsci.transport.codec import decode_request, encode
from fedsci.transport.in_memory import LocalGrid, through_the_wire
from fedsci.transport.messages import ACTIONS, Request


def echo_app() -> ClientApp:
    app = ClientApp()

    @app.query("echo")
    def echo(message: Message, context: Context) -> Message:
        fields = ConfigRecord({"partition": context.node_config["partition-id"]})
        return Message(RecordDict(dict(message.content) | {"from": fields}), reply_to=message)

    @app.query("fail")
    def fail(message: Message, context: Context) -> Message:
        raise ValueError("row 7 says 42.5")

    return app


@pytest.fixture(params=[False, True], ids=["by reference", "serialised"])
def grid(request):
    grid = LocalGrid(echo_app(), 3, serialise=request.param)
    yield grid
    grid.close()


def ask(grid: LocalGrid, node: int, action: str = "query.echo", records: RecordDict | None = None) -> Message:
    [reply] = grid.send_and_receive([Message(records or RecordDict(), node, action)], timeout=20)
    return reply


def test_the_error_code_is_flowers():
    assert in_memory._CLIENT_APP_RAISED == ErrorCode.CLIENT_APP_RAISED_EXCEPTION


def test_the_task_identity_is_a_global_that_messages_take_their_run_from(grid):
    assert TaskIdentity.task_id == TaskIdentity.run_id
    message = Message(RecordDict(), 2, "query.echo")
    assert message.metadata.run_id == TaskIdentity.run_id == grid.run.run_id
    assert message.metadata.src_node_id == TaskIdentity.node_id == 1


def test_a_run_can_be_made_without_a_superlink():
    assert Run.create_empty(run_id=5).run_id == 5


def test_every_method_of_flowers_grid_is_answered():
    assert LocalGrid.__abstractmethods__ == frozenset()
    public = {name for name, _ in inspect.getmembers(Grid, callable) if not name.startswith("_")}
    ours = {"create_message", "get_node_ids", "pull_messages", "push_messages", "send_and_receive", "set_run"}
    assert public - {"get_nodes"} == ours
    assert ours <= set(vars(LocalGrid))


def test_a_message_survives_the_wire(grid):
    data = np.arange(5, dtype="<f4").tobytes()
    array = Array(dtype="float32", shape=(5,), stype="fedsci.raw.v1", data=data)
    records = RecordDict({"vector": ArrayRecord({"v": array}), "fedsci": ConfigRecord({"body": "{}"})})
    message = Message(records, 3, "query.echo", ttl=7.0)
    message.metadata.__dict__["_message_id"] = "abc"
    parsed = through_the_wire(message)
    assert parsed is not message
    assert parsed.content.array_records["vector"]["v"].data == data
    assert parsed.content.array_records["vector"]["v"].stype == "fedsci.raw.v1"
    assert parsed.content.config_records["fedsci"]["body"] == "{}"
    for name in ("message_id", "dst_node_id", "src_node_id", "run_id", "message_type", "ttl"):
        assert getattr(parsed.metadata, name) == getattr(message.metadata, name), name


def test_a_request_survives_the_wire(grid):
    request = Request(action="train", fields={"round": 3, "text": "é"}, vector=np.arange(4, dtype=np.float32))
    parsed = through_the_wire(Message(encode(request), 2, ACTIONS["train"]))
    decoded = decode_request(parsed.content)
    assert decoded.fields == request.fields
    assert np.array_equal(decoded.model(), request.model())


def test_an_error_message_survives_the_wire(grid):
    message = Message(RecordDict(), 2, "query.echo")
    message.metadata.__dict__["_message_id"] = "abc"
    parsed = through_the_wire(Message(Error(2, "no"), reply_to=message))
    assert not parsed.has_content()
    assert (parsed.error.code, parsed.error.reason) == (2, "no")


def test_nodes_are_numbered_after_the_superlink_and_know_their_partition(grid):
    assert list(grid.get_node_ids()) == [2, 3, 4]
    partitions = [ask(grid, node).content.config_records["from"]["partition"] for node in (2, 3, 4)]
    assert partitions == [0, 1, 2]


def test_a_reply_names_the_message_it_answers(grid):
    [sent] = grid.push_messages([Message(RecordDict(), 2, "query.echo")])
    replies: list[Message] = []
    while not replies:
        replies = list(grid.pull_messages([sent]))
    assert replies[0].metadata.reply_to_message_id == sent
    assert list(grid.pull_messages([sent])) == []


def test_an_exception_at_a_node_becomes_a_code_without_its_text(grid):
    reply = ask(grid, 2, "query.fail")
    assert not reply.has_content()
    assert reply.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert "42.5" not in str(reply.error)


def test_an_unknown_action_is_an_error(grid):
    assert not ask(grid, 2, "query.nothing").has_content()


@pytest.mark.parametrize("message_type", ACTIONS.values())
def test_our_message_types_are_legal(grid, message_type):
    category, action = message_type.split(".")
    assert Message(RecordDict(), 2, message_type).metadata.message_type == message_type
    app = ClientApp()
    {"query": app.query, "train": app.train, "evaluate": app.evaluate}[category](action)(lambda m, c: m)


def test_the_deprecated_way_to_make_messages_is_refused(grid):
    with pytest.raises(TypeError, match="use flwr"):
        grid.create_message()


def test_a_server_app_is_called_with_grid_and_context(grid):
    seen = []
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        seen.append((grid, context.run_id))

    app(grid, Context(run_id=9, node_id=0, node_config={}, state=RecordDict(), run_config={}))
    assert seen == [(grid, 9)]


def test_something_other_than_a_message_is_refused(monkeypatch, grid):
    monkeypatch.setattr(in_memory, "inflate_object_from_contents", lambda *_: RecordDict())
    message = Message(RecordDict(), 2, "query.echo")
    with pytest.raises(TypeError, match="something else"):
        through_the_wire(message)
