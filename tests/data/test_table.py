import math

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
from fedsci.data.table import RawTable, concatenate, encode
from fedsci.errors import DataError, InputError


def text(*values):
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def raw(**columns):
    rows = len(next(iter(columns.values())))
    return RawTable.from_columns(columns, lines=np.arange(2, rows + 2))


AGE = NumericFeature(name="age", minimum=0, maximum=100)
CP = CategoryFeature(name="cp", categories=(1, 2))
SICK = BinaryTarget(name="sick")


def schema(*features, target=SICK, missing="refuse"):
    return Schema(features=features, target=target, missing=missing)


def test_numbers_are_scaled_by_the_public_bounds_and_clipping_is_counted():
    table = encode(raw(age=text("0", "50", "100", "150", "-1"), sick=text(*"01010")), schema(AGE), "a.csv")
    np.testing.assert_array_equal(table.features[:, 0], np.float32([-1, 0, 1, 1, -1]))
    assert table.features.dtype == np.float32
    assert table.target.dtype == np.int64
    assert table.report.clipped == {"age": 2}


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1),
    st.floats(-1e300, 1e300),
    st.floats(1e-6, 1e300),
)
def test_no_encoded_number_leaves_minus_one_to_one(values, minimum, span):
    maximum = minimum + span
    if not minimum < maximum:
        return
    feature = NumericFeature(name="x", minimum=minimum, maximum=maximum)
    target = RegressionTarget(name="y", minimum=minimum, maximum=maximum)
    column = np.array(values)
    table = encode(raw(x=column, y=column), schema(feature, target=target), "a.npz")
    assert np.abs(table.features).max() <= 1
    assert np.abs(table.target).max() <= 1
    assert table.target.dtype == np.float32


@given(st.data())
def test_a_row_is_encoded_the_same_whatever_other_rows_there_are(data):
    cell = st.sampled_from(["0", "7.5", "120", None])
    rows = data.draw(st.lists(st.tuples(cell, st.sampled_from(["1", "2.0", "x", None])), min_size=2, max_size=8))
    part = data.draw(st.integers(0, len(rows) - 1))
    study = schema(AGE, CP, missing="impute")

    def encoded(some):
        columns = {"age": text(*[a for a, _ in some]), "cp": text(*[c for _, c in some])}
        return encode(raw(**columns, sick=text(*["1"] * len(some))), study, "a.csv").features

    np.testing.assert_array_equal(encoded(rows)[part], encoded([rows[part]])[0])


@pytest.mark.parametrize(
    "column",
    [
        text("1", "2.0", "3", " 1.0 "),
        text(1, 2.0, 3, True),
        np.array([1, 2, 3, 1]),
        np.array([1.0, 2.0, 3.0, 1.0], dtype=np.float32),
        np.array(["1", "2", "three", "yes"]),
    ],
)
def test_categories_match_however_the_file_writes_them(column):
    table = encode(raw(cp=column, sick=np.array([0, 1, 0, 1])), schema(CP), "a.csv")
    np.testing.assert_array_equal(table.features, np.float32([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]))
    assert table.report.unseen == {"cp": 1}


def test_an_unseen_category_can_be_refused():
    strict = CategoryFeature(name="cp", categories=(1, 2), unseen="refuse")
    with pytest.raises(DataError, match=r"a\.csv: line 3: column 'cp': '3' is not one of 1, 2"):
        encode(raw(cp=text("1", "3"), sick=text("0", "1")), schema(strict), "a.csv")
    table = encode(raw(cp=text("1", "2"), sick=text("0", "1")), schema(strict), "a.csv")
    assert table.features.shape == (2, 2)


def test_gaps_are_refused_with_row_and_column():
    with pytest.raises(DataError, match=r"a\.csv: line 3: column 'age': the value is missing") as caught:
        encode(raw(age=text("1", None), sick=text("0", "1")), schema(AGE), "a.csv")
    assert "missing: drop" in caught.value.hint
    with pytest.raises(DataError, match=r"line 2: column 'sick'"):
        encode(raw(age=text("1", "2"), sick=text(None, "1")), schema(AGE), "a.csv")


def test_rows_with_gaps_are_dropped_and_counted():
    table = encode(
        raw(age=text("999", None, "3", "4"), cp=np.array([9.0, 1, math.nan, 2]), sick=text("1", "0", "1", "0")),
        schema(AGE, CP, missing="drop"),
        "a.csv",
    )
    assert table.row_ids.tolist() == [0, 3]
    assert table.target.tolist() == [1, 0]
    report = table.report
    assert (report.rows_read, report.rows_dropped_missing) == (4, 2)
    assert report.missing == {"age": 1, "cp": 1}
    assert (report.clipped, report.unseen) == ({"age": 1}, {"cp": 1})


