"""How many records one pass holds: a rule of public numbers only.

A pass costs something whatever it holds, rows that fill it up are wasted, and its gradients must fit into memory.
The realised sample never matters: the shape of a pass decides in which order products are summed, and so it must
be the same whichever records are there.
"""

import math
from dataclasses import dataclass
from typing import Final

_OVERHEAD: Final = 50_000_000  # multiplications that could be made in the time a pass takes besides
_LEAST_WORK: Final = 100_000  # the same for a record
_MOST_VALUES: Final = 1 << 25  # values of per-record gradients in memory: 128 MiB
_MOST_ROWS: Final = 1024
_STEP: Final = 32
"""Rows of a pass come in multiples of this: what torch computes element by element it takes 32 float32 at a time, and
what is left over by another formula (a sigmoid's last bit differs): so nothing is left over."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What one record costs, from the shapes of the model.

    Attributes:
        values: numbers stored a record until its clipping factor is known.
        multiplications: of one forward pass, roughly.
    """

    values: int
    multiplications: int


def rows_per_pass(footprint: Footprint, *, expected: float) -> int:
    """Return how many rows every pass has.

    With b records expected and a pass costing as much as o records, passes of r rows waste r / 2 + o b / r
    records, least at r = sqrt(2 o b). Passes are cut to equal size from b + 2 sqrt(b), which few samples exceed.
    ``expected`` is rounded to a power of two, so that a record more or less hardly ever changes the shape.

    >>> rows_per_pass(Footprint(values=1000, multiplications=1_000_000), expected=64)
    64
    """
    expected = 2.0 ** round(math.log2(max(1.0, expected)))
    overhead = _OVERHEAD / (footprint.multiplications + _LEAST_WORK)
    likely = expected + 2 * math.sqrt(expected)
    best = min(math.sqrt(2 * overhead * expected), likely, _MOST_ROWS)
    even = likely / math.ceil(likely / best) if best >= likely / 8 else best
    rows = _STEP * math.ceil(even / _STEP)
    most = _MOST_VALUES // max(1, footprint.values)
    return min(rows, most - most % _STEP) or max(1, most)
