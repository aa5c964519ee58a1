import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsci.errors import ProtocolError
from fedsci.secagg.ring import RingSpec, check_headroom, noisy_sum_bound, sum_bound

BITS = st.sampled_from((16, 32, 64))


@given(BITS, st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20), st.data())
def test_the_lift_of_a_wrapped_sum_is_the_sum_when_it_fits(bits, raw, data):
    ring = RingSpec(bits=bits)
    bound = ring.largest_sum // len(raw)
    values = [value % (2 * bound + 1) - bound for value in raw]
    total = ring.zeros(1)
    for value in values:
        ring.accumulate(total, ring.from_signed(np.array([value], dtype=np.int64)))
    assert int(ring.to_signed(total)[0]) == sum(values)


@given(BITS, st.integers(0, 2**64))
def test_headroom_is_exactly_the_signed_range(bits, bound):
    ring = RingSpec(bits=bits)
    fits = 0 < bound < 2 ** (bits - 1)
    if fits:
        check_headroom(ring, bound)
    else:
        with pytest.raises(ProtocolError) as caught:
            check_headroom(ring, bound)
        assert caught.value.rule == "ring-headroom"


def test_a_sum_one_past_the_headroom_does_wrap():
    ring = RingSpec(bits=16)
    total = ring.from_signed(np.array([ring.largest_sum]))
    ring.accumulate(total, ring.from_signed(np.array([1])))
    assert int(ring.to_signed(total)[0]) == -(2**15)


def test_values_outside_the_ring_are_refused_not_wrapped(broken_rule):
    for value in (2**15, -(2**15) - 1):
        with broken_rule("ring-overflow"):
            RingSpec(bits=16).from_signed(np.array([value]))


def test_the_site_bound_holds_on_both_sides(broken_rule):
    ring = RingSpec(bits=16)
    ring.check_bound(ring.from_signed(np.array([-7, 7])), 7)
    ring.check_bound(ring.zeros(0), 7)
    for value in (-8, 8, -(2**15)):
        with broken_rule("ring-overflow"):
            ring.check_bound(ring.from_signed(np.array([0, value])), 7)


def test_other_shapes_and_dtypes_are_refused(broken_rule):
    ring = RingSpec(bits=16)
    for vector in (np.zeros(4, "<u4"), np.zeros(4, "<i2"), np.zeros((2, 2), "<u2"), np.zeros(8, "<u2")[::2]):
        with broken_rule("wrong-ring"):
            ring.check_vector(vector)
    with broken_rule("wrong-length"):
        ring.accumulate(ring.zeros(3), ring.zeros(4))
    for size in (0, 5, 7):
        with broken_rule("malformed-message"):
            ring.from_bytes(bytes(size), 3)
    with broken_rule("ring-bits"):
        RingSpec(bits=24)


def test_sum_bounds_round_outward():
    assert sum_bound(site_bound=100, sites=17) == 1700
    for levels, deviation, sites in ((Fraction(10), Fraction(8), 17), (Fraction(1, 3), Fraction(5, 7), 3)):
        exact = sites * (float(levels) + 1) + 9.5 * float(deviation) * math.sqrt(sites)
        assert exact <= noisy_sum_bound(clip_levels=levels, deviation=deviation, sites=sites) <= exact + 3


@pytest.mark.parametrize(("multiplier", "bits"), [(1.0, 11), (0.1, 14), (0.02, 16)])
def test_headroom_of_the_noisy_sum_of_seventeen_labs(multiplier, bits):
    """With s = 8 and two of 12 survivors colluding, so many bits suffice."""
    levels = Fraction(8 * math.sqrt(10) / multiplier)
    bound = noisy_sum_bound(clip_levels=levels, deviation=Fraction(8), sites=17)
    assert bound < 2 ** (bits - 1)
