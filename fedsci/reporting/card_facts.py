"""Every figure of a model card, from the run's files alone, so that anyone can work it out again and compare.

Nothing here depends on the machine, the clock or the folder's name: the same files give the same figures.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedsci.config.plan import Plan
from fedsci.coordinator.summary import SCALING
from fedsci.errors import InputError
from fedsci.names import Digest
from fedsci.reporting.evidence import Evidence, checked_plan, read_evidence
from fedsci.reporting.log_proof import log_proof
from fedsci.reporting.records import DataRecord, records_of
from fedsci.reporting.run_folder import RunFolder, count, finite, items, mapping, read_run_folder, text
from fedsci.site.charging import dimension_of
from fedsci.training.schema import schema_of

CARD_VERSION = 1
MODEL, MODEL_ABOUT = "model.safetensors", "model.json"
#: Of all labs: the keys of ``summary.json``'s metrics.
OVERALL = (
    "federated",
    "federated_mean_site",
    "local_mean_site",
    "local_no_dp_mean_site",
    "personalised_mean_site",
    "pooled",
    "pooled_dp",
    "local_noise",
)
#: Of one lab.
OWN = ("federated", "local", "local_no_dp", "personalised")
_NOISE = {"federated": "noise_deviation", "federated_mean_site": "noise_deviation_mean_site"}
_ALL_RECORDS = ("pooled", "pooled_dp", "local_noise")
_95 = 1.959963984540054


def released_model(folder: Path) -> bool:
    """Whether the run left a model; statistics in a model's place are none."""
    try:
        return json.loads((folder / MODEL_ABOUT).read_bytes())["model"] is not None and (folder / MODEL).is_file()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return (folder / MODEL).is_file()


def card_values(folder: Path, *, log_size: int | None = None) -> dict[str, Any]:
    """Return the card's figures as YAML-ready values.

    Args:
        folder: a run that released a model.
        log_size: of the checkpoint that the card stands on; the newest that held a quorum if left out.

    Raises:
        InputError: something a card must say is missing or damaged, or files of the run disagree.
    """
    run = read_run_folder(folder)
    if not run.has_summary:
        raise InputError(f"{folder}: there is no readable summary.json", hint="a card is written when a run is over")
    plan, summary = checked_plan(folder, run), run.summary
    evidence = read_evidence(folder) if plan.private else None
    records, proof = records_of(folder, plan), log_proof(folder, size=log_size)
    return {
        "card_version": CARD_VERSION,
        "study": plan.study.study,
        "question": plan.study.question,
        "intended_use": plan.study.intended_use,
        "forbidden_use": plan.study.forbidden_use,
        "plan": plan.digest,
        "status": _said(summary, "status"),
        "reason": text(summary.get("reason")) or None,
        "finished": _said(summary, "finished"),
        "engine": _said(summary, "engine"),
        "model": _model(folder, plan, summary),
        "data": {"name": plan.study.dataset, "columns": _columns(plan), "labs": _data(plan, summary, records)},
        "results": _results(plan, summary),
        "privacy": _privacy(plan, summary, evidence),
        "secure_aggregation": _masking(plan, summary),
        "training": _training(plan, run, evidence),
        "log": None if proof is None else asdict(proof),
        "software": {"fedsci": _said(summary, "fedsci"), **_versions(summary)},
    }


def licence_of(values: Mapping[str, Any]) -> str | None:
    """Return the licence of all labs' records, if each has one and all agree."""
    licences = {lab["licence"] for lab in values["data"]["labs"].values()}
    return licences.pop() if len(licences) == 1 else None


