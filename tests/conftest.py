"""A tiny study and its labs, for tests that need a whole one."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fedsci.config.plan import Plan
from fedsci.config.strategy import StrategyRecipe
from fedsci.config.study import Study
from fedsci.names import SiteId


def pytest_configure(config: pytest.Config) -> None:
    # Flower's logger imports typer, which imports names that click has deprecated
    config.addinivalue_line("filterwarnings", "ignore:'click.:DeprecationWarning")


@pytest.fixture(autouse=True, scope="session")
def unhurried_disk() -> Iterator[None]:
    """Files are not forced to the disk in this process: that is for power cuts, which no test makes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True)
def public_split(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sites split records by the seed alone, so that counts can be written down; ``secret_split`` undoes it."""
    if "secret_split" not in request.keywords:
        monkeypatch.setattr("fedsci.site.keystore.Keystore.split_key", lambda self: b"")


STUDY: dict[str, Any] = {
    "study": "tiny",
    "dataset": "points",
    "task": {"kind": "binary", "target": "above"},
    "features": {"a": {"min": 0, "max": 1}, "b": {"min": 0, "max": 1}},
    "model": {"name": "linear"},
    "strategy": "dp_fedsgd",
    "training": {"rounds": 2, "sample_rate": 1.0, "learning_rate": 0.5},
    "privacy": {"mechanism": "local", "epsilon": 4.0, "delta": 1.0e-5},
    "evaluation": {"holdout": 0.25},
    "audit_log": {"enabled": False},
    "seed": 3,
}
POLICY: dict[str, Any] = {
    "approval": "auto",
    "min_cohort": 2,
    "max_epsilon_per_study": 5.0,
    "strategies": ["dp_fedsgd", "fedavg"],
    "models": ["linear", "mlp"],
    "exact_evaluation": True,
    "show_own_metrics": True,
    "unmasked_updates": True,
    "unlogged_studies": True,
}


def changed(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Sections are merged key by key; None takes a key away; a section may be replaced by another type."""
    result = deepcopy(values)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict) and key not in ("features", "task"):
            result[key] = changed(result[key], value)
        else:
            result[key] = deepcopy(value)
    return result


@pytest.fixture
def study_values() -> Callable[..., dict[str, Any]]:
    """A study file's values, with changes by section."""
    return lambda **changes: changed(STUDY, changes)


@pytest.fixture
def make_plan(study_values: Callable[..., dict[str, Any]]) -> Callable[..., Plan]:
    """A plan for ``sites`` labs called lab-1, lab-2, ..."""

    def make(*, sites: int = 3, recipe: dict[str, Any] | None = None, **changes: Any) -> Plan:
        study = Study.model_validate(study_values(**changes))
        return Plan(
            study=study,
            recipe=StrategyRecipe.model_validate({"name": study.strategy} | (recipe or {})),
            sites=tuple(SiteId(f"lab-{number}") for number in range(1, sites + 1)),
        )

    return make


@pytest.fixture
def make_lab(tmp_path: Path) -> Callable[..., Path]:
    """Write a lab's records and its site file, and return the site file."""

    def make(
        number: int = 1,
        *,
        rows: int = 60,
        policy: dict[str, Any] | None = None,
        dataset: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Path:
        name = f"lab-{number}"
        points = np.random.default_rng(number).uniform(size=(rows, 2))
        lines = ["a,b,above", *(f"{a:.6f},{b:.6f},{int(a > b)}" for a, b in points)]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
        source = changed({"path": f"{name}.csv", "privacy": {"epsilon": 8.0, "delta": 1.0e-5}}, dataset or {})
        values = {"site": name, "datasets": {"points": source}, "policy": changed(POLICY, policy or {})}
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(changed(values, changes)))
        return file

    return make


@pytest.fixture
def write_study(tmp_path: Path, study_values: Callable[..., dict[str, Any]]) -> Callable[..., Path]:
    """Write a study file and return its path."""

    def write(**changes: Any) -> Path:
        file = tmp_path / "study.yaml"
        file.write_text(yaml.safe_dump(study_values(**changes), sort_keys=False))
        return file

    return write
