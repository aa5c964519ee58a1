"""``bom.cdx.json``: what a released model is made of, as a CycloneDX 1.6 ML-BOM (ECMA-424).

Written by hand, since it is a document of a few fields: a test holds it against the published JSON schema.
"""

import json
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fedsci.audit.statement import canonical
from fedsci.errors import InputError, VerificationFailed
from fedsci.names import Digest, digest
from fedsci.reporting.agreement import first_difference, first_line
from fedsci.reporting.card_facts import card_values
from fedsci.reporting.card_text import NOT_STATED, simulated
from fedsci.reporting.model_card import CARD
from fedsci.reporting.whole_file import write_whole

BOM = "bom.cdx.json"
_MODEL_REF = "model"


def write_bom(folder: Path) -> Digest:
    """Write the bill of materials of the run in ``folder``, whose card is there already, and return its digest.

    Raises:
        InputError: a part could not be stated truthfully, there is no card, or it cannot be written.
    """
    content = render_bom(card_values(folder), card=_card_digest(folder))
    try:
        write_whole(folder / BOM, content)
    except OSError as error:
        raise InputError(f"cannot write {folder / BOM}: {error.strerror}", hint="check the folder's rights") from None
    return digest(content.encode())


def check_bom(folder: Path) -> Digest:
    """Return its digest if every field follows from the run's files and the card.

    Raises:
        VerificationFailed: names the file and the first field that differs.
    """
    file = folder / BOM
    try:
        content = file.read_bytes().decode()
    except (OSError, ValueError):
        raise VerificationFailed(f"{file} is missing or no text", file=BOM) from None
    try:
        right = render_bom(card_values(folder), card=_card_digest(folder))
    except InputError as error:
        raise VerificationFailed(
            f"{file} cannot be held against its run: {error.message}", hint=error.hint, file=BOM
        ) from None
    line = first_line(content, right)
    if line is not None:
        try:
            difference = first_difference(json.loads(content), json.loads(right))
        except (ValueError, RecursionError):
            raise VerificationFailed(f"{file} is no JSON", file=BOM) from None
        said = str(difference) if difference else f"line {line} is not as fedsci writes it"
        raise VerificationFailed(
            f"{file}: {said}",
            hint="fedsci model-card writes it again",
            file=BOM,
            field=difference.field if difference else f"line {line}",
        )
    return digest(content.encode())


