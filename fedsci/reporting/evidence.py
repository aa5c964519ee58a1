"""What a run's files say of its privacy, recomputed from the plan; where they disagree nothing is stated.

The plan and its digest, the rounds and the labs' figures are compared with each other and with the accountant. That
finds slips and edits of one file; who writes all files anew with care is found by the labs' own ledgers only.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsci.config.plan import Plan
from fedsci.config.plan_checks import plan_from_bytes
from fedsci.coordinator.summary import SCALING
from fedsci.errors import InputError, PolicyRefused
from fedsci.privacy.budget import BudgetPolicy, budget_policy_at, charge_cost, epsilon_enforced
from fedsci.privacy.events import neighbouring_of
from fedsci.reporting.records import DataRecord, records_of
from fedsci.reporting.run_folder import RunFolder, count, epsilon, finite, items, mapping, read_run_folder, text
from fedsci.site.charging import dimension_of
from fedsci.training.accountant import Cost, cost_of, delta_of_all

_CLOSE = 1e-6


@dataclass(frozen=True, kw_only=True)
class SiteEvidence:
    """One lab's figures, checked against the plan as far as a plan can tell.

    Where a pass measured the scaling first, ``study`` is of both; rounds, ``before`` and ``rdp_study`` are of the study
    after it.

    Attributes:
        records: training records, public.
        rounds: charged for this study.
        study, total: epsilon of this study and of all, by PLD; ``total`` is infinite after runs without privacy.
        before, enforced: epsilon of all studies as the ledger enforces it, without and with this one.
        policy: the budget, with its Renyi order.
        rdp_study, rdp_total: Renyi divergence at that order.
        settled: whether the lab closed its charge; else that of the whole plan stays.
    """

    site: str
    records: int
    rounds: int
    study: float
    total: float
    before: float
    enforced: float
    policy: BudgetPolicy
    rdp_study: float
    rdp_total: float
    settled: bool


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A private run that released something, its files in agreement.

    Attributes:
        name: the run folder's.
        dimension: how many numbers a noised sum has: the model's parameters, or a strategy's statistics.
        rounds: applied to the model.
        abandoned: rounds that were asked for and not applied: the coordinator was restarted, or no honest labs have
            such a sum.
        survivors: how many labs' noise was in a sum -> in how many rounds; a round that was charged and not finished
            counts with the fewest labs there may be.
        dropped: labs that were not in a round's sum, and which.
        records: of the labs' data sets, by lab, where they signed one.
        scaling: the pass that measured the scaling, a run of its own; None where there was none.
    """

    name: str
    plan: Plan
    cost: Cost
    dimension: int
    summary: Mapping[str, object]
    status: str
    rounds: int
    abandoned: tuple[int, ...]
    sites: tuple[SiteEvidence, ...]
    survivors: Mapping[int, int]
    dropped: tuple[tuple[str, int], ...]
    records: Mapping[str, DataRecord]
    scaling: "Evidence | None" = None

    @property
    def charged(self) -> int:
        """The most rounds that any lab was charged for."""
        return max(site.rounds for site in self.sites)

    @property
    def studies(self) -> "tuple[Evidence, ...]":
        """The run, and before it what measured its scaling."""
        return (self,) if self.scaling is None else (self.scaling, self)

    def delta_at(self, epsilon: float) -> float:
        """Return delta at ``epsilon`` of all that was charged to one unit, by PLD."""
        return delta_of_all([(each.cost, each.charged) for each in self.studies], epsilon=epsilon)

    def epsilon_of_rows(self, rows: int) -> float | None:
        """Return epsilon for ``rows`` records of one person, as :meth:`Cost.epsilon_of_rows` does, of all studies."""
        found = [each.cost.epsilon_of_rows(each.charged, rows) for each in self.studies]
        return None if None in found else sum(value for value in found if value is not None)


