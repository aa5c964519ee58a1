"""Exact sampling from finite distributions whose probabilities are multiples of 2^-128.

A few random bits pick a slot of a table. An outcome of probability p owns floor(2^b p) of 2^b slots and is
returned at once; the few slots left over (about 1 % for a Gaussian) stand for what the rounding down
left, and are resolved by inverting the remainders' cumulative sum with fresh random bits. All arithmetic is on
integers, so outcomes have exactly the given probabilities. The time a draw takes depends on its outcome: not
constant time.

Several distributions over the same outcomes, say Gaussians with different centres, share one table.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from itertools import accumulate
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedsci.errors import InputError
from fedsci.privacy.randomness import KeyStream

PROBABILITY_BITS: Final = 128
TAIL_DEVIATIONS: Final = 13
_ONE: Final = 1 << PROBABILITY_BITS
_WORD_BITS: Final = 64
_WORD_BYTES: Final = 16


def gaussian_weights(variance: Decimal, centre: Decimal, first: int, last: int) -> list[int]:
    """Return integers proportional to exp(-(k - centre)^2 / (2 variance)), first <= k <= last, sum 2^128.

    Each is rounded down and the remainder, below one unit an outcome, goes to the largest: the total
    variation distance to the exact distribution on first..last is below (last - first + 1) 2^-128.
    """
    with localcontext() as context:
        context.prec = 60
        # exp(-(k + 1 - c)^2 / 2v) is the one before times a factor, and that factor shrinks evenly.
        value = (-((first - centre) ** 2) / (2 * variance)).exp()
        factor = (-(2 * (first - centre) + 1) / (2 * variance)).exp()
        shrink = (-1 / variance).exp()
        raw = []
        for _ in range(last - first + 1):
            raw.append(value)
            value *= factor
            factor *= shrink
        scale = _ONE / sum(raw, Decimal(0))
        weights = [int(value * scale) for value in raw]
    weights[weights.index(max(weights))] += _ONE - sum(weights)
    return weights


@dataclass(frozen=True, kw_only=True, eq=False)
class ExactTables:
    """Distributions over ``first, first + 1, ...`` ready to sample.

    Slot r of distribution t is ``slots[(r << table_bits) | t]``.

    Attributes:
        first: the smallest outcome.
        slot_bits: b, the random bits of a look-up.
        table_bits: 2^table_bits distributions.
        slots: int8 or int16, shape ``(2^(b + table_bits),)``: outcomes, or ``unresolved``.
        unresolved: the value in ``slots`` that means :meth:`resolve`.
        leftover: int64, each distribution's first leftover slot.
        fresh_bits: random bits that :meth:`resolve` always draws.
        keys: uint64: distribution, then the high bits of the leftovers' cumulative weights; ascending.
        rest: the same cumulative weights, whole, by distribution.
    """

    first: int
    slot_bits: int
    table_bits: int
    slots: NDArray[Any]
    unresolved: int
    leftover: NDArray[np.int64]
    fresh_bits: int
    keys: NDArray[np.uint64]
    rest: tuple[tuple[int, ...], ...]

    @classmethod
    def from_weights(cls, weights: Sequence[Sequence[int]], *, first: int, slot_bits: int) -> "ExactTables":
        """Return tables where outcome ``first + i`` of distribution t has probability ``weights[t][i] / 2^128``.

        Raises:
            InputError: if the distributions are not a power of two in number, differ in length, hold negative
                weights or ones that do not sum to 2^128, or if outcomes do not fit 16 bits.
        """
        count, length = len(weights), len(weights[0])
        if count & (count - 1) or any(len(row) != length for row in weights):
            raise InputError("expected a power of two of distributions, equally long")
        if any(min(row) < 0 or sum(row) != _ONE for row in weights):
            raise InputError("weights must be non-negative and sum to 2^128")
        bound = max(-first, first + length - 1)
        if bound >= 1 << 15:
            raise InputError("outcomes must fit 16 bits")
        kind: type[np.int8] | type[np.int16] = np.int8 if bound < 1 << 7 else np.int16
        unresolved = int(np.iinfo(kind).min)
        table_bits, below = count.bit_length() - 1, PROBABILITY_BITS - slot_bits
        outcomes = np.arange(first, first + length, dtype=kind)
        slots = np.full((1 << slot_bits, count), unresolved, dtype=kind)
        leftover = np.zeros(count, dtype=np.int64)
        rest = []
        for table, row in enumerate(weights):
            whole = [weight >> below for weight in row]
            leftover[table] = sum(whole)
            slots[: leftover[table], table] = np.repeat(outcomes, whole)
            rest.append(tuple(accumulate(w - (n << below) for w, n in zip(row, whole, strict=True))))
        # Leftover slots are numbered from zero; at most length of them, so they fit top_bits.
        fresh_bits = _WORD_BITS - table_bits - length.bit_length()
        keys = [(t << (_WORD_BITS - table_bits)) | (c >> (below - fresh_bits)) for t in range(count) for c in rest[t]]
        slots.setflags(write=False)
        return cls(
            first=first,
            slot_bits=slot_bits,
            table_bits=table_bits,
            slots=slots.ravel(),
            unresolved=unresolved,
            leftover=leftover,
            fresh_bits=fresh_bits,
            keys=np.array(keys, dtype=np.uint64),
            rest=tuple(rest),
        )

    def finish(self, drawn: NDArray[Any], index: NDArray[Any], keystream: KeyStream) -> None:
        """Replace the unresolved among ``drawn``, which is ``slots`` looked up at ``index``, in place."""
        missed = np.flatnonzero(drawn == self.unresolved)
        if len(missed):
            drawn[missed] = self.resolve(index[missed].astype(np.int64), keystream)

    def resolve(self, index: NDArray[np.int64], keystream: KeyStream) -> NDArray[np.int64]:
        """Return the outcomes of draws that hit leftover slots.

        The leftover slot's number and ``fresh_bits`` random bits make the high part of an integer uniform
        below the leftovers' total weight. Its low part is drawn only where the high part does not decide.
        """
        table = index & ((1 << self.table_bits) - 1)
        number = (index >> self.table_bits) - self.leftover[table]
        fresh = keystream.uint64(len(index)) >> np.uint64(_WORD_BITS - self.fresh_bits)
        key = (number.astype(np.uint64) << np.uint64(self.fresh_bits)) | fresh
        if self.table_bits:
            key |= table.astype(np.uint64) << np.uint64(_WORD_BITS - self.table_bits)
        found = np.empty(len(key), dtype=np.int64)
        order = np.argsort(key)  # neighbouring searches share the cache
        found[order] = np.searchsorted(self.keys, key[order], side="right")
        outcome = found - table * len(self.rest[0])
        # The last key is never reached, so that at found = 0 it stands for "no key before".
        for i in np.flatnonzero(self.keys[found - 1] == key):
            low_bits = PROBABILITY_BITS - self.slot_bits - self.fresh_bits
            low = int.from_bytes(keystream.bytes(_WORD_BYTES), "little") >> (8 * _WORD_BYTES - low_bits)
            high = (int(number[i]) << self.fresh_bits) | int(fresh[i])
            outcome[i] = bisect_right(self.rest[table[i]], (high << low_bits) | low)
        return outcome + self.first
