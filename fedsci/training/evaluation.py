"""A model measured on a site's holdout, as sums."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedsci.config.plan import Plan
from fedsci.data.table import Table
from fedsci.training.learner import CHUNK, module_for, single_thread
from fedsci.training.losses import record_losses
from fedsci.training.metrics import BINS, LARGEST_ERROR, LARGEST_LOSS, MetricSums, of_one_site
from fedsci.training.models import load_vector


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


def _outputs(module: nn.Module, table: Table, device: torch.device) -> torch.Tensor:
    features = torch.from_numpy(table.features)
    with torch.no_grad():
        parts = [module(features[i : i + 16 * CHUNK].to(device)).cpu() for i in range(0, len(features), 16 * CHUNK)]
    return torch.cat(parts)
