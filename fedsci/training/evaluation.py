"""A model measured on a site's holdout, as sums."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedsci.config.plan import Plan
from fedsci.data.table import Table
from fedsci.training import noised_metrics
from fedsci.training.learner import CHUNK, module_for, single_thread
from fedsci.training.losses import record_losses
from fedsci.training.metrics import BINS, LARGEST_ERROR, LARGEST_LOSS, MetricSums, of_one_site
from fedsci.training.models import load_vector

_EXACT = 2.0**24  # parts of one that a record's numbers are whole multiples of, in sums that are noised


def evaluate(plan: Plan, vector: NDArray[np.float32], table: Table, *, device: torch.device) -> MetricSums:
    """Return the metric sums of the model on the table's records.

    Exact and not private: whoever releases them must have the site's leave to.
    """
    single_thread()
    module = module_for(plan, inputs=table.features.shape[1]).to(device).eval()
    load_vector(module, vector)
    outputs = _outputs(module, table, device)
    targets = torch.from_numpy(table.target)
    kind = plan.study.task.kind
    if kind == "regression":
        truth = targets.double().numpy()
        error = np.clip(np.nan_to_num(outputs.squeeze(1).double().numpy()) - truth, -LARGEST_ERROR, LARGEST_ERROR)
        sums = [len(truth), np.abs(error).sum(), np.square(error).sum(), truth.sum(), np.square(truth).sum()]
        return of_one_site(kind, np.array(sums, np.float64))
    losses = record_losses(kind, outputs, targets).double().nan_to_num(nan=LARGEST_LOSS)
    loss = losses.clamp(max=LARGEST_LOSS).sum().item()
    if kind == "multiclass":
        correct = (outputs.argmax(1) == targets).sum().item()
        return of_one_site(kind, np.array([len(targets), loss, correct], np.float64))
    scores = torch.sigmoid(outputs.squeeze(1)).numpy()
    positive = table.target.astype(bool)
    correct = ((scores > 0.5) == positive).sum()
    bins = np.clip((np.nan_to_num(scores) * BINS).astype(np.int64), 0, BINS - 1)
    histograms = [np.bincount(bins[positive == side], minlength=BINS) for side in (False, True)]
    values = np.concatenate([[len(positive), loss, correct], *histograms]).tolist()
    return of_one_site(kind, np.array(values, np.float64))


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
    outputs = _outputs(module, table, device, rows=CHUNK)
    kind, targets = plan.study.task.kind, torch.from_numpy(table.target)
    found: dict[str, NDArray[Any]] = {"records": np.ones(len(targets))}
    if kind == "regression":
        truth = targets.double().numpy()
        guess = np.nan_to_num(outputs.squeeze(1).double().numpy(), nan=LARGEST_ERROR)
        error = np.clip(guess - truth, -LARGEST_ERROR, LARGEST_ERROR)  # wide enough to lose nothing below
        found |= {"absolute": np.abs(error), "squared": np.square(error), "target": truth}
        found |= {"target_squared": np.square(truth), "site_absolute": np.abs(error)}
    else:
        found["loss"] = record_losses(kind, outputs, targets).double().nan_to_num(nan=LARGEST_LOSS).numpy()
        if kind == "multiclass":
            correct = (outputs.argmax(1) == targets).numpy()
        else:
            scores = np.nan_to_num(torch.sigmoid(outputs.squeeze(1)).numpy())
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
