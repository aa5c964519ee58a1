"""What a strategy of one exchange is told of a study; public, from the study file alone."""

from math import nan, prod

from fedsci.config.study import ArrayColumn, CategoryColumn, MulticlassTask, RegressionTask, Study
from fedsci.strategies.one_exchange import ColumnShape, StudyShape


def shape_of(study: Study) -> StudyShape:
    """Return how the study's features lie among the model's inputs, and what is predicted by which family."""
    columns: list[ColumnShape] = []
    start, impute = 0, study.missing == "impute"
    for name, column in study.features.items():
        if isinstance(column, CategoryColumn):
            shape = ColumnShape(
                name=name,
                kind="category",
                start=start,
                width=len(column.categories),
                other=column.unseen == "other",
                flag=impute,
                labels=tuple(map(str, column.categories)),
            )
        elif isinstance(column, ArrayColumn):
            shape = ColumnShape(
                name=name,
                kind="array",
                start=start,
                width=prod(column.shape),
                minimum=column.min,
                maximum=column.max,
            )
        else:
            shape = ColumnShape(
                name=name, kind="numeric", start=start, width=1, flag=impute, minimum=column.min, maximum=column.max
            )
        columns.append(shape)
        start += shape.inputs
    return StudyShape(
        task=study.task.kind,
        model=study.model.name,
        columns=tuple(columns),
        classes=tuple(map(str, study.task.classes)) if isinstance(study.task, MulticlassTask) else (),
        gaps=study.missing,
        target=study.task.target,
        minimum=study.task.min if isinstance(study.task, RegressionTask) else nan,
        maximum=study.task.max if isinstance(study.task, RegressionTask) else nan,
    )