def read_evidence(folder: Path) -> Evidence:
    """Return what the run in ``folder`` says of its privacy.

    Raises:
        InputError: it is no run, had no guarantee, released nothing, or its files are missing, damaged or disagree.
    """
    run = read_run_folder(folder)
    if not run.has_summary:
        raise InputError(
            f"{folder}: there is no readable summary.json", hint="the run was cut off; what it spent is in the ledgers"
        )
    plan, summary = checked_plan(folder, run), run.summary
    if not plan.private:
        raise InputError(
            f"{folder}: the run had no privacy guarantee (privacy.mechanism: none), so there is nothing to state",
            hint="run the study with privacy.mechanism: distributed or local",
        )
    _same(folder, "sites", items(summary.get("sites")), list(plan.sites))
    privacy, masking = mapping(summary, "privacy"), mapping(summary, "secure_aggregation")
    wanted, scaling = plan.study.privacy, _scaling(folder, plan)
    for key, right in (("unit", wanted.unit), ("mechanism", wanted.mechanism), ("delta", plan.whole_privacy[1])):
        _same(folder, f"privacy.{key}", privacy.get(key), right)
    _same(folder, "privacy.neighbouring", privacy.get("neighbouring"), neighbouring_of(wanted.unit).value)
    _same(folder, "secure_aggregation.enabled", masking.get("enabled"), plan.study.secure_aggregation.enabled)
    _same(folder, "secure_aggregation.min_survivors", masking.get("min_survivors"), plan.min_survivors)
    status, rounds = text(summary.get("status")), count(summary.get("rounds_completed"))
    if status not in ("completed", "aborted", "stopped_by_budget") or rounds is None:
        raise _unfit(folder, "summary.json does not say how far the run came")
    dimension = plan.release_size(dimension_of(plan))
    cost = cost_of(plan, dimension=dimension)
    abandoned = tuple(number for each in items(summary.get("rounds_abandoned")) if (number := count(each)) is not None)
    seen, dropped = _rounds(folder, run, plan, cost, rounds, abandoned, scaling)
    if status == "completed":
        _same(folder, "rounds_completed", rounds, plan.training.rounds - len(abandoned))
    sites = tuple(_site(folder, summary, plan, cost, site, dropped, rounds, scaling) for site in plan.sites)
    charged = max(site.rounds for site in sites)
    if not charged:
        raise InputError(
            f"{folder}: the run was {status} before anything was released, so there is nothing to state",
            hint="the ledgers charge nothing for it"
            if scaling is None
            else f"what measuring the scaling released is stated in {folder / SCALING}",
        )
    seen[plan.min_survivors] += _unfinished(sites, dropped, rounds=rounds, abandoned=len(abandoned))
    return Evidence(
        name=run.name,
        plan=plan,
        cost=cost,
        dimension=dimension,
        summary=summary,
        status=status,
        rounds=rounds,
        abandoned=abandoned,
        sites=sites,
        survivors=dict(+seen),
        dropped=dropped,
        records=records_of(folder, plan),
        scaling=scaling,
    )


def _scaling(folder: Path, plan: Plan) -> Evidence | None:
    """Return what the pass that measured the scaling says, which must have kept to its share of the guarantee.

    Raises:
        InputError: it is not the plan's, or took more.
    """
    by, privacy = plan.study.scaled_by, plan.study.privacy
    if by is None:
        return None
    first = read_evidence(folder / SCALING)
    asked, share = first.plan.study.privacy, privacy.scaling_share
    epsilon, delta = plan.whole_privacy
    if first.plan.digest != by.plan:
        raise _unfit(folder, f"{SCALING} holds another run than the one that the plan is scaled by")
    if not (_close(by.epsilon, asked.epsilon or 0.0) and _close(by.delta, asked.delta)):
        raise _unfit(folder, "the plan says another epsilon or delta of its scaling than the pass that measured it")
    if not (_close(by.epsilon, (epsilon or 0.0) * share) and _close(by.delta, delta * share)):
        raise _unfit(folder, f"measuring the scaling took another part of epsilon and delta than {share:g}")
    return first


