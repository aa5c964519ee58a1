"""What joining brings on each testbed: alone, each strategy, and all records in one place, over several seeds.

A seed is another split into training and holdout, and other shuffles; with privacy also other noise. ``alone`` and the
strategies are means over the labs of each lab's own metric; ``adapted`` is the shared model's after each lab has
adapted it, where the study says how; ``pooled`` is over all records. Where a study is private, all have its guarantee.
``labs better off`` counts those that do better with what they get than alone, on the mean over seeds. Time to result is
the run's, without baselines. Data is generated, comes with scikit-learn, or lies in the folders of ``--data``
(``heart``, ``oer_plates``, ``grid_stability``); a testbed whose folder is absent is left out, saying so.

``--only NAME`` (again and again) measures some testbeds; ``--seeds N`` sets how many seeds, ``--quick`` takes two.
"""

import argparse
import contextlib
import io
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import yaml
from bench_privacy import Silent
from harness import Results, check, main

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from examples.biosecurity.make_data import write_hospitals  # noqa: E402
from examples.grid.make_data import write_regions, write_stability  # noqa: E402
from examples.materials.make_data import write_generated, write_measured  # noqa: E402
from fedsci.config.shipped import shipped  # noqa: E402
from fedsci.config.study_file import load_study  # noqa: E402
from fedsci.simulation.run import SimulatedRun  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """A column of the table: what to set in a study, and whether it is for studies with privacy."""

    name: str
    settings: tuple[str, ...]
    private: bool = False


#: A new strategy is one line here.
STRATEGIES = (
    Strategy(name="FedAvg", settings=("strategy=fedavg",)),
    Strategy(name="DP-FedSGD", settings=("strategy=dp_fedsgd",), private=True),
)


@dataclass(frozen=True, kw_only=True)
class Testbed:
    """A row of the table: a study with settings.

    Attributes:
        name: for ``--only``.
        study: below the folder of copied examples.
        metric: what the table shows.
        settings: on top of the study's own.
        private: which strategies are for it.
        needs: a folder of ``--data``.
        claims: functions of (mean of the best strategy, mean alone) to a check.
    """

    name: str
    study: str
    metric: str
    settings: tuple[str, ...] = ()
    private: bool = False
    needs: str | None = None
    claims: tuple[Callable[[float | None, float | None], Any], ...] = ()


def at_most(name: str, bound: float) -> Callable[[float | None, float | None], Any]:
    """Claim a bound on the best strategy."""
    return lambda best, alone: check(name, best, at_most=bound)


def at_least(name: str, bound: float) -> Callable[[float | None, float | None], Any]:
    """Claim a bound on the best strategy."""
    return lambda best, alone: check(name, best, at_least=bound)


def over_alone(name: str, bound: float) -> Callable[[float | None, float | None], Any]:
    """Claim a bound on the best strategy minus alone."""
    return lambda best, alone: check(name, None if best is None or alone is None else best - alone, at_most=bound)


