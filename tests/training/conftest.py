"""A learner over made-up records, for every family of models and kind of task."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedsci.config.plan import Plan
from fedsci.data.table import EncodingReport, Table
from fedsci.training.device import CPU
from fedsci.training.learner import Learner

SIDE = 6
TASKS: dict[str, dict[str, Any]] = {
    "binary": {"kind": "binary", "target": "y"},
    "multiclass": {"kind": "multiclass", "target": "y", "classes": [0, 1, 2]},
    "regression": {"kind": "regression", "target": "y", "min": 0, "max": 10},
}
MODELS: dict[str, dict[str, Any]] = {
    "linear": {"name": "linear"},
    "mlp": {"name": "mlp", "hidden": [5]},
    "normalised": {"name": "mlp", "hidden": [5], "normalisation": "batch"},
    "cnn": {"name": "cnn", "channels": [2, 3], "hidden": [4]},
}


def made_up_table(*, rows: int, inputs: int, kind: str, seed: int = 1) -> Table:
    rng = np.random.default_rng(seed)
    features = rng.uniform(-1, 1, (rows, inputs)).astype(np.float32)
    target = rng.uniform(-1, 1, rows).astype(np.float32)
    if kind != "regression":
        target = rng.integers(0, 3 if kind == "multiclass" else 2, rows)
    report = EncodingReport(rows_read=rows, rows_dropped_missing=0, clipped={}, unseen={}, missing={})
    return Table(features=features, target=target, row_ids=np.arange(rows), report=report)


@pytest.fixture
def make_learner(make_plan: Callable[..., Plan]) -> Callable[..., Learner]:
    def make(*, model: str = "linear", kind: str = "binary", rows: int = 20, seed: int = 1, **changes: Any) -> Learner:
        columns: dict[str, Any] = {"a": {"min": -1, "max": 1}, "b": {"min": -1, "max": 1}}
        if model == "cnn":
            columns = {"image": {"shape": [SIDE, SIDE], "min": -1, "max": 1}}
        plan = make_plan(task=TASKS[kind], features=columns, model=MODELS[model], **changes)
        inputs = SIDE * SIDE if model == "cnn" else 2
        return Learner(plan=plan, table=made_up_table(rows=rows, inputs=inputs, kind=kind, seed=seed), device=CPU)

    return make
