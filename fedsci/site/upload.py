"""What leaves a site in a round: contribution and metric sums, masked or, where its policy agrees, plain."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsci.config.masking import grid_for
from fedsci.config.plan import Plan
from fedsci.config.site import Policy
from fedsci.errors import PolicyRefused, ProtocolError, RoundAborted
from fedsci.privacy.randomness import KeyStream
from fedsci.site.dataset import SiteData
from fedsci.site.masking import SiteMasking
from fedsci.site.permit import Permit
from fedsci.site.round import Contributor
from fedsci.training.accountant import Cost
from fedsci.training.evaluation import bounded_sums, evaluate
from fedsci.training.metrics import MetricSums
from fedsci.training.noise_share import with_share
from fedsci.training.sums import MetricTable, SumEncoding, metric_table, step_of
from fedsci.transport.messages import DIVERGED, Reply, Request


@dataclass(frozen=True, kw_only=True, eq=False)
class ActiveRun:
    """A study that passed this site's gate.

    Attributes:
        plan: what was asked.
        policy: what let it in.
        data: the site's records.
        cost: the privacy price, None where the mechanism is ``none``.
        worker: computes contributions.
        masking: the site's side of secure aggregation, None where the study is not masked.
        permit: what the site signed that it will run.
    """

    plan: Plan
    policy: Policy
    data: SiteData
    cost: Cost | None
    worker: Contributor
    masking: SiteMasking | None
    permit: Permit

    def measure(self, model: NDArray[np.float32], *, resample: bool = True) -> MetricSums | None:
        """Return exact metric sums on the holdout, or None where the policy does not let them leave.

        With ``resample`` also how the site's own metrics vary with the choice of its records.
        """
        if not self.policy.exact_evaluation:
            return None
        return evaluate(
            self.plan,
            model,
            self.data.holdout,
            device=self.worker.learner.device,
            resample=self.worker.name if resample else None,
        )

    def measure_noised(self, model: NDArray[np.float32], *, smallest: int) -> NDArray[np.int64]:
        """Return metric sums on the holdout with a share of noise, int64 grid steps; only their sum is private.

        ``smallest`` is the smallest holdout of all sites.
        """
        if self.cost is None or self.cost.metric_noise is None:
            raise _unfit("a study without privacy has no noised metrics")
        share = self.cost.metric_noise.share
        device = self.worker.learner.device
        weight = smallest / self.data.holdout_count
        sums = bounded_sums(self.plan, model, self.data.holdout, site_weight=weight, device=device)
        return with_share(sums, share, grid_for(self.plan), keystream=KeyStream(os.urandom))

    def own(self, metrics: Mapping[str, MetricSums | None]) -> dict[str, Any]:
        """Return the site's own metrics as a reply's fields, where the policy lets them be shown."""
        if not self.policy.show_own_metrics:
            return {}
        shown = {label: None if sums is None else sums.values.tolist() for label, sums in metrics.items()}
        return {"own": shown}


MOST_RECORDS = 10**9  # a site's; more would drown the others' weights in the grid


class Upload:
    """One upload of one site, checked before anything is computed.

    Args:
        active: the study, as it passed the gate.
        request: what was asked.
        slot: what it must belong to.
        dimension: numbers of the contribution.
        after: the round whose model is measured; None for the lab's own models, which no noise is charged for.
        tables: how many vectors of metrics.

    Attributes:
        absent: the answer of a site that lost the batch's secrets but joins the setup of the next one; None
            where it takes part.
        evaluate: what the coordinator wants to know of the model: ``exact`` metrics, ``noised`` ones, or None.
        smallest_holdout: of all sites.

    Raises:
        PolicyRefused: the request does not fit the plan or this site's public record counts.
        ProtocolError: ``batch-burnt``; the slot or the cohort is not one that this site can mask for.
    """

    def __init__(
        self,
        active: ActiveRun,
        request: Request,
        *,
        slot: int,
        dimension: int,
        after: int | None = None,
        tables: int = 1,
    ) -> None:
        self.request = request
        self.absent: Reply | None = None
        self._masking = active.masking
        counts = _record_counts(active, request)
        self._weight = counts[active.worker.name][0] / sum(train for train, _ in counts.values())
        holdouts = [holdout for _, holdout in counts.values()]
        self.smallest_holdout = min(holdouts)
        self.evaluate = request.fields.get("evaluate")
        if self.evaluate not in (None, "exact", "noised"):
            raise _unfit(f"evaluate is {self.evaluate!r}: it can be exact, noised or left out")
        if self.evaluate and not active.plan.makes_model:
            raise _unfit("the study makes no model that could be measured")
        noised = self.evaluate == "noised"
        if noised and (active.cost is None or active.cost.metric_noise is None):
            raise _unfit("a study without privacy has no noised metrics")
        if noised and after not in active.plan.measured_rounds:
            raise _unfit("noised metrics are of models that the plan says are measured, and of no others")
        table = metric_table(active.plan, active.cost, noised=noised, holdout=max(holdouts))
        self._tables = [table] * tables if self.evaluate else []
        self._encoding: SumEncoding | None = None
        if self._masking is None:
            return
        if request.integer("slot") != slot:
            raise _unfit(f"{request.action} belongs to slot {slot}, not {request.integer('slot')}")
        self._encoding = SumEncoding(
            grid=grid_for(active.plan), dimension=dimension, tables=self._tables, step=step_of(active.plan, active.cost)
        )
        self._joined = self._masking.join_setup(request)
        try:
            self._masking.require_batch(request)
        except ProtocolError as error:
            if not self._joined:
                raise
            self.absent = Reply(fields=self._joined | {"absent": error.public_message})
        else:
            self._masking.require_cohort(request)

    def seal(
        self,
        contribution: NDArray[np.float32] | NDArray[np.int64] | None,
        metrics: Sequence[NDArray[np.float64] | NDArray[np.int64] | None],
    ) -> tuple[Reply, int]:
        """Return the reply, and how many coordinates were clipped to the ring's bound (stays here).

        ``metrics`` holds one vector for each table asked for; None shows nothing.
        """
        if self._masking is None or self._encoding is None:
            plain = [
                None if sums is None else _floats(sums, table)
                for sums, table in zip(metrics, self._tables, strict=True)
            ]
            return Reply(fields={"metrics": plain}, vector=contribution), 0
        try:
            vector, clipped = self._encoding.encode(contribution, metrics, weight=self._weight)
        except ProtocolError as error:
            if error.rule != "not-finite":
                raise
            raise RoundAborted(DIVERGED, hint="lower training.learning_rate", public=DIVERGED) from None
        fields, payload = self._masking.mask(self.request, vector)
        return Reply(fields=fields | self._joined, vector=payload), clipped


def _record_counts(active: ActiveRun, request: Request) -> dict[str, list[int]]:
    """Return every site's training and holdout records as the request states them: public, its own among them."""
    counts = request.fields.get("records")
    name, mine = active.worker.name, [active.data.train_count, active.data.holdout_count]
    if not isinstance(counts, dict) or sorted(counts) != sorted(active.plan.sites) or counts[name] != mine:
        raise _unfit("the record counts are not those of the plan's sites")
    pairs = [pair for pair in counts.values() if isinstance(pair, list) and len(pair) == 2]
    if len(pairs) != len(counts) or not all(type(n) is int and 0 < n <= MOST_RECORDS for p in pairs for n in p):
        raise _unfit("the record counts are not pairs of numbers")
    return counts


def _floats(sums: NDArray[np.float64] | NDArray[np.int64], table: MetricTable) -> list[float]:
    values: list[float] = (sums * table.steps if sums.dtype.kind == "i" else sums).tolist()
    return values


def _unfit(message: str) -> PolicyRefused:
    return PolicyRefused(message, public=message)
