"""Whether the norms that a run states of its sums are those that it logged, and were dealt with as they must be.

A sum lies in no file, so its norm rests on the coordinator's word in the log. What honest labs' sums can be is
recomputed here, from the plan, who was in the round, and the record counts in ``summary.json``.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsci.audit.log import wrong_in
from fedsci.audit.statement import digest_of
from fedsci.config.plan import Plan
from fedsci.coordinator.norm_check import Norm, NormCheck
from fedsci.coordinator.preparation import weights_of
from fedsci.errors import InputError, VerificationFailed
from fedsci.reporting.run_folder import count, finite, mapping
from fedsci.site.charging import cost_for, dimension_of

_CLOSE = 1e-9


def judge_norms(
    plan: Plan, sums: Mapping[int, Mapping[str, Any]], *, summary: Mapping[str, object] | None
) -> dict[int, Norm]:
    """Return what each logged norm means; refuse rounds that were applied or given up against it.

    Args:
        plan: what was run.
        sums: the log's statements on rounds that have a sum, by number: applied, or given up since no honest labs have
            such a sum.
        summary: as it was left; None where the run was cut off: then norms mean what the log says, and have no bound.

    Raises:
        VerificationFailed: ``file`` and ``field`` say what is wrong first.
    """
    if summary is None:
        return {
            number: Norm(value=_value(body), bound=None, alarm=body.get("alarm"), warning=None, level=0.0)
            for number, body in sums.items()
        }
    norms, levels = dict[int, Norm](), list[float]()
    try:
        check = _check(plan, summary) if sums else None
        for number, body in sorted(sums.items()):
            if check is None:
                break
            there = [site for site in plan.sites if site in body["survivors"]]
            one: NDArray[Any] = np.array([_value(body)])  # a sum of one number has that number's norm
            norm = norms[number] = check.judge(one, there, levels)
            _require_same(body, norm)
            if norm.alarm is None and norm.warning is None:
                levels.append(norm.level)
    except (InputError, OverflowError):
        raise VerificationFailed(
            "no study has such record counts", file="summary.json", field="metrics.by_site"
        ) from None
    return norms


def check_norms(lines: Iterable[Mapping[str, object]], norms: Mapping[int, Norm], *, bounds: bool) -> None:
    """Refuse lines of ``metrics.jsonl`` with other norms than these; ``bounds`` are known, or only what the log says.

    Raises:
        VerificationFailed: ``file`` and ``field`` say what is wrong first.
    """
    with wrong_in("metrics.jsonl"):
        for line in lines:
            number = count(line.get("round")) or 0
            norm, where = norms.get(number), f"round {number}: norm"
            if norm is None:
                if line.get("norm") is not None:
                    raise VerificationFailed("the log has no sum of this round", field=where)
                continue
            right, said = norm.to_json(), mapping(line, "norm")
            for name in right if bounds else ("sum", "alarm"):
                if not same(said.get(name), right[name]):
                    raise VerificationFailed(
                        f"by the log, the plan and the record counts it is {right[name]}", field=f"{where}.{name}"
                    )


def statement_of(body: Mapping[str, Any]) -> str:
    """Return where the run folder has a logged statement."""
    return f"audit/statements/{digest_of(body).removeprefix('sha256:')}.json"


def same(one: object, other: object) -> bool:
    """Say whether two stated values are equal, numbers up to their rounding."""
    numbers = [finite(one), finite(other)]
    if None in numbers:
        return one == other
    return math.isclose(*numbers, rel_tol=_CLOSE)  # type: ignore[arg-type]


def _value(body: Mapping[str, Any]) -> float:
    """Return a logged norm; none is logged where the sum was not finite."""
    value = finite(body["norm"])
    return math.inf if value is None else value


def _check(plan: Plan, summary: Mapping[str, object]) -> NormCheck:
    records = {}
    for site in plan.sites:
        number = count(mapping(summary, "metrics", "by_site", site, "records").get("train"))
        if not number:
            where = f"metrics.by_site.{site}.records.train"
            raise VerificationFailed("it is no count of records", file="summary.json", field=where)
        records[site] = number
    cost = cost_for(plan)
    weights = weights_of(plan, records, cost)
    return NormCheck(plan=plan, cost=cost, parameters=dimension_of(plan), weights=weights, records=records)


def _require_same(body: Mapping[str, Any], norm: Norm) -> None:
    """Refuse a round that was dealt with against its norm."""
    stated = body.get("alarm")
    if stated == norm.alarm:
        return
    if norm.alarm is None:
        problem = "a round was given up whose sum is as of honest labs"
    elif stated is None:
        problem = f"a round was applied whose sum is not as of honest labs: {norm.in_words()}"
    else:
        problem = f"by the plan and the record counts it is {norm.alarm}"
    raise VerificationFailed(
        problem, file=statement_of(body), field="norm" if None in (stated, norm.alarm) else "alarm"
    )
