"""A record's clipped gradient does not depend on the other records: else one record more could move all of them.

The weights are chosen by somebody who wants it to: constant features and weights that cancel, so that the smallest
difference in the order of summation decides the sign of an output.
"""

import os

import numpy as np
import pytest

from fedsci.data.table import EncodingReport, Table
from fedsci.site.round import contributor
from fedsci.training.accountant import cost_of
from fedsci.training.device import CPU
from fedsci.training.learner import CHUNK
from fedsci.training.models import load_vector


def table_of(features, target):
    report = EncodingReport(rows_read=len(features), rows_dropped_missing=0, clipped={}, unseen={}, missing={})
    return Table(features=features, target=target, row_ids=np.arange(len(features)), report=report)


@pytest.mark.parametrize(("records", "width"), [(CHUNK, 200), (CHUNK, 64), (60, 30), (45, 200)])
def test_one_record_less_moves_the_clipped_sum_by_no_more_than_the_clipping_norm(make_plan, records, width):
    columns = {f"c{number}": {"min": 0, "max": 1} for number in range(width)}
    plan = make_plan(features=columns, task={"kind": "regression", "target": "above", "min": -1, "max": 1})
    rng = np.random.default_rng(1)
    features, target = np.full((records, width), -1, np.float32), np.zeros(records, np.float32)
    cost = cost_of(plan, dimension=width + 1)
    workers = [
        contributor(plan, "lab-1", table_of(features[:n], target[:n]), cost=cost, device=CPU, random_bytes=os.urandom)
        for n in (records, records - 1)
    ]
    worst = 0.0
    for _ in range(60):
        model, order, part = np.zeros(width + 1, np.float32), rng.permutation(width), width // 4
        model[order[:part]], model[order[part : 2 * part]] = 2.0**60, -(2.0**60)
        rest = width - 2 * part
        model[order[2 * part :]] = rng.choice([-1, 1], rest) * 2.0 ** rng.integers(20, 38, rest)
        sums = []
        for worker in workers:
            load_vector(worker.learner.module, model)
            sums.append(worker.private.clipped_sum(np.arange(worker.learner.records)))
        worst = max(worst, float(np.linalg.norm(sums[0] - sums[1])))
    assert 0.5 < worst <= plan.study.privacy.clipping_norm * (1 + 1e-6)


def hostile(rng, size):
    """Weights that cancel: a quarter each of +-2^60, so that the order of summation decides what is left."""
    weights, order, part = np.zeros(size, np.float32), rng.permutation(size), size // 4
    weights[order[:part]], weights[order[part : 2 * part]] = 2.0**60, -(2.0**60)
    rest = size - 2 * part
    weights[order[2 * part :]] = rng.choice([-1, 1], rest) * 2.0 ** rng.integers(20, 38, rest)
    return weights


@pytest.mark.parametrize("left_out", [0, 100, CHUNK, 2 * CHUNK - 1])
@pytest.mark.parametrize("model", [{"name": "linear"}, {"name": "mlp", "hidden": [9]}], ids=lambda model: model["name"])
def test_a_record_does_the_same_at_every_place_among_whatever_others(make_plan, model, left_out):
    """A record that is not sampled moves all later ones up, some of them into another pass."""
    records, width = 2 * CHUNK, 200
    columns = {f"c{number}": {"min": 0, "max": 1} for number in range(width)}
    task = {"kind": "regression", "target": "above", "min": -1, "max": 1}
    plan, rng = make_plan(features=columns, task=task, model=model), np.random.default_rng(2)
    table = table_of(rng.choice([-1, 1], (records, width)).astype(np.float32), np.zeros(records, np.float32))
    worker = contributor(
        plan, "lab-1", table, cost=cost_of(plan, dimension=width + 1), device=CPU, random_bytes=os.urandom
    )
    size = sum(p.numel() for p in worker.learner.module.parameters())
    worst = 0.0
    for _ in range(10):
        load_vector(worker.learner.module, hostile(rng, size))
        whole = worker.private.clipped_sum(np.arange(records))
        others = worker.private.clipped_sum(np.delete(np.arange(records), left_out))
        worst = max(worst, float(np.linalg.norm(whole - others)))
    assert 0.5 < worst <= plan.study.privacy.clipping_norm