def _unfinished(
    sites: tuple[SiteEvidence, ...], dropped: tuple[tuple[str, int], ...], *, rounds: int, abandoned: int
) -> int:
    """Return how many rounds may have been charged, and their sums opened, without being applied.

    A lab that was dropped from a round need not have been charged for it, so its charge may hold an abandoned one.
    """
    away = Counter(site for site, _ in dropped)
    more = max(site.rounds - rounds + away[site.site] for site in sites)
    return max(max(site.rounds for site in sites) - rounds, min(abandoned, more), 0)


def plan_of(run: RunFolder) -> Plan:
    """Return the plan in ``plan.yaml``, checked like a file.

    Raises:
        InputError: there is none, or it is damaged.
    """
    content = {key: value for key, value in run.plan.items() if key != "digest"}
    if not content:
        raise InputError(f"{run.name}: there is no readable plan.yaml", hint="give a run folder that is complete")
    try:
        return plan_from_bytes(json.dumps(content).encode())
    except PolicyRefused as error:  # reading a run folder runs no code that its plan names
        raise InputError(f"{run.name}: {error.message}", hint="no statement is made of it") from None
    except (TypeError, ValueError):  # a date, where YAML found one
        raise InputError(f"{run.name}: plan.yaml is damaged", hint="give a run folder that is complete") from None


def checked_plan(folder: Path, run: RunFolder) -> Plan:
    """Return the plan, which is the one that ``summary.json`` is of.

    Raises:
        InputError: it is damaged, or another.
    """
    plan = plan_of(run)
    for file, stated in (("plan.yaml", run.plan.get("digest")), ("summary.json", run.summary.get("plan_digest"))):
        if stated != plan.digest:
            raise _unfit(folder, f"the digest in {file} is not that of the plan")
    return plan


def _rounds(
    folder: Path,
    run: RunFolder,
    plan: Plan,
    cost: Cost,
    rounds: int,
    abandoned: tuple[int, ...],
    scaling: Evidence | None,
) -> tuple[Counter[int], tuple[tuple[str, int], ...]]:
    """Return how many labs were in how many rounds' sums, and who was not; summary and rounds must agree."""
    asked = rounds + len(abandoned)
    if [count(entry.get("round")) for entry in run.rounds] != list(range(1, asked + 1)):
        raise _unfit(folder, f"metrics.jsonl does not hold the {rounds} rounds of summary.json")
    seen: Counter[int] = Counter()
    dropped: list[tuple[str, int]] = []
    if abandoned != tuple(n for n, entry in enumerate(run.rounds, start=1) if entry.get("abandoned") is True):
        raise _unfit(folder, "summary.json and metrics.jsonl name other abandoned rounds")
    for number, entry in enumerate(run.rounds, start=1):
        if number in abandoned:
            continue
        away = [text(site) for site in items(entry.get("dropped"))]
        survivors = len(plan.sites) - len(away)
        if not set(away) <= set(plan.sites) or len(set(away)) != len(away) or count(entry.get("sites")) != survivors:
            raise _unfit(folder, f"round {number} of metrics.jsonl does not add up")
        if survivors < plan.min_survivors:
            raise _unfit(folder, f"round {number} had {survivors} sites, fewer than min_survivors")
        seen[survivors] += 1
        dropped += [(site, number) for site in away]
    listed = [tuple(items(pair)) for pair in items(mapping(run.summary, "secure_aggregation").get("dropped"))]
    if sorted(map(str, listed)) != sorted(map(str, dropped)):
        raise _unfit(folder, "summary.json and metrics.jsonl name other dropped sites")
    stated = finite(mapping(run.rounds[-1], "epsilon").get("max")) if asked else None
    # the last line was written before or after the last measurement, or nothing was measured with noise
    made = sum(number <= asked for number in plan.measured_rounds)
    first = 0.0 if scaling is None else max(site.study for site in scaling.sites)
    if asked and not any(_close(stated, first + cost.epsilon(asked, m)) for m in sorted({made, max(0, made - 1), 0})):
        raise _unfit(folder, f"the epsilon of round {asked} in metrics.jsonl is not what the plan costs")
    return seen, tuple(dropped)


