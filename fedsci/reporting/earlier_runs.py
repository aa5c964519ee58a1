"""What earlier runs of the same study measured: the only honest figures of accuracy before a new run."""

from dataclasses import dataclass
from pathlib import Path

from fedsci.config.plan import Plan
from fedsci.config.scaling import on_its_own
from fedsci.errors import FedsciError
from fedsci.reporting.evidence import plan_of
from fedsci.reporting.run_folder import count, epsilon, finite, mapping, read_run_folder, text

_MOST = 8
_LOOKED_AT = 40


@dataclass(frozen=True, kw_only=True)
class EarlierRun:
    """One completed run of a study like the one that is planned; figures are of its deciding metric.

    Attributes:
        name: the run folder's.
        mechanism: of its noise.
        epsilon: the most it cost any lab; infinite without privacy.
        rounds: of training.
        metric: what the figures are of.
        federated, pooled, pooled_dp, local_noise: None where not measured.
        records: each lab's training records.
    """

    name: str
    mechanism: str
    epsilon: float
    rounds: int
    metric: str
    federated: float | None
    pooled: float | None
    pooled_dp: float | None
    local_noise: float | None
    records: dict[str, int]


def earlier_runs(plan: Plan, folder: Path) -> tuple[EarlierRun, ...]:
    """Return completed runs in ``folder`` with the plan's name, data, task, features, model and strategy; newest last.

    Whatever else lies there is passed over.
    """
    if not folder.is_dir():
        return ()
    newest = sorted((path for path in folder.glob(f"{plan.study.study}-*") if path.is_dir()), reverse=True)[:_LOOKED_AT]
    found = [run for path in newest if (run := _read(plan, path)) is not None]
    return tuple(reversed(found[:_MOST]))


def _read(plan: Plan, path: Path) -> EarlierRun | None:
    try:
        run = read_run_folder(path)
        other = plan_of(run)
    except FedsciError:
        return None
    summary = run.summary
    if text(summary.get("status")) != "completed" or summary.get("plan_digest") != other.digest:
        return None
    alike = ("study", "dataset", "task", "features", "missing", "model", "strategy")
    ours, theirs = on_its_own(plan).study, on_its_own(other).study  # what was measured is no setting
    if any(getattr(ours, key) != getattr(theirs, key) for key in alike) or plan.study.scaling != other.study.scaling:
        return None
    spent = mapping(summary, "privacy", "by_site")
    costs = [epsilon(mapping(spent, site).get("epsilon_spent_study")) for site in spent]
    if not costs or None in costs:
        return None
    metrics, name = mapping(summary, "metrics"), other.metrics[0]
    by_site = mapping(metrics, "by_site")
    records = {site: count(mapping(by_site, site, "records").get("train")) for site in by_site}
    return EarlierRun(
        name=run.name,
        mechanism=other.study.privacy.mechanism,
        epsilon=max(cost for cost in costs if cost is not None),
        rounds=other.training.rounds,
        metric=name,
        federated=finite(mapping(metrics, "federated").get(name)),
        pooled=finite(mapping(metrics, "pooled").get(name)),
        pooled_dp=finite(mapping(metrics, "pooled_dp").get(name)),
        local_noise=finite(mapping(metrics, "local_noise").get(name)),
        records={site: number for site, number in records.items() if number},
    )
