"""A model measured on a site's holdout, as sums."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedsci.config.plan import Plan
from fedsci.data.schema import Scale
from fedsci.data.table import Table
from fedsci.training import noised_metrics
from fedsci.training.intervals import bootstrap_variances
from fedsci.training.learner import CHUNK, module_for, single_thread
from fedsci.training.losses import record_losses
from fedsci.training.metrics import (
    BINS,
    GAP_BINS,
    LARGEST_ERROR,
    LARGEST_LOSS,
    LARGEST_QUARTIC,
    SQUARED_LOSS_UNIT,
    MetricSums,
    classes_of,
    of_one_site,
)
from fedsci.training.models import load_vector
from fedsci.training.schema import learned_scale

_EXACT = 2.0**24  # parts of one that a record's numbers are whole multiples of, in sums that are noised


@dataclass(frozen=True, kw_only=True, eq=False)
class _Scored:
    """What each record adds to the sums.

    Attributes:
        numbers: float64 ``(n, k)``: the first k sums.
        histograms: for each of those that follow: its length, and every record's bin and what it adds there.
    """

    numbers: NDArray[np.float64]
    histograms: Sequence[tuple[int, NDArray[np.int64], NDArray[np.float64]]] = ()

    def sums(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sums over records that count so often each."""
        first = (counts[:, None] * self.numbers).sum(0)
        return np.concatenate(
            [first, *(np.bincount(bins, counts * each, minlength=size) for size, bins, each in self.histograms)]
        )


def evaluate(
    plan: Plan,
    vector: NDArray[np.float32],
    table: Table,
    *,
    device: torch.device,
    resample: str | None = None,
) -> MetricSums:
    """Return the metric sums of the model on the table's records.

    Exact and not private: whoever releases them must have the site's leave to. With ``resample``, the site's name, also
    how its own metrics vary with the choice of records; the same for the same plan and name.
    """
    single_thread()
    module = module_for(plan, inputs=table.features.shape[1]).to(device).eval()
    load_vector(module, vector)
    outputs = _by_the_bounds(plan, _outputs(module, table, device))
    kind, records = plan.study.task.kind, table.rows
    scored = _scored(plan, outputs, table)
    variances = None
    if resample is not None:
        text = f"fedsci resamples|{plan.study.seed}|{resample}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")
        rng = np.random.Generator(np.random.PCG64(seed))
        variances = bootstrap_variances(kind, scored.sums, records, rng)
    return of_one_site(kind, scored.sums(np.ones(records)), variances=variances)


def _scored(plan: Plan, outputs: torch.Tensor, table: Table) -> _Scored:
    kind, targets = plan.study.task.kind, torch.from_numpy(table.target)
    every = np.ones(table.rows)
    if kind == "regression":
        truth = targets.double().numpy()
        error = np.clip(np.nan_to_num(outputs.squeeze(1).double().numpy()) - truth, -LARGEST_ERROR, LARGEST_ERROR)
        quartic = np.minimum(error**4, LARGEST_QUARTIC)
        columns = [every, np.abs(error), np.square(error), truth, np.square(truth), quartic]
        return _Scored(numbers=np.stack(columns, 1))
    losses = record_losses(kind, outputs, targets).double().nan_to_num(nan=LARGEST_LOSS)
    loss = losses.clamp(0, LARGEST_LOSS).numpy()
    if kind == "multiclass":
        chances = np.nan_to_num(torch.softmax(outputs.double(), 1).numpy())
        correct = (outputs.argmax(1) == targets).numpy().astype(np.float64)
        sure, classes = np.clip(chances.max(1), 0, 1), classes_of(plan.study)
        columns = [every, loss, correct, np.square(loss) / SQUARED_LOSS_UNIT]
        histograms = [
            (GAP_BINS, _bins(sure, GAP_BINS), sure - correct),
            (classes, table.target, correct),
            (classes, table.target, every),
        ]
        return _Scored(numbers=np.stack(columns, 1), histograms=histograms)
    scores = np.nan_to_num(torch.sigmoid(outputs.squeeze(1)).numpy())
    positive = table.target.astype(bool)
    correct = ((scores > 0.5) == positive).astype(np.float64)
    columns = [every, loss, correct, np.square(loss) / SQUARED_LOSS_UNIT, correct * positive]
    histograms = [
        (2 * BINS, _bins(scores, BINS) + BINS * positive, every),
        (GAP_BINS, _bins(scores, GAP_BINS), scores.astype(np.float64) - positive),
    ]
    return _Scored(numbers=np.stack(columns, 1), histograms=histograms)


def _bins(shares: NDArray[Any], count: int) -> NDArray[np.int64]:
    return np.clip((shares * count).astype(np.int64), 0, count - 1)


