"""The baseline that only a simulation can have: all labs' records in one place."""

import os
from collections.abc import Callable, Mapping
from functools import reduce
from operator import add
from pathlib import Path

from fedsci.config.plan import Plan
from fedsci.config.site import Site, load_site
from fedsci.data.table import concatenate
from fedsci.errors import RoundAborted
from fedsci.site.dataset import load_site_data
from fedsci.site.round import contributor, train_alone
from fedsci.training.accountant import Cost, cost_of
from fedsci.training.device import CPU
from fedsci.training.evaluation import evaluate
from fedsci.training.learner import module_for
from fedsci.training.metrics import Metrics, finish, half_range
from fedsci.training.models import layout_of


def pooled_baselines(
    plan: Plan, site_files: tuple[Path, ...], split_key: Callable[[Site], bytes]
) -> Mapping[str, Metrics | None]:
    """Return metrics of one model trained on all labs' records, without (``pooled``) and with DP (``pooled_dp``).

    Same model, strategy and rounds; with DP the same epsilon, with the noise of one data holder. Measured over
    all labs' holdouts, which ``split_key`` makes the same as at the labs. Computed on CPU.
    """
    sites = [load_site(file) for file in site_files]
    data = [load_site_data(plan, site, split_key=split_key(site)) for site in sites]
    train = concatenate([lab.train for lab in data])
    records = sum(lab.train_count for lab in data)
    costs: dict[str, Cost | None] = {"pooled": None}
    if plan.private and plan.study.privacy.unit != "site":  # in one place there are no sites to hide
        module = module_for(plan, inputs=train.features.shape[1])
        costs["pooled_dp"] = cost_of(plan, dimension=layout_of(module).size, alone=True)
    results: dict[str, Metrics | None] = {}
    for label, cost in costs.items():
        worker = contributor(plan, label, train, public_records=records, cost=cost, device=CPU, random_bytes=os.urandom)
        try:
            model = train_alone(worker)
        except RoundAborted:  # the baseline diverged; the federation's result stands without it
            results[label] = None
            continue
        sums = reduce(add, [evaluate(plan, model, lab.holdout, device=CPU) for lab in data])
        metrics = finish(sums, half_range=half_range(plan.study))
        results[label] = {name: metrics.get(name) for name in plan.metrics}
    return results
