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
    Scale,
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
            features.append(
                NumericFeature(
                    name=name, minimum=column.min, maximum=column.max, mean=column.mean, deviation=column.deviation
                )
            )
    return Schema(features=tuple(features), target=_target(study), missing=study.missing)


def learned_scale(study: Study) -> Scale:
    """Return what models learn as 0 and as 1 of a regression's target, in units of its bounds; (0, 1) of others."""
    target = _target(study)
    return target.learned if isinstance(target, RegressionTarget) else Scale(centre=0.0, unit=1.0)


def _target(study: Study) -> Target:
    task = study.task
    if isinstance(task, MulticlassTask):
        return MulticlassTarget(name=task.target, classes=tuple(task.classes))
    if isinstance(task, RegressionTask):
        return RegressionTarget(
            name=task.target, minimum=task.min, maximum=task.max, mean=task.mean, deviation=task.deviation
        )
    return BinaryTarget(
        name=task.target,
        positive=None if task.positive is None else tuple(task.positive),
        negative=None if task.negative is None else tuple(task.negative),
    )
