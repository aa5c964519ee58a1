import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fedsci.errors import InputError
from fedsci.privacy.clipping import SLACK, clip_factors, clip_rows

rows = arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.floats(width=64))
clipping_norms = st.floats(1e-6, 1e6)


@settings(deadline=None)
@given(rows, clipping_norms)
def test_no_record_outgrows_its_clipping_norm_even_in_float32(records, clipping_norm):
    clipped = clip_rows(records, clipping_norm)
    assert np.isfinite(clipped).all()
    assert (np.linalg.norm(clipped, axis=1) <= clipping_norm).all()
    in_float32 = clipped.astype(np.float32).astype(np.float64)
    assert (np.linalg.norm(in_float32, axis=1) <= clipping_norm).all()


@settings(deadline=None)
@given(arrays(np.float64, 6, elements=st.floats(-1e30, 1e30)), clipping_norms)
def test_the_factor_bounds_the_norm(record, clipping_norm):
    factor = clip_factors(np.linalg.norm(record, keepdims=True), clipping_norm)
    assert np.linalg.norm((record * factor).astype(np.float32).astype(np.float64)) <= clipping_norm


@settings(deadline=None)
@given(rows, clipping_norms)
def test_clipping_keeps_the_direction(records, clipping_norm):
    clipped = clip_rows(records, clipping_norm)
    kept = np.isfinite(records).all(axis=1)
    assert (np.sign(clipped[kept]) * np.sign(records[kept]) >= 0).all()


def test_short_records_are_untouched():
    records = np.array([[0.3, 0.4], [0.0, 0.0], [1e-200, 0.0]])
    assert np.array_equal(clip_rows(records, 1.0), records)
    assert clip_factors(np.array([0.5, 0.0, 1 - SLACK]), 1.0).tolist() == [1, 1, 1]


def test_long_records_keep_the_clipping_norm():
    assert clip_factors(np.array([2.0, 1e308]), 1.0) == pytest.approx([(1 - SLACK) / 2, (1 - SLACK) / 1e308])
    assert np.linalg.norm(clip_rows([[3e200, 4e200]], 1.0)) == pytest.approx(1 - SLACK)


@pytest.mark.parametrize("damage", [np.nan, np.inf, -np.inf])
def test_a_damaged_record_contributes_nothing(damage):
    assert clip_factors(np.array([abs(damage)]), 1.0).tolist() == [0.0]
    assert clip_rows([[damage, 1.0], [0.1, 0.2]], 1.0).tolist() == [[0.0, 0.0], [0.1, 0.2]]


def test_no_records_are_fine():
    assert clip_factors(np.array([]), 1.0).shape == (0,)
    assert clip_rows(np.empty((0, 3)), 1.0).shape == (0, 3)
    assert clip_rows(np.empty((3, 0)), 1.0).shape == (3, 0)


@pytest.mark.parametrize("clipping_norm", [0.0, -1.0, np.nan, np.inf, 1e-40])
def test_an_unusable_clipping_norm_is_refused(clipping_norm):
    with pytest.raises(InputError, match="clipping norm"):
        clip_factors(np.array([1.0]), clipping_norm)
    with pytest.raises(InputError, match="clipping norm"):
        clip_rows([[1.0]], clipping_norm)


def test_wrong_norms_and_shapes_are_refused():
    with pytest.raises(InputError, match="negative"):
        clip_factors(np.array([-1.0]), 1.0)
    with pytest.raises(InputError, match="shape"):
        clip_rows([1.0, 2.0], 1.0)
