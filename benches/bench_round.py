"""What a round costs besides training: 17 labs, three model sizes, beside Flower's own FedAvg simulation.

Training is replaced by handing back a vector that lies ready, in fedsci and in the Flower app alike, so
that the whole time of a round is overhead. The first round of each run is left out (start-up). The checks are
of plain rounds, as the Flower app's are; masked rounds, the default, stand beside them.
"""

import logging
import os
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import numpy as np
import yaml
from harness import Results, check, main

from fedsci.config.study_file import StudyOnOneMachine, load_study
from fedsci.coordinator.progress import Progress, RoundResult
from fedsci.simulation import run as simulation_run
from fedsci.simulation.labs import Labs
from fedsci.simulation.run import SimulatedRun
from fedsci.transport.messages import Handler

LABS = 17
HIDDEN = {1_000: 31, 100_000: 3_125, 10_000_000: 312_500}  # 32 * hidden + 1 parameters


class ReadyLabs(Labs):
    """Labs whose training is a vector that lies ready; everything else is as always."""

    def handler(self, number: int) -> Handler:
        """Return the lab's handler, in whichever process this runs."""
        from fedsci.site.round import Contributor

        ready: dict[int, Any] = {}

        def contribution(self: Contributor, model: Any, round_number: int) -> Any:
            return ready.setdefault(model.size, np.full(model.size, 1e-6, np.float32))

        Contributor.contribution = contribution  # type: ignore[method-assign]
        return super().handler(number)


class Stopwatch:
    """Collects the wall time of rounds."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def phase(self, name: str) -> None:
        """Nothing to show."""

    def round_finished(self, progress: Progress, result: RoundResult, epsilon: float | None) -> None:
        """Note the round's time."""
        self.seconds.append(result.seconds)


def study(folder: Path, hidden: int, rounds: int, *, masked: bool) -> StudyOnOneMachine:
    """Return a study of 17 labs with a model of the wanted size, evaluated after the last round only."""
    for number in range(1, LABS + 1):
        site = {
            "site": f"lab-{number:02}",
            "datasets": {"cells": {"builtin": {"name": "breast_cancer", "shard": number, "of": LABS}}},
            "policy": {"approval": "auto", "strategies": ["fedavg"], "models": ["mlp"], "unmasked_updates": True},
        }
        (folder / f"lab-{number:02}.yaml").write_text(yaml.safe_dump(site))
    from fedsci.data.builtin import load_builtin

    columns = [name for name in load_builtin("breast_cancer").columns if name != "benign"]
    values = {
        "study": "overhead",
        "dataset": "cells",
        "task": {"kind": "binary", "target": "benign"},
        "features": {name: {"min": 0, "max": 1000} for name in columns},
        "model": {"name": "mlp", "hidden": [hidden]},
        "strategy": "fedavg",
        "training": {"rounds": rounds},
        "privacy": {"mechanism": "none"},
        "evaluation": {"every": rounds + 1, "baselines": []},
        "secure_aggregation": {"enabled": masked},
        "sites": [f"lab-{number:02}.yaml" for number in range(1, LABS + 1)],
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(values))
    return load_study(folder / "study.yaml")


def fedsci_round_s(engine: str, hidden: int, rounds: int, *, masked: bool = False, serialise: bool = False) -> float:
    """Return the median seconds of a round, the first left out."""
    simulation_run.Labs = ReadyLabs  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as name:
        folder, watch = Path(name), Stopwatch()
        SimulatedRun(
            study=study(folder, hidden, rounds, masked=masked),
            engine=engine,  # type: ignore[arg-type]
            state=None,
            out=folder / "runs",
            display=watch,
            serialise=serialise,
        ).run()
    return median(watch.seconds[1:])


def flower_round_s(size: int, rounds: int) -> float:
    """Return the median seconds of a round of Flower's FedAvg on its Ray simulation, the first left out."""
    from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    client, server, times = ClientApp(), ServerApp(), []

    @client.train()
    def train(message: Message, context: Context) -> Message:
        arrays = message.content.array_records["arrays"].to_numpy_ndarrays()
        reply = {"arrays": ArrayRecord([arrays[0]]), "metrics": MetricRecord({"num-examples": 24})}
        return Message(RecordDict(reply), reply_to=message)

    class Timed(FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            result = super().aggregate_train(server_round, replies)
            times.append(time.monotonic())
            return result

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        strategy = Timed(fraction_evaluate=0.0, min_train_nodes=LABS, min_available_nodes=LABS)
        strategy.start(grid=grid, initial_arrays=ArrayRecord([np.zeros(size, np.float32)]), num_rounds=rounds)

    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": {"log_to_driver": False}}
    run_simulation(server_app=server, client_app=client, num_supernodes=LABS, backend_config=resources)
    return median(np.diff(times).tolist())


def measure(quick: bool) -> Results:
    """Measure all sizes, each beside the others in this run."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    results = Results(bench="round")
    rows: dict[int, dict[str, float]] = {}
    for size, hidden in HIDDEN.items():
        if quick and size > 100_000:
            continue
        rounds = 22 if size <= 100_000 else 6
        row = {
            "fedsci_inprocess_s": fedsci_round_s("local", hidden, rounds),
            "fedsci_inprocess_masked_s": fedsci_round_s("local", hidden, rounds, masked=True),
            "fedsci_inprocess_serialised_s": fedsci_round_s("local", hidden, rounds, serialise=True),
            "fedsci_ray_s": fedsci_round_s("ray", hidden, rounds),
            "flower_fedavg_ray_s": flower_round_s(32 * hidden + 1, rounds),
        }
        rows[size] = row
        print(f"{size:>10} parameters  " + "  ".join(f"{k} {v:.4f}" for k, v in row.items()), flush=True)
    middle = rows[100_000]
    ratio = middle["fedsci_inprocess_s"] / middle["flower_fedavg_ray_s"]
    results.checks = [
        check("overhead_s_inprocess_100k", middle["fedsci_inprocess_s"], at_most=0.05),
        check("overhead_ratio_inprocess_over_flower_simulation_100k", ratio, at_most=1.0),
    ]
    results.details = {str(size): row for size, row in rows.items()}
    return results


if __name__ == "__main__":
    main("round", __doc__ or "", measure)
