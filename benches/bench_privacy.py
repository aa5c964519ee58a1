"""What noise that is shared out costs in accuracy: distributed against pooled DP-SGD, with local noise beside it.

The demonstration study (digits, 17 labs with different mixes, the recipe's defaults) at epsilon 1, 3 and 8, linear
model and mlp. ``distributed`` is the real pipeline, masked, a run a seed. ``pooled_dp`` is the baseline of the same
run: all records in one place, the same recipe, the noise of one data holder; ``pooled_dp_own_best`` has the learning
rate, rounds and clipping norm chosen for it on other seeds (momentum 0.9, last iterate). ``local`` is the study with
mechanism local, without masks, which change no sum. Accuracy is over all labs' holdouts (about 450 records); gaps
are paired by seed: the same split.

Checked: gaps of both models in accuracy points, mean over seeds. Beside them: what a larger min_survivors buys at
epsilon 1.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml
from harness import Check, Results, check, main

from fedsci.config.shipped import shipped
from fedsci.config.study_file import StudyOnOneMachine, load_study
from fedsci.simulation.labs import Labs
from fedsci.simulation.pooled import pooled_baselines
from fedsci.simulation.run import SimulatedRun

MODELS = {"linear": "{name: linear}", "mlp": "{name: mlp, hidden: [32]}"}
EPSILONS = (1, 3, 8)
TARGET_POINTS = 1.0
BUDGET = 100.0
#: Chosen for pooled DP-SGD on seeds 101 to 104; see docs/decisions/0007-distributed-noise-recipe.md.
BEST_POOLED = {
    ("linear", 1): {"learning_rate": 0.5},
    ("linear", 3): {"learning_rate": 0.5, "rounds": 60},
    ("linear", 8): {"learning_rate": 1.0, "rounds": 60},
    ("mlp", 1): {"learning_rate": 0.2, "clipping_norm": 2.0},
    ("mlp", 3): {"learning_rate": 0.3, "rounds": 60},
    ("mlp", 8): {"learning_rate": 2.5},
}


class Silent:
    """Shows nothing."""

    def phase(self, name: str) -> None:
        """A phase began."""

    def round_finished(self, progress: object, result: object, epsilon: float | None) -> None:
        """A round was applied."""


class Bench:
    """Runs studies of one seed over the same split, each in a fresh run folder below ``folder``."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._seed, self._folder = seed, folder / f"seed-{seed}"
        self._sites = folder / "sites"

    def study(self, *overrides: str) -> StudyOnOneMachine:
        """Return the demonstration study with these values replaced, over labs whose budgets last for all runs."""
        everything = [f"sites={self._sites}", "evaluation.every=1000", *overrides]
        return load_study(shipped("examples") / "digits" / "study.yaml", overrides=everything, seed=self._seed)

    def run(self, *overrides: str) -> dict[str, Any]:
        """Return the metrics of one run."""
        study = self.study(*overrides)
        state, out = self._folder / "state", self._folder / "runs"
        metrics: dict[str, Any] = SimulatedRun(
            study=study, engine="local", state=state, out=out, display=Silent()
        ).run()["metrics"]
        return metrics

    def pooled(self, *overrides: str) -> float:
        """Return the accuracy of pooled DP-SGD under another recipe, over the split of the runs."""
        study = self.study(*overrides)
        labs = Labs(study.site_files, study.plan.sites, (self._folder / "state").resolve())
        return points(pooled_baselines(study.plan, study.site_files, labs.split_key)["pooled_dp"])


def points(metrics: Any) -> float:
    """Return accuracy in percent."""
    return 100 * float(metrics["accuracy"])


def with_error(values: Sequence[float]) -> str:
    """Return mean and standard error over seeds."""
    error = f" +- {stdev(values) / len(values) ** 0.5:.2f}" if len(values) > 1 else ""
    return f"{mean(values):.2f}{error}"


