"""What the deployment uses of Flower 1.41 beyond its public API: a new Flower fails here, and not between labs.

Every name below is used by fedsci/transport; where only an import can go wrong, importing those modules is the test.
"""

import inspect
import warnings
from dataclasses import fields
from importlib.metadata import version

import httpx
import pytest

with warnings.catch_warnings():  # Flower imports typer, which imports names that click has deprecated
    warnings.filterwarnings("ignore", "'click", DeprecationWarning)
    from flwr.common.constant import (
        HEARTBEAT_MAX_INTERVAL,
        HEARTBEAT_MIN_INTERVAL,
        HEARTBEAT_PATIENCE,
        SUPERLINK_NODE_ID,
        Status,
    )
    from flwr.proto import control_pb2, fleet_pb2, runtime_pb2
    from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
    from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, TaskType
    from flwr.supercore.control.control_http_client import ControlHttpClient
    from flwr.supercore.inflatable.inflatable_object import get_object_id
    from flwr.supercore.object_store import object_store_factory
    from flwr.supercore.object_store.sql_object_store import SqlObjectStore
    from flwr.supercore.protobuf.client import ProtobufClient
    from flwr.supercore.runtime import RuntimeHttpClient
    from flwr.supercore.state.schema import corestate_models, linkstate_models
    from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
    from flwr.superlink.config_loader import SuperLinkLifespanConfig
    from flwr.superlink.main import create_app
    from flwr.supernode.fleet_http_client import FleetHttpClient

    from fedsci.transport import (
        express,
        flower_coordinator,
        flower_site,
        front,
        object_files,
        superlink,
        superlink_client,
        superlink_process,
        superlink_run,
        superlink_sites,
        superlink_state,
        wire,
    )

OURS = (
    express,
    flower_coordinator,
    flower_site,
    front,
    object_files,
    superlink,
    superlink_client,
    superlink_process,
    superlink_run,
    superlink_sites,
    superlink_state,
    wire,
)


def parameters(function) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


def test_this_is_the_flower_that_was_read():
    assert version("flwr").startswith("1.41.")
    assert all(inspect.getdoc(module) for module in OURS)


@pytest.mark.parametrize(
    ("client", "calls"),
    [
        (FleetHttpClient, {"DeactivateNode", "SendNodeHeartbeat", "ConfirmMessageReceived"}),
        (ControlHttpClient, {"ListNodes", "RegisterNode", "UnregisterNode", "StartRun"}),
        (
            RuntimeHttpClient,
            {
                "AcquireTask",
                "PullTaskInput",
                "PushTaskOutput",
                "SendTaskHeartbeat",
                "GetNodes",
                "ConfirmMessageReceived",
            },
        ),
    ],
)
def test_flowers_clients_make_the_calls(client, calls):
    assert issubclass(client, ProtobufClient)
    assert calls <= set(dir(client))


def test_a_client_holds_one_httpx_client_that_can_be_exchanged():
    assert parameters(ProtobufClient.__init__)[:4] == ["base_url", "interceptors", "verify", "timeout"]
    client = FleetHttpClient("http://nowhere/", verify=False)
    assert isinstance(client._client, httpx.Client)
    assert client._base_url == "http://nowhere"
    client.close()


@pytest.mark.parametrize(
    ("message", "names"),
    [
        (fleet_pb2.PullMessagesResponse, {"messages_list", "message_object_trees"}),
        (fleet_pb2.PushMessagesRequest, {"node", "messages_list", "message_object_trees"}),
        (fleet_pb2.PushMessagesResponse, {"objects_to_push", "session_id"}),
        (runtime_pb2.AcquireTaskRequest, {"supported_task_types"}),
        (runtime_pb2.AcquireTaskResponse, {"task", "token"}),
        (runtime_pb2.PullTaskInputResponse, {"run", "task_id", "context"}),
        (runtime_pb2.PushTaskOutputRequest, {"sub_status"}),
        (runtime_pb2.PullAppMessagesRequest, {"message_ids"}),
        (runtime_pb2.PullAppMessagesResponse, {"messages_list", "message_object_trees"}),
        (runtime_pb2.PushAppMessagesRequest, {"messages_list", "message_object_trees"}),
        (runtime_pb2.PushAppMessagesResponse, {"message_ids", "objects_to_push", "session_id"}),
        (control_pb2.RegisterNodeRequest, {"public_key", "name"}),
        (control_pb2.UnregisterNodeRequest, {"node_id"}),
        (control_pb2.ListNodesResponse, {"nodes_info"}),
        (control_pb2.StartRunRequest, {"fab"}),
    ],
)
def test_calls_have_the_fields(message, names):
    assert names <= {field.name for field in message.DESCRIPTOR.fields}