def render_bom(values: Mapping[str, Any], *, card: Digest) -> str:
    """Return the document as text.

    Args:
        values: of :func:`fedsci.reporting.card_facts.card_values`.
        card: digest of ``model_card.md``.
    """
    labs, software = values["data"]["labs"], values["software"]
    model = _model(values, card)
    components = [*(_data(values, site) for site in labs), *(_library(*pair) for pair in software.items())]
    refs = {name: _purl(name, version) for name, version in software.items()}
    own = refs.pop("fedsci")
    document = {
        "metadata": {
            "timestamp": values["finished"],
            "tools": {"components": [{"type": "application", "name": "fedsci", "version": software["fedsci"]}]},
            "component": model,
        },
        "components": components,
        "dependencies": [
            {"ref": _MODEL_REF, "dependsOn": [*(_data_ref(site) for site in labs), own]},
            {"ref": own, "dependsOn": list(refs.values())},
        ],
    }
    head = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{_uuid(document)}",
        "version": 1,
    }
    return json.dumps(head | document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _uuid(document: Mapping[str, Any]) -> uuid.UUID:
    """Return a UUID that follows from the content: version 8 (RFC 9562), the front of its SHA-256."""
    raw = bytearray(bytes.fromhex(digest(canonical(document)).removeprefix("sha256:"))[:16])
    raw[6], raw[8] = (raw[6] & 0x0F) | 0x80, (raw[8] & 0x3F) | 0x80
    return uuid.UUID(bytes=bytes(raw))


def _model(values: Mapping[str, Any], card: Digest) -> dict[str, Any]:
    model = values["model"]
    about = {"description": values["question"]} if values["question"] else {}
    return {
        "type": "machine-learning-model",
        "bom-ref": _MODEL_REF,
        "name": values["study"],
        "version": values["plan"].removeprefix("sha256:")[:12],
        **about,
        "hashes": [_sha256(model["digest"])],
        "externalReferences": [{"type": "model-card", "url": CARD, "hashes": [_sha256(card)]}],
        "modelCard": {
            "modelParameters": {
                "approach": {"type": "supervised"},
                "task": model["task"],
                "architectureFamily": model["family"],
                "modelArchitecture": _architecture(model),
                "datasets": [{"ref": _data_ref(site)} for site in values["data"]["labs"]],
                "inputs": [{"format": f"{len(model['inputs'])} numbers"}],
                "outputs": [{"format": f"{model['task']} prediction of {model['target']}"}],
            },
            "quantitativeAnalysis": {"performanceMetrics": list(_measured(values["results"]))},
            "considerations": _considerations(values),
        },
        "properties": _properties(
            {
                "plan": values["plan"],
                "status": values["status"],
                "engine": values["engine"],
                "file": model["file"],
                "size_bytes": model["size_bytes"],
                "parameters": model["parameters"],
                **{f"training.{key}": value for key, value in values["training"].items() if key != "dropped"},
                **{f"secure_aggregation.{key}": value for key, value in values["secure_aggregation"].items()},
                **{f"privacy.{key}": value for key, value in _flat(values["privacy"]).items()},
            }
        ),
    }


def _architecture(model: Mapping[str, Any]) -> str:
    hidden = f", hidden layers of {', '.join(map(str, model['hidden']))}" if model["hidden"] else ""
    return f"{model['family']}{hidden}; {model['parameters']} parameters"


def _measured(results: Mapping[str, Any]) -> Any:
    slices = [(label, figures) for label, figures in results["overall"].items()]
    slices += [(f"{site}/{label}", own) for site, each in results["labs"].items() for label, own in each.items()]
    for where, figures in slices:
        for name, figure in figures.items():
            interval = {"lowerBound": repr(figure["low"]), "upperBound": repr(figure["high"])}
            yield {
                "type": name,
                "value": repr(figure["value"]),
                "slice": where,
                **({} if figure["low"] is None else {"confidenceInterval": interval}),
            }


def _considerations(values: Mapping[str, Any]) -> dict[str, Any]:
    results, privacy = values["results"], values["privacy"]
    limits = ["Tested only on held-out records of the labs that trained it."]
    if simulated(values):
        limits.append("The labs were simulated on one machine.")
    if results["worse_than_alone"]:
        limits.append(f"Worse than the lab's own model at {', '.join(results['worse_than_alone'])}.")
    if values["status"] != "completed":
        limits.append(f"The run ended as {values['status']}.")
    guarantee = (
        f"epsilon {privacy['epsilon']:.6g} at delta {privacy['delta']:g} for each {privacy['unit']} "
        f"({privacy['neighbouring']})"
        if privacy["mechanism"] != "none"
        else "none: the model may give away single records of its training data"
    )
    return {
        "useCases": [values["intended_use"] or NOT_STATED],
        "technicalLimitations": limits,
        "ethicalConsiderations": [
            {"name": "forbidden use", "mitigationStrategy": values["forbidden_use"] or NOT_STATED},
            {"name": "privacy of the training data", "mitigationStrategy": f"differential privacy: {guarantee}"},
        ],
        "fairnessAssessments": [
            {"groupAtRisk": "subgroups of people", "benefits": "not assessed", "harms": "not assessed by any subgroup"}
        ],
    }


def _data(values: Mapping[str, Any], site: str) -> dict[str, Any]:
    lab, name = values["data"]["labs"][site], values["data"]["name"]
    dataset = {
        "type": "dataset",
        "name": name,
        "classification": "private to the lab",
        "governance": {"custodians": [{"organization": {"name": site}}]},
    }
    known = {
        "record": lab["record"] or "no record",
        "train_records": lab["train"],
        "holdout_records": lab["holdout"],
    }
    component: dict[str, Any] = {
        "type": "data",
        "bom-ref": _data_ref(site),
        "name": f"{site}/{lab['name'] or name}",
        **({"version": lab["version"]} if lab["version"] else {}),
        **({"licenses": [{"expression": lab["licence"]}]} if lab["licence"] else {}),
    }
    if lab["statement"]:
        component["externalReferences"] = [{"type": "attestation", "url": lab["statement"]}]
    return {**component, "data": [dataset], "properties": _properties(known)}


def _library(name: str, version: str) -> dict[str, Any]:
    purl = _purl(name, version)
    kind = "application" if name == "fedsci" else "library"
    return {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _purl(name: str, version: str) -> str:
    return f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{quote(version, safe='')}"


def _data_ref(site: str) -> str:
    return f"data:{site}"


def _sha256(value: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": value.removeprefix("sha256:")}


def _flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{path}{key}.") if isinstance(value, Mapping) else {path + key: value}
    return found


def _properties(values: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return what CycloneDX has no field for, as names and texts; what is not known is left out."""
    return [
        {"name": f"fedsci:{key}", "value": value if isinstance(value, str) else json.dumps(value)}
        for key, value in values.items()
        if value is not None
    ]


def _card_digest(folder: Path) -> Digest:
    try:
        return digest((folder / CARD).read_bytes())
    except OSError:
        raise InputError(f"{folder / CARD} is missing, and the bill of materials names its digest") from None
