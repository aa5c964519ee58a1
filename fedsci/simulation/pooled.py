"""The baselines that only a simulation can have: they need all labs' records in one place.

``pooled``: one model on all records, without privacy. ``pooled_dp``: the same with the noise of one data holder.
``local_noise``: what the study would have reached had every lab added all the noise itself.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial, reduce
from operator import add
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedsci.config.plan import Plan
from fedsci.config.scaling import on_its_own
from fedsci.config.site import Site, load_site
from fedsci.data.table import concatenate
from fedsci.errors import RoundAborted
from fedsci.names import SiteId
from fedsci.site.alone import alone_with
from fedsci.site.charging import dimension_of
from fedsci.site.dataset import SiteData, load_site_data
from fedsci.site.gate import allows_no_privacy
from fedsci.site.personal import personal_model
from fedsci.site.round import Contributor, contributor, train_alone
from fedsci.strategies.base import WeightedSum
from fedsci.training.accountant import Cost, cost_of, noise_of_sum
from fedsci.training.device import CPU
from fedsci.training.evaluation import evaluate
from fedsci.training.learner import module_for
from fedsci.training.metrics import Metrics, MetricSums, finish, half_range
from fedsci.training.models import initial_vector, layout_of


def pooled_baselines(
    plan: Plan, site_files: tuple[Path, ...], split_key: Callable[[Site], bytes]
) -> Mapping[str, Metrics | None]:
    """Return metrics of models that need all labs' records: ``pooled``, ``pooled_dp`` and ``local_noise``.

    Same model, strategy, rounds and, with privacy, epsilon as the study. ``local_noise`` is there only where the
    study's noise was distributed. Measured over all labs' holdouts, which ``split_key`` makes the same as at the
    labs. None where the baseline diverged. Computed on CPU.
    """
    sites = [load_site(file) for file in site_files]
    labs = {SiteId(site.site): load_site_data(plan, site, split_key=split_key(site)) for site in sites}
    train = concatenate([lab.train for lab in labs.values()])
    records = sum(lab.train_count for lab in labs.values())
    inputs = train.features.shape[1]
    costs: dict[str, Cost | None] = {"pooled": None}
    alone = None
    if plan.private and plan.study.privacy.unit != "site":  # in one place there are no sites to hide
        alone = cost_of(plan, dimension=layout_of(module_for(plan, inputs=inputs)).size, alone=True)
        costs["pooled_dp"] = alone

    def one_holder(label: str, cost: Cost | None) -> NDArray[np.float32]:
        return train_alone(
            contributor(plan, label, train, public_records=records, cost=cost, device=CPU, random_bytes=os.urandom)
        )

    ways: dict[str, Callable[[], NDArray[np.float32]]] = {
        label: partial(one_holder, label, cost) for label, cost in costs.items()
    }
    if alone is not None and plan.study.privacy.mechanism == "distributed":
        ways["local_noise"] = partial(train_with_local_noise, plan, labs, alone)
    return {label: _measured(plan, labs, way) for label, way in ways.items()}


def train_with_local_noise(plan: Plan, labs: Mapping[SiteId, SiteData], cost: Cost) -> NDArray[np.float32]:
    """Return the study's model had each lab added all noise of ``cost`` itself, as under ``mechanism: local``.

    The labs' contributions are weighted by their public record counts, as the coordinator weighs them; all finish
    every round.
    """
    records = sum(lab.train_count for lab in labs.values())
    workers: dict[SiteId, Contributor] = {
        site: contributor(
            plan, site, lab.train, public_records=lab.train_count, cost=cost, device=CPU, random_bytes=os.urandom
        )
        for site, lab in labs.items()
    }
    strategy = plan.strategy
    module = next(iter(workers.values())).learner.module
    state = strategy.start(initial_vector(module, seed=plan.study.seed))
    for number in range(1, plan.training.rounds + 1):
        total = np.zeros(strategy.width(state.model.size), np.float32)
        for site, worker in workers.items():
            # distributed noise goes with plain contributions only: the model out, an update back, nothing kept
            step = worker.contribution(state.model, number, memory={}).astype(np.float32, copy=False)
            total += step * np.float32(labs[site].train_count / records)
        noise = noise_of_sum(
            cost,
            clipping_norm=plan.study.privacy.clipping_norm,
            contributions=[(lab.train_count / records, lab.train_count) for lab in labs.values()],
        )
        state = strategy.apply(state, WeightedSum(vector=total, weight=1.0, noise=noise))
    return state.model


def _measured(plan: Plan, labs: Mapping[SiteId, SiteData], train: Callable[[], NDArray[np.float32]]) -> Metrics | None:
    try:
        model = train()
    except RoundAborted:  # the baseline diverged; the federation's result stands without it
        return None
    sums = reduce(add, [evaluate(plan, model, lab.holdout, device=CPU) for lab in labs.values()])
    metrics = finish(sums, half_range=half_range(plan.study))
    return {name: metrics.get(name) for name in plan.metrics}


def alone_baseline(
    plan: Plan, site_files: tuple[Path, ...], split_key: Callable[[Site], bytes]
) -> dict[SiteId, MetricSums]:
    """Return the exact metrics of each lab that trains alone under the study's epsilon: known to a simulation only.

    For labs that would not say; see :func:`_silent_labs`. A lab whose training diverged is absent.
    """
    own = on_its_own(plan)
    cost = cost_of(own, dimension=dimension_of(own), alone=True)

    def alone(name: str, lab: SiteData) -> NDArray[np.float32]:
        return train_alone(
            contributor(
                own, name, lab.train, public_records=lab.train_count, cost=cost, device=CPU, random_bytes=os.urandom
            )
        )

    labs = ((site, alone_with(plan, lab, private=True)[1]) for site, lab in _silent_labs(plan, site_files, split_key))
    return _of_each(own, labs, alone)


def personalised_baseline(
    plan: Plan, site_files: tuple[Path, ...], split_key: Callable[[Site], bytes], shared: NDArray[np.float32]
) -> dict[SiteId, MetricSums]:
    """Return the exact metrics of each lab's personal model: known to a simulation only.

    For labs that would not say; see :func:`_silent_labs`. A lab whose training diverged is absent.
    """

    def personal(name: str, lab: SiteData) -> NDArray[np.float32]:
        return personal_model(plan, name, lab.train, shared, device=CPU)

    return _of_each(plan, _silent_labs(plan, site_files, split_key), personal)


def _silent_labs(
    plan: Plan, site_files: tuple[Path, ...], split_key: Callable[[Site], bytes]
) -> Iterator[tuple[SiteId, SiteData]]:
    """Yield the labs of a private study that do not say what their own models reach, for want of a charge.

    In a private study a lab gives that only where it accepts results without any guarantee. Labs on this machine hold
    no secrets from it, so it is computed here, for labs that let exact metrics leave.
    """
    for site in map(load_site, site_files):
        policy = site.policy
        if policy is None or not policy.exact_evaluation or allows_no_privacy(site, plan.study.dataset):
            continue
        yield SiteId(site.site), load_site_data(plan, site, split_key=split_key(site))


def _of_each(
    plan: Plan, labs: Iterator[tuple[SiteId, SiteData]], train: Callable[[str, SiteData], NDArray[np.float32]]
) -> dict[SiteId, MetricSums]:
    found: dict[SiteId, MetricSums] = {}
    for name, lab in labs:
        with contextlib.suppress(RoundAborted):
            found[name] = evaluate(plan, train(name, lab), lab.holdout, device=CPU, resample=name)
    return found
