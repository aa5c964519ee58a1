"""``summary.json``: the contract that scripts read. Keys are only ever added."""

import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import fedsci
from fedsci.config.plan import Plan
from fedsci.config.study import NumericColumn, RegressionTask
from fedsci.coordinator.deciding import decisions_of
from fedsci.coordinator.progress import Progress
from fedsci.names import SiteId
from fedsci.privacy.events import neighbouring_of
from fedsci.training.accountant import cost_of
from fedsci.training.metrics import Metrics, higher_is_better

#: Named in docs/protocol.md.
SECAGG_PROTOCOL = "fedsci-secagg-1"
#: What fedsci runs on; pyproject.toml says why each is there.
_REQUIRED = (
    "flwr",
    "torch",
    "opacus",
    "numpy",
    "dp-accounting",
    "anyio",
    "cryptography",
    "httpx",
    "pyarrow",
    "pydantic",
    "pyyaml",
    "rfc8785",
    "rich",
    "safetensors",
    "scikit-learn",
    "securesystemslib",
    "sqlalchemy",
    "typer",
    "uvicorn",
)
#: Inside a run folder: that of the pass which measured the scaling.
SCALING = "scaling"


def summarise(
    plan: Plan,
    progress: Progress,
    *,
    engine: str,
    status: str,
    reason: str | None,
    seconds_total: float,
    traffic: tuple[int, int],
    pooled: dict[str, Metrics | None],
    scaling: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the summary of a run, finished or not; every number in it was computed in this run.

    Where a pass measured the scaling first, epsilon and delta are of both together.

    Args:
        plan: what was run.
        progress: how far it came.
        engine: ``local``, ``ray`` or ``flower``.
        status: ``completed``, ``stopped_by_budget`` or ``aborted``.
        reason: why it stopped early, or None.
        seconds_total: wall time.
        traffic: bytes up, bytes down, as the coordinator saw them.
        pooled: metrics of ``pooled``, ``pooled_dp`` and ``local_noise``, None where not computed.
        scaling: the summary of the pass that measured the scaling, if there was one.
    """
    study, privacy = plan.study, plan.study.privacy
    alone = progress.alone
    by_site: dict[str, Any] = {}
    for site in plan.sites:
        by_site[site] = {
            "federated": progress.federated.of(site) if progress.federated else None,
            "local": alone["local"].of(site) if "local" in alone else None,
            "local_no_dp": alone["local_no_dp"].of(site) if "local_no_dp" in alone else None,
            "personalised": alone["personalised"].of(site) if "personalised" in alone else None,
            "intervals": _intervals_of(progress, site),
            "records": _records(progress, site),
        }
    return {
        "fedsci": fedsci.__version__,
        "study": study.study,
        "question": study.question,
        "plan_digest": plan.digest,
        "engine": engine,
        "seed": study.seed,
        "status": status,
        "reason": reason,
        "rounds_completed": progress.rounds_completed,
        "rounds_abandoned": list(progress.abandoned),
        "sites": list(plan.sites),
        "metrics": {
            "primary": plan.metrics[0],
            "higher_is_better": higher_is_better(plan.metrics[0]),
            "federated": progress.federated.pooled() if progress.federated else None,
            "federated_mean_site": progress.federated.mean_site() if progress.federated else None,
            "by_site": by_site,
            "local_mean_site": alone["local"].mean_site() if "local" in alone else None,
            "local_no_dp_mean_site": alone["local_no_dp"].mean_site() if "local_no_dp" in alone else None,
            "personalised_mean_site": alone["personalised"].mean_site() if "personalised" in alone else None,
            "federated_worst_site": _worst(plan, by_site, "federated"),
            "local_worst_site": _worst(plan, by_site, "local"),
            "local_no_dp_worst_site": _worst(plan, by_site, "local_no_dp"),
            "personalised_worst_site": _worst(plan, by_site, "personalised"),
            "intervals": {
                "federated": progress.federated.intervals() if progress.federated else None,
                "federated_mean_site": progress.federated.mean_site_intervals() if progress.federated else None,
            }
            | {
                f"{label}_mean_site": alone[label].mean_site_intervals() if label in alone else None
                for label in ("local", "local_no_dp", "personalised")
            },
            "noise_deviation": progress.federated.noise_deviation() if progress.federated else None,
            "noise_deviation_mean_site": progress.federated.mean_site_deviation() if progress.federated else None,
            "pooled": pooled.get("pooled"),
            "pooled_dp": pooled.get("pooled_dp"),
            "local_noise": pooled.get("local_noise"),
        },
        "privacy": {
            "unit": privacy.unit,
            "neighbouring": neighbouring_of(privacy.unit).value,
            "mechanism": privacy.mechanism,
            "delta": plan.whole_privacy[1],
            "accountant": "pld",
            "colluding_sites": privacy.colluding_sites if privacy.mechanism == "distributed" else None,
            "by_site": _first_only(progress, scaling)
            | {site: _spent(plan, progress, site, scaling) for site in progress.privacy},
        },
        "scaling": None if scaling is None else _scaling(plan, scaling),
        "secure_aggregation": {
            "enabled": study.secure_aggregation.enabled,
            "protocol": SECAGG_PROTOCOL if study.secure_aggregation.enabled else None,
            "ring_bits": study.secure_aggregation.ring_bits if study.secure_aggregation.enabled else None,
            "crypto_profile": progress.crypto_profile,
            "min_survivors": plan.min_survivors,
            "smallest_sum": plan.smallest_sum,
            "dropped": [[site, number] for site, number in progress.dropped],
            "dropped_because": [progress.reasons.get(one, "") for one in progress.dropped],
        },
        "alarms": [dict(one) for one in progress.alarms],
        "blame": blame_of(progress),
        "checkpoints": [said.to_json() for said in decisions_of(plan, progress)],
        "traffic_bytes": {"up": traffic[0], "down": traffic[1]},
        "seconds": {"total": round(seconds_total, 4)} | {k: round(v, 4) for k, v in progress.seconds.items()},
        "versions": {name: version(name) for name in _REQUIRED},
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def blame_of(progress: Progress) -> dict[str, Any] | None:
    """Return who was found to make sums impossible, by which rounds; None where nobody was looked for."""
    blame = progress.blame
    if blame is None:
        return None
    found = "found" if blame.named and not blame.alarmed else "not found"
    return {"verdict": found, "suspects": list(blame.suspects), "alone": list(blame.alone)} | blame.to_json()


def _scaling(plan: Plan, first: Mapping[str, Any]) -> dict[str, Any]:
    """Return what measured the scaling, and what it found."""
    numbers = [*plan.study.features.items(), (plan.study.task.target, plan.study.task)]
    by = plan.study.scaled_by
    return {
        "run_folder": SCALING,
        "plan_digest": first["plan_digest"],
        "epsilon": by.epsilon if by else None,
        "delta": by.delta if by else None,
        "columns": {
            name: {"mean": part.mean, "deviation": part.deviation}
            for name, part in numbers
            if isinstance(part, NumericColumn | RegressionTask) and by is not None and name in by.columns
        },
        "traffic_bytes": first["traffic_bytes"],
        "seconds": first["seconds"],
    }


def _first_only(progress: Progress, scaling: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what sites stated that measured the scaling, and then did not let the study in."""
    said = {} if scaling is None else scaling["privacy"]["by_site"]
    return {
        site: {**spent, "epsilon_spent_scaling": spent["epsilon_spent_study"]}
        for site, spent in said.items()
        if site not in progress.privacy
    }


def _spent(plan: Plan, progress: Progress, site: SiteId, scaling: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a site stated; one that did not close its charge keeps all that it reserved."""
    values, settled = progress.privacy[site], site in progress.settled
    study = values["study"]
    if plan.private and not settled:
        said = progress.sites[site]
        cost = cost_of(plan, dimension=said.parameters)
        rounds = min(said.rounds_allowed, plan.training.rounds)
        study = cost.epsilon(rounds, min(said.measurements_allowed, cost.measurements))
    first = 0.0
    if scaling is not None and plan.private:
        first = scaling["privacy"]["by_site"][site]["epsilon_spent_study"]
    return {
        "epsilon_spent_study": study + first if plan.private else study,
        "epsilon_spent_scaling": None if scaling is None else first if plan.private else study,
        "epsilon_spent_total": values["total"],
        "epsilon_enforced_total": values["enforced_total"],
        "epsilon_enforced_before": values["enforced_before"],
        "epsilon_budget": values["budget"],
        "budget_delta": values["budget_delta"],
        "noise_multiplier": values["noise_multiplier"],
        "rounds_charged": values["rounds_charged"],
        "measurements_charged": values["measurements_charged"],
        "rdp_order": values["rdp_order"],
        "rdp_study": values["rdp_study"],
        "rdp_total": values["rdp_total"],
        "settled": settled,
    }


def _intervals_of(progress: Progress, site: SiteId) -> dict[str, Any]:
    """Return 95 % intervals of a site's own metrics by label, null where it does not show them."""
    labels = {"federated": progress.federated, **progress.alone}
    return {label: measured.intervals_of(site) if measured else None for label, measured in labels.items()}


def _worst(plan: Plan, by_site: dict[str, Any], label: str) -> dict[str, dict[str, Any]] | None:
    """Return for each metric the site where it is worst, and what it is there.

    It cannot come from sums: None unless every site shows its own metrics.
    """
    shown = {site: values[label] for site, values in by_site.items()}
    if any(values is None for values in shown.values()):
        return None
    worst = {}
    for metric in plan.metrics:
        known = {site: values[metric] for site, values in shown.items() if values[metric] is not None}
        if known:
            site = (min if higher_is_better(metric) else max)(known, key=lambda each: known[each])
            worst[metric] = {"site": site, "value": known[site]}
    return worst


def _records(progress: Progress, site: SiteId) -> dict[str, int] | None:
    said = progress.sites.get(site)
    return None if said is None else {"train": said.train, "holdout": said.holdout}
