"""Whether the norms that a run states of its sums are those that it logged, and were dealt with as they must be.

A sum lies in no file, so its norm rests on the coordinator's word in the log. What honest labs' sums can be at most is
recomputed here, from the plan, who was in the round, and the record counts in ``summary.json``.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from fedsci.audit.log import wrong_in
from fedsci.config.plan import Plan
from fedsci.coordinator.alarms import ALARM
from fedsci.coordinator.preparation import weights_of
from fedsci.errors import VerificationFailed
from fedsci.names import SiteId
from fedsci.privacy.sum_norm import NormBound
from fedsci.reporting.run_folder import count, finite, items, mapping
from fedsci.site.charging import cost_for, dimension_of
from fedsci.training.sum_bound import bound_of_sum

_CLOSE = 1e-9


def check_norms(
    lines: Iterable[Mapping[str, object]],
    plan: Plan,
    *,
    rounds: Mapping[int, Mapping[str, Any]],
    alarmed: Mapping[int, Mapping[str, Any]],
    summary: Mapping[str, object],
) -> None:
    """Refuse norms that the log does not have, and rounds that were applied or given up against their norm.

    Runs of versions that logged no norms pass.

    Args:
        lines: of ``metrics.jsonl``.
        plan: what was run.
        rounds: the log's statements on applied rounds, by number.
        alarmed: those on rounds that were given up since no honest labs have such a sum.
        summary: as it was left; empty where the run was cut off, and then bounds are not recomputed.

    Raises:
        VerificationFailed: ``file`` and ``field`` say what is wrong first.
    """
    records = {
        site: number
        for site in plan.sites
        if (number := count(mapping(summary, "metrics", "by_site", site, "records").get("train")))
    }
    with wrong_in("metrics.jsonl"):
        for line in lines:
            number = count(line.get("round")) or 0
            body = rounds.get(number) or alarmed.get(number)
            if body is None or "norm" not in body:
                continue
            said, where = mapping(line, "norm"), f"round {number}: norm"
            if not _same(said.get("sum"), body["norm"]):
                raise VerificationFailed(f"the log has {body['norm']}", field=where)
            if said.get("alarm") != body.get("alarm"):
                raise VerificationFailed(f"the log has {body.get('alarm')}", field=f"{where}.alarm")
            survivors = [SiteId(str(site)) for site in items(body.get("survivors"))]
            if survivors and set(survivors) <= set(records):
                _check_bound(said, _bound(plan, records, survivors), where, alarm=number in alarmed)
    with wrong_in("summary.json"):
        stated = {count(mapping(one).get("round")) for one in items(summary.get("alarms")) if _is_alarm(one)}
        if more := sorted(str(one) for one in stated - set(alarmed)):
            raise VerificationFailed(f"the log has no alarm in round {more[0]}", field="alarms")


def _bound(plan: Plan, records: Mapping[SiteId, int], survivors: list[SiteId]) -> NormBound | None:
    cost = cost_for(plan)
    weights = weights_of(plan, records, cost)
    contributions = [(weights[site], records[site]) for site in survivors]
    return bound_of_sum(plan, cost, parameters=dimension_of(plan), contributions=contributions)


def _check_bound(said: Mapping[str, object], bound: NormBound | None, where: str, *, alarm: bool) -> None:
    for name, right in (("bound", bound and bound.most), ("least", bound and bound.least)):
        if not _same(said.get(name), right):
            raise VerificationFailed(f"by the plan and the record counts it is {right}", field=f"{where}.{name}")
    value = finite(said.get("sum"))
    honest = bound is None or (value is not None and bound.least <= value <= bound.most)
    if honest == alarm:
        did = "given up" if alarm else "applied"
        raise VerificationFailed(
            f"a round was {did} whose sum is {'' if honest else 'not '}as of honest labs", field=where
        )


def _is_alarm(one: object) -> bool:
    return isinstance(one, Mapping) and one.get("level") == ALARM


def _same(one: object, other: object) -> bool:
    if one is None or other is None:
        return one is other
    numbers = [finite(one), finite(other)]
    return None not in numbers and math.isclose(*numbers, rel_tol=_CLOSE)  # type: ignore[arg-type]
