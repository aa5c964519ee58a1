"""A data-set record is put together from what the data's file tells and what people say."""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsci.data.loading import CSV_SUFFIXES
from fedsci.data.record import BUILTIN, SPDX, DataRecord, RecordColumn, file_id, parse_values
from fedsci.data.record_profile import context, licence_ids, record_of
from fedsci.data.values import show, show_all
from fedsci.errors import InputError

_NPZ = "https://numpy.org/doc/stable/reference/generated/numpy.savez.html"
_CONFORMS = ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What only people know of a data set; None where nobody said.

    Attributes:
        name, description, version, cite: in words; the version is MAJOR.MINOR.PATCH.
        licence: an SPDX id, or ``LicenseRef-`` and a name.
        creators, persons: organisations and people who made the data.
        date: the day of this version, ISO 8601.
        provenance: where the data comes from.
        sensitivity: kinds of personal or sensitive information in it.
        url: its address, if it has one.
        keywords: words to find it by.
    """

    name: str | None = None
    description: str | None = None
    licence: str | None = None
    creators: tuple[str, ...] = ()
    persons: tuple[str, ...] = ()
    version: str | None = None
    date: str | None = None
    provenance: str | None = None
    sensitivity: tuple[str, ...] = ()
    url: str | None = None
    cite: str | None = None
    keywords: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """A data set's file: its name without a folder (``builtin:NAME`` for one), size and SHA-256 in hexadecimal."""

    name: str
    size_bytes: int
    sha256: str


#: What a record must say, the key it says it under, and the option that gives it.
MANDATORY = {
    "name": "--name TEXT",
    "description": "--description TEXT",
    "license": "--licence CC-BY-4.0",
    "creator": "--creator ORGANISATION or --person NAME",
    "version": "--version 1.0.0",
    "datePublished": "--date 2026-01-31",
    "rai:dataCollection": "--provenance TEXT",
    "rai:personalSensitiveInformation": "--sensitivity TEXT (none, if there is none)",
    "fedsci:privacyUnit": "--privacy-unit record",
}


def write_record(
    answers: Answers,
    *,
    file: DataFile,
    columns: Sequence[RecordColumn],
    privacy_unit: tuple[str, str | None] | None,
    identity: str,
    earlier: DataRecord | None,
    source: str,
) -> DataRecord:
    """Return a whole record; what nobody says anew is kept as an ``earlier`` one says it.

    Args:
        answers: what people say.
        file: the data's file as it is now.
        columns: its columns.
        privacy_unit: as in :attr:`DataRecord.privacy_unit`; None where nobody says.
        identity: what tells the data set from others; its address is made from it where nobody gives one.
        earlier: the record of an earlier version.
        source: the data set's name, for errors.

    Raises:
        InputError: something is missing, all of which is named; or file or columns changed and the version did not.
        DataError: what people say makes no record.
    """
    said = _said(answers)
    if privacy_unit is not None:
        said["fedsci:privacyUnit"] = privacy_unit[0]
    values: dict[str, Any] = {**(earlier.values if earlier else {}), **said}
    values |= {"@context": {**values.get("@context", {}), **context()}, "@type": "sc:Dataset"}
    values["conformsTo"] = list(dict.fromkeys([*_CONFORMS, *values.get("conformsTo", ())]))
    values.setdefault("url", uuid.uuid5(uuid.NAMESPACE_URL, f"fedsci:{identity}").urn)
    if privacy_unit is not None:
        values.pop("fedsci:groupBy", None)
        if privacy_unit[1] is not None:
            values["fedsci:groupBy"] = privacy_unit[1]
    absent = [key for key in MANDATORY if key not in values]
    if absent:
        raise InputError(
            f"the record of {source} lacks {', '.join(key.rpartition(':')[2] for key in absent)}",
            hint=f"give {', '.join(MANDATORY[key] for key in absent)}",
        )
    values["distribution"] = [_file_object(file)]
    columns_json = [column.to_json(file_id(file.name)) for column in columns]
    values["recordSet"] = [{"@type": "cr:RecordSet", "@id": "records", "name": "records", "field": columns_json}]
    _check_licence(values["license"])
    if earlier is not None:
        _check_version(earlier, values, source)
    where = f"the record of {source}"
    return record_of(parse_values(_to_bytes(values), where), where)  # what is written is what will be read


def record_bytes(record: DataRecord) -> bytes:
    """Return the record as its file's content."""
    return _to_bytes(record.values)


def _to_bytes(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode(errors="surrogatepass")


def _said(answers: Answers) -> dict[str, Any]:
    creators = [{"@type": "sc:Organization", "name": name} for name in answers.creators]
    creators += [{"@type": "sc:Person", "name": name} for name in answers.persons]
    licence = answers.licence
    if licence is not None and not licence.startswith(("LicenseRef-", SPDX)):
        licence = SPDX + licence
    said = {
        "name": answers.name,
        "description": answers.description,
        "license": licence,
        "creator": creators,
        "version": answers.version,
        "datePublished": answers.date,
        "url": answers.url,
        "citeAs": answers.cite,
        "keywords": list(answers.keywords),
        "rai:dataCollection": answers.provenance,
        "rai:personalSensitiveInformation": list(answers.sensitivity),
    }
    return {key: value for key, value in said.items() if value}


def _check_licence(written: str) -> None:
    """Pass on what the profile will judge, except an id in other letters, which has one right answer."""
    id_ = written.removeprefix(SPDX)
    for known in licence_ids():
        if known.lower() == id_.lower() and known != id_:
            raise InputError(f"the licence {show(id_)} is written {known}", hint=f"--licence {known}")


def _check_version(earlier: DataRecord, values: Mapping[str, Any], source: str) -> None:
    if values["version"] != earlier.version:
        return
    changed = [name for name in ("distribution", "recordSet") if values[name] != earlier.values[name]]
    if changed:
        what = {"distribution": "file", "recordSet": "columns"}
        raise InputError(
            f"the {show_all(what[name] for name in changed)} of {source} changed since version {earlier.version}",
            hint="give --version: its last number is for the same data in another file, the first for other records",
        )


def _file_object(file: DataFile) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": file_id(file.name),
        "name": file.name,
        "contentUrl": file_id(file.name),
        "contentSize": f"{file.size_bytes} B",
        "encodingFormat": _media_type(file.name),
        "sha256": file.sha256,
    }


def _media_type(name: str) -> str:
    suffix = Path(name).suffix.lower()
    if name.startswith(BUILTIN):
        return "application/json"  # the digest is of the parameters that make the data
    if suffix == ".tsv":
        return "text/tab-separated-values"
    if suffix in CSV_SUFFIXES:
        return "text/csv"
    return _NPZ if suffix == ".npz" else "application/x-parquet"
