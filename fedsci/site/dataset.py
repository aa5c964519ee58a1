"""A site's data set, read through the study's public schema and split into train and holdout."""

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from fedsci import names
from fedsci.config.plan import Plan
from fedsci.config.site import Builtin, DatasetSource, Site
from fedsci.data.builtin import load_builtin
from fedsci.data.holdout import group_keys, record_keys, split_holdout
from fedsci.data.loading import CsvOptions, check_file, load_table
from fedsci.data.record import BUILTIN
from fedsci.data.record_writing import DataFile
from fedsci.data.shards import shard_indices, take
from fedsci.data.table import EncodingReport, RawTable, Table, absent_column, encode
from fedsci.errors import DataError
from fedsci.names import Digest
from fedsci.site.record import require_record
from fedsci.training.schema import schema_of


@dataclass(frozen=True, kw_only=True)
class SiteData:
    """A site's records, encoded. Stays at the site.

    Attributes:
        train, holdout: disjoint tables.
        train_count, holdout_count: rows of the file on either side, those with gaps included, or groups of them where
            groups are protected: public.
        report: what encoding clipped, dropped and counted; private counts.
    """

    train: Table
    holdout: Table
    train_count: int
    holdout_count: int
    report: EncodingReport


def load_raw(site: Site, source: DatasetSource, *, target: str) -> tuple[RawTable, str]:
    """Return the rows as they lie in the file, and the file's name for messages.

    Raises:
        DataError: see :mod:`fedsci.data.loading`.
    """
    if source.builtin is not None:
        part = source.builtin
        raw = load_builtin(part.name)
        if target not in raw.columns:
            raise absent_column(raw, target, f"builtin {part.name}", "the study's target")
        shards = shard_indices(raw.columns[target], of=part.of, skew=part.skew, uneven=part.uneven)
        return take(raw, shards[part.shard - 1]), f"builtin {part.name} {part.shard}/{part.of}"
    path = site.folder / str(source.path)
    options = CsvOptions(
        delimiter=source.csv.delimiter,
        columns=None if source.csv.columns is None else tuple(source.csv.columns),
        missing=CsvOptions().missing if source.csv.missing is None else ("", *source.csv.missing),
    )
    return load_table(path, options=options), str(path)


def content_digest(site: Site, source: DatasetSource) -> Digest:
    """Return what :func:`file_digest` does, if the data set's record lets this content be used.

    Raises:
        DataError: the file is missing or cannot be read, or see :func:`fedsci.site.record.require_record`.
        PolicyRefused: there is no record, and the policy requires one.
    """
    content = file_digest(site, source)
    require_record(site, source, content)
    return content


def file_digest(site: Site, source: DatasetSource) -> Digest:
    """Return what tells a data set from others: SHA-256 of its file's bytes, or of a builtin's parameters.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    if source.builtin is not None:
        return names.digest(_parameters(source.builtin))
    path = site.folder / str(source.path)
    check_file(path)
    try:
        with path.open("rb") as file:
            return Digest("sha256:" + hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}", hint="check the file's rights") from None


def describe_file(site: Site, source: DatasetSource) -> DataFile:
    """Return what a record says of the data set's file; its folder is left out.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    sha256 = file_digest(site, source).removeprefix("sha256:")
    if source.builtin is not None:
        size = len(_parameters(source.builtin))
        return DataFile(name=BUILTIN + source.builtin.name, size_bytes=size, sha256=sha256)
    path = site.folder / str(source.path)
    return DataFile(name=path.name, size_bytes=path.stat().st_size, sha256=sha256)


def load_columns(site: Site, source: DatasetSource) -> RawTable:
    """Return all rows of the data set, or of the whole public data set that a builtin is a part of.

    Raises:
        DataError: see :mod:`fedsci.data.loading`.
    """
    return load_builtin(source.builtin.name) if source.builtin is not None else load_raw(site, source, target="")[0]


def _parameters(builtin: Builtin) -> bytes:
    return json.dumps({"builtin": builtin.model_dump()}, sort_keys=True).encode()


def load_site_data(plan: Plan, site: Site, *, split_key: bytes) -> SiteData:
    """Return the site's records for this plan.

    Which records are held out depends on the rows as they lie in the file, on the study's seed and, in a private study,
    on the site's secret ``split_key``; not on the study's schema: counts that followed a schema could be steered
    to count records of any kind. Where groups are protected, a group is held out as a whole. Without privacy the seed
    alone decides, so that a run can be repeated bit for bit.

    A private study may find a side without a usable row, and goes on with noise alone: a study can choose the held-out
    share so that one row is held out, and a refusal would then say whether that row has a gap.

    Raises:
        DataError: the file is missing, damaged, or does not fit the schema; nothing is half-loaded.
    """
    study = plan.study
    raw, name = load_raw(site, site.datasets[study.dataset], target=study.task.target)
    table = encode(raw, schema_of(study), name, may_be_empty=plan.private)
    grouping = study.privacy.group_by if plan.private else None
    keys = record_keys(raw) if grouping is None else group_keys(raw, grouping, name)
    if grouping is not None:
        of_key = dict(zip(raw.row_ids.tolist(), keys.tolist(), strict=True))
        table = table.grouped(np.array([of_key[row] for row in table.row_ids.tolist()], dtype=np.int64))
    train, holdout = split_holdout(
        keys,
        fraction=study.evaluation.holdout,
        seed=study.seed,
        site=site.site,
        secret=split_key if plan.private else b"",
    )
    of_row = dict(zip(raw.row_ids.tolist(), holdout.tolist(), strict=True))
    held = np.array([of_row[row] for row in table.row_ids.tolist()], dtype=np.bool_)
    if not plan.private and (held.all() or not held.any()):
        raise DataError(
            f"{name}: after dropping rows with gaps none are left for {'training' if held.all() else 'holdout'}",
            hint="use missing: impute, or another holdout fraction",
        )
    return SiteData(
        train=table.where(~held),
        holdout=table.where(held),
        train_count=len(np.unique(keys[train])),
        holdout_count=len(np.unique(keys[holdout])),
        report=table.report,
    )
