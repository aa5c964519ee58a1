"""edwards25519 in plain integers: just enough for Pedersen vector commitments, and no more than a prototype.

Nothing here runs in constant time, and points are not of prime order by construction (generators are multiplied by the
cofactor, equations are compared up to it): for measuring only. A point is (X, Y, Z, T) with x = X/Z, y = Y/Z, T = XY/Z
(Hisil, Wong, Carter, Dawson 2008, section 3.1).
"""

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, P) % P
_2D = 2 * _D % P
_ROOT = pow(2, (P - 1) // 4, P)

Point = tuple[int, int, int, int]
ZERO: Point = (0, 1, 1, 0)
POINT_BYTES = SCALAR_BYTES = 32


def plus(a: Point, b: Point) -> Point:
    """Return the sum; holds for equal points and for zero, too."""
    x1, y1, z1, t1 = a
    x2, y2, z2, t2 = b
    left = (y1 - x1) * (y2 - x2) % P
    right = (y1 + x1) * (y2 + x2) % P
    c, d = t1 * t2 * _2D % P, 2 * z1 * z2 % P
    e, f, g, h = right - left, d - c, d + c, right + left
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def twice(a: Point) -> Point:
    """Return the point added to itself."""
    x, y, z, _ = a
    xx, yy, zz = x * x % P, y * y % P, 2 * z * z
    h = xx + yy
    e, g = h - (x + y) * (x + y) % P, xx - yy
    f = zz + g
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def minus(a: Point) -> Point:
    """Return the negative."""
    return (-a[0] % P, a[1], a[2], -a[3] % P)


def same(a: Point, b: Point) -> bool:
    """Return whether the points are equal up to points of small order."""
    for _ in range(3):
        a, b = twice(a), twice(b)
    return (a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0


def encoded(a: Point) -> bytes:
    """Return 32 bytes that determine the point."""
    inverse = pow(a[2], -1, P)
    x, y = a[0] * inverse % P, a[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def times_and_sum(scalars: Iterable[int], points: Sequence[Point]) -> Point:
    """Return sum(scalar * point) by Pippenger's buckets; cheap for scalars of few bits, negative ones too."""
    pairs = []
    for scalar, point in zip(scalars, points, strict=False):
        if scalar:
            pairs.append((scalar, point) if scalar > 0 else (-scalar, minus(point)))
    if not pairs:
        return ZERO
    bits = max(scalar.bit_length() for scalar, _ in pairs)
    width = max(1, min(12, len(pairs).bit_length() - 2, bits))
    mask, total = (1 << width) - 1, ZERO
    for start in reversed(range(0, bits, width)):
        for _ in range(width):
            total = twice(total)
        buckets: list[Point | None] = [None] * (mask + 1)
        for scalar, point in pairs:
            digit = scalar >> start & mask
            if digit:
                held = buckets[digit]
                buckets[digit] = point if held is None else plus(held, point)
        running = window = ZERO
        for held in reversed(buckets[1:]):
            if held is not None:
                running = plus(running, held)
            window = plus(window, running)
        total = plus(total, window)
    return total


@lru_cache(maxsize=4)
def generators(count: int) -> tuple[Point, ...]:
    """Return points that nobody knows a relation between: hashes, tried until they are on the curve, times 8."""
    return tuple(_hashed(number) for number in range(count))


def _hashed(number: int) -> Point:
    attempt = 0
    while True:
        seed = hashlib.sha256(f"fedsci norm proof|{number}|{attempt}".encode()).digest()
        attempt += 1
        y = int.from_bytes(seed, "little") % 2**255
        square = (y * y - 1) * pow(_D * y * y + 1, -1, P) % P
        x = pow(square, (P + 3) // 8, P)
        if (x * x - square) % P:
            x = x * _ROOT % P
        if (x * x - square) % P or not x:
            continue
        point = (x, y % P, 1, x * y % P)
        for _ in range(3):
            point = twice(point)
        return point
