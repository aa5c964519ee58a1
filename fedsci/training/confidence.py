"""What a model says of single records, for who tests what it remembers. Exact and not private: it never leaves."""

import numpy as np
import torch
from numpy.typing import NDArray

from fedsci.config.plan import Plan
from fedsci.data.table import Table
from fedsci.training.learner import CHUNK, module_for, single_thread
from fedsci.training.models import load_vector
from fedsci.training.schema import learned_scale


def confidences(plan: Plan, vector: NDArray[np.float32], table: Table) -> NDArray[np.float64]:
    """Return how sure a model is of each record's target, float64 ``(n,)``.

    The logit of the target's probability, ``log p / (1 - p)``, which is about normal over models (Carlini et al. 2022,
    arXiv 2112.03570, section VI-A); of a regression what it says less the target, in the units it learns.
    """
    single_thread()
    module = module_for(plan, inputs=table.features.shape[1]).eval()
    load_vector(module, vector)
    features = torch.from_numpy(table.features)
    with torch.no_grad():
        parts = [module(features[start : start + 16 * CHUNK]) for start in range(0, len(features), 16 * CHUNK)]
    outputs = torch.cat(parts).double() if parts else torch.zeros(0, 1, dtype=torch.float64)
    targets = torch.from_numpy(table.target)
    kind = plan.study.task.kind
    if kind == "multiclass":
        own = targets[:, None]
        others = outputs.scatter(1, own, -torch.inf)
        return (outputs.gather(1, own).squeeze(1) - torch.logsumexp(others, 1)).numpy()
    flat = outputs.squeeze(1)
    if kind == "binary":
        return torch.where(targets.bool(), flat, -flat).numpy()
    scale = learned_scale(plan.study)
    return (flat - (targets.double() - scale.centre) / scale.unit).numpy()
