"""The coordinator as a Flower ServerApp, and the engines that run it beside simulated sites."""

from collections.abc import Callable
from typing import Any

from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedsci.errors import ConnectionFailed
from fedsci.transport.in_memory import LocalGrid
from fedsci.transport.link import SiteLink


def build_coordinator_app(study: Callable[[SiteLink], None], *, timeout_s: float) -> ServerApp:
    """Return the ServerApp that runs ``study`` over a link to the sites."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        study(SiteLink(grid=grid, timeout_s=timeout_s))

    return app


def run_in_process(server: ServerApp, client: ClientApp, *, nodes: int, serialise: bool = False) -> None:
    """Run both apps in this process, sites in threads."""
    grid = LocalGrid(client, nodes, serialise=serialise)
    try:
        server(grid, Context(run_id=grid.run.run_id, node_id=0, node_config={}, state=RecordDict(), run_config={}))
    finally:
        grid.close()


def run_on_ray(server: ServerApp, client: ClientApp, *, nodes: int) -> None:
    """Run both apps on Flower's Ray simulation.

    Raises:
        ConnectionFailed: Ray is not installed, or its start failed.
    """
    import importlib.util
    import logging
    import os

    if importlib.util.find_spec("ray") is None:
        raise ConnectionFailed("the ray engine is not installed", hint="pip install 'fedsci[ray]'")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    from flwr.simulation import run_simulation

    logging.getLogger("flwr").setLevel(logging.ERROR)
    config: dict[str, Any] = {
        "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        "init_args": {"logging_level": "error", "log_to_driver": False, "include_dashboard": False},
    }
    run_simulation(server_app=server, client_app=client, num_supernodes=nodes, backend_config=config)
