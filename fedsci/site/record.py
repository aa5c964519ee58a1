"""A data set's record, as the site keeps it to it: what no record covers, or no longer fits one, is not trained on."""

from copy import deepcopy
from pathlib import Path
from typing import Any, NoReturn

from fedsci.audit.statement import digest_of
from fedsci.config.site import DatasetSource, Site
from fedsci.data.record import BUILTIN, DataRecord
from fedsci.data.record_profile import read_record
from fedsci.errors import DataError, PolicyRefused
from fedsci.names import Digest
from fedsci.site.keystore import Keystore
from fedsci.site.permit import commit_content

_DESCRIBE = "fedsci data describe SITE_FILE DATASET --version NEXT, once you know why"


def site_record(site: Site, dataset: str) -> DataRecord | None:
    """Return the record that the site file names for a data set, read now; None where it names none.

    Whether the data is still what the record says is for :func:`require_record`.

    Raises:
        DataError: it cannot be read, or has a fault. In public: that it is so, and nothing else.
    """
    source = site.datasets[dataset]
    return None if source.record is None else _read(site, dataset, site.folder / source.record)


def published(record: DataRecord, keystore: Keystore) -> dict[str, Any]:
    """Return what others see of a record: all of it, but of its files no digest and no size.

    Who knows a file but for one row could try out rows against these. In their place stands a commitment under a
    secret of the site, which can open it: to an auditor at the site, file in hand.
    """
    values: dict[str, Any] = deepcopy(dict(record.values))
    for file in values["distribution"]:
        file["urn:fedsci:commitment"] = commit_content(Digest(f"sha256:{file.pop('sha256')}"), keystore)
        file.pop("contentSize", None)
    return values


def record_digest(site: Site, dataset: str, keystore: Keystore) -> Digest | None:
    """Return the SHA-256 of a data set's record as others see it, in canonical form; None where there is no record.

    What permits and logs bind. Raises as :func:`site_record` does.
    """
    record = site_record(site, dataset)
    return None if record is None else digest_of(published(record, keystore))


def require_record(site: Site, source: DatasetSource, content: Digest) -> None:
    """Pass if the data set's record is whole and is one of this content; or if there is none, and need not be.

    Args:
        site: the site file.
        source: one of its data sets.
        content: SHA-256 of what the data set holds now.

    Raises:
        PolicyRefused: there is no record, and ``policy.require_record`` wants one.
        DataError: the record cannot be read or has a fault, tells of another file or privacy unit, or has another
            digest than the data. What leaves is which of these it is.
    """
    dataset = next(name for name, one in site.datasets.items() if one is source)
    record = site_record(site, dataset)
    if record is None:
        if site.policy is not None and site.policy.require_record:
            public = "the data set has no record, and the site's policy requires one"
            raise PolicyRefused(
                f"{site.site}: data set {dataset} has no record, and policy.require_record is true",
                hint=f"fedsci data describe SITE_FILE {dataset}, then name the file it writes under record",
                public=public,
            )
        return
    expected = BUILTIN + source.builtin.name if source.builtin is not None else Path(str(source.path)).name
    where = f"{site.site}: the record of {dataset}"
    if record.file != expected:
        _refuse(f"{where} is of {record.file!r}, the data set is {expected!r}", "the record is of another data set")
    budget = source.privacy
    if budget is not None and record.privacy_unit != (budget.unit, budget.group_by):
        _refuse(
            f"{where} names another privacy unit than the data set's budget", "the record is of another privacy unit"
        )
    if content != f"sha256:{record.sha256}":
        _refuse(
            f"{site.site}: data set {dataset} is not what its record says: the file's digest is another",
            "the data is not what its record says",
        )


def _read(site: Site, dataset: str, path: Path) -> DataRecord:
    try:
        return read_record(path)
    except DataError as error:
        raise DataError(
            f"{site.site}: data set {dataset}: {error.message}",
            hint=error.hint,
            public="the data set's record cannot be used",
        ) from None


def _refuse(message: str, public: str) -> NoReturn:
    raise DataError(message, hint=_DESCRIBE, public=public)
