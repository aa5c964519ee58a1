"""The shape of a pass follows from public numbers alone, and wastes little."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsci.training.per_record.passes import Footprint, rows_per_pass

footprints = st.builds(Footprint, values=st.integers(0, 10**9), multiplications=st.integers(0, 10**9))


@given(footprints, st.floats(1e-6, 1e6))
def test_a_pass_has_a_row_and_fits_into_memory(footprint, expected):
    rows = rows_per_pass(footprint, expected=expected)
    assert 1 <= rows <= 1024
    assert rows == 1 or rows * footprint.values <= 1 << 25


@pytest.mark.parametrize("work", [10_000, 1_000_000, 50_000_000])
@pytest.mark.parametrize("expected", [32, 64, 100, 128, 256, 512, 700])
def test_few_rows_of_the_expected_sample_are_padding(work, expected):
    rows = rows_per_pass(Footprint(values=1000, multiplications=work), expected=expected)
    computed = math.ceil(expected / rows) * rows
    assert computed <= 2 * expected


def test_one_record_more_does_not_change_the_shape():
    footprint = Footprint(values=1000, multiplications=1_000_000)
    assert rows_per_pass(footprint, expected=255) == rows_per_pass(footprint, expected=256)


def test_large_models_take_few_records_at_once():
    assert rows_per_pass(Footprint(values=1 << 26, multiplications=1 << 30), expected=512) == 1
