"""Exact sampling from a finite distribution whose probabilities are multiples of 2^-128.

Sixteen random bits pick a slot of a table. Outcome k owns floor(2^16 p_k) slots and is returned at once;
the few slots left over (under 1 % for a Gaussian) stand for the remainders 2^16 p_k - floor(2^16 p_k), and
are resolved by inverting their cumulative sum with 112 further bits. All arithmetic is on integers, so the
result has exactly the given probabilities. The time taken depends on the outcome: not constant time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from itertools import accumulate
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedsci.errors import InputError
from fedsci.privacy.randomness import KeyStream

PROBABILITY_BITS: Final = 128
SLOT_BITS: Final = 16
SLOTS: Final = 1 << SLOT_BITS
TAIL_DEVIATIONS: Final = 13
_REST_BITS: Final = PROBABILITY_BITS - SLOT_BITS
_LOW_BITS: Final = 64


def gaussian_weights(variance: Decimal, centre: Decimal, first: int, last: int) -> list[int]:
    """Return integers proportional to exp(-(k - centre)^2 / (2 variance)), first <= k <= last, sum 2^128.

    Each is rounded down and the remainder, below one unit an outcome, goes to the largest: the total
    variation distance to the exact distribution on first..last is below (last - first + 1) 2^-128.
    """
    with localcontext() as context:
        context.prec = 60
        raw = [(-((k - centre) ** 2) / (2 * variance)).exp() for k in range(first, last + 1)]
        scale = Decimal(1 << PROBABILITY_BITS) / sum(raw)
        weights = [int(value * scale) for value in raw]
    weights[weights.index(max(weights))] += (1 << PROBABILITY_BITS) - sum(weights)
    return weights


@dataclass(frozen=True, kw_only=True, eq=False)
class ExactTable:
    """A distribution over ``first, first + 1, ...`` ready to sample.

    Attributes:
        first: the smallest outcome.
        slots: int16, shape ``(2^16,)``: the outcome of each slot. Leftover slots come last.
        leftover: index of the first leftover slot.
        rest_high: uint64: high words of the leftover outcomes' cumulative weights.
        rest: the same cumulative weights, whole.
    """

    first: int
    slots: NDArray[np.int16]
    leftover: int
    rest_high: NDArray[np.uint64]
    rest: tuple[int, ...]

    @classmethod
    def from_weights(cls, weights: Sequence[int], *, first: int) -> "ExactTable":
        """Return the table for outcome ``first + i`` with probability ``weights[i] / 2^128``.

        Raises:
            InputError: if the weights are negative, do not sum to 2^128, or outcomes do not fit 16 bits.
        """
        if min(weights) < 0 or sum(weights) != 1 << PROBABILITY_BITS:
            raise InputError("weights must be non-negative and sum to 2^128")
        if first < -(1 << 15) or first + len(weights) > 1 << 15:
            raise InputError("outcomes must fit 16 bits")
        whole = [weight >> _REST_BITS for weight in weights]
        outcomes = np.arange(first, first + len(weights), dtype=np.int16)
        slots = np.zeros(SLOTS, dtype=np.int16)
        leftover = sum(whole)
        slots[:leftover] = np.repeat(outcomes, whole)
        slots.setflags(write=False)
        rest = tuple(accumulate(w - (n << _REST_BITS) for w, n in zip(weights, whole, strict=True)))
        high = np.array([min(value >> _LOW_BITS, (1 << 64) - 1) for value in rest], dtype=np.uint64)
        return cls(first=first, slots=slots, leftover=leftover, rest_high=high, rest=rest)

    def sample(self, size: int, keystream: KeyStream) -> NDArray[np.int16]:
        """Return ``size`` independent draws; fastest for some ten thousand at a time."""
        index = keystream.uint16(size)
        drawn = self.slots.take(index)
        missed = np.flatnonzero(index >= self.leftover)
        if len(missed):
            drawn[missed] = self.resolve(index[missed], keystream)
        return drawn

    def resolve(self, slot: NDArray[np.uint16], keystream: KeyStream) -> NDArray[np.int64]:
        """Return the outcomes of draws that hit leftover slots, each with 112 further random bits.

        The slot counts for the top 16 bits of a number uniform below the leftovers' total weight. Its low
        64 bits are drawn only where the high word alone does not decide (once in about 2^40 draws).
        """
        top = slot.astype(np.uint64) - np.uint64(self.leftover)
        shift = np.uint64(_REST_BITS - _LOW_BITS)
        high = (top << shift) | (keystream.uint64(len(slot)) >> np.uint64(SLOT_BITS))
        found = np.searchsorted(self.rest_high, high, side="right")
        # An outcome whose cumulative weight begins with the same word may lie on either side.
        for i in np.flatnonzero(np.searchsorted(self.rest_high, high, side="left") != found):
            value = (int(high[i]) << _LOW_BITS) | int(keystream.uint64(1)[0])
            found[i] = sum(1 for total in self.rest if total <= value)
        return found.astype(np.int64) + self.first
