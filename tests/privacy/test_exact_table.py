from collections import Counter
from decimal import Decimal

import mpmath
import numpy as np
import pytest

from fedsci.errors import InputError
from fedsci.privacy.exact_table import ExactTable, gaussian_weights


class Scripted:
    """Gives the words it was told to, so that each path can be walked."""

    def __init__(self, slots=(), words=()):
        self.slots, self.words = list(slots), list(words)

    def uint16(self, size):
        drawn, self.slots = self.slots[:size], self.slots[size:]
        return np.array(drawn, dtype=np.uint16)

    def uint64(self, size):
        drawn, self.words = self.words[:size], self.words[size:]
        return np.array(drawn, dtype=np.uint64)


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


def test_slots_and_leftovers_add_up_to_the_weights(gaussian):
    table = ExactTable.from_weights(gaussian, first=-26)
    owned = Counter(table.slots[: table.leftover].tolist())
    rest = np.diff(np.array(table.rest, dtype=object), prepend=0)
    assert [(owned[k - 26] << 112) + rest[k] for k in range(53)] == gaussian
    assert table.rest[-1] == (65536 - table.leftover) << 112


def test_a_leftover_slot_is_resolved_by_its_112_bits():
    # Half a slot each for 5 and 6 on top of 100 and 65435 whole ones.
    half = 1 << 111
    table = ExactTable.from_weights([(100 << 112) + half, (65435 << 112) + half], first=5)
    assert table.leftover == 65535
    below, at = (1 << 63) - 1, 1 << 63
    assert table.sample(3, Scripted([0, 99, 100])).tolist() == [5, 5, 6]
    assert table.sample(1, Scripted([65535], [below])).tolist() == [5]
    assert table.sample(1, Scripted([65535], [at, 0])).tolist() == [6]


def test_the_low_word_decides_where_the_high_one_ties():
    weight = (7 << 64) + 1000
    table = ExactTable.from_weights([weight, 2**128 - weight], first=0)
    word = 7 << 16
    for low, outcome in ((0, 0), (999, 0), (1000, 1), (2**64 - 1, 1)):
        assert table.sample(1, Scripted([table.leftover], [word, low])).tolist() == [outcome]
    assert table.sample(1, Scripted([table.leftover], [word - (1 << 16)])).tolist() == [0]
    assert table.sample(1, Scripted([table.leftover], [word + (1 << 16)])).tolist() == [1]


def test_an_outcome_of_weight_zero_never_happens(keystream):
    table = ExactTable.from_weights([0, 2**127, 0, 2**127, 0], first=0)
    assert set(table.sample(10_000, keystream).tolist()) == {1, 3}


@pytest.mark.parametrize(
    ("weights", "first"), [([1], 0), ([-1, 2**128 + 1], 0), ([2**128], 1 << 15), ([2**128], -(1 << 15) - 1)]
)
def test_what_is_no_distribution_is_refused(weights, first):
    with pytest.raises(InputError):
        ExactTable.from_weights(weights, first=first)
