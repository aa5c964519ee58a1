"""Integers modulo ``2**bits``, the only numbers that travel.

A site's update becomes ring elements, masks are added to them, and the coordinator adds the sites'. Overflow
wraps, which is what makes the masks cancel exactly; it is harmless only if the *true* sum lies in
``[-2**(bits-1), 2**(bits-1))``, which :func:`check_headroom` decides in integers before anything is sent.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsci.errors import ProtocolError

RingVector = NDArray[np.unsignedinteger[Any]]
SignedVector = NDArray[np.signedinteger[Any]]

RING_BITS = (16, 32, 64)


@dataclass(frozen=True, kw_only=True)
class RingSpec:
    """The integers modulo ``2**bits``, held as little-endian unsigned numpy lanes.

    Attributes:
        bits: 16, 32 or 64.

    >>> RingSpec(bits=16).modulus
    65536
    """

    bits: int

    def __post_init__(self) -> None:
        if self.bits not in RING_BITS:
            raise ProtocolError(f"a ring of {self.bits!r} bits is not one of {RING_BITS}", rule="ring-bits")

    @property
    def modulus(self) -> int:
        """``2**bits``."""
        return 1 << self.bits

    @property
    def size_bytes(self) -> int:
        """Bytes a coordinate takes on the wire."""
        return self.bits // 8

    @property
    def largest_sum(self) -> int:
        """The largest magnitude whose both signs the ring can tell apart: ``2**(bits-1) - 1``."""
        return (1 << (self.bits - 1)) - 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """Unsigned little-endian lanes."""
        return np.dtype(f"<u{self.size_bytes}")

    @property
    def signed_dtype(self) -> np.dtype[Any]:
        """The same bytes read as two's complement."""
        return np.dtype(f"<i{self.size_bytes}")

    def zeros(self, length: int) -> RingVector:
        """Return the neutral element of ``length`` coordinates."""
        return np.zeros(length, dtype=self.dtype)

    def from_signed(self, values: NDArray[np.signedinteger[Any]]) -> RingVector:
        """Return ring elements congruent to the signed ``values``; others are refused."""
        if values.size and (int(values.max()) > self.largest_sum or int(values.min()) < -self.largest_sum - 1):
            raise ProtocolError(f"a value does not fit a signed {self.bits}-bit ring", rule="ring-overflow")
        return values.astype(self.signed_dtype).view(self.dtype)

    def to_signed(self, vector: RingVector) -> SignedVector:
        """Return the centred lift of ``vector``, in ``[-2**(bits-1), 2**(bits-1))``, without a copy."""
        return self.check_vector(vector).view(self.signed_dtype)

    def from_bytes(self, payload: bytes | bytearray | memoryview, length: int) -> RingVector:
        """Return ``payload`` read as exactly ``length`` coordinates, without a copy.

        Raises:
            ProtocolError: ``malformed-message`` if the size is another one.
        """
        if len(memoryview(payload).cast("B")) != length * self.size_bytes:
            raise ProtocolError(
                f"a payload holds {len(payload)} bytes instead of {length * self.size_bytes}",
                rule="malformed-message",
            )
        return np.frombuffer(payload, dtype=self.dtype)

    def check_vector(self, vector: RingVector) -> RingVector:
        """Return ``vector`` if it is one-dimensional, contiguous and of this ring's dtype."""
        if vector.dtype != self.dtype or vector.ndim != 1 or not vector.flags.c_contiguous:
            raise ProtocolError(
                f"a vector of {vector.dtype} with shape {vector.shape} is not a flat {self.dtype} vector",
                rule="wrong-ring",
            )
        return vector

    def accumulate(self, accumulator: RingVector, vector: RingVector) -> None:
        """Add ``vector`` into ``accumulator`` in place, modulo ``2**bits``."""
        if self.check_vector(accumulator).shape != self.check_vector(vector).shape:
            raise ProtocolError(
                f"a vector of {vector.size} coordinates does not add to one of {accumulator.size}",
                rule="wrong-length",
            )
        np.add(accumulator, vector, out=accumulator)

    def check_bound(self, vector: RingVector, bound: int) -> None:
        """Refuse a vector with a coordinate whose centred lift exceeds ``bound`` in magnitude."""
        if vector.size == 0:
            return
        signed = self.to_signed(vector)
        low, high = int(signed.min()), int(signed.max())
        if low < -bound or high > bound:
            raise ProtocolError(
                f"a coordinate exceeds the site bound of {bound}",
                rule="ring-overflow",
                hint="clip the update to the bound the cohort agreed on",
            )


def sum_bound(*, site_bound: int, sites: int) -> int:
    """Return what the sum of ``sites`` integers of magnitude at most ``site_bound`` can never pass."""
    return site_bound * sites


def noisy_sum_bound(*, clip_levels: Fraction, deviation: Fraction, sites: int) -> int:
    """Return an integer the noisy sum passes with negligible probability: ``n(c + 1) + 9.5 s sqrt(n)``.

    ``clip_levels`` is the clipping norm in units of the grid, ``deviation`` the noise of one site in the same
    units. The noise of the sum is a discrete Gaussian of deviation ``s sqrt(n)``; 9.5 deviations leave
    ``2 exp(-9.5**2 / 2) < 2**-64`` a coordinate. Rounded outward, in exact arithmetic.
    """
    spread = Fraction(19, 2) * deviation
    square = math.ceil(spread * spread * sites)
    root = math.isqrt(square)
    root += root * root < square
    return math.ceil(sites * (clip_levels + 1)) + root


def check_headroom(ring: RingSpec, bound: int) -> None:
    """Refuse a ring in which a sum of magnitude ``bound`` could wrap: required ``bound < 2**(bits-1)``."""
    if not 0 < bound <= ring.largest_sum:
        raise ProtocolError(
            f"sums up to {bound} do not fit a signed {ring.bits}-bit ring (largest {ring.largest_sum})",
            rule="ring-headroom",
            hint="use a wider ring or a coarser grid",
        )