NO_PRIVACY = ("privacy.mechanism=none",)
TESTBEDS = (
    Testbed(name="line loading, %", study="grid/study.yaml", metric="rmse"),
    Testbed(name="voltage violation, epsilon 3", study="grid/violations.yaml", metric="accuracy", private=True),
    Testbed(
        name="grid stability, 10 % train, milli",
        study="grid/stability.yaml",
        metric="rmse",
        needs="grid_stability",
        claims=(at_most("grid10_rmse", 13.05),),
    ),
    Testbed(name="generated plates, 10 % train, mV", study="materials/study.yaml", metric="rmse"),
    Testbed(name="active oxides, epsilon 3", study="materials/active.yaml", metric="accuracy", private=True),
    Testbed(
        name="oxygen plates, 10 % train, mV",
        study="materials/measured.yaml",
        metric="rmse",
        needs="oer_plates",
        claims=(at_most("oer10_rmse_mv", 24.4),),
    ),
    Testbed(
        name="oxygen plates, 80 % train, mV",
        study="materials/measured.yaml",
        metric="rmse",
        settings=(
            "evaluation.holdout=0.2",
            "training.batch_size=32",
            "personalise={method: fine_tune, epochs: 100, learning_rate: 0.005}",
        ),
        needs="oer_plates",
        claims=(over_alone("oer80_minus_local_mv", 0.3),),
    ),
    Testbed(name="hospitals, epsilon 1", study="biosecurity/study.yaml", metric="accuracy", private=True),
    Testbed(
        name="heart",
        study="heart/study.yaml",
        metric="accuracy",
        settings=NO_PRIVACY,
        needs="heart",
        claims=(at_least("heart_mean_site_accuracy", 0.83),),
    ),
    Testbed(
        name="heart, epsilon 1",
        study="heart/study.yaml",
        metric="accuracy",
        settings=(
            "privacy.mechanism=distributed",
            "privacy.epsilon=1",
            "privacy.delta=1e-3",
            "privacy.colluding_sites=1",
        ),
        private=True,
        needs="heart",
        claims=(at_least("heart_eps1", 0.81),),
    ),
    *(
        Testbed(
            name=f"digits, epsilon {epsilon}",
            study="digits/study.yaml",
            metric="accuracy",
            settings=(f"privacy.epsilon={epsilon}", "training.rounds=60"),
            private=True,
            claims=(at_least(f"digits_eps{epsilon}", bound),),
        )
        for epsilon, bound in ((1, 0.85), (3, 0.92), (8, 0.94))
    ),
)


@dataclass(kw_only=True)
class Column:
    """What one strategy gave on one testbed, an entry a seed."""

    values: list[float] = field(default_factory=list)
    adapted: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    by_site: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def better_off(self, *, lower: bool) -> str:
        """Return how many labs the strategy helps on average, of how many that tell."""
        gains = [mean(own - joint if lower else joint - own for own, joint in pairs) for pairs in self.by_site.values()]
        return f"{sum(gain > 0 for gain in gains)} of {len(gains)}"


def lift(folder: Path, *, epsilon: float, delta: float) -> None:
    """Give the site files in ``folder`` budgets for the largest guarantee that is measured on them."""
    for path in folder.glob("*.yaml"):
        values = yaml.safe_load(path.read_text())
        if "site" not in values:
            continue
        for dataset in values["datasets"].values():
            dataset["privacy"] |= {"epsilon": epsilon, "delta": delta}
        values["policy"]["max_epsilon_per_study"] = epsilon
        path.write_text(yaml.safe_dump(values))


def prepare(folder: Path, data: Path) -> None:
    """Copy the examples to ``folder`` and give them data."""
    for name in ("grid", "materials", "biosecurity", "heart", "digits"):
        ignored = shutil.ignore_patterns("data", "__pycache__")
        shutil.copytree(shipped("examples") / name, folder / "examples" / name, ignore=ignored)
    shutil.copytree(shipped("sites"), folder / "sites")
    lift(folder / "sites", epsilon=20, delta=1e-5)
    lift(folder / "examples" / "heart", epsilon=20, delta=2e-3)
    with contextlib.redirect_stdout(io.StringIO()):
        write_regions(folder / "examples" / "grid" / "data")
        write_generated(folder / "examples" / "materials" / "data")
        write_hospitals(folder / "examples" / "biosecurity" / "data")
        if (data / "grid_stability").is_dir():
            write_stability(data / "grid_stability", folder / "examples" / "grid" / "data")
        if (data / "oer_plates").is_dir():
            write_measured(data / "oer_plates", folder / "examples" / "materials" / "data")
    if (data / "heart").is_dir():
        (folder / "examples" / "heart" / "data").symlink_to((data / "heart").resolve())


def run(folder: Path, testbed: Testbed, strategy: Strategy, seed: int, *, baselines: str) -> dict[str, Any]:
    """Return the summary of one run."""
    settings = [*testbed.settings, *strategy.settings, f"evaluation.baselines={baselines}", "evaluation.every=100000"]
    study = load_study(folder / "examples" / testbed.study, overrides=settings, seed=seed)
    out = folder / "runs" / f"{TESTBEDS.index(testbed)}-{strategy.name}-{seed}"
    simulated = SimulatedRun(study=study, engine="local", state=out / "state", out=out, display=Silent())
    return simulated.run()


