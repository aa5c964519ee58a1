import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsci.errors import InputError
from fedsci.vectors.layout import Layout, flatten, unflatten

shapes = st.lists(st.lists(st.integers(0, 4), max_size=3).map(tuple), max_size=5)
SMALL = Layout(entries=(("weight", (2, 3)), ("bias", (2,))))


def layout_of(all_shapes) -> Layout:
    return Layout(entries=tuple((f"t{number}", shape) for number, shape in enumerate(all_shapes)))


@given(shapes, st.integers(0, 2**32 - 1))
def test_flattening_undoes_unflattening(all_shapes, seed):
    layout = layout_of(all_shapes)
    vector = np.random.default_rng(seed).normal(size=layout.size).astype(np.float32)
    tensors = unflatten(vector, layout)
    assert {name: tensor.shape for name, tensor in tensors.items()} == dict(layout.entries)
    assert np.array_equal(flatten(tensors, layout), vector)


def test_tensors_lie_in_the_layouts_order_row_by_row():
    tensors = {"bias": np.array([7, 8], np.float32), "weight": np.arange(6, dtype=np.float32).reshape(2, 3)}
    assert flatten(tensors, SMALL).tolist() == [0, 1, 2, 3, 4, 5, 7, 8]


def test_a_scalar_takes_one_place_and_an_empty_tensor_none():
    assert layout_of([(), (0, 3)]).size == 1


def test_an_empty_layout_is_an_empty_vector():
    assert flatten({}, layout_of([])).shape == (0,)
    assert unflatten(np.zeros(0, np.float32), layout_of([])) == {}


def test_a_missing_tensor_is_refused():
    with pytest.raises(InputError, match="'bias' is missing"):
        flatten({"weight": np.zeros((2, 3), np.float32)}, SMALL)


def test_another_shape_is_refused_even_of_the_same_size():
    tensors = {"weight": np.zeros((3, 2), np.float32), "bias": np.zeros(2, np.float32)}
    with pytest.raises(InputError, match=r"shape \(3, 2\), the layout says \(2, 3\)"):
        flatten(tensors, SMALL)


@pytest.mark.parametrize("shape", [(7,), (9,), (8, 1), ()])
def test_a_vector_of_another_length_is_refused(shape):
    with pytest.raises(InputError, match="does not fit a layout of 8 numbers"):
        unflatten(np.zeros(shape, np.float32), SMALL)


def test_a_layout_is_frozen_and_says_itself_in_json():
    assert SMALL.to_json() == [{"name": "weight", "shape": [2, 3]}, {"name": "bias", "shape": [2]}]
    with pytest.raises(dataclasses.FrozenInstanceError):
        SMALL.entries = ()
