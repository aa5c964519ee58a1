"""Scaling by means and deviations: what a value becomes, and the same records under another scaling."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsci.data.encoding import Place, encode_feature
from fedsci.data.rescaling import own_moments, rescaled
from fedsci.data.schema import (
    LEAST_DEVIATION,
    BinaryTarget,
    CategoryFeature,
    NumericFeature,
    RegressionTarget,
    Schema,
)
from fedsci.data.table import RawTable, encode
from fedsci.errors import InputError

PLACE = Place(source="file", column="age", row_label=str)
AGE = NumericFeature(name="age", minimum=20, maximum=100, mean=50, deviation=10)


def encoded(values, feature=AGE, **kwargs):
    return encode_feature(np.array(values, dtype=float), feature, PLACE, impute=False, **kwargs).block[:, 0]


def test_a_number_is_in_deviations_from_the_mean_clipped_to_its_bounds_and_a_gap_is_the_mean():
    assert encoded([50, 60, 30, 1000, -5, np.nan]).tolist() == [0.0, 1.0, -2.0, 5.0, -3.0, 0.0]


def test_values_outside_the_bounds_are_counted_as_ever():
    column = encode_feature(np.array([50.0, 1000.0]), AGE, PLACE, impute=False)
    assert column.clipped.tolist() == [0, 1]


@given(st.floats(20, 100), st.floats(0, 80), st.floats(-1e6, 1e6))
def test_no_value_is_scaled_beyond_what_the_least_deviation_allows(mean, deviation, value):
    feature = replace(AGE, mean=mean, deviation=deviation)
    assert abs(encoded([value], feature)[0]) <= 1 / LEAST_DEVIATION * (1 + 1e-6)


@given(st.floats(20, 100), st.floats(1.7, 80), st.floats(20, 100))
def test_a_scaled_value_turns_back_into_itself(mean, deviation, value):
    scale = replace(AGE, mean=mean, deviation=deviation).scale
    scaled = float(encoded([value], replace(AGE, mean=mean, deviation=deviation))[0])
    assert scaled * scale.unit + scale.centre == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize(
    ("mean", "deviation", "said"),
    [
        (50, None, "without the other"),
        (None, 10, "without the other"),
        (10, 10, "not within"),
        (50, -1, "deviation"),
        (50, 81, "deviation"),
    ],
)
def test_numbers_that_no_column_can_have_are_refused(mean, deviation, said):
    with pytest.raises(InputError, match=said):
        NumericFeature(name="age", minimum=20, maximum=100, mean=mean, deviation=deviation)
    with pytest.raises(InputError, match=said):
        RegressionTarget(name="age", minimum=20, maximum=100, mean=mean, deviation=deviation)


def test_the_schemas_digest_covers_the_numbers_and_is_as_before_without_them():
    def schema(feature):
        return Schema(features=(feature,), target=BinaryTarget(name="ill"))

    bare = replace(AGE, mean=None, deviation=None)
    digests = {schema(each).digest() for each in (bare, AGE, replace(AGE, mean=51), replace(AGE, deviation=11))}
    assert len(digests) == 4
    assert schema(AGE).digest() == schema(replace(AGE, mean=50.0, deviation=10.0)).digest()


def table(schema):
    columns = {
        "age": np.array([30.0, np.nan, 70.0, 130.0]),
        "sex": np.array(["f", "m", "f", "f"], dtype=object),
        "weight": np.array([60.0, 80.0, np.nan, 70.0]),
        "height": np.array([150.0, 160.0, 170.0, 180.0]),
    }
    return encode(RawTable.from_columns(columns), schema, "file")


@pytest.fixture
def schema():
    return Schema(
        features=(
            NumericFeature(name="age", minimum=20, maximum=100),
            CategoryFeature(name="sex", categories=("f", "m")),
            NumericFeature(name="weight", minimum=0, maximum=200),
        ),
        target=RegressionTarget(name="height", minimum=100, maximum=200),
        missing="impute",
    )


def test_own_moments_are_those_of_the_clipped_values_without_gaps(schema):
    found = own_moments(table(schema), schema)
    ages = np.array([30.0, 70.0, 100.0])
    assert found["age"] == pytest.approx((ages.mean(), ages.std()), abs=1e-5)
    assert found["weight"] == pytest.approx((70.0, np.std([60, 80, 70])), abs=1e-5)
    assert found["height"] == pytest.approx((165.0, np.std([150, 160, 170, 180])), abs=1e-5)


def test_a_column_of_gaps_has_no_moments(schema):
    rows = table(schema).where(np.array([False, True, False, False]))
    assert own_moments(rows, schema).keys() == {"weight", "height"}


def test_rescaled_records_are_as_if_encoded_anew(schema):
    age, sex, weight = schema.features
    other = replace(schema, features=(replace(age, mean=60, deviation=15), sex, replace(weight, mean=70, deviation=9)))
    there = rescaled(table(schema), schema, other)
    assert there.features == pytest.approx(table(other).features, abs=1e-5)
    assert rescaled(there, other, schema).features == pytest.approx(table(schema).features, abs=1e-5)
    assert there.features[1, 0] == 0.0  # a gap stays one
    assert there.target.tolist() == table(schema).target.tolist()