def measure_testbed(folder: Path, testbed: Testbed, seeds: range) -> tuple[list[float], list[float], dict[str, Column]]:
    """Return ``alone`` and ``pooled``, an entry a seed, and the column of each strategy."""
    alone: list[float] = []
    pooled: list[float] = []
    columns: dict[str, Column] = {}
    for strategy in (each for each in STRATEGIES if each.private == testbed.private):
        column = columns[strategy.name] = Column()
        for seed in seeds:
            summary = run(
                folder,
                testbed,
                strategy,
                seed,
                baselines="[local]" if columns.keys() - {strategy.name} else "[local, pooled]",
            )
            metrics, metric = summary["metrics"], testbed.metric
            column.values.append(metrics["federated_mean_site"][metric])
            if metrics.get("personalised_mean_site"):
                column.adapted.append(metrics["personalised_mean_site"][metric])
            column.seconds.append(summary["seconds"]["total"] - summary["seconds"]["evaluation"])
            for site, own in metrics["by_site"].items():
                gets = own.get("personalised") or own["federated"]
                if own["local"] and gets:
                    column.by_site.setdefault(site, []).append((own["local"][metric], gets[metric]))
            if len(columns) == 1:
                alone.append(metrics["local_mean_site"][metric])
                # where records are private, so is the reference: one holder of all records, with the same guarantee
                pooled.append(metrics["pooled_dp" if testbed.private else "pooled"][metric])
    return alone, pooled, columns


def spread(values: list[float]) -> str:
    """Return mean and deviation over seeds; nothing where nothing was measured."""
    if not values:
        return ""
    digits = 1 if mean(values) > 2 else 3
    return f"{mean(values):.{digits}f}" + (f" +- {stdev(values):.{digits}f}" if len(values) > 1 else "")


def measure(quick: bool, *, seeds: int, only: list[str], data: Path) -> Results:
    """Measure the table and print it as markdown."""
    unknown = set(only) - {testbed.name for testbed in TESTBEDS}
    if unknown:
        raise SystemExit(f"no testbed is called {unknown.pop()!r}; there are: {', '.join(t.name for t in TESTBEDS)}")
    results = Results(bench="testbeds")
    chosen = range(1, 1 + (2 if quick else seeds))
    print(f"seeds     {chosen.start} to {chosen.stop - 1}\n")
    print("| testbed | metric | alone | strategy | joined | adapted | pooled | labs better off | time to result, s |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="fedsci-bench-") as name:
        folder = Path(name)
        prepare(folder, data)
        for testbed in TESTBEDS:
            if only and testbed.name not in only:
                continue
            if testbed.needs and not (data / testbed.needs).is_dir():
                print(f"| {testbed.name} | not measured: there is no folder {data / testbed.needs} | | | | | | | |")
                results.checks += [claim(None, None) for claim in testbed.claims]
                continue
            alone, pooled, columns = measure_testbed(folder, testbed, chosen)
            lower = testbed.metric in ("rmse", "mae", "log_loss")
            for strategy, column in columns.items():
                print(
                    f"| {testbed.name} | {testbed.metric} | {spread(alone)} | {strategy} | {spread(column.values)} | "
                    f"{spread(column.adapted)} | "
                    f"{spread(pooled)} | {column.better_off(lower=lower)} | {median(column.seconds):.1f} |",
                    flush=True,
                )
            reached = [values for column in columns.values() for values in (column.values, column.adapted) if values]
            best = (min if lower else max)(map(mean, reached))
            results.checks += [claim(best, mean(alone)) for claim in testbed.claims]
            results.details[testbed.name] = {
                "alone": alone,
                "pooled": pooled,
                **{name: column.__dict__ for name, column in columns.items()},
            }
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    own, rest = parser.parse_known_args()
    sys.argv[1:] = rest
    main("testbeds", __doc__ or "", lambda quick: measure(quick, **vars(own)))