def test_imputed_gaps_are_the_middle_and_flagged_and_rows_without_target_go():
    study = schema(AGE, CP, missing="impute")
    table = encode(raw(age=text(None, "100", "1"), cp=text("2", None, "1"), sick=text("1", "0", None)), study, "a.csv")
    np.testing.assert_array_equal(table.features, np.float32([[0, 1, 0, 1, 0, 0], [1, 0, 0, 0, 0, 1]]))
    assert table.report.rows_dropped_missing == 1
    whole = encode(raw(age=text("1"), cp=text("1"), sick=text("0")), study, "b.csv")
    assert whole.features.shape[1] == table.features.shape[1] == study.width


def test_a_gap_is_the_middle_of_bounds_far_from_zero_and_not_clipped():
    far = NumericFeature(name="age", minimum=20, maximum=90)
    table = encode(raw(age=text(None, "55"), sick=text("1", "0")), schema(far, missing="impute"), "a.csv")
    np.testing.assert_array_equal(table.features, np.float32([[0, 1], [0, 0]]))
    assert table.report.clipped == {}


def test_a_file_of_gaps_is_refused():
    for missing in ("drop", "impute"):
        with pytest.raises(DataError, match=r"a\.csv: every one of the 2 rows has a gap"):
            encode(raw(age=text("1", "2"), sick=text(None, None)), schema(AGE, missing=missing), "a.csv")


@pytest.mark.parametrize(
    ("target", "values", "expected"),
    [
        (BinaryTarget(name="sick"), text("Yes", "no", "TRUE", "false", "1", "0.0"), [1, 0, 1, 0, 1, 0]),
        (BinaryTarget(name="sick"), np.array([True, False]), [1, 0]),
        (BinaryTarget(name="sick", positive=(True,)), np.array([1.0, 0.0, 2.0]), [1, 0, 0]),
        (BinaryTarget(name="sick", positive=(1, 2, 3, 4)), text("0", "1", "4", "-"), [0, 1, 1, 0]),
        (BinaryTarget(name="sick", negative=(0,)), np.array([0, 1, 4]), [0, 1, 1]),
        (BinaryTarget(name="sick", positive=("M",), negative=("B",)), text("M", "B "), [1, 0]),
        (MulticlassTarget(name="sick", classes=("a", 2, "c")), text("c", "2.0", "a"), [2, 1, 0]),
    ],
)
def test_targets_become_class_indices(target, values, expected):
    table = encode(raw(age=np.full(len(values), 5), sick=values), schema(AGE, target=target), "a.csv")
    assert table.target.tolist() == expected
    assert table.target.dtype == np.int64


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        (BinaryTarget(name="sick"), "0, 1, false, true, no, yes"),
        (BinaryTarget(name="sick", positive=("a",), negative=("b",)), "a, b"),
        (MulticlassTarget(name="sick", classes=("a", "b")), "a, b"),
    ],
)
def test_a_class_outside_the_schema_is_refused_with_row_value_and_what_is_allowed(target, allowed):
    good = "1" if target.name == "sick" and allowed.startswith("0") else "a"
    with pytest.raises(DataError) as caught:
        encode(raw(age=text("1", "2"), sick=text(good, "q")), schema(AGE, target=target), "a.csv")
    assert caught.value.message == f"a.csv: line 3: column 'sick': 'q' is not one of {allowed}"
    assert "q" not in caught.value.public()["message"].split()


@pytest.mark.parametrize(
    ("value", "problem", "hint"),
    [
        ("abc", "'abc' is not a number", "list 'abc' as missing"),
        ("1,5", "'1,5' is not a number", "decimal point"),
        ("1_0", "'1_0' is not a number", "number"),
        ("inf", "'inf' is infinite", ""),
        ("1e999", "'1e999' is infinite", ""),
        (math.inf, "inf is infinite", "finite"),
    ],
)
def test_a_bad_number_is_named_with_file_line_and_column(value, problem, hint):
    with pytest.raises(DataError) as caught:
        encode(raw(age=text("1", value), sick=text("0", "1")), schema(AGE), "heart.csv")
    assert caught.value.message == f"heart.csv: line 3: column 'age': {problem}"
    assert hint in caught.value.hint


def test_infinite_floats_are_refused():
    with pytest.raises(DataError, match=r"line 3: column 'age': -inf is infinite"):
        encode(raw(age=np.array([1.0, -np.inf]), sick=text("0", "1")), schema(AGE), "a.npz")


def test_without_lines_rows_are_numbered_from_one():
    table = RawTable.from_columns({"age": np.array([1.0, math.nan]), "sick": np.array([0, 1])})
    with pytest.raises(DataError, match=r"a\.npz: row 2: column 'age'"):
        encode(table, schema(AGE), "a.npz")


