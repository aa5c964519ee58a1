"""What a strategy of one exchange is told of a study; public, from the study file alone."""

from math import prod

from fedsci.config.study import ArrayColumn, CategoryColumn, MulticlassTask, Study
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
            )
        elif isinstance(column, ArrayColumn):
            shape = ColumnShape(name=name, kind="array", start=start, width=prod(column.shape))
        else:
            shape = ColumnShape(name=name, kind="numeric", start=start, width=1, flag=impute)
        columns.append(shape)
        start += shape.inputs
    return StudyShape(
        task=study.task.kind,
        model=study.model.name,
        columns=tuple(columns),
        classes=len(study.task.classes) if isinstance(study.task, MulticlassTask) else 0,
        gaps=study.missing,
    )
