from collections import Counter
from decimal import Decimal

import mpmath
import numpy as np
import pytest

from fedsci.errors import InputError
from fedsci.privacy.exact_table import ExactTables, gaussian_weights


class Scripted:
    """Gives the high and low words it was told to, so that each path can be walked."""

    def __init__(self, high, low=0):
        self.high, self.low = high, low

    def uint64(self, size):
        return np.full(size, self.high, dtype=np.uint64)

    def bytes(self, size):
        assert size == 16
        return self.low.to_bytes(16, "little")


def slot(table, r, t=0):
    return np.array([(r << table.table_bits) | t])


@pytest.fixture
def gaussian():
    return gaussian_weights(Decimal(4), Decimal("0.3"), -26, 26)


def test_weights_are_the_gaussians_to_2_to_minus_128(gaussian):
    with mpmath.workdps(60):
        exact = [mpmath.exp(-((k - mpmath.mpf("0.3")) ** 2) / 8) for k in range(-26, 27)]
        total = mpmath.fsum(exact)
        distance = (
            mpmath.fsum(abs(e / total - mpmath.mpf(w) / 2**128) for e, w in zip(exact, gaussian, strict=True)) / 2
        )
    assert sum(gaussian) == 2**128
    assert distance < 53 * mpmath.mpf(2) ** -128


@pytest.fixture
def eight():
    """Gaussians centred on 0, 1/8, ... 7/8."""
    weights = [gaussian_weights(Decimal(4), Decimal(j) / 8, -26, 27) for j in range(8)]
    return weights, ExactTables.from_weights(weights, first=-26, slot_bits=12)


def test_slots_and_leftovers_add_up_to_the_weights(eight):
    weights, tables = eight
    slots = tables.slots.reshape(1 << 12, 8)
    for t in range(8):
        owned = Counter(slots[: tables.leftover[t], t].tolist())
        rest = np.diff(np.array(tables.rest[t], dtype=object), prepend=0)
        assert [(owned[k - 26] << 116) + rest[k] for k in range(54)] == weights[t]
        assert tables.rest[t][-1] == (4096 - int(tables.leftover[t])) << 116
        assert (slots[tables.leftover[t] :, t] == tables.unresolved).all()


def test_every_leftover_is_resolved_by_its_cumulative_weight(eight):
    """Just below a cumulative weight is one outcome, at it the next: over all distributions and outcomes."""
    _, tables = eight
    fresh, low_bits = tables.fresh_bits, 116 - tables.fresh_bits
    for t in range(8):
        total = tables.rest[t][-1]
        for outcome, edge in enumerate(tables.rest[t]):
            for value, expected in ((edge - 1, outcome), (edge, outcome + 1)):
                number, inside = value >> 116, value & ((1 << 116) - 1)
                if not 0 <= value < total or (expected and tables.rest[t][expected - 1] > value):
                    continue
                script = Scripted(
                    (inside >> low_bits) << (64 - fresh), (inside & ((1 << low_bits) - 1)) << (128 - low_bits)
                )
                found = tables.resolve(slot(tables, int(tables.leftover[t]) + number, t), script)
                assert found.tolist() == [expected - 26]


def test_the_low_word_decides_where_the_high_one_ties():
    weight = (7 << 70) + 1000
    table = ExactTables.from_weights([[weight, 2**128 - weight]], first=0, slot_bits=16)
    low_bits = 112 - table.fresh_bits
    at = weight >> low_bits
    high, edge = at << (64 - table.fresh_bits), weight - (at << low_bits)
    leftover = slot(table, int(table.leftover[0]))
    for low, outcome in ((0, 0), (edge - 1, 0), (edge, 1), ((1 << low_bits) - 1, 1)):
        assert table.resolve(leftover, Scripted(high, low << (128 - low_bits))).tolist() == [outcome]
    step = 1 << (64 - table.fresh_bits)
    assert table.resolve(leftover, Scripted(high - step)).tolist() == [0]
    assert table.resolve(leftover, Scripted(high + step)).tolist() == [1]


def test_an_outcome_of_weight_zero_never_happens(keystream):
    table = ExactTables.from_weights([[0, 2**127 + 1, 0, 2**127 - 1, 0]], first=0, slot_bits=3)
    index = keystream.uint16(10_000) >> 13
    drawn = table.slots.take(index)
    table.finish(drawn, index, keystream)
    assert set(drawn.tolist()) == {1, 3}


@pytest.mark.parametrize(
    ("weights", "first"),
    [
        ([[1]], 0),
        ([[-1, 2**128 + 1]], 0),
        ([[2**128]], 1 << 15),
        ([[2**128]], -(1 << 15)),
        ([[2**128]] * 3, 0),
        ([[2**128], [2**128, 0]], 0),
    ],
)
def test_what_is_no_distribution_is_refused(weights, first):
    with pytest.raises(InputError):
        ExactTables.from_weights(weights, first=first, slot_bits=8)
