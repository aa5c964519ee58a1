"""A site's process is killed (SIGKILL) at every step of a masked round, and started again for the next request.

One lab of five is a process of its own. Without privacy the model is the same for the same seed, so that
"the sum of the others is exact" is a comparison of models with runs in which nobody was killed.
"""

import base64
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fedsci.config.study_file import load_study
from fedsci.errors import RoundAborted
from fedsci.simulation import run as simulation_run
from fedsci.simulation.labs import Labs
from fedsci.simulation.run import SimulatedRun
from fedsci.transport.messages import Handler, Reply, Request

pytestmark = pytest.mark.slow

LABS, ROUNDS, VICTIM = 5, 6, 0
CHILD = Path(__file__).with_name("killed_site.py")


class Silent:
    def phase(self, name: str) -> None: ...

    def round_finished(self, *_: object) -> None: ...


class SiteProcess:
    """The victim: killed for real where the script says so, else an ordinary site."""

    def __init__(self, arguments: list[str], script: dict[tuple[str, int], str]) -> None:
        self._arguments, self._script = arguments, script
        self._process: subprocess.Popen[str] | None = None
        self.killed: list[tuple[str, int]] = []

    def handle(self, request: Request) -> Reply:
        moment = (request.action, int(request.fields.get("slot", -1)))
        when = self._script.get(moment)
        process = self._running()
        if when == "before":
            self._kill(process, moment)
        vector = None if request.vector is None else base64.b64encode(request.vector.tobytes()).decode()
        asked = {"action": request.action, "fields": dict(request.fields), "vector": vector}
        try:
            print(json.dumps(asked), file=process.stdin, flush=True)
        except BrokenPipeError:
            raise ConnectionError("the site is dead") from None
        line = process.stdout.readline()
        if when == "after":  # it computed and stored, but its answer never arrives
            self._kill(process, moment)
        if not line or when:
            raise ConnectionError("the site is dead")
        reply = json.loads(line)
        array = None
        if reply["vector"] is not None:
            array = np.frombuffer(base64.b64decode(reply["vector"]), reply["dtype"])
        return Reply(fields=reply["fields"], vector=array, error=reply["error"])

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._kill(self._process, ("close", -1))

    def _running(self) -> Any:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, str(CHILD), *self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        return self._process

    def _kill(self, process: Any, moment: tuple[str, int]) -> None:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdin.close()
        process.stdout.close()
        self.killed.append(moment)


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, script: dict[tuple[str, int], str]) -> tuple[Any, Any]:
    folder.mkdir()
    for number in range(1, LABS + 1):
        site = {
            "site": f"lab-{number}",
            "datasets": {"cells": {"builtin": {"name": "breast_cancer", "shard": number, "of": LABS}}},
            "policy": {"approval": "auto", "strategies": ["dp_fedsgd"], "models": ["linear"], "exact_evaluation": True},
        }
        (folder / f"lab-{number}.yaml").write_text(yaml.safe_dump(site))
    study = {
        "study": "kills",
        "dataset": "cells",
        "task": {"kind": "binary", "target": "benign"},
        "features": {"mean_radius": {"min": 5, "max": 30}, "mean_texture": {"min": 5, "max": 40}},
        "model": {"name": "linear"},
        "strategy": "dp_fedsgd",
        "training": {"rounds": ROUNDS},
        "privacy": {"mechanism": "none"},
        "evaluation": {"baselines": []},
        "sites": [f"lab-{number}.yaml" for number in range(1, LABS + 1)],
        "seed": 5,
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    victims: list[SiteProcess] = []

    class WithVictim(Labs):
        def handler(self, number: int) -> Handler:
            if number != VICTIM or not script:
                return super().handler(number)
            if not victims:
                state = self.state_of(self._sites[number])
                arguments = [str(self._files[number]), str(state), self._consortium.hex()]
                victims.append(SiteProcess(arguments, script))
            return victims[0].handle

    monkeypatch.setattr(simulation_run, "Labs", WithVictim)
    simulated = SimulatedRun(
        study=load_study(folder / "study.yaml"), engine="local", state=None, out=folder / "runs", display=Silent()
    )
    try:
        summary = simulated.run()
    finally:
        for victim in victims:
            victim.close()
    assert not script or {moment for moment in victims[0].killed if moment[0] != "close"} == set(script)
    return summary, simulated.progress.model


def test_a_site_killed_at_any_step_leaves_the_sum_of_the_others_exact(tmp_path, monkeypatch):
    script = {
        ("train", 0): "before",  # it never got the model
        ("train", 1): "after",  # its upload was made, its slot is used, nothing arrived
        ("unmask", 3): "before",  # its upload is in the sum, its shares never come
        ("unmask", 4): "after",
    }
    summary, model = run(tmp_path / "killed", monkeypatch, script)
    assert summary["status"] == "completed"
    assert summary["secure_aggregation"]["dropped"] == [["lab-1", 1], ["lab-1", 2]]

    # The same study where lab-1 fails in rounds 1 and 2 only, and nothing is killed: the same model, bit for bit.
    from fedsci.site.round import Contributor

    real = Contributor.contribution

    def failing(self: Contributor, model: Any, number: int, **rest: Any) -> Any:
        if self.name == "lab-1" and number in (1, 2):
            raise RuntimeError("not today")
        return real(self, model, number, **rest)

    monkeypatch.setattr(Contributor, "contribution", failing)
    expected, expected_model = run(tmp_path / "failing", monkeypatch, {})
    assert expected["secure_aggregation"]["dropped"] == [["lab-1", 1], ["lab-1", 2]]
    np.testing.assert_array_equal(model, expected_model)


def test_killed_between_vote_and_shares_the_round_still_gives_the_exact_sum_or_none(tmp_path, monkeypatch):
    from fedsci.site.round import Contributor

    real = Contributor.contribution

    def failing(self: Contributor, model: Any, number: int, **rest: Any) -> Any:
        if self.name == "lab-5" and number == 2:
            raise RuntimeError("not today")
        return real(self, model, number, **rest)

    monkeypatch.setattr(Contributor, "contribution", failing)
    # lab-5 dropped and lab-1 dies before its vote: three votes of four needed, so nothing is opened
    with pytest.raises(RoundAborted, match="survivors voted"):
        run(tmp_path / "vote", monkeypatch, {("unmask", 1): "before"})
