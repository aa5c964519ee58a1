"""A study small enough that a red team's whole attack on it takes a second or two."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedsci.config.study_file import StudyOnOneMachine, load_study

SHARED = {"mechanism": "distributed", "epsilon": 4.0, "colluding_sites": 1}


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
