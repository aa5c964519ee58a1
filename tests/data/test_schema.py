import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsci.data.schema import (
    ArrayFeature,
    BinaryTarget,
    CategoryFeature,
    MulticlassTarget,
    NumericFeature,
    RegressionTarget,
    Schema,
)
from fedsci.errors import InputError

AGE = NumericFeature(name="age", minimum=20, maximum=90)
CP = CategoryFeature(name="cp", categories=(1, 2, 3, 4))
SICK = BinaryTarget(name="sick")


@pytest.mark.parametrize(
    ("minimum", "maximum"), [(1, 1), (2, 1), (math.nan, 1), (0, math.inf), (-math.inf, 0), (-1e308, 1e308)]
)
@pytest.mark.parametrize("make", [NumericFeature, partial(ArrayFeature, shape=(2,)), RegressionTarget])
def test_bounds_that_cannot_scale_are_refused(make, minimum, maximum):
    with pytest.raises(InputError, match="'x'"):
        make(name="x", minimum=minimum, maximum=maximum)


@pytest.mark.parametrize(
    "make",
    [
        lambda: CategoryFeature(name="x", categories=()),
        lambda: CategoryFeature(name="x", categories=(1, "1.0")),
        lambda: CategoryFeature(name="x", categories=("yes", True)),
        lambda: CategoryFeature(name="x", categories=("",)),
        lambda: CategoryFeature(name="x", categories=(math.nan,)),
        lambda: CategoryFeature(name="x", categories=("a",), unseen="guess"),
        lambda: CategoryFeature(name="", categories=("a",)),
        lambda: ArrayFeature(name="x", shape=(), minimum=0, maximum=1),
        lambda: ArrayFeature(name="x", shape=(8, 0), minimum=0, maximum=1),
        lambda: MulticlassTarget(name="x", classes=("a",)),
        lambda: BinaryTarget(name="x", positive=()),
        lambda: BinaryTarget(name="x", positive=("a", "b"), negative=("b",)),
        lambda: Schema(features=(), target=SICK),
        lambda: Schema(features=(AGE, AGE), target=SICK),
        lambda: Schema(features=(AGE,), target=BinaryTarget(name="age")),
        lambda: Schema(features=(AGE,), target=SICK, missing="guess"),
    ],
)
def test_a_schema_that_contradicts_itself_is_refused_with_a_hint(make):
    with pytest.raises(InputError) as caught:
        make()
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_encoded_names_say_what_each_input_is():
    schema = Schema(
        features=(AGE, CP, ArrayFeature(name="im", shape=(1, 2), minimum=0, maximum=1)), target=SICK, missing="impute"
    )
    assert schema.encoded_names == (
        "age", "age?missing", "cp=1", "cp=2", "cp=3", "cp=4", "cp?other", "cp?missing", "im[0,0]", "im[0,1]",
    )  # fmt: skip


features = st.lists(
    st.one_of(
        st.builds(NumericFeature, name=st.uuids().map(str), minimum=st.just(0), maximum=st.just(1)),
        st.builds(
            CategoryFeature,
            name=st.uuids().map(str),
            categories=st.sets(st.integers(0, 20), min_size=1).map(tuple),
            unseen=st.sampled_from(["other", "refuse"]),
        ),
        st.builds(
            ArrayFeature,
            name=st.uuids().map(str),
            shape=st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple),
            minimum=st.just(0),
            maximum=st.just(1),
        ),
    ),
    min_size=1,
    max_size=5,
)


@given(features, st.sampled_from(["refuse", "drop", "impute"]))
def test_width_is_the_number_of_names(some, missing):
    schema = Schema(features=tuple(some), target=SICK, missing=missing)
    assert schema.width == len(schema.encoded_names)


def test_only_a_lone_array_has_an_array_shape():
    image = ArrayFeature(name="image", shape=(8, 8), minimum=0, maximum=16)
    assert Schema(features=(image,), target=SICK).array_shape == (8, 8)
    assert Schema(features=(image, AGE), target=SICK).array_shape is None
    assert Schema(features=(AGE,), target=SICK).array_shape is None


def test_the_digest_follows_the_meaning_not_the_spelling():
    written = Schema(features=(CategoryFeature(name="cp", categories=(1, 2)), AGE), target=SICK)
    as_text = Schema(
        features=(
            CategoryFeature(name="cp", categories=("1.0", "2")),
            NumericFeature(name="age", minimum=20.0, maximum=90.0),
        ),
        target=SICK,
    )
    assert written.digest() == as_text.digest()
    assert written.digest().startswith("sha256:")


def test_the_digest_changes_with_anything_that_changes_the_encoding():
    schemas = [
        Schema(features=(AGE, CP), target=SICK),
        Schema(features=(CP, AGE), target=SICK),
        Schema(features=(AGE, CP), target=SICK, missing="impute"),
        Schema(features=(AGE, CP), target=BinaryTarget(name="sick", positive=(1,))),
        Schema(features=(AGE, CP), target=MulticlassTarget(name="sick", classes=(0, 1))),
        Schema(features=(AGE, CP), target=RegressionTarget(name="sick", minimum=0, maximum=1)),
        Schema(features=(AGE, CategoryFeature(name="cp", categories=(1, 2, 4, 3))), target=SICK),
        Schema(features=(AGE, CategoryFeature(name="cp", categories=(1, 2, 3, 4), unseen="refuse")), target=SICK),
        Schema(features=(NumericFeature(name="age", minimum=20, maximum=91), CP), target=SICK),
    ]
    assert len({schema.digest() for schema in schemas}) == len(schemas)


def test_a_scaled_target_goes_back_to_its_units():
    target = RegressionTarget(name="y", minimum=10, maximum=30)
    np.testing.assert_allclose(target.to_units(np.array([-1.0, 0.0, 1.0])), [10, 20, 30])
