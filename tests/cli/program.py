"""The fixtures of all tests that use the command line: a small study on disk, and the program run on it."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

with warnings.catch_warnings():  # typer imports names that click has deprecated
    warnings.filterwarnings("ignore", "'click", DeprecationWarning)
    from fedsci.cli.main import app, main

COMMAND = [sys.executable, "-m", "fedsci.cli.main"]
_LEFT_OVER = re.compile(r"what there is of the run lies in (.+)")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def error_line(self) -> str:
        """The one line that starts with ``fedsci: ``; the test fails if there is none or more than one."""
        lines = [line for line in self.err.splitlines() if line.startswith("fedsci: ")]
        assert len(lines) == 1, self.err
        return lines[0]

    @property
    def hint_line(self) -> str:
        """The one line that starts with ``hint: `` and comes right after the error."""
        lines = self.err.splitlines()
        hints = [line for line in lines if line.startswith("hint: ")]
        assert len(hints) == 1, self.err
        assert lines.index(hints[0]) == lines.index(self.error_line) + 1, self.err
        return hints[0]

    @property
    def folder(self) -> Path:
        """The run folder that the program names, after a success with --quiet or after a failure."""
        found = _LEFT_OVER.search(self.err)
        return Path(found[1] if found else self.out.strip())


def strict_json(text: str) -> Any:
    """Parse JSON and nothing more: no NaN, no infinity."""

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


@dataclass
class Program:
    """Runs ``fedsci`` from ``folder``, in this process (fast) or as a process of its own (real)."""

    folder: Path
    _started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __call__(self, *arguments: str | Path) -> Outcome:
        """Run in this process, as the console script would."""
        out, err = io.StringIO(), io.StringIO()
        before = signal.getsignal(signal.SIGTERM)
        app.registered_commands.clear()  # main() adds them again, once a process
        app.registered_groups.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            patch.setattr(sys, "argv", ["fedsci", *map(str, arguments)])
            try:
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                    main()
                code = 0
            except SystemExit as stop:
                code = 0 if stop.code is None else int(stop.code)
            finally:
                signal.signal(signal.SIGTERM, before)
        return Outcome(code=code, out=out.getvalue(), err=err.getvalue())

    def summary(self, outcome: Outcome) -> dict[str, Any]:
        """Return the run's ``summary.json``."""
        values: dict[str, Any] = strict_json((self.folder / outcome.folder / "summary.json").read_text())
        return values

    def rounds(self, folder: Path) -> list[dict[str, Any]]:
        """Return the lines of the run's ``metrics.jsonl``."""
        return [strict_json(line) for line in (self.folder / folder / "metrics.jsonl").read_text().splitlines()]

    def start(self, *arguments: str | Path, preexec: Callable[[], None] | None = None) -> subprocess.Popen[str]:
        """Start a process; it is stopped at the end of the test if it still runs."""
        process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=preexec,
            env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "400"},
        )
        self._started.append(process)
        return process

    def finish(self, process: subprocess.Popen[str]) -> Outcome:
        """Wait for a started process."""
        out, err = process.communicate(timeout=120)
        return Outcome(code=process.returncode, out=out, err=err)

    def close(self) -> None:
        """Stop what still runs."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate()


class Study:
    """A study of a few labs that tests change before they run it."""

    def __init__(self, folder: Path, *, labs: int = 3) -> None:
        self.folder = folder
        self.labs = [f"lab-{number}" for number in range(1, labs + 1)]
        self.path = folder / "study.yaml"
        self.values: dict[str, Any] = {
            "study": "tumours",
            "question": "Is this tumour benign?",
            "dataset": "tumours",
            "task": {"kind": "binary", "target": "benign"},
            "features": {
                "mean_radius": {"min": 5, "max": 30},
                "mean_texture": {"min": 5, "max": 40},
                "mean_smoothness": {"min": 0, "max": 0.2},
            },
            "model": {"name": "linear"},
            "strategy": "dp_fedsgd",
            "training": {"rounds": 3, "learning_rate": 0.5},
            "privacy": {"mechanism": "none"},
            "evaluation": {"baselines": []},
            "sites": [f"{lab}.yaml" for lab in self.labs],
            "seed": 7,
        }
        self.sites = {
            lab: {
                "site": lab,
                "datasets": {
                    "tumours": {
                        "builtin": {"name": "breast_cancer", "shard": number, "of": labs},
                        "privacy": {"unit": "record", "epsilon": 4.0, "delta": 1e-5},
                    }
                },
                "policy": {
                    "approval": "auto",
                    "max_epsilon_per_study": 4.0,
                    "strategies": ["dp_fedsgd", "fedavg"],
                    "models": ["linear", "mlp"],
                    "mechanisms": ["local", "none"],
                    "exact_evaluation": True,
                    "show_own_metrics": True,
                    "unmasked_updates": True,
                },
            }
            for number, lab in enumerate(self.labs, start=1)
        }
        self.write()

    def write(self) -> None:
        """Write the study and site files as they now are."""
        self.path.write_text(yaml.safe_dump(self.values, sort_keys=False))
        for lab, values in self.sites.items():
            (self.folder / f"{lab}.yaml").write_text(yaml.safe_dump(values, sort_keys=False))

    def unmasked(self, *, min_survivors: int | None = None) -> None:
        """Let updates travel in the clear; without masks a sum may stand for as few labs as one likes."""
        self.values["secure_aggregation"] = {"enabled": False, "min_survivors": min_survivors}
        self.write()

    def private(self, *, epsilon: float = 3.0) -> None:
        """Train with local noise."""
        self.values["privacy"] = {"mechanism": "local", "epsilon": epsilon}
        self.write()

    def use_csv(self) -> None:
        """Give each lab its own CSV file with a number, a category and the target."""
        self.values["features"] = {
            "radius": {"min": 5, "max": 30},
            "grade": {"categories": ["low", "high"], "unseen": "refuse"},
        }
        rows = [f"{10 + i},{('low', 'high')[i % 2]},{i % 2}" for i in range(12)]
        for lab in self.labs:
            source = self.sites[lab]["datasets"]["tumours"]
            source.pop("builtin", None)
            source["path"] = f"{lab}.csv"
            (self.folder / f"{lab}.csv").write_text("\n".join(["radius,grade,benign", *rows]) + "\n")
        self.write()


@pytest.fixture
def fedsci(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    """The program, in an empty folder."""
    monkeypatch.delenv("FEDSCI_STATE", raising=False)
    monkeypatch.delenv("FEDSCI_DEBUG", raising=False)
    monkeypatch.setenv("COLUMNS", "400")
    program = Program(tmp_path)
    yield program
    program.close()


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Three labs and a linear model, written in the same empty folder."""
    return Study(tmp_path)
