"""A study's public schema: what a record's columns may hold, known to everybody before any data is."""

from fedsci.config.study import ArrayColumn, CategoryColumn, MulticlassTask, RegressionTask, Study
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
