"""The records of the data sets that a run used, as its labs signed them: ``audit/statements`` in the run folder."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsci.audit.statement import digest_of, peek
from fedsci.config.plan import Plan
from fedsci.errors import InputError, VerificationFailed
from fedsci.names import Digest
from fedsci.reporting.run_folder import items, mapping, text

STATEMENTS = Path("audit", "statements")
_SPDX = re.compile(r"(?:https?://spdx\.org/licenses/)?([A-Za-z0-9.+-]+?)(?:\.html|\.json)?/?")


@dataclass(frozen=True, kw_only=True)
class DataRecord:
    """What a lab said of its data set. Whether the signature is the lab's is checked elsewhere.

    Attributes:
        site: the lab.
        digest: of the record in canonical form.
        statement: the file that holds it, relative to the run folder.
        content: Croissant JSON-LD.
    """

    site: str
    digest: Digest
    statement: str
    content: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What the lab calls the data set."""
        return text(self.content.get("name"))

    @property
    def version(self) -> str:
        """Which state of it."""
        return str(self.content.get("version") or "")

    @property
    def licence(self) -> str:
        """The SPDX expression, or what else is written there; empty where nothing is."""
        given = self.content.get("license")
        given = next(iter(items(given)), given)
        words = text(given) or text(mapping(given).get("@id")) or text(mapping(given).get("url"))
        found = _SPDX.fullmatch(words)
        return found[1] if found else words

    def said(self, *keys: str) -> str:
        """Return the first text that is written under one of ``keys``; empty where there is none."""
        for key in keys:
            value = self.content.get(key)
            words = [text(each) for each in (items(value) or [value]) if text(each)]
            if words:
                return "; ".join(words)
        return ""


def records_of(folder: Path, plan: Plan) -> dict[str, DataRecord]:
    """Return the record of each lab that signed one for the study's data set; empty where the run keeps no statements.

    Raises:
        InputError: a statement cannot be read, or a lab signed two records of the data set.
    """
    found: dict[str, DataRecord] = {}
    for file in sorted((folder / STATEMENTS).glob("*.json")):
        try:
            kind, body = peek(file.read_bytes())
        except (OSError, VerificationFailed) as error:
            raise InputError(f"{file}: {error}", hint="restore the file as the run wrote it") from None
        if kind != "record" or body.get("dataset") != plan.study.dataset or body.get("site") not in plan.sites:
            continue
        site, content = text(body.get("site")), mapping(body.get("record"))
        if site in found:
            raise InputError(f"{file}: {site} signed two records of {plan.study.dataset}", hint="keep the one it used")
        where = f"{STATEMENTS.as_posix()}/{file.name}"
        found[site] = DataRecord(site=site, digest=digest_of(content), statement=where, content=content)
    return found
