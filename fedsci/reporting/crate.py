"""``ro-crate-metadata.json``: what a packed run holds, as RO-Crate 1.1 (Process Run Crate 0.5), written by hand."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedsci.errors import InputError
from fedsci.names import digest
from fedsci.reporting.evidence import checked_plan
from fedsci.reporting.records import records_of
from fedsci.reporting.run_folder import mapping, read_run_folder, text

CRATE = "ro-crate-metadata.json"
_SPEC = "https://w3id.org/ro/crate/1.1"
_PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
_CONTEXT = [f"{_SPEC}/context", {"sha256": "https://schema.org/sha256"}]
_CYCLONEDX, _CROISSANT = "https://cyclonedx.org/schema/bom-1.6.schema.json", "http://mlcommons.org/croissant/1.1"
_ABOUT = {
    "plan.yaml": ("The plan that every lab agreed to", "application/yaml"),
    "summary.json": ("Results and what was spent, for scripts", "application/json"),
    "metrics.jsonl": ("One line a round", "application/jsonl"),
    "model.safetensors": ("The model", "application/octet-stream"),
    "model.json": ("The layout of the model", "application/json"),
    "model_card.md": ("The model card", "text/markdown"),
    "model_card.sig.json": ("The coordinator's signature of the model card (DSSE)", "application/json"),
    "bom.cdx.json": ("The bill of materials (CycloneDX 1.6)", "application/vnd.cyclonedx+json"),
    "privacy_statement.md": ("What the run promises of privacy", "text/markdown"),
    "report.html": ("The report, for people", "text/html"),
    "audit/entries.jsonl": ("The entries of the audit log", "application/jsonl"),
    "audit/checkpoint": ("The newest checkpoint of the audit log (C2SP)", "text/plain"),
    "audit/manifest.json": ("The coordinator's signed list of the run's files (DSSE)", "application/json"),
    "audit/keys.json": ("The public keys that signatures are checked with", "application/json"),
}
_KINDS = {".json": "application/json", ".note": "text/plain"}
_NO_LICENCE = {
    "@id": "#no-licence",
    "@type": "CreativeWork",
    "name": "No common licence stated",
    "description": "The records of the data sets state no common licence: ask the coordinator before using this.",
}


def crate_metadata(folder: Path, contents: Mapping[str, bytes]) -> bytes:
    """Return the metadata file of a crate that holds ``contents``, by name.

    Raises:
        InputError: the run does not say when it finished, or its plan cannot be read.
    """
    run = read_run_folder(folder)
    plan, summary = checked_plan(folder, run), run.summary
    finished, version = text(summary.get("finished")), text(summary.get("fedsci"))
    if not finished or not version:
        raise InputError(
            f"{folder}: summary.json does not say when the run finished and by which fedsci",
            hint="it was written by an older fedsci: run the study again",
        )
    records = records_of(folder, plan)
    licence = _licence({record.licence for record in records.values()} if len(records) == len(plan.sites) else set())
    standards = {"bom.cdx.json": _CYCLONEDX} | {record.statement: _CROISSANT for record in records.values()}
    title = f"{plan.study.study}: a federated study over {len(plan.sites)} labs"
    engine = f"fedsci-{version}"
    used = {"plan.yaml", *(record.statement for record in records.values())}
    graph: list[dict[str, Any]] = [
        {"@id": CRATE, "@type": "CreativeWork", "about": {"@id": "./"}, "conformsTo": {"@id": _SPEC}},
        {
            "@id": "./",
            "@type": "Dataset",
            "name": title,
            "description": plan.study.question or "What a run of this study left behind; its question is not stated.",
            "datePublished": finished,
            "license": {"@id": licence["@id"]},
            "identifier": plan.digest,
            "conformsTo": {"@id": _PROFILE},
            "mentions": {"@id": "#run"},
            "hasPart": [{"@id": name} for name in sorted(contents)],
        },
        licence,
        {"@id": _PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"},
        {
            "@id": "#run",
            "@type": "CreateAction",
            "name": f"{text(summary.get('status'))} run of {plan.study.study}",
            "endTime": finished,
            "actionStatus": {"@id": f"http://schema.org/{_status(summary)}"},
            "instrument": {"@id": f"#{engine}"},
            "agent": {"@id": "#coordinator"},
            "object": [{"@id": name} for name in sorted(used & set(contents))],
            "result": [{"@id": name} for name in sorted(set(contents) - used)],
        },
        {"@id": "#coordinator", "@type": "Organization", "name": "the coordinator of the study"},
        {
            "@id": f"#{engine}",
            "@type": "SoftwareApplication",
            "name": "fedsci",
            "softwareVersion": version,
            "softwareRequirements": [f"{name}=={value}" for name, value in mapping(summary, "versions").items()],
        },
        *(_file(name, content, standards.get(name)) for name, content in sorted(contents.items())),
    ]
    document = {"@context": _CONTEXT, "@graph": graph}
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def _status(summary: Mapping[str, object]) -> str:
    return "FailedActionStatus" if summary.get("status") == "aborted" else "CompletedActionStatus"


def _licence(found: set[str]) -> dict[str, Any]:
    """Return the entity of the one licence of all records, or one that says there is none."""
    if len(found) != 1 or not (spdx := next(iter(found))):
        return _NO_LICENCE
    return {"@id": f"https://spdx.org/licenses/{spdx}", "@type": "CreativeWork", "name": spdx, "identifier": spdx}


def _file(name: str, content: bytes, standard: str | None) -> dict[str, Any]:
    short = name.removeprefix("scaling/")
    words, kind = _ABOUT.get(short, ("", _KINDS.get(Path(name).suffix, "application/octet-stream")))
    if name != short:
        words += ", of the pass that measured the scaling"
    if short.startswith("audit/statements/"):
        words = "A signed statement (DSSE)"
    elif short.startswith("audit/checkpoints/"):
        words = "A checkpoint of the audit log that held a quorum (C2SP)"
    return {
        "@id": name,
        "@type": "File",
        "name": name,
        "description": words,
        "encodingFormat": kind,
        "contentSize": str(len(content)),
        "sha256": digest(content).removeprefix("sha256:"),
        **({"conformsTo": {"@id": standard}} if standard else {}),
    }
