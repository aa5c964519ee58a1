"""A site's data set, read through the study's public schema and split into train and holdout."""

from dataclasses import dataclass

from fedsci.config.plan import Plan
from fedsci.config.site import DatasetSource, Site
from fedsci.config.study import ArrayColumn, CategoryColumn, MulticlassTask, RegressionTask, Study
from fedsci.data.builtin import load_builtin
from fedsci.data.holdout import record_keys, split_holdout
from fedsci.data.loading import CsvOptions, load_table
from fedsci.data.schema import (
    ArrayFeature,
    BinaryTarget,
    CategoryFeature,
    Feature,
    MulticlassTarget,
    NumericFeature,
    RegressionTarget,
    Schema,
    Target,
)
from fedsci.data.shards import shard_indices, take
from fedsci.data.table import EncodingReport, RawTable, Table, absent_column, encode


@dataclass(frozen=True, kw_only=True)
class SiteData:
    """A site's records, encoded. Stays at the site.

    Attributes:
        train, holdout: disjoint tables.
        report: what encoding clipped, dropped and counted; private counts.
    """

    train: Table
    holdout: Table
    report: EncodingReport


def schema_of(study: Study) -> Schema:
    """Return the study's public schema as the data package knows it."""
    features: list[Feature] = []
    for name, column in study.features.items():
        if isinstance(column, CategoryColumn):
            features.append(CategoryFeature(name=name, categories=tuple(column.categories), unseen=column.unseen))
        elif isinstance(column, ArrayColumn):
            shape = tuple(column.shape)
            features.append(ArrayFeature(name=name, shape=shape, minimum=column.min, maximum=column.max))
        else:
            features.append(NumericFeature(name=name, minimum=column.min, maximum=column.max))
    return Schema(features=tuple(features), target=_target(study), missing=study.missing)


def _target(study: Study) -> Target:
    task = study.task
    if isinstance(task, MulticlassTask):
        return MulticlassTarget(name=task.target, classes=tuple(task.classes))
    if isinstance(task, RegressionTask):
        return RegressionTarget(name=task.target, minimum=task.min, maximum=task.max)
    return BinaryTarget(
        name=task.target,
        positive=None if task.positive is None else tuple(task.positive),
        negative=None if task.negative is None else tuple(task.negative),
    )


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
        missing=CsvOptions().missing if source.csv.missing is None else tuple(source.csv.missing),
    )
    return load_table(path, options=options), str(path)


def load_site_data(plan: Plan, site: Site) -> SiteData:
    """Return the site's records for this plan.

    Raises:
        DataError: the file is missing, damaged, or does not fit the schema; nothing is half-loaded.
    """
    study = plan.study
    raw, name = load_raw(site, site.datasets[study.dataset], target=study.task.target)
    table = encode(raw, schema_of(study), name)
    train, holdout = split_holdout(
        record_keys(table), fraction=study.evaluation.holdout, seed=study.seed, site=site.site
    )
    return SiteData(train=table.where(train), holdout=table.where(holdout), report=table.report)
