import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedsci.secagg import dequantise, plan_quantisation, quantise

VECTORS = arrays(np.float64, st.integers(0, 30), elements=st.floats(-1e6, 1e6))
BITS = st.sampled_from((16, 32, 64))


@given(VECTORS, st.integers(1, 30), BITS, st.floats(1e-3, 1e5), st.floats(0.01, 1))
def test_no_coordinate_errs_by_more_than_the_bound(values, sites, bits, bound, weight):
    plan = plan_quantisation(bound=bound, sites=sites, ring_bits=bits)
    quantised = quantise(values, plan, weight=weight)
    back = dequantise(quantised.vector, plan)
    wanted = np.clip(weight * values, -bound, bound)
    assert np.all(np.abs(back - wanted) <= plan.error_bound)
    assert quantised.clipped == np.count_nonzero(np.abs(values) * weight > bound)


@given(st.integers(1, 100), BITS, st.floats(1e-3, 1e3))
def test_the_sum_of_extreme_vectors_never_wraps(sites, bits, bound):
    plan = plan_quantisation(bound=bound, sites=sites, ring_bits=bits)
    total = plan.ring.zeros(2)
    one = quantise(np.array([1e9, -1e9]), plan).vector
    for _ in range(sites):
        plan.ring.accumulate(total, one)
    np.testing.assert_allclose(dequantise(total, plan), [sites * bound, -sites * bound], rtol=1e-9)


def test_the_planned_grid_is_the_finest_that_fits(broken_rule):
    plan = plan_quantisation(bound=1.0, sites=17, ring_bits=16)
    assert plan.levels == 32767 // 17
    with broken_rule("ring-headroom"):
        type(plan)(bound=1.0, levels=plan.levels + 1, sites=17, ring=plan.ring)


def test_what_cannot_be_represented_is_refused(broken_rule):
    with broken_rule("grid-too-coarse"):
        plan_quantisation(bound=1.0, sites=17, ring_bits=16, coarsest_step=1e-6)
    with broken_rule("grid-too-coarse"):
        plan_quantisation(bound=1.0, sites=40_000, ring_bits=16)
    for bound in (0.0, -1.0, float("nan"), float("inf")):
        with broken_rule("bad-bound"):
            plan_quantisation(bound=bound, sites=3, ring_bits=32)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(broken_rule, bad):
    plan = plan_quantisation(bound=1.0, sites=3, ring_bits=32)
    with broken_rule("not-finite"):
        quantise(np.array([0.0, bad]), plan)


def test_weights_outside_the_unit_interval_are_refused(broken_rule):
    plan = plan_quantisation(bound=1.0, sites=3, ring_bits=32)
    for weight in (0.0, -0.5, 1.1, float("nan")):
        with broken_rule("bad-weight"):
            quantise(np.zeros(1), plan, weight=weight)


def test_rounding_is_the_same_every_time_and_in_float32():
    plan = plan_quantisation(bound=2.0, sites=5, ring_bits=16)
    values = np.random.default_rng(1).normal(size=100_000).astype(np.float32)
    first, second = quantise(values, plan), quantise(values.reshape(100, 1000), plan)
    np.testing.assert_array_equal(first.vector, second.vector)
