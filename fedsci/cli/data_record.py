"""``fedsci data describe`` and ``fedsci data check``."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fedsci.config.site import Site
    from fedsci.data.record import DataRecord, RecordColumn
    from fedsci.data.record_profile import Fault

_SITE = "The site file."
_EXAMPLE = "Example: fedsci data describe sites/lab-01.yaml digits --out digits.croissant.json --name Digits"


def register(group: typer.Typer) -> None:
    """Add the commands to ``fedsci data``."""
    group.command("describe", epilog=_EXAMPLE)(describe)
    group.command("check", epilog="Example: fedsci data check examples/heart/records/cleveland.croissant.json")(check)


def describe(
    site_file: Annotated[Path, typer.Argument(help=_SITE, metavar="SITE_FILE")],
    dataset: Annotated[str, typer.Argument(help="One of its data sets.", metavar="DATASET")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The record; else what the site file names, or beside it.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="What the data set is called.")] = None,
    description: Annotated[str | None, typer.Option("--description", help="What it is, in words.")] = None,
    licence: Annotated[str | None, typer.Option("--licence", help="An SPDX id, or LicenseRef-NAME.")] = None,
    creator: Annotated[list[str] | None, typer.Option("--creator", help="An organisation that made it.")] = None,
    person: Annotated[list[str] | None, typer.Option("--person", help="A person who made it.")] = None,
    version: Annotated[str | None, typer.Option("--version", help="MAJOR.MINOR.PATCH.")] = None,
    date: Annotated[str | None, typer.Option("--date", help="The day of this version, such as 2026-01-31.")] = None,
    provenance: Annotated[str | None, typer.Option("--provenance", help="Where it comes from, in words.")] = None,
    sensitivity: Annotated[
        list[str] | None, typer.Option("--sensitivity", help="A kind of personal or sensitive information; or none.")
    ] = None,
    privacy_unit: Annotated[
        str | None,
        typer.Option("--privacy-unit", help="record, site or group:COLUMN; where the site file has no budget."),
    ] = None,
    url: Annotated[str | None, typer.Option("--url", help="Its address, if it has one.")] = None,
    cite: Annotated[str | None, typer.Option("--cite", help="How to cite it.")] = None,
    keyword: Annotated[list[str] | None, typer.Option("--keyword", help="A word to find it by.")] = None,
    study: Annotated[
        Path | None, typer.Option("--study", help="Take bounds and categories from this study's public schema.")
    ] = None,
    unit: Annotated[list[str] | None, typer.Option("--unit", help="COLUMN=UNIT, such as potential=mV.")] = None,
    bounds: Annotated[list[str] | None, typer.Option("--bounds", help="COLUMN=MIN:MAX, public.")] = None,
    categories: Annotated[list[str] | None, typer.Option("--categories", help="COLUMN=A,B,C, public.")] = None,
    about: Annotated[list[str] | None, typer.Option("--about", help="COLUMN=what it holds, in words.")] = None,
    bounds_from_data: Annotated[
        bool,
        typer.Option(
            "--bounds-from-data",
            help="Read bounds that nobody gives from the records. They are then published: no budget pays for them.",
        ),
    ] = False,
) -> None:
    """Write or renew a data set's record: what others may know of it. The data and its path stay here.

    A record is Croissant 1.1 (JSON-LD): name, licence, maker, version, provenance, SHA-256 of the file, columns with
    types, units and public bounds, sensitivity, privacy unit. Names and types of columns are read from the data, and
    nothing else. Where there is a record already, only what is given and what the file tells changes in it.
    """
    from fedsci.cli.data_record_options import column_facts, one_privacy_unit, study_facts
    from fedsci.config.site import load_site
    from fedsci.data.record import SUFFIX
    from fedsci.data.record_columns import columns_of, with_bounds_from_data, with_earlier, with_facts
    from fedsci.data.record_profile import read_record
    from fedsci.data.record_writing import Answers, record_bytes, write_record
    from fedsci.registry.run_folder import RunFolder
    from fedsci.site.dataset import describe_file, load_columns

    site = load_site(site_file)
    source = _source(site, dataset, site_file)
    path = out or site.folder / (source.record or f"{dataset}{SUFFIX}")
    earlier = read_record(path) if path.exists() else None
    file, raw = describe_file(site, source), load_columns(site, source)
    columns = columns_of(raw)
    if earlier is not None:
        columns = with_earlier(columns, earlier, raw)
    if study is not None:
        columns = with_facts(columns, study_facts(study, dataset, raw))
    columns = with_facts(columns, column_facts(raw, unit=unit, bounds=bounds, categories=categories, about=about))
    if bounds_from_data:
        columns = with_bounds_from_data(columns, raw)
    record = write_record(
        Answers(
            name=name,
            description=description,
            licence=licence,
            creators=tuple(creator or ()),
            persons=tuple(person or ()),
            version=version,
            date=date,
            provenance=provenance,
            sensitivity=tuple(sensitivity or ()),
            url=url,
            cite=cite,
            keywords=tuple(keyword or ()),
        ),
        file=file,
        columns=columns,
        privacy_unit=one_privacy_unit(source.privacy, privacy_unit, dataset),
        identity=f"{site.site}/{dataset}",
        earlier=earlier,
        source=dataset,
    )
    if earlier is not None and record.values == earlier.values:
        typer.echo(f"{path}: nothing changed since version {record.version}")
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        RunFolder(path=path.parent).write(path.name, record_bytes(record))
        typer.echo(f"wrote {path}: {_told(record)}")
    if source.record is None:
        typer.echo(f"next: in {site_file}, under {dataset}: record: {os.path.relpath(path, site.folder)}")


def check(
    file: Annotated[Path, typer.Argument(help="A record, or a site file.", metavar="RECORD|SITE_FILE")],
    dataset: Annotated[
        str | None, typer.Argument(help="Of a site file: one data set; else all.", metavar="[DATASET]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Say whether a record is whole, and of a site file's whether it is still that of the data.

    Every fault is listed with its place in the record and with what would be right. Exit code 2: a fault; 6: the
    record is whole, and the data has another digest.
    """
    from fedsci.config.site import load_site
    from fedsci.errors import InputError

    if file.suffix.lower() not in (".yaml", ".yml"):
        if dataset is not None:
            raise InputError(f"{file} is no site file, so it has no data set {dataset!r}", hint="leave DATASET out")
        _report([_checked(file)], as_json)
        return
    site = load_site(file)
    chosen = list(site.datasets) if dataset is None else [dataset]
    for name in chosen:
        _source(site, name, file)
    named = [name for name in chosen if site.datasets[name].record is not None]
    required = site.policy is not None and site.policy.require_record
    without = [name for name in chosen if name not in named]
    if without and (required or not named):
        raise InputError(
            f"{file}: {', '.join(without)} names no record"
            + (", and policy.require_record is true" if required else ""),
            hint=f"fedsci data describe {file} {without[0]}, then name the file it writes under record",
        )
    _report([_checked_against_data(site, name) for name in named], as_json)


