"""A run of Flower's and its task: what a study needs to send messages.

Flower wants a run to belong to an app bundle and a task; the bundle registered here is empty and nothing ever executes
it: the task is taken by this process, with the secret that only the coordinator's account can read.
"""

import fcntl
import os
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile, ZipInfo

from flwr.common.constant import SubStatus
from flwr.common.serde import run_from_proto
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.proto.runtime_pb2 import AcquireTaskRequest, PullTaskInputRequest, PushTaskOutputRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor
from flwr.supercore.interceptors.http.superexec_auth import SuperExecAuthHttpInterceptor
from flwr.supercore.run import Run
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity

from fedsci.errors import ConnectionFailed
from fedsci.transport.superlink import secret_of
from fedsci.transport.superlink_client import flower_version, inner_client, reach

#: How long a study that begins waits for a SuperLink that is being restarted.
PATIENCE_S = 60.0
_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"
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


def begin_run(state: Path) -> tuple[str, Run, int]:
    """Make a Flower run and take its task, before anybody else does; return its token, the run, the task's number.

    Flower keeps a run's identity in a global of the process; a study's own comes into its messages when they are handed
    over.

    Raises:
        ConnectionFailed: SuperLink does not answer within a minute.
    """
    bundle = BytesIO()
    with ZipFile(bundle, "w") as archive:
        archive.writestr(ZipInfo("pyproject.toml"), _MANIFEST)
    interceptor = SuperExecAuthHttpInterceptor(master_secret=secret_of(state), protected_methods={_ACQUIRE})
    request = StartRunRequest(fab=Fab(content=bundle.getvalue()))
    with os.fdopen(os.open(state / "begin.lock", os.O_WRONLY | os.O_CREAT, 0o600), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with inner_client(ControlHttpClient, state) as control:
            started = reach(lambda: control.StartRun(request), patience_s=PATIENCE_S)
        with inner_client(RuntimeHttpClient, state, interceptor, flower_version()) as runtime:
            wanted = AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP])
            while True:
                acquired = reach(lambda: runtime.AcquireTask(wanted), patience_s=PATIENCE_S)
                if not acquired.token:
                    raise ConnectionFailed("SuperLink gave the run's task to somebody else")
                with inner_client(
                    RuntimeHttpClient, state, RuntimeTokenHttpInterceptor(token=acquired.token), flower_version()
                ) as task:
                    given = reach(
                        lambda task=task: task.PullTaskInput(PullTaskInputRequest()),  # type: ignore[misc]
                        patience_s=PATIENCE_S,
                    )
                    if given.run.run_id == started.run_id:
                        break
                    # left over from a study that ended before it began
                    task.PushTaskOutput(PushTaskOutputRequest(sub_status=SubStatus.FAILED))
    TaskIdentity.task_id, TaskIdentity.run_id = given.task_id, given.run.run_id
    TaskIdentity.node_id = given.context.node_id
    return acquired.token, run_from_proto(given.run), given.task_id
