"""Attacks on one plan, a few families at a time: what earlier ones came to stays until they are made again."""

import json
from collections.abc import Mapping
from typing import Any

from fedsci.redteam.finding import overall
from fedsci.redteam.suite import FAMILIES
from fedsci.reporting.run_folder import items, mapping, text


def with_earlier(found: Mapping[str, Any], earlier: Mapping[str, object] | None) -> dict[str, Any]:
    """Return ``redteam.json`` with the rows of an ``earlier`` one whose families were not attacked again.

    A family that did not complete takes no place of one that did. Of another plan, nothing is kept.

    Args:
        found: as :meth:`fedsci.redteam.suite.RedTeam.to_json` returns it.
        earlier: what a file says, unchecked.
    """
    new = dict(found)
    if earlier is None or text(earlier.get("plan_digest")) != found["plan_digest"]:
        return new
    families, before = dict(found["families"]), mapping(earlier.get("families"))
    kept = [row for row in (mapping(one) for one in items(earlier.get("findings"))) if _usable(row)]
    for name, family in found["families"].items():
        if not family["completed"] and any(_family(row) == name for row in kept):
            del families[name]
    keys = {row["key"] for row in found["findings"] if row["family"] in families}
    kept = [row for row in kept if _family(row) not in families and row["key"] not in keys]
    rows = [row for row in found["findings"] if row["family"] in families] + kept
    order = list(FAMILIES)
    rows.sort(key=lambda row: order.index(_family(row)) if _family(row) in order else len(order))
    there = {_family(row) for row in rows}
    left_out = [name for name in order if name not in there]
    about = {name: families.get(name) or _kept(before.get(name)) for name in order if name in there}
    return new | {
        "verdict": overall((text(row.get("verdict")) for row in rows), left_out=bool(left_out)),
        "families": about,
        "left_out": left_out,
        "findings": rows,
    }


def _family(row: Mapping[str, object]) -> str:
    return text(row.get("family"))


def _kept(about: object) -> Mapping[str, object]:
    return mapping(about) if _strict(about) else {}


def _usable(row: Mapping[str, object]) -> bool:
    return bool(text(row.get("key"))) and _strict(row)


def _strict(value: object) -> bool:
    """Return whether it can be written again: what JSON has, and no more."""
    try:
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return False
    return True
