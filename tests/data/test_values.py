import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsci.data.values import matching_key, nearest, parse_number


@pytest.mark.parametrize("same", [("1.0", "1", 1, 1.0, " 1 ", True, "true", "Yes", "+1", "1e0", np.float32(1))])
def test_one_value_has_one_key_however_it_is_written(same):
    assert len({matching_key(value) for value in same}) == 1


@pytest.mark.parametrize("different", [("a", "A", "b"), ("1", "2", "0.1", "x"), ("no", "yes", "maybe")])
def test_different_values_have_different_keys(different):
    assert len({matching_key(value) for value in different}) == len(different)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers())
def test_a_number_matches_its_own_text(number):
    assert matching_key(number) == matching_key(str(number)) == matching_key(f"  {number}\t")


@given(st.integers(min_value=10**17), st.integers(min_value=1, max_value=9))
def test_long_identifiers_that_a_float_would_merge_stay_apart(number, step):
    assert matching_key(str(number)) != matching_key(str(number + step))


def test_float32_matches_what_a_person_would_write():
    assert matching_key(np.float32(0.1)) == matching_key("0.1")


@pytest.mark.parametrize("text", ["", "abc", "1,5", "1_000", "nan", "0x10", "1 2", "١"])
def test_what_is_no_number_is_refused(text):
    with pytest.raises(ValueError, match="is not a number"):
        parse_number(text)


@pytest.mark.parametrize("text", ["inf", "-Infinity", "1e999"])
def test_infinity_is_refused(text):
    with pytest.raises(ValueError, match="is infinite"):
        parse_number(text)


def test_a_huge_exponent_is_still_text_with_a_key():
    assert matching_key("1e99999999999999999999") == "1e99999999999999999999"


def test_the_nearest_name_ignores_case():
    assert nearest("disese", ["Age", "Disease"]) == "Disease"
    assert nearest("zzz", ["Age", "Disease"]) is None
