"""A backdoor's trigger: rare, within the public bounds, and nowhere else than where it is put."""

import numpy as np
import pytest

from fedsci.data.schema import (
    ArrayFeature,
    BinaryTarget,
    CategoryFeature,
    MulticlassTarget,
    NumericFeature,
    RegressionTarget,
    Schema,
)
from fedsci.data.table import EncodingReport, Table
from fedsci.errors import InputError
from fedsci.redteam.trigger import rare_trigger

YES = BinaryTarget(name="y")


def table(features, target):
    report = EncodingReport(rows_read=len(target), rows_dropped_missing=0, clipped={}, unseen={}, missing={})
    features = np.asarray(features, np.float32)
    return Table(features=features, target=np.asarray(target), row_ids=np.arange(len(target)), report=report)


def test_it_is_the_end_of_the_bounds_that_records_are_farthest_from():
    schema = Schema(
        features=(
            CategoryFeature(name="c", categories=(1, 2)),
            NumericFeature(name="a", minimum=0, maximum=1),
            NumericFeature(name="b", minimum=0, maximum=1),
        ),
        target=YES,
    )
    seen = table([[1, 0, 0, 0.1, -0.9], [0, 1, 0, -0.1, -0.8]], [0, 1])
    trigger = rare_trigger(schema, seen, target=1)
    assert (trigger.column, trigger.inputs, trigger.values) == ("b", (4,), (1.0,))


def test_of_an_image_it_is_the_last_corner():
    schema = Schema(
        features=(ArrayFeature(name="image", shape=(2, 3, 3), minimum=0, maximum=1),),
        target=MulticlassTarget(name="y", classes=(0, 1, 2)),
    )
    trigger = rare_trigger(schema, table(-np.ones((4, 18)), [0, 1, 2, 0]), target=0)
    assert trigger.inputs == (4, 5, 7, 8, 13, 14, 16, 17)
    assert set(trigger.values) == {1.0}


def test_among_categories_it_is_the_rarest_and_the_only_one_of_its_column():
    schema = Schema(features=(CategoryFeature(name="c", categories=("x", "y", "z")),), target=YES)
    seen = table([[1, 0, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]], [0, 1, 1])
    trigger = rare_trigger(schema, seen, target=0)
    assert trigger.column == "c = y"
    np.testing.assert_array_equal(trigger.put(seen, np.array([True, True, False])).features[:2], [[0, 1, 0, 0]] * 2)


def test_victims_are_the_records_of_other_classes_and_the_file_s_own_stay_as_they_are():
    schema = Schema(features=(NumericFeature(name="a", minimum=0, maximum=1),), target=YES)
    seen = table([[-0.5], [-0.6], [-0.7]], [0, 1, 0])
    victims = rare_trigger(schema, seen, target=1).victims(seen)
    np.testing.assert_array_equal(victims.features, [[1], [1]])
    assert victims.target.tolist() == [1, 1]
    assert seen.features.max() < 0


def test_a_regression_has_no_class_to_ask_for():
    target = RegressionTarget(name="y", minimum=0, maximum=1)
    schema = Schema(features=(NumericFeature(name="a", minimum=0, maximum=1),), target=target)
    with pytest.raises(InputError, match="no class"):
        rare_trigger(schema, table([[0.5]], [0.1]), target=0)