def _site(
    folder: Path,
    summary: Mapping[str, object],
    plan: Plan,
    cost: Cost,
    site: str,
    dropped: tuple[tuple[str, int], ...],
    rounds: int,
    scaling: Evidence | None,
) -> SiteEvidence:
    stated = mapping(summary, "privacy", "by_site", site)
    known = {key: finite(stated.get(key)) for key in _FIGURES}
    charged, order = count(stated.get("rounds_charged")), count(stated.get("rdp_order"))
    measured = count(stated.get("measurements_charged"))
    total = epsilon(stated.get("epsilon_spent_total"))
    records = count(mapping(summary, "metrics", "by_site", site, "records").get("train"))
    settled = stated.get("settled")
    if None in known.values() or charged is None or measured is None or order is None or total is None or not records:
        raise _unfit(folder, f"summary.json does not hold all figures of {site}")
    figure: dict[str, Any] = known
    try:
        policy = budget_policy_at(
            order, epsilon=figure["epsilon_budget"], delta=figure["budget_delta"], neighbouring=cost.neighbouring
        )
    except InputError as error:
        raise _unfit(folder, f"{site}: no ledger has such a budget ({error.message})") from None
    least = rounds - sum(name == site for name, _ in dropped)
    most = plan.training.rounds
    if not (least <= charged <= most) or not isinstance(settled, bool):
        raise _unfit(folder, f"{site} cannot have been charged for {charged} rounds")
    if not 0 <= measured <= cost.measurements:
        raise _unfit(folder, f"{site} cannot have been charged for {measured} measurements")
    first = 0.0 if scaling is None else next(each.study for each in scaling.sites if each.site == site)
    for key, right in (
        ("noise_multiplier", cost.noise_multiplier),
        ("epsilon_spent_study", first + cost.epsilon(charged, measured)),
        ("rdp_study", charge_cost(cost.events(charged, measured), policy)),
        ("epsilon_enforced_total", epsilon_enforced(policy, figure["rdp_total"])),
    ):
        if not _close(figure[key], right):
            raise _unfit(
                folder, f"{site}: {key} is {figure[key]:.6g} in summary.json, but {right:.6g} by plan and accountant"
            )
    grown = figure["rdp_total"] >= figure["rdp_study"] * (1 - _CLOSE)
    paid = figure["epsilon_enforced_before"] <= figure["epsilon_enforced_total"] <= policy.epsilon * (1 + _CLOSE)
    least_total = max(first, figure["epsilon_spent_study"] - first)  # both together are less than their sum
    if not grown or not paid or total < least_total * (1 - 1e-3):
        raise _unfit(folder, f"{site}: this study, all studies and the budget do not add up in summary.json")
    return SiteEvidence(
        site=site,
        records=records,
        rounds=charged,
        study=figure["epsilon_spent_study"],
        total=total,
        before=figure["epsilon_enforced_before"],
        enforced=figure["epsilon_enforced_total"],
        policy=policy,
        rdp_study=figure["rdp_study"],
        rdp_total=figure["rdp_total"],
        settled=settled,
    )


_FIGURES = (
    "epsilon_spent_study",
    "epsilon_enforced_total",
    "epsilon_enforced_before",
    "epsilon_budget",
    "budget_delta",
    "noise_multiplier",
    "rdp_study",
    "rdp_total",
)


def _same(folder: Path, key: str, found: object, right: object) -> None:
    if found != right:
        raise _unfit(folder, f"summary.json has another {key} than the plan")


def _close(found: float | None, right: float) -> bool:
    return found is not None and math.isclose(found, right, rel_tol=_CLOSE, abs_tol=1e-12)


def _unfit(folder: Path, problem: str) -> InputError:
    return InputError(
        f"{folder}: {problem}; no statement can be made from files that do not agree",
        hint="restore the files as the run wrote them; the labs' ledgers hold what was spent",
    )