def write_sites(folder: Path) -> None:
    """Write the shipped labs with budgets large enough for all runs."""
    folder.mkdir()
    for path in shipped("sites").glob("*.yaml"):
        values = yaml.safe_load(path.read_text())
        for dataset in values["datasets"].values():
            dataset["privacy"]["epsilon"] = BUDGET
        values["policy"]["max_epsilon_per_study"] = BUDGET
        (folder / path.name).write_text(yaml.safe_dump(values))


def one_setting(benches: Sequence[Bench], model: str, epsilon: int) -> dict[str, list[float]]:
    """Return accuracies by column, a number a seed."""
    table: dict[str, list[float]] = {"distributed": [], "pooled_dp": [], "pooled_dp_own_best": [], "local": []}
    settings = (f"model={MODELS[model]}", f"privacy.epsilon={epsilon}")
    best = [
        f"{'privacy' if key == 'clipping_norm' else 'training'}.{key}={value}"
        for key, value in BEST_POOLED[model, epsilon].items()
    ]
    for bench in benches:
        metrics = bench.run(*settings, "evaluation.baselines=[pooled]")
        table["distributed"].append(points(metrics["federated"]))
        table["pooled_dp"].append(points(metrics["pooled_dp"]))
        table["pooled_dp_own_best"].append(bench.pooled(*settings, *best))
        local = ("privacy.mechanism=local", "secure_aggregation.enabled=false", "evaluation.baselines=[]")
        table["local"].append(points(bench.run(*settings, *local)["federated"]))
    return table


def gaps(table: dict[str, list[float]], above: str, below: str) -> list[float]:
    """Return the difference of two columns, seed by seed."""
    return [one - other for one, other in zip(table[above], table[below], strict=True)]


def measure(quick: bool) -> Results:
    """Measure the table."""
    results = Results(bench="privacy")
    with tempfile.TemporaryDirectory(prefix="fedsci-bench-") as name:
        folder = Path(name)
        write_sites(folder / "sites")
        seeds = range(1, 3 if quick else 9)
        benches = [Bench(folder, seed) for seed in seeds]
        started = time.monotonic()
        for model in ["linear"] if quick else MODELS:
            for epsilon in EPSILONS:
                table = one_setting(benches, model, epsilon)
                _show(results, model, epsilon, table, time.monotonic() - started)
        for survivors in () if quick else (14, 15):
            overrides = ("privacy.epsilon=1", f"secure_aggregation.min_survivors={survivors}")
            runs = [bench.run(*overrides, "evaluation.baselines=[pooled]") for bench in benches]
            both = {
                "distributed": [points(run["federated"]) for run in runs],
                "pooled_dp": [points(run["pooled_dp"]) for run in runs],
            }
            difference = gaps(both, "pooled_dp", "distributed")
            results.details[f"linear_eps1_min_survivors_{survivors}"] = both
            print(
                f"linear eps 1, {survivors} of 17 must finish: distributed {with_error(both['distributed'])}, "
                f"gap {with_error(difference)}",
                flush=True,
            )
    return results


def _show(results: Results, model: str, epsilon: int, table: dict[str, list[float]], seconds: float) -> None:
    gap = gaps(table, "pooled_dp", "distributed")
    to_best = gaps(table, "pooled_dp_own_best", "distributed")
    local = gaps(table, "pooled_dp", "local")
    columns = ", ".join(f"{name} {with_error(values)}" for name, values in table.items())
    print(f"{model} eps {epsilon}: {columns}; {seconds:.0f} s", flush=True)
    print(
        f"    gap {with_error(gap)}; to pooled's own best {with_error(to_best)}; local {with_error(local)}", flush=True
    )
    results.details[f"{model}_eps{epsilon}"] = table
    prefix = "" if model == "linear" else f"{model}_"
    results.checks.append(check(f"{prefix}gap_points_eps{epsilon}", mean(gap), at_most=TARGET_POINTS))
    shown = {f"{prefix}gap_to_best_points_eps{epsilon}": mean(to_best)}
    shown[f"{prefix}local_gap_points_eps{epsilon}"] = mean(local)
    results.checks += [Check(name=name, value=value, target="shown", met=None) for name, value in shown.items()]


if __name__ == "__main__":
    main("privacy", __doc__ or "", measure)
