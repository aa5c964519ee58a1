"""A study before its first round: sites let it in or refuse it, and what they say settles how it is run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedsci.config.masking import check_profile
from fedsci.config.plan import Plan
from fedsci.coordinator.admission import Admission, read_admission
from fedsci.coordinator.aggregation import Aggregation, PlainAggregation
from fedsci.coordinator.evaluation import Meter
from fedsci.coordinator.masked import MaskedAggregation
from fedsci.coordinator.progress import Keeper, Progress
from fedsci.coordinator.study_log import StudyLog
from fedsci.errors import InputError, SiteFailed
from fedsci.names import SiteId
from fedsci.secagg import Roster, open_roster
from fedsci.training.accountant import Cost, cost_of
from fedsci.training.learner import module_for
from fedsci.training.models import layout_of
from fedsci.training.schema import schema_of
from fedsci.training.sums import step_of
from fedsci.transport.binding import pack
from fedsci.transport.link import SiteLink
from fedsci.transport.messages import Reply, Request


@dataclass(frozen=True, kw_only=True)
class SignedRoster:
    """The consortium's roster as sites get it, and the key that signed it.

    Attributes:
        content: the signed bytes.
        consortium_key: the public key pinned at every site.
    """

    content: bytes
    consortium_key: bytes

    def open(self) -> Roster:
        """Return the roster, its signature checked."""
        return open_roster(self.content, consortium_key=self.consortium_key)


def admit(
    link: SiteLink, plan: Plan, progress: Progress, roster: SignedRoster | None, *, log: StudyLog | None = None
) -> None:
    """Ask every site to let the study in, and write down what it says of itself.

    Raises:
        SiteFailed: a site refused; its own exit code says why.
        InputError: sites read the study differently, or a masked study has no roster.
        ProtocolError: ``wrong-profile``: the study asks for another crypto profile than the consortium's.
    """
    fields: dict[str, Any] = {"run": progress.run, "plan": plan.to_bytes().decode()}
    if plan.study.secure_aggregation.enabled:
        if roster is None:
            raise InputError("a masked study needs a signed roster")
        check_profile(plan, roster.open())
        fields |= {"roster": pack(roster.content), "setup_batch": 0}
    if log is not None:
        fields |= log.ask_fields()
    replies = link.ask({site: Request(action="prepare", fields=fields) for site in plan.sites})
    refused = [reply for reply in replies.values() if isinstance(reply, SiteFailed)]
    for site, reply in replies.items():
        if isinstance(reply, Reply):
            progress.sites[site] = read_admission(site, reply.fields)
            progress.privacy[site] = progress.sites[site].privacy
    if refused:
        raise refused[0]
    shapes = {site: (said.inputs, said.parameters, said.schema) for site, said in progress.sites.items()}
    if len(set(shapes.values())) != 1:
        first = shapes[plan.sites[0]]
        other = next(site for site, shape in shapes.items() if shape != first)
        raise InputError(
            f"{other} and {plan.sites[0]} read the study's schema differently",
            hint="are all sites on the same version of fedsci?",
        )
    _check_shape(plan, progress.sites[plan.sites[0]])
    planned = plan.training.rounds
    progress.rounds_allowed = min(planned, *(said.rounds_allowed for said in progress.sites.values()))
    if progress.rounds_allowed < planned:
        progress.short_of_budget = tuple(
            site for site, said in progress.sites.items() if said.rounds_allowed == progress.rounds_allowed
        )


def _check_shape(plan: Plan, said: Admission) -> None:
    """Refuse what all sites say alike of the study's shape, if it is not so: models are made by these numbers.

    Raises:
        InputError: it is not.
    """
    schema = schema_of(plan.study)
    size = layout_of(module_for(plan, inputs=schema.width)).size
    if (said.inputs, said.schema, said.parameters) != (schema.width, schema.digest(), size):
        raise InputError(
            f"{plan.sites[0]} reads the study's schema differently than the coordinator",
            hint="are all sites on the same version of fedsci?",
        )


def assemble(
    link: SiteLink, plan: Plan, progress: Progress, roster: SignedRoster | None, keep: Keeper
) -> tuple[Aggregation, Meter]:
    """Return how contributions become sums and models are measured, given what sites said; the same in every process.

    Raises:
        InputError: holdouts whose sums do not fit; before anything is computed.
    """
    cost = cost_of(plan, dimension=progress.sites[plan.sites[0]].parameters) if plan.private else None
    meter = _meter(plan, progress, cost)
    if meter.evaluate is not None:
        _ = meter.table  # refuses holdouts whose sums do not fit
    weights = weights_of(plan, {site: said.train for site, said in progress.sites.items()}, cost)
    if roster is None or not plan.study.secure_aggregation.enabled:
        return PlainAggregation(link=link, plan=plan, weights=weights), meter
    opened = roster.open()
    progress.crypto_profile = opened.profile.name
    aggregation = MaskedAggregation(
        link=link,
        plan=plan,
        run=progress.run,
        roster=opened,
        weights=weights,
        slots=progress.rounds_allowed + 2,
        step=step_of(plan, cost),
        keep=keep,
    )
    aggregation.begin({site: said.advert for site, said in progress.sites.items()})
    return aggregation, meter


def counts(progress: Progress) -> dict[str, list[int]]:
    """Training and holdout records of every site: public, and the same in every request."""
    return {site: [said.train, said.holdout] for site, said in progress.sites.items()}


def weights_of(plan: Plan, records: Mapping[SiteId, int], cost: Cost | None) -> Mapping[SiteId, float]:
    """Return each site's public share in the sum, from every site's public count of training records."""
    if cost is None or cost.share is None:
        total = sum(records.values())
        return {site: count / total for site, count in records.items()}
    if plan.study.privacy.unit == "site":
        return dict.fromkeys(records, 1.0)  # a site counts as a site, whatever its size
    # gradients are summed as they are; their mean is over the public expected number of records
    return {site: cost.sample_rate * count for site, count in records.items()}


def _meter(plan: Plan, progress: Progress, cost: Cost | None) -> Meter:
    said = progress.sites.values()
    needed = cost.measurements if cost is not None else 0
    return Meter(
        plan=plan,
        cost=cost,
        holdouts={site: said.holdout for site, said in progress.sites.items()},
        noised=plan.private and not all(site.exact_evaluation for site in said),
        paid=all(site.measurements_allowed >= needed for site in said),
    )
