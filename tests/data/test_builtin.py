import pytest

from fedsci.data.builtin import builtin_names, load_builtin
from fedsci.errors import DataError


def test_digits_are_images_of_0_to_16():
    raw = load_builtin("digits")
    assert raw.columns["image"].shape == (raw.rows, 8, 8)
    assert (raw.columns["image"].min(), raw.columns["image"].max()) == (0, 16)
    assert set(raw.columns["digit"].tolist()) == set(range(10))


def test_breast_cancer_has_thirty_measurements_without_spaces_in_their_names():
    raw = load_builtin("breast_cancer")
    assert len(raw.columns) == 31
    assert not any(" " in name for name in raw.columns)
    assert int(raw.columns["benign"].sum()) == 357


def test_diabetes_is_in_its_own_units():
    raw = load_builtin("diabetes")
    assert list(raw.columns) == ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6", "progression"]
    assert set(raw.columns["sex"].tolist()) == {1, 2}
    assert raw.columns["age"].max() == 79


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(DataError, match="no built-in data set 'digit'") as caught:
        load_builtin("digit")
    assert caught.value.hint == "did you mean 'digits'?"
    assert builtin_names() == ("digits", "breast_cancer", "diabetes")