def _source(site: "Site", dataset: str, file: Path) -> Any:
    from fedsci.data.values import nearest
    from fedsci.errors import InputError

    if dataset not in site.datasets:
        close = nearest(dataset, site.datasets)
        hint = f"did you mean {close!r}?" if close else f"it holds {', '.join(site.datasets)}"
        raise InputError(f"{file}: {site.site} holds no data set called {dataset!r}", hint=hint)
    return site.datasets[dataset]


def _checked(path: Path) -> dict[str, Any]:
    from fedsci.data.record import read_values
    from fedsci.data.record_profile import faults_of

    values = read_values(path)
    return {"record": path, "values": values, "faults": list(faults_of(values)), "data": "not compared"}


def _checked_against_data(site: "Site", dataset: str) -> dict[str, Any]:
    from fedsci.data.record import DataRecord
    from fedsci.data.record_columns import type_faults
    from fedsci.errors import DataError
    from fedsci.site.dataset import file_digest, load_columns
    from fedsci.site.record import require_record

    source = site.datasets[dataset]
    found = _checked(site.folder / str(source.record)) | {"dataset": dataset}
    if found["faults"]:
        return found
    digest, record = file_digest(site, source), DataRecord(values=found["values"])
    found["data"] = "as recorded" if digest == f"sha256:{record.sha256}" else "changed"
    try:
        found["faults"] += type_faults(record.columns, load_columns(site, source))
        if found["data"] == "as recorded":
            require_record(site, source, digest)
    except DataError as error:
        found["error"] = error
    return found


def _report(checked: list[dict[str, Any]], as_json: bool) -> None:
    from fedsci.errors import DataError, VerificationFailed

    if as_json:
        typer.echo(json.dumps({"records": [_as_json(found) for found in checked]}, indent=2))
    for found in checked if not as_json else []:
        for fault in found["faults"]:
            typer.echo(f"{found['record']} {fault}")
        if not found["faults"] and found["data"] != "changed" and "error" not in found:
            typer.echo(f"{found['record']}: whole; {_told(_record(found))}; data {found['data']}")
    for found in checked:
        if found["data"] == "changed":
            raise VerificationFailed(
                f"{found['record']}: the data set {found['dataset']} has another digest than its record",
                hint="if the change is meant: fedsci data describe, with a new --version",
            )
        if "error" in found:
            raise found["error"]
    faults = [(found["record"], fault) for found in checked for fault in found["faults"]]
    if faults:
        count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
        where = ", ".join(dict.fromkeys(str(record) for record, _ in faults))
        raise DataError(
            f"{where}: {count} in the record", hint="fedsci data describe SITE_FILE DATASET adds what is missing"
        )


def _as_json(found: dict[str, Any]) -> dict[str, Any]:
    faults: list[Fault] = found["faults"]
    return {
        "record": str(found["record"]),
        "dataset": found.get("dataset"),
        "faults": [{"pointer": one.pointer, "found": one.found, "right": one.right} for one in faults],
        "data": found["data"],
        "digest": None if faults else _digest(_record(found)),
    }


def _record(found: dict[str, Any]) -> "DataRecord":
    from fedsci.data.record import DataRecord

    return DataRecord(values=found["values"])


def _digest(record: "DataRecord") -> str:
    from fedsci.audit.statement import digest_of

    return digest_of(dict(record.values))


def _told(record: "DataRecord") -> str:
    columns: tuple[RecordColumn, ...] = record.columns
    bounded = sum(column.minimum is not None or bool(column.categories) for column in columns)
    return (
        f"version {record.version}, {record.licence}, {len(columns)} columns ({bounded} with public bounds or "
        f"categories), digest {_digest(record)}"
    )
