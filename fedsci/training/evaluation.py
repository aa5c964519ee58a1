"""A model measured on a site's holdout, as sums."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedsci.config.plan import Plan
from fedsci.config.study import RegressionTask
from fedsci.data.table import Table
from fedsci.training.learner import CHUNK, module_for, single_thread
from fedsci.training.losses import record_losses
from fedsci.training.metrics import BINS, MetricSums
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
    task = plan.study.task
    if isinstance(task, RegressionTask):
        half = (task.max - task.min) / 2
        predicted = outputs.squeeze(1).double().numpy() * half
        truth = targets.double().numpy() * half
        middle = (task.max + task.min) / 2
        error, original = predicted - truth, truth + middle
        values = [len(truth), np.abs(error).sum(), np.square(error).sum(), original.sum(), np.square(original).sum()]
        return MetricSums(kind=task.kind, values=np.array(values, np.float64))
    loss = record_losses(task.kind, outputs, targets).double().sum().item()
    if task.kind == "multiclass":
        correct = (outputs.argmax(1) == targets).sum().item()
        return MetricSums(kind=task.kind, values=np.array([len(targets), loss, correct], np.float64))
    scores = torch.sigmoid(outputs.squeeze(1)).numpy()
    positive = table.target.astype(bool)
    correct = ((scores > 0.5) == positive).sum()
    bins = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    histograms = [np.bincount(bins[positive == side], minlength=BINS) for side in (False, True)]
    values = np.concatenate([[len(positive), loss, correct], *histograms]).tolist()
    return MetricSums(kind=task.kind, values=np.array(values, np.float64))


def _outputs(module: nn.Module, table: Table, device: torch.device) -> torch.Tensor:
    features = torch.from_numpy(table.features)
    with torch.no_grad():
        parts = [module(features[i : i + 16 * CHUNK].to(device)).cpu() for i in range(0, len(features), 16 * CHUNK)]
    return torch.cat(parts)
