import pytest

from fedsci.config.study_shape import shape_of
from fedsci.training.schema import schema_of

COLUMNS = {
    "age": {"min": 0, "max": 90},
    "image": {"shape": [2, 3], "min": 0, "max": 1},
    "sex": {"categories": ["f", "m"], "unseen": "refuse"},
    "cp": {"categories": [1, 2, 3]},
}


@pytest.mark.parametrize("missing", ["refuse", "drop", "impute"])
def test_the_shape_is_that_of_the_encoded_records(make_plan, missing):
    study = make_plan(features=COLUMNS, missing=missing).study
    shape, schema = shape_of(study), schema_of(study)
    assert shape.inputs == schema.width
    assert [column.inputs for column in shape.columns] == [schema.width_of(feature) for feature in schema.features]
    names = schema.encoded_names
    flag = ["sex?missing"] if missing == "impute" else []
    sex, cp = shape.columns[2:]
    assert [*names[sex.start : sex.start + sex.inputs]] == ["sex=f", "sex=m", *flag]
    assert names[cp.start + cp.width] == "cp?other"


def test_the_task_says_how_many_outputs_there_are(make_plan):
    task = {"kind": "multiclass", "target": "y", "classes": ["a", "b", "c"]}
    assert shape_of(make_plan(task=task).study).outputs == 3
    assert shape_of(make_plan().study).outputs == 1
