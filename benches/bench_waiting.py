"""What not waiting for slow labs brings: virtual hours until the shared model reads 90 % of the digits.

Usage: python benches/bench_waiting.py [--quick] [--json FILE] [--only uneven|machines]

The built-in digits study, masked, without privacy, its 17 labs under both weathers of examples/digits. The same local
training for all: one epoch at most, batches of 8, rate 0.5, which was chosen on seed 7. Whole studies through the
simulation; every model is measured over all labs' held-out records, by the bench and at no virtual time, whoever was in
its round. Hours are to the first model at 0.90 or more. Seeds 1, 2 and 3, of study and weather.
"""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

from harness import Results, check, main

from fedsci.cli.progress import SilentDisplay
from fedsci.config.shipped import shipped
from fedsci.config.site import load_site
from fedsci.config.study_file import load_study
from fedsci.config.weather import load_weather
from fedsci.coordinator.progress import Progress, RoundResult
from fedsci.data.table import Table, concatenate
from fedsci.errors import FedsciError
from fedsci.simulation.labs import Labs
from fedsci.simulation.run import SimulatedRun
from fedsci.site.dataset import load_site_data
from fedsci.training.device import CPU
from fedsci.training.evaluation import evaluate
from fedsci.training.metrics import finish, half_range

LEVEL = 0.90
SEEDS = (1, 2, 3)
TRAINING = ["training.learning_rate=0.5", "training.batch_size=8", "training.local_epochs=1"]
WAYS = {
    "fedavg": (15, ["strategy=fedavg"]),
    "fedavg, deadline 20 s": (25, ["strategy=fedavg", "training.round_deadline_s=20"]),
    "fednova": (15, ["strategy=fednova"]),
    "fednova, by_speed": (30, ["strategy=fednova", "training.pace=by_speed"]),
    "fedbuff": (30, ["strategy=fedbuff"]),
}
FILES = {"uneven": "weather.yaml", "machines": "machines.yaml"}


@dataclass(kw_only=True)
class Watch(SilentDisplay):
    """Keeps every model, and when it was there; a round is shown when the next one is over."""

    models: dict[int, object] = field(default_factory=dict)
    hours: dict[int, float] = field(default_factory=dict)

    def round_finished(self, progress: Progress, result: RoundResult, epsilon: float | None) -> None:
        """Take note."""
        self.hours[result.number] = self.hours.get(result.number - 1, 0.0) + (result.virtual_seconds or 0.0) / 3600
        self.models[progress.rounds_completed] = progress.model


def measure(way: str, weather: str, seed: int, *, rounds: int | None = None) -> dict[str, float | None]:
    """Return rounds and virtual hours to the level, and how good the last model is, over all labs' holdouts."""
    planned, settings = WAYS[way]
    fixed = ["privacy.mechanism=none", "evaluation.baselines=[]", "evaluation.every=1000", *TRAINING]
    fixed += [f"training.rounds={rounds or planned}", *settings]
    study = load_study(shipped("examples") / "digits" / "study.yaml", overrides=fixed, seed=seed)
    under = load_weather(shipped("examples") / "digits" / FILES[weather], sites=study.plan.sites, seed=seed)
    under, watch = under.model_copy(update={"seed": seed}), Watch()
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        run = SimulatedRun(
            study=study, engine="local", state=state, out=Path(folder), display=watch, timeout_s=600, weather=under
        )
        try:
            run.run()
        except FedsciError as error:
            print(f"  {way}, {weather}, seed {seed}: {error.message}")
        labs = Labs(study.site_files, study.plan.sites, state)
        sites = [load_site(file) for file in study.site_files]
        holdouts = [load_site_data(study.plan, site, split_key=labs.split_key(site)).holdout for site in sites]
    everybody: Table = concatenate(holdouts)
    accuracy = {}
    for number, model in watch.models.items():
        sums = evaluate(study.plan, model, everybody, device=CPU)
        accuracy[number] = float(finish(sums, half_range=half_range(study.plan.study))["accuracy"])
    there = [number for number in sorted(accuracy) if accuracy[number] >= LEVEL and number in watch.hours]
    return {
        "rounds": there[0] if there else None,
        "hours": watch.hours[there[0]] if there else None,
        "last": accuracy[max(accuracy)] if accuracy else None,
        "hours_last": max(watch.hours.values(), default=0.0),
    }


def compare(quick: bool, only: str | None) -> Results:
    """Measure, and print a line for each way and weather."""
    results = Results(bench="waiting")
    seeds, rounds = (SEEDS[:1], 3) if quick else (SEEDS, None)
    for weather in FILES if only is None else [only]:
        reached: dict[str, float] = {}
        for way in WAYS:
            found = [measure(way, weather, seed, rounds=rounds) for seed in seeds]
            results.details[f"{way}, {weather}"] = found
            hours = [one["hours"] for one in found if one["hours"] is not None]
            each = "  ".join(
                "never" if one["hours"] is None else f"{one['hours']:.3f} h ({one['rounds']})" for one in found
            )
            last = "  ".join(f"{one['last'] or 0:.3f} after {one['hours_last']:.3f} h" for one in found)
            print(f"{weather:9} {way:22} to {LEVEL:.2f}: {each}   last model: {last}", flush=True)
            if len(hours) == len(found):
                reached[way] = mean(hours)
        faster = reached["fedavg"] / reached["fedbuff"] if {"fedavg", "fedbuff"} <= reached.keys() else None
        results.checks.append(check(f"fedavg_over_fedbuff_hours_{weather}", faster, at_least=1.5))
    return results


if __name__ == "__main__":
    main("waiting", __doc__, compare, parts=list(FILES))