def bounded_sums(
    plan: Plan, vector: NDArray[np.float32], table: Table, *, site_weight: float, device: torch.device
) -> NDArray[np.float64]:
    """Return the sums that noise is added to, float64, one for each of ``sums_of(plan)``.

    Each record adds a vector of its own, of L2 norm at most ``sensitivity(plan)``; see
    :mod:`fedsci.training.noised_metrics`. Where groups are protected, each group adds the mean of its records'. Every
    pass through the model has the same shape, as in training, so that a record's outputs do not depend on how many
    others there are; and each number is cut to a multiple of 2^-24, so that sums over fewer than 2^29 records have no
    rounding error that could.

    Args:
        plan: the study's plan.
        vector: the model, float32 ``(d,)``.
        table: the records.
        site_weight: smallest holdout of all sites / this site's, public; at most 1.
        device: where the model runs.
    """
    single_thread()
    module = module_for(plan, inputs=table.features.shape[1]).to(device).eval()
    load_vector(module, vector)
    outputs = _by_the_bounds(plan, _outputs(module, table, device, rows=CHUNK))
    kind, targets = plan.study.task.kind, torch.from_numpy(table.target)
    found: dict[str, NDArray[Any]] = {"records": np.ones(len(targets))}
    if kind == "regression":
        truth = targets.double().numpy()
        guess = np.nan_to_num(outputs.squeeze(1).double().numpy(), nan=LARGEST_ERROR)
        error = np.clip(guess - truth, -LARGEST_ERROR, LARGEST_ERROR)  # wide enough to lose nothing below
        found |= {"absolute": np.abs(error), "squared": np.square(error), "target": truth}
        found |= {"target_squared": np.square(truth), "site_absolute": np.abs(error)}
    else:
        losses, scores = _same_everywhere(kind, outputs, targets)
        found["loss"] = losses
        if kind == "multiclass":
            correct = (outputs.argmax(1) == targets).numpy()
        else:
            positive = table.target.astype(bool)
            correct = (scores > 0.5) == positive
            bins = np.clip((scores * noised_metrics.BINS).astype(np.int64), 0, noised_metrics.BINS - 1)
            for i in range(noised_metrics.BINS):
                found |= {f"negative_{i}": (bins == i) & ~positive, f"positive_{i}": (bins == i) & positive}
        found |= {"correct": correct, "site_correct": correct}
    share = np.ones(table.rows) if table.groups is None else 1 / np.bincount(table.groups)[table.groups]
    sums = []
    for name in noised_metrics.sums_of(plan):
        weight = min(1.0, site_weight) if name.startswith("site_") else 1.0
        parts = np.clip(found[name] / noised_metrics.UNITS.get(name, 1.0), -1.0, 1.0)
        sums.append(weight * float(np.trunc(share * parts * _EXACT).sum(dtype=np.float64)) / _EXACT)
    return np.array(sums, np.float64)


def _same_everywhere(kind: str, outputs: torch.Tensor, targets: torch.Tensor) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return losses, and scores of a yes-or-no task, each a function of its own record alone, to the bit.

    torch computes whole vectors by one formula and what is left over at the end by another: so nothing is left over.
    """
    rows = len(targets)
    more = -rows % CHUNK
    outputs = torch.cat([outputs, outputs.new_zeros((more, *outputs.shape[1:]))])
    losses = record_losses(kind, outputs, torch.cat([targets, targets.new_zeros(more)])).double()
    scores = torch.sigmoid(outputs[:, 0])
    return losses.nan_to_num(nan=LARGEST_LOSS).numpy()[:rows], np.nan_to_num(scores.numpy())[:rows]


def _by_the_bounds(plan: Plan, outputs: torch.Tensor) -> torch.Tensor:
    """Return what a model says of a regression's target in units of its bounds; of other tasks what it says."""
    scale = learned_scale(plan.study)
    return outputs if scale == Scale(centre=0.0, unit=1.0) else outputs * scale.unit + scale.centre


def _outputs(module: nn.Module, table: Table, device: torch.device, *, rows: int | None = None) -> torch.Tensor:
    """Return the model's outputs; with ``rows`` every pass has exactly so many, the last one filled up."""
    features = torch.from_numpy(table.features)
    count, size = len(features), rows or 16 * CHUNK
    if rows is not None or count == 0:
        added = -count % size if count else size
        features = torch.cat([features, features.new_zeros(added, *features.shape[1:])])
    with torch.no_grad():
        parts = [module(features[i : i + size].to(device)).cpu() for i in range(0, len(features), size)]
    return torch.cat(parts)[:count]