def test_an_absent_column_names_the_nearest():
    table = raw(Age=text("1"), sick=text("0"))
    with pytest.raises(DataError, match=r"a\.csv: there is no column 'age', a feature of the study") as caught:
        encode(table, schema(AGE), "a.csv")
    assert caught.value.hint == "did you mean 'Age'?"
    with pytest.raises(DataError, match="no column 'sick', the study's target"):
        encode(raw(age=text("1"), other=text("0")), schema(AGE), "a.csv")


def test_a_header_that_looks_like_data_gets_its_own_hint():
    table = RawTable.from_columns({"63.0": text("1"), "1.0": text("2"), "x": text("0")})
    with pytest.raises(DataError) as caught:
        encode(table, schema(AGE), "a.data")
    assert "give the names in `columns`" in caught.value.hint


IMAGE = ArrayFeature(name="image", shape=(2, 2), minimum=0, maximum=16)


@pytest.mark.parametrize("shape", [(3, 2, 2), (3, 4)])
def test_arrays_are_flattened_and_scaled(shape):
    pixels = np.array([0, 8, 16, 99] * 3).reshape(shape)
    table = encode(raw(image=pixels, sick=np.array([0, 1, 0])), schema(IMAGE), "a.npz")
    np.testing.assert_array_equal(table.features, np.float32([[-1, 0, 1, 1]] * 3))
    assert table.report.clipped == {"image": 3}


def test_gaps_in_arrays_follow_the_missing_rule():
    pixels = np.array([[[0, math.nan], [16, 8]], [[1, 2], [3, 4]]])
    table = raw(image=pixels, sick=np.array([0, 1]))
    with pytest.raises(DataError, match=r"line 2: column 'image': the value is missing"):
        encode(table, schema(IMAGE), "a.npz")
    assert encode(table, schema(IMAGE, missing="drop"), "a.npz").row_ids.tolist() == [1]
    imputed = encode(table, schema(IMAGE, missing="impute"), "a.npz")
    np.testing.assert_array_equal(imputed.features[0], np.float32([-1, 0, 1, 0]))
    assert imputed.features.shape == (2, 4)


@pytest.mark.parametrize(
    ("column", "feature", "problem"),
    [
        (np.zeros((2, 3, 3)), IMAGE, r"has shape \[3, 3\] a row, where the study says \[2, 2\]"),
        (text("a", "b"), IMAGE, r"holds text, where an array"),
        (np.zeros((2, 2, 2)), NumericFeature(name="image", minimum=0, maximum=1), r"holds an array of shape \[2, 2\]"),
        (np.zeros((2, 2, 2)), CategoryFeature(name="image", categories=(1,)), r"holds an array of shape \[2, 2\]"),
    ],
)
def test_a_column_of_the_wrong_shape_is_refused(column, feature, problem):
    with pytest.raises(DataError, match=r"a\.npz: column 'image' " + problem):
        encode(raw(image=column, sick=np.array([0, 1])), schema(feature), "a.npz")


def test_infinite_array_entries_are_refused():
    pixels = np.zeros((2, 2, 2))
    pixels[1, 0, 1] = np.inf
    with pytest.raises(DataError, match=r"line 3: column 'image': an entry is infinite"):
        encode(raw(image=pixels, sick=np.array([0, 1])), schema(IMAGE), "a.npz")


def test_tables_are_joined_in_order_and_their_reports_added():
    tables = [
        encode(raw(age=text(*ages), sick=text("1", "0")), schema(AGE, missing="drop"), "a.csv")
        for ages in (("500", None), ("600", "50"))
    ]
    joined = concatenate(tables)
    assert joined.target.tolist() == [1, 1, 0]
    assert joined.report.clipped == {"age": 2}
    assert (joined.report.rows_read, joined.report.rows_dropped_missing) == (4, 1)


def test_tables_of_different_schemas_are_not_joined():
    first = encode(raw(age=text("1"), sick=text("1")), schema(AGE), "a.csv")
    second = encode(raw(cp=text("1"), sick=text("1")), schema(CP), "a.csv")
    with pytest.raises(InputError, match="one width"):
        concatenate([first, second])
    with pytest.raises(InputError):
        concatenate([])


def test_tables_do_not_print_what_they_hold():
    table = raw(age=text("77"), sick=text("1"))
    assert "77" not in repr(table)
    assert repr(encode(table, schema(AGE), "a.csv")) == "Table(1 rows, 1 inputs)"


def test_columns_of_different_lengths_make_no_table():
    with pytest.raises(InputError, match="make no table"):
        RawTable.from_columns({"a": np.zeros(2), "b": np.zeros(3)})


def test_an_empty_table_is_refused():
    with pytest.raises(DataError, match="no rows"):
        encode(raw(age=text(), sick=text()), schema(AGE), "a.csv")
