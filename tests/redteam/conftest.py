"""Studies small enough that an attack on one takes a second or two."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedsci.config.shipped import shipped
from fedsci.config.study_file import StudyOnOneMachine, load_study

SHARED = {"mechanism": "distributed", "epsilon": 4.0, "colluding_sites": 1}


@pytest.fixture
def small_digits(tmp_path) -> Callable[..., StudyOnOneMachine]:
    """The built-in study over six of 17 labs, with changes; linear on 64 pixels, so 650 numbers a sum."""

    def load(
        *changes: str, labs: int = 6, rounds: int = 4, unit: str = "record", exact: bool = True
    ) -> StudyOnOneMachine:
        policy = yaml.safe_load((shipped("sites") / "lab-01.yaml").read_text())["policy"]
        for number in range(1, labs + 1):
            part = {"name": "digits", "shard": number, "of": 17, "skew": 0.5, "uneven": 0.5}
            budget = {"unit": unit, "epsilon": 20.0, "delta": 1e-5}
            site = {
                "site": f"lab-{number:02}",
                "datasets": {"digits": {"builtin": part, "privacy": budget}},
                "policy": policy | {"max_epsilon_per_study": 100.0, "exact_evaluation": exact},
            }
            (tmp_path / f"lab-{number:02}.yaml").write_text(yaml.safe_dump(site))
        return load_study(
            shipped("examples") / "digits" / "study.yaml",
            overrides=[
                f"sites={tmp_path}",
                "secure_aggregation={min_survivors: 5}",
                f"training={{rounds: {rounds}, sample_rate: 1.0, momentum: 0.9}}",
                "privacy.epsilon=5.0",
                "privacy.colluding_sites=1",
                "evaluation={holdout: 0.25, metrics: [accuracy], baselines: []}",
                *changes,
            ],
        )

    return load


@pytest.fixture
def small_study(write_study: Callable[..., Path], make_lab: Callable[..., Path]) -> Callable[..., StudyOnOneMachine]:
    """Labs with points in the unit square, which a line separates; noise shared out unless changed."""

    def make(*, sites: int = 6, rows: int = 80, **changes: Any) -> StudyOnOneMachine:
        policy = {"mechanisms": ["distributed", "local", "none"]}
        files = [str(make_lab(number, rows=rows, policy=policy)) for number in range(1, sites + 1)]
        settings = {
            "privacy": SHARED,
            "training": {"rounds": 6, "sample_rate": 1.0, "learning_rate": 2.0, "momentum": 0.5},
            "evaluation": {"holdout": 0.25, "metrics": ["accuracy"], "baselines": []},
        }
        return load_study(write_study(sites=files, **(settings | changes)))

    return make