@pytest.mark.parametrize(
    ("method", "names"),
    [
        (SqlLinkState.get_message_ins, ["node_id", "limit", "run_id"]),
        (SqlLinkState.get_message_res, ["message_ids", "run_id"]),
        (SqlLinkState.delete_messages, ["message_ins_ids"]),
        (SqlLinkState.start_session, ["run_id"]),
        (SqlLinkState.store_message_and_object_tree, ["message", "object_tree", "session_id"]),
        (SqlLinkState.store_object, ["run_id", "session_id", "object_id", "object_content"]),
        (SqlLinkState.get_object, ["run_id", "object_id"]),
        (SqlLinkState.get_node_id_by_public_key, ["public_key"]),
        (SqlLinkState.get_task_by_token, ["token"]),
        (SqlLinkState.acknowledge_node_heartbeat, ["node_id", "heartbeat_interval"]),
        (SqlLinkState.get_valid_message_ins, ["message_id"]),
        (SqlLinkState.stop_run, ["run_id"]),
        (SqlObjectStore.__init__, ["database_path", "verify"]),
        (SqlObjectStore.put, ["object_id", "object_content"]),
        (SqlObjectStore.get, ["object_id"]),
        (SqlObjectStore.delete, ["object_id"]),
        (SqlObjectStore.get_object_tree, ["object_id"]),
        (create_app, ["config", "superlink_lifespan_class"]),
        (SuperLinkLifespan.__init__, ["config", "state_factory"]),
    ],
)
def test_superlinks_state_is_used_as_its_handlers_use_it(method, names):
    assert parameters(method) == names


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        (linkstate_models.Node, {"status", "online_until"}),
        (linkstate_models.MessageIns, {"message_id", "dst_node_id", "delivered_at"}),
        (linkstate_models.MessageRes, {"message_id", "reply_to_message_id"}),
        (corestate_models.Task, {"token", "finished_at", "active_until"}),
    ],
)
def test_superlinks_tables_have_the_columns(table, columns):
    assert columns <= set(table.__table__.columns.keys())


def test_superlinks_configuration_has_these_settings_and_no_others():
    assert {field.name for field in fields(SuperLinkLifespanConfig)} == {
        "control_address",
        "health_server_address",
        "host",
        "port",
        "insecure",
        "certificates",
        "superexec_auth_secret",
        "authn_plugin",
        "event_log_plugin",
        "fleet_event_log_plugin",
        "enable_event_log",
        "artifact_provider",
        "enable_supernode_auth",
        "fleet_api_type",
        "fleet_api_address",
        "simulation",
        "ssl_ca_certfile",
        "ssl_certfile",
        "ssl_keyfile",
        "database",
        "isolation",
        "runtime_dependency_install",
    }


def test_the_object_store_is_made_by_a_name_that_can_be_exchanged():
    assert object_store_factory.SqlObjectStore is SqlObjectStore
    assert "SqlObjectStore(self.database)" in inspect.getsource(object_store_factory.ObjectStoreFactory.store)


def test_values_that_are_written_down_are_flowers():
    assert HEARTBEAT_MIN_INTERVAL <= wire.HEARTBEAT_S <= HEARTBEAT_MAX_INTERVAL
    assert HEARTBEAT_PATIENCE == 2
    assert SUPERLINK_NODE_ID == 1
    assert superlink_state._NOT_RUNNING == [Status.PENDING, Status.STARTING, Status.FINISHED]
    assert TaskType.SERVER_APP == "flwr-serverapp"
    assert FLEET_HTTP_PUBLIC_KEY_HEADER.encode().lower() == front._KEY_HEADER
    assert get_object_id(b"x") == "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
