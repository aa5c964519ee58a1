"""How the coordinator's process talks to SuperLink: Flower's clients, over the Unix socket in the state folder."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.protobuf.client import ProtobufClient

from fedsci.errors import ConnectionFailed
from fedsci.transport.superlink import socket_path
from fedsci.transport.wire import is_passing

_PAUSE_S = 0.2
Result = TypeVar("Result")
Client = TypeVar("Client", bound=ProtobufClient)


def inner_client(kind: type[Client], state: Path, *interceptors: Any) -> Client:
    """Return one of Flower's clients, talking to the SuperLink of a coordinator's folder over its Unix socket."""
    # no TLS on a Unix socket that only this account can open; Flower's own connection is never used
    client = kind("http://superlink", interceptors=interceptors, verify=False)
    client._client.close()
    transport = httpx.HTTPTransport(uds=str(socket_path(state)))
    client._client = httpx.Client(transport=transport, timeout=30.0, trust_env=False)
    return client


def flower_version() -> RuntimeVersionHttpInterceptor:
    """Return what tells SuperLink that a study's version of Flower is its own."""
    return RuntimeVersionHttpInterceptor(component_name="flwr-serverapp")


def reach(call: Callable[[], Result], *, patience_s: float = 0.0) -> Result:
    """Return a call's answer; a SuperLink that is being restarted is waited for.

    Raises:
        ConnectionFailed: SuperLink does not answer within ``patience_s``, or refuses.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return call()
        except (httpx.HTTPError, OSError) as error:
            if isinstance(error, httpx.HTTPStatusError) and not is_passing(error):
                raise ConnectionFailed(f"SuperLink refused a call ({error.response.status_code})") from None
            if time.monotonic() >= deadline:
                hint = "is the coordinator's daemon running?"
                raise ConnectionFailed("SuperLink does not answer", hint=hint) from None
        time.sleep(_PAUSE_S)
