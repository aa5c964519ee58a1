"""Whether a run left labs out, and names some, as its own alarms say: the search for liars is done over from the log.

Whom a round leaves out, and who is named in the end, follows from the sums before it alone
(:mod:`fedsci.coordinator.blame`). One thing the log does not tell: why a round without a sum was given up. Either the
coordinator's process ended in it, or it left labs out and too few were left. Both are followed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fedsci.audit.entries import FILE as ENTRIES
from fedsci.audit.log import wrong_in
from fedsci.config.plan import Plan
from fedsci.coordinator.alarms import Alarms
from fedsci.coordinator.blame import LEFT_OUT, NAMED
from fedsci.coordinator.norm_check import Norm, NormCheck
from fedsci.coordinator.progress import Progress
from fedsci.coordinator.summary import blame_of
from fedsci.errors import RoundAborted, VerificationFailed
from fedsci.names import SiteId
from fedsci.reporting.run_folder import count, items, mapping
from fedsci.reporting.verify_norms import same, statement_of


def check_blame(
    plan: Plan,
    sums: Mapping[int, Mapping[str, Any]],
    norms: Mapping[int, Norm],
    *,
    rounds: int,
    summary: Mapping[str, object] | None,
) -> None:
    """Refuse a run that left out other labs than its sums say, or states other alarms or other suspicions.

    Args:
        plan: what was run.
        sums: the log's statements on rounds that have a sum, by number.
        norms: what these sums' norms mean.
        rounds: how many were asked for; those without a sum were given up.
        summary: as it was left; None where the run was cut off.

    Raises:
        VerificationFailed: ``file`` and ``field`` say what is wrong first.
    """
    ways = [Progress()]
    for number in range(1, rounds + 1):
        body = sums.get(number)
        if body is None:
            after = [one for way in ways for one in _without_sum(plan, way)]
        else:
            after = [one for way in ways for one in _with_sum(plan, way, number, body, norms[number])]
        if not after:
            raise _unlike(plan, ways[0], number, body)
        ways = list({one.blame: one for one in after}.values())
    if summary is not None:
        with wrong_in("summary.json"):
            _check_alarms(items(summary.get("alarms")), ways[0].alarms)
            _check_stated(summary.get("blame"), ways)


def _alarms(plan: Plan, progress: Progress) -> Alarms:
    """Return a copy of what is known, to go on with; norms are judged elsewhere."""
    known = replace(progress, levels=[*progress.levels], alarms=[*progress.alarms])
    check = NormCheck(plan=plan, cost=None, parameters=0, weights={}, records={})
    return Alarms(plan=plan, progress=known, check=check)


def _without_sum(plan: Plan, way: Progress) -> Iterator[Progress]:
    """Return what may be known after a round that was given up without a sum; nothing if the study had ended."""
    alarms = _alarms(plan, way)
    if (out := _left_out(alarms)) is None:
        return
    yield way
    if alarms.tried(out):
        alarms.fell_short()
        yield alarms.progress


def _with_sum(plan: Plan, way: Progress, number: int, body: Mapping[str, Any], norm: Norm) -> Iterator[Progress]:
    """Return what is known after a round that has a sum; nothing if it would have left out others."""
    alarms = _alarms(plan, way)
    if (out := _left_out(alarms)) is not None and _said(body) == out:
        alarms.heed(number, [site for site in plan.sites if site in body["survivors"]], norm, out)
        yield alarms.progress


def _left_out(alarms: Alarms) -> Mapping[SiteId, str] | None:
    """Return whom the next round leaves out, and why; None if there is none."""
    try:
        return alarms.left_out()
    except RoundAborted:
        return None


def _said(body: Mapping[str, Any]) -> dict[str, str]:
    """Return whom a round left out by its own account, and why."""
    ours = (LEFT_OUT, NAMED)
    return {site: why for site, why in body["dropped"].items() if why in [f"{site}: {one}" for one in ours]}


def _unlike(plan: Plan, way: Progress, number: int, body: Mapping[str, Any] | None) -> VerificationFailed:
    out = _left_out(_alarms(plan, way))
    if out is None or body is None:
        problem = f"by the sums before round {number} nobody could be found any more, and the study ended"
        return VerificationFailed(problem, file=f"audit/{ENTRIES}", field=f"round {number}")
    left, right = (", ".join(sorted(map(str, one))) or "nobody" for one in (_said(body), out))
    if left == right:
        left, right = (" ".join(why for _, why in sorted(one.items())) for one in (_said(body), out))
    problem = f"round {number} left out {left} for sums that cannot be; by the sums before it, it would be {right}"
    return VerificationFailed(problem, file=statement_of(body), field="dropped")


def _check_alarms(stated: Sequence[object], right: Sequence[Mapping[str, Any]]) -> None:
    """Refuse other alarms and warnings than those of the logged sums."""
    rounds = [count(mapping(one).get("round")) for one in stated]
    if rounds != [one["round"] for one in right]:
        known = ", ".join(f"{one['level']} in round {one['round']}" for one in right) or "none"
        raise VerificationFailed(f"it has them in rounds {rounds}; by the log it is: {known}", field="alarms")
    for said, one in zip(map(mapping, stated), right, strict=True):
        for name, value in one.items():
            if not same(said.get(name), value):
                raise VerificationFailed(f"by the log it is {value}", field=f"alarms: round {one['round']}: {name}")


def _check_stated(stated: object, ways: Sequence[Progress]) -> None:
    """Refuse another outcome of the search than one that the log allows."""
    if any(_agrees(stated, way) is None for way in ways):
        return
    field, right = _agrees(stated, ways[0]) or ("", None)
    raise VerificationFailed(f"by the log it is {right}", field=field)


def _agrees(stated: object, way: Progress) -> tuple[str, object] | None:
    """Return the first thing that is stated otherwise, and what it would be; None if there is none."""
    right = blame_of(way)
    if right is None:
        return None if stated is None else ("blame", None)
    said = mapping(stated)
    wrong = [name for name in ("named", *right) if said.get(name) != right[name]]
    return (f"blame.{wrong[0]}", right[wrong[0]]) if wrong else None
