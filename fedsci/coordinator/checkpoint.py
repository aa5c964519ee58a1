"""What a coordinator keeps of a study that goes on, so that its next process takes it up: public facts and the model.

All of it lies in the study's folder of the queue: ``progress.json``, written before sites are asked for anything;
``state.safetensors``, the model and the server optimiser's memory after the last applied round; per batch of secure
aggregation the adverts and the finished setup. No file holds a secret, an update, or a sum that is not in the model.
"""

import base64
import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedsci.config.plan import Plan
from fedsci.coordinator.admission import Admission
from fedsci.coordinator.aggregation import Collected
from fedsci.coordinator.blame import blame_from_json
from fedsci.coordinator.norm_check import Norm, norm_from_json, norm_to_json
from fedsci.coordinator.progress import Progress, RoundResult
from fedsci.errors import InputError
from fedsci.identity.files import replace_private
from fedsci.names import SiteId
from fedsci.secagg import ReadySetup
from fedsci.strategies.base import StrategyState
from fedsci.strategies.server_optimiser import OptimiserState
from fedsci.training.metrics import MetricSums

_UNFIT = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    MemoryError,
    SafetensorError,
)


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Say which file is damaged, where what is read in here does not fit together.

    Raises:
        InputError: it does not.
    """
    try:
        yield
    except _UNFIT as error:
        raise InputError(
            f"{path} is not what the coordinator kept ({type(error).__name__})",
            hint="restore the folder from a backup, or hand the study in again",
        ) from None


class Checkpoint:
    """Keeps a study in a folder; see :class:`fedsci.coordinator.progress.Keeper`.

    Args:
        folder: the study's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, progress: Progress) -> None:
        """Keep everything but the strategy's state."""
        values = {
            "run": progress.run,
            "sites": {site: asdict(said) for site, said in progress.sites.items()},
            "privacy": {site: dict(said) for site, said in progress.privacy.items()},
            "rounds_allowed": progress.rounds_allowed,
            "short_of_budget": progress.short_of_budget,
            "asked": progress.asked,
            "abandoned": progress.abandoned,
            "exact_after": progress.exact_after,
            "measurements": progress.measurements,
            "answers": {action: _answer_to_json(collected) for action, collected in progress.answers.items()},
            "dropped": progress.dropped,
            "reasons": [progress.reasons.get(one, "") for one in progress.dropped],
            "decisions": [envelope.decode() for envelope in progress.decisions],
            "impossible": {
                number: {"sites": sites, "norm": norm_to_json(norm)}
                for number, (sites, norm) in progress.impossible.items()
            },
            "seconds": progress.seconds,
        } | _sums_to_json(progress)
        self._write("progress.json", json.dumps(values).encode())

    def save_state(self, progress: Progress) -> None:
        """Keep the strategy's state and the pending round."""
        state, pending = progress.state, progress.pending
        if state is None or pending is None:
            return
        about = {
            "run": progress.run,
            "round": state.round,
            "number": pending.number,
            "dropped": pending.dropped,
            "seconds": pending.seconds,
            "traffic": pending.traffic,
            "norm": None if pending.norm is None else norm_to_json(pending.norm),
            "reasons": [progress.reasons.get((site, pending.number), "") for site in pending.dropped],
        } | _sums_to_json(progress)
        arrays = {"model": state.model, "first": state.optimiser.first, "second": state.optimiser.second}
        kept = {name: array for name, array in arrays.items() if array.any()}  # plain SGD remembers nothing
        kept |= {f"memory.{name}": array for name, array in state.memory.items()}
        self._write("state.safetensors", save(kept, {"about": json.dumps(about), "size": str(state.model.size)}))

    def save_adverts(self, batch: int, adverts: bytes) -> None:
        """Keep a setup's adverts."""
        self._write(f"adverts-{batch}", adverts)

    def save_setup(self, batch: int, ready: ReadySetup, deliveries: Mapping[int, bytes]) -> None:
        """Keep a finished setup."""
        packed = {index: base64.b64encode(content).decode() for index, content in deliveries.items()}
        values = {"ready": base64.b64encode(ready.encode()).decode(), "deliveries": packed}
        self._write(f"setup-{batch}", json.dumps(values).encode())

    def adverts(self, batch: int) -> bytes | None:
        """Return the adverts that were kept, if any."""
        try:
            return (self._folder / f"adverts-{batch}").read_bytes()
        except FileNotFoundError:
            return None

    def setups(self) -> dict[int, tuple[ReadySetup, dict[int, bytes]]]:
        """Return the finished setups by batch, their signatures checked again.

        Raises:
            InputError, ProtocolError: one is damaged.
        """
        found = {}
        for path in self._folder.glob("setup-*"):
            with _whole(path):
                values = json.loads(path.read_bytes())
                deliveries = {int(index): base64.b64decode(content) for index, content in values["deliveries"].items()}
                ready = ReadySetup.decode(base64.b64decode(values["ready"]))
                found[int(path.name.removeprefix("setup-"))] = ready, deliveries
        return found

    def save_roster(self, content: bytes) -> None:
        """Keep the signed roster that sites were sent."""
        self._write("roster", content)

    def roster(self) -> bytes | None:
        """Return the signed roster that sites were sent, if any."""
        try:
            return (self._folder / "roster").read_bytes()
        except FileNotFoundError:
            return None

    def restore(self, plan: Plan) -> Progress | None:
        """Return a study as it was kept, or None if it did not come as far as asking sites.

        Raises:
            InputError: a file is damaged.
        """
        path = self._folder / "progress.json"
        if not path.exists():
            return None
        with _whole(path):
            progress = self._read_progress(plan, json.loads(path.read_bytes()))
        with _whole(self._folder / "state.safetensors"):
            self._restore_state(plan, progress)
        return progress

    def _read_progress(self, plan: Plan, values: Mapping[str, Any]) -> Progress:
        progress = Progress(
            run=values["run"],
            sites={SiteId(site): Admission(**said) for site, said in values["sites"].items()},
            privacy={SiteId(site): said for site, said in values["privacy"].items()},
            rounds_allowed=values["rounds_allowed"],
            short_of_budget=tuple(values["short_of_budget"]),
            asked=values["asked"],
            abandoned=values["abandoned"],
            exact_after=values.get("exact_after", -1),
            measurements=values["measurements"],
            answers={action: _answer_from_json(plan, said) for action, said in values["answers"].items()},
            dropped=[(SiteId(site), number) for site, number in values["dropped"]],
            reasons={(SiteId(at[0]), at[1]): why for at, why in zip(values["dropped"], values["reasons"], strict=True)},
            decisions=[envelope.encode() for envelope in values.get("decisions", [])],
            impossible={
                int(number): (said["sites"], _norm_of(said["norm"]))
                for number, said in values.get("impossible", {}).items()
            },
            seconds=values["seconds"],
        )
        _take_sums(plan, progress, values)
        return progress

    def clear(self) -> None:
        """Forget everything: the study begins anew, or is over."""
        kept = ("progress.json", "state.safetensors", "roster", "adverts-*", "setup-*")
        for path in [path for pattern in kept for path in self._folder.glob(pattern)]:
            path.unlink(missing_ok=True)

    def _restore_state(self, plan: Plan, progress: Progress) -> None:
        path = self._folder / "state.safetensors"
        if not path.exists():
            return
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata()
            about, size = json.loads(metadata["about"]), int(metadata["size"])
            if about["run"] != progress.run:
                return
            names = set(file.keys())
            read = {
                name: file.get_tensor(name) if name in names else np.zeros(size, np.float32)
                for name in ("model", "first", "second")
            }
            memory = {
                name.removeprefix("memory."): file.get_tensor(name) for name in names if name.startswith("memory.")
            }
        optimiser = OptimiserState(first=read["first"], second=read["second"])
        progress.state = StrategyState(round=about["round"], model=read["model"], optimiser=optimiser, memory=memory)
        dropped, traffic = tuple(SiteId(site) for site in about["dropped"]), about.get("traffic")
        progress.pending = RoundResult(
            number=about["number"],
            measured=None,
            survivors=len(plan.sites) - len(dropped),
            dropped=dropped,
            seconds=about["seconds"],
            traffic=None if traffic is None else (traffic[0], traffic[1]),
            norm=norm_from_json(about.get("norm")),
        )
        if progress.asked > about["number"]:
            return
        # progress.json was written before this round, and says nothing of it
        for site, why in zip(dropped, about.get("reasons", [""] * len(dropped)), strict=True):
            if (site, about["number"]) not in progress.dropped:
                progress.dropped.append((site, about["number"]))
                progress.reasons[site, about["number"]] = why
        _take_sums(plan, progress, about)

    def _write(self, name: str, content: bytes) -> None:
        replace_private(self._folder / name, content)