def wilson(share: float, records: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of ``records`` (Wilson 1927, score interval); also at 0 and 1.

    >>> [round(end, 3) for end in wilson(1.0, 5)]
    [0.566, 1.0]
    """
    z2 = _95 * _95 / records
    middle = (share + z2 / 2) / (1 + z2)
    half = _95 * math.sqrt(share * (1 - share) / records + z2 / (4 * records)) / (1 + z2)
    return max(0.0, middle - half), min(1.0, middle + half)


def _said(summary: Mapping[str, object], key: str) -> str:
    """Return a text that ``summary.json`` must hold.

    Raises:
        InputError: it does not.
    """
    words = text(summary.get(key))
    if not words:
        raise InputError(
            f"summary.json does not say {key}, which the model card and its like must name",
            hint="it was edited, or written by an older fedsci: run the study again",
        )
    return words


def _versions(summary: Mapping[str, object]) -> dict[str, str]:
    versions = {name: text(value) for name, value in mapping(summary, "versions").items()}
    if not all(versions.values()) or "dp-accounting" not in versions:
        raise InputError("summary.json does not hold versions of all that the run used, dp-accounting among them")
    return versions


def _model(folder: Path, plan: Plan, summary: Mapping[str, object]) -> dict[str, Any]:
    try:
        content, about = (folder / MODEL).read_bytes(), mapping(json.loads((folder / MODEL_ABOUT).read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{folder}: no model can be read ({error})", hint="the run released none, or lost it"
        ) from None
    digest = Digest("sha256:" + hashlib.sha256(content).hexdigest())
    right = {
        "digest": digest,
        "study": plan.study.study,
        "plan_digest": plan.digest,
        "rounds_completed": count(summary.get("rounds_completed")),
        "model": plan.study.model.model_dump(mode="json"),
        "inputs": list(schema_of(plan.study).encoded_names),
    }
    for key, value in right.items():
        if about.get(key) != value:
            other = f"{MODEL} has" if key == "digest" else "the rest of the run says"
            raise InputError(f"{folder}: {MODEL_ABOUT} has another {key} than {other}", hint="restore both files")
    return {
        "file": MODEL,
        "digest": digest,
        "size_bytes": len(content),
        "parameters": dimension_of(plan),
        "family": plan.study.model.name,
        "hidden": list(plan.study.model.hidden),
        "inputs": right["inputs"],
        "kept_at_labs": [text(name) for name in items(about.get("kept_at_labs"))],
        "task": plan.study.task.kind,
        "target": plan.study.task.target,
    }


def _columns(plan: Plan) -> dict[str, Any]:
    """Return what the plan says of each column; public, and the same for all labs."""
    return {
        name: {key: value for key, value in column.model_dump(mode="json").items() if value is not None}
        for name, column in plan.study.features.items()
    }


def _data(plan: Plan, summary: Mapping[str, object], records: Mapping[str, DataRecord]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for site in plan.sites:
        record, held = records.get(site), mapping(summary, "metrics", "by_site", site, "records")
        found[site] = {
            "record": record.digest if record else None,
            "statement": record.statement if record else None,
            "name": record.name or None if record else None,
            "version": record.version or None if record else None,
            "licence": record.licence or None if record else None,
            "train": count(held.get("train")),
            "holdout": count(held.get("holdout")),
        }
    return found


def _results(plan: Plan, summary: Mapping[str, object]) -> dict[str, Any]:
    metrics = mapping(summary, "metrics")
    intervals, by_site = mapping(metrics, "intervals"), mapping(metrics, "by_site")
    held = [count(mapping(by_site, site, "records").get("holdout")) for site in plan.sites]
    everything = sum(each or 0 for each in held) if None not in held else None
    overall, labs = {}, {}
    for label in OVERALL:
        if metrics.get(label) is not None:
            noise = mapping(metrics, _NOISE[label]) if _NOISE.get(label) else {}
            overall[label] = _figures(
                mapping(metrics, label),
                mapping(intervals, label),
                noise=noise,
                records=everything if label in _ALL_RECORDS else None,
            )
    for site in plan.sites:  # a lab that does not let its own metrics be seen has none in the summary
        entry = mapping(by_site, site)
        records = count(mapping(entry, "records").get("holdout"))
        labs[site] = {
            label: _figures(mapping(entry, label), mapping(entry, "intervals", label), noise={}, records=records)
            for label in OWN
            if entry.get(label) is not None
        }
    primary, higher = text(metrics.get("primary")), metrics.get("higher_is_better") is True
    if primary != plan.metrics[0]:
        raise InputError("summary.json has another metrics.primary than the plan")
    return {
        "primary": primary,
        "higher_is_better": higher,
        "noised": metrics.get("noise_deviation") is not None,
        "overall": overall,
        "labs": labs,
        "worse_than_alone": [site for site, own in labs.items() if _worse(own, primary, higher)],
    }


def _figures(
    values: Mapping[str, object], intervals: Mapping[str, object], *, noise: Mapping[str, object], records: int | None
) -> dict[str, Any]:
    """Return each metric with its 95 % interval, and where that is from; null ends where none is known."""
    found = {}
    for name in values:
        value, ends = finite(values[name]), [finite(end) for end in items(intervals.get(name))]
        if value is None:
            continue
        deviation, low, high, source = finite(noise.get(name)), None, None, None
        if len(ends) == 2 and None not in ends:
            (low, high), source = ends, "records"
        elif deviation is not None:
            low, high, source = value - _95 * deviation, value + _95 * deviation, "noise"
        elif name == "accuracy" and records and 0 <= value <= 1:
            (low, high), source = wilson(value, records), "wilson"
        found[name] = {"value": value, "low": low, "high": high, "interval": source}
    return found


def _worse(own: Mapping[str, Any], primary: str, higher: bool) -> bool:
    joint, alone = (own.get(label, {}).get(primary) for label in ("federated", "local"))
    if joint is None or alone is None:
        return False
    return bool(joint["value"] < alone["value"] if higher else joint["value"] > alone["value"])


def _privacy(plan: Plan, summary: Mapping[str, object], evidence: Evidence | None) -> dict[str, Any]:
    privacy = plan.study.privacy
    if evidence is None:
        if text(mapping(summary, "privacy").get("mechanism")) != "none":
            raise InputError("summary.json has another privacy.mechanism than the plan")
        return {"mechanism": "none"}
    planned, delta = plan.whole_privacy
    return {
        "mechanism": privacy.mechanism,
        "unit": privacy.unit,
        "group_by": privacy.group_by,
        "neighbouring": text(mapping(summary, "privacy").get("neighbouring")),
        "epsilon_planned": planned,
        "epsilon": max(site.study for site in evidence.sites),
        "epsilon_by_lab": {site.site: site.study for site in evidence.sites},
        "delta": delta,
        "accountant": {
            "name": text(mapping(summary, "privacy").get("accountant")),
            "library": "dp-accounting",
            "version": _versions(summary)["dp-accounting"],
        },
        "clipping_norm": privacy.clipping_norm,
        "noise_multiplier": finite(
            mapping(summary, "privacy", "by_site", evidence.sites[0].site).get("noise_multiplier")
        ),
        "sample_rate": evidence.cost.sample_rate,
        "releases_per_round": evidence.cost.steps_per_round,
        "rounds_charged": evidence.charged,
        "trust_model": "sum_over_labs" if evidence.cost.share is not None else "each_lab_by_itself",
        "colluding_sites": privacy.colluding_sites if evidence.cost.share is not None else None,
        "scaling": SCALING if evidence.scaling is not None else None,
    }


def _masking(plan: Plan, summary: Mapping[str, object]) -> dict[str, Any]:
    said, masking = mapping(summary, "secure_aggregation"), plan.study.secure_aggregation
    right = {
        "enabled": masking.enabled,
        "min_survivors": plan.min_survivors,
        "smallest_sum": plan.smallest_sum,
    }
    for key, value in right.items():
        if said.get(key) != value:
            raise InputError(f"summary.json has another secure_aggregation.{key} than the plan")
    return {"enabled": masking.enabled, "protocol": said.get("protocol"), **right}


def _training(plan: Plan, run: RunFolder, evidence: Evidence | None) -> dict[str, Any]:
    numbers, local = plan.training, plan.strategy.site_work == "local_update"
    pairs = [items(pair) for pair in items(mapping(run.summary, "secure_aggregation").get("dropped"))]
    away = Counter(text(pair[0]) for pair in pairs if pair)
    if evidence is None and not set(away) <= set(plan.sites):
        raise InputError("summary.json names dropped sites that are not in the plan")
    return {
        "strategy": plan.recipe.name,
        "paper": plan.recipe.paper or None,
        "server_optimiser": plan.recipe.server_optimiser.kind,
        "labs": len(plan.sites),
        "rounds_planned": numbers.rounds,
        "rounds_completed": count(run.summary.get("rounds_completed")),
        "rounds_abandoned": len(items(run.summary.get("rounds_abandoned"))),
        "learning_rate": numbers.learning_rate,
        "momentum": numbers.momentum,
        "sample_rate": numbers.sample_rate,
        "local_epochs": numbers.local_epochs if local else None,
        "batch_size": numbers.batch_size if local else None,
        "missing": plan.study.missing,
        "scaling": plan.study.scaling,
        "holdout": plan.study.evaluation.holdout,
        "personalised": plan.study.personalise.method,
        "seed": plan.study.seed,
        "dropped": {site: away[site] for site in plan.sites if away[site]},
    }