def _sums_to_json(progress: Progress) -> dict[str, Any]:
    """Return what sums have said so far: it goes with the state, since a round that is applied adds to both."""
    return {
        "levels": progress.levels,
        "alarms": progress.alarms,
        "blame": None if progress.blame is None else progress.blame.to_json(),
    }


def _take_sums(plan: Plan, progress: Progress, values: Mapping[str, Any]) -> None:
    progress.levels, progress.alarms = values.get("levels", []), values.get("alarms", [])
    if values.get("blame") is not None:
        progress.blame = blame_from_json(plan.sites, plan.min_survivors, values["blame"])


def _norm_of(values: Mapping[str, Any]) -> Norm:
    norm = norm_from_json(values)
    if norm is None:
        raise ValueError
    return norm


def _answer_to_json(collected: Collected) -> dict[str, Any]:
    return {
        "metrics": [sums.tolist() for sums in collected.metrics],
        "survivors": collected.survivors,
        "own": {
            site: {label: None if sums is None else sums.values.tolist() for label, sums in shown.items()}
            for site, shown in collected.own.items()
        },
        "dropped": dict(collected.dropped),
        "weight": collected.weight,
    }


def _answer_from_json(plan: Plan, values: Mapping[str, Any]) -> Collected:
    kind = plan.study.task.kind

    def sums(numbers: list[float] | None) -> MetricSums | None:
        return None if numbers is None else MetricSums(kind=kind, values=np.asarray(numbers, np.float64))

    return Collected(
        contribution=np.zeros(0, np.float32),
        weight=values["weight"],
        metrics=[np.asarray(numbers, np.float64) for numbers in values["metrics"]],
        survivors=tuple(SiteId(site) for site in values["survivors"]),
        own={
            SiteId(site): {label: sums(numbers) for label, numbers in shown.items()}
            for site, shown in values["own"].items()
        },
        dropped={SiteId(site): why for site, why in values["dropped"].items()},
        seconds_sites=0.0,
        seconds_masking=0.0,
        seconds_aggregation=0.0,
    )
