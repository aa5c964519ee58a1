"""A zero-knowledge proof that a committed integer vector has an L2 norm below a bound: a prototype to be measured.

A lab commits to its upload x, in steps of the grid, with one Pedersen vector commitment. The coordinator then draws
``rows`` rows R with entries -1, 0, 1 (probabilities 1/4, 1/2, 1/4), and the lab proves that R x is short:
E |R x|^2 = rows / 2 * |x|^2, so 128 numbers stand for all of them (Johnson and Lindenstrauss; modulo the group's order:
Gentry, Halevi, Lyubashevsky 2021, ePrint 2021/1397; for uploads: Bell et al. 2022, ACORN, ePrint 2022/1461). With
``rows`` None the numbers of x stand for themselves: exact, and dearer.

The parts are textbook sigma protocols over commitments to whole vectors, with responses f = mask + e * secret: that b
holds bits, by f (e - f) having no e^2 (Groth and Kohlweiss 2015); that y is in range, being linear in bits; that v is
the sum of squares of y, by the e^2 of |f|^2; that y = R x, by a random combination of rows. Challenges are hashes of
all that was said before, but for R: its error is far from 2^-128, so a lab must not be able to try many.
"""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from norm_curve import ORDER, POINT_BYTES, SCALAR_BYTES, Point, encoded, generators, plus, same, times_and_sum
from numpy.typing import NDArray
from scipy import stats

Ints = Sequence[int]
_LIMB = 26


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What is proved: |x| <= ``bound`` as far as ``rows`` rows tell.

    Attributes:
        dimension: d.
        bound: of an honest upload's norm, noise included, in grid steps.
        rows: of the projection; None: every number by itself.
        error: probability that an honest upload on the bound fails, and that one beyond ``slack * bound`` passes.
    """

    dimension: int
    bound: int
    rows: int | None = 128
    error: float = 2.0**-40

    @property
    def most(self) -> int:
        """The largest sum of squares that passes."""
        if self.rows is None:
            return self.bound**2
        return int(stats.chi2.isf(self.error, self.rows) / 2 * self.bound**2)

    @property
    def slack(self) -> float:
        """From how many times the bound on an upload is caught; the rows taken as normal."""
        if self.rows is None:
            return 1.0
        return float((stats.chi2.isf(self.error, self.rows) / stats.chi2.ppf(self.error, self.rows)) ** 0.5)

    @property
    def numbers(self) -> int:
        """How many numbers are squared."""
        return self.dimension if self.rows is None else self.rows

    @property
    def number_bits(self) -> int:
        """Bits of one of them, its sign included."""
        return int(self.most**0.5).bit_length() + 1

    @property
    def rest_bits(self) -> int:
        """Bits of what the sum of squares leaves of ``most``."""
        return self.most.bit_length()

    @property
    def bits(self) -> int:
        """All bits."""
        return self.numbers * self.number_bits + self.rest_bits

    @property
    def generators(self) -> tuple[Point, ...]:
        """The commitment key, the blinding point first: public, made once for all studies."""
        return generators(1 + max(self.dimension, self.bits, self.numbers + 1))


@dataclass(frozen=True, kw_only=True)
class Commitment:
    """An upload's commitment and, at the lab, how it opens."""

    point: Point
    blinding: int


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What a lab sends beside its commitment.

    Attributes:
        points: commitments to y and v, to the bits, to their masks and to the coefficients of squares.
        deltas: of the three linear relations.
        upload, numbers, bits: responses.
        blindings: of the five openings.
    """

    points: tuple[Point, ...]
    deltas: tuple[int, ...]
    upload: Ints
    numbers: Ints
    bits: Ints
    blindings: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """On the wire."""
        scalars = len(self.deltas) + len(self.upload) + len(self.numbers) + len(self.bits) + len(self.blindings)
        return POINT_BYTES * len(self.points) + SCALAR_BYTES * scalars


def commit(statement: Statement, upload: NDArray[np.int64]) -> Commitment:
    """Return the commitment to an upload, int64 ``(d,)``. Sums of commitments open to sums of uploads."""
    blinding = secrets.randbelow(ORDER)
    return Commitment(point=_commit(statement, upload.tolist(), blinding), blinding=blinding)


def prove(statement: Statement, upload: NDArray[np.int64], commitment: Commitment, *, rows_seed: bytes) -> Proof:
    """Return the proof; one of a vector that is too long is made as well as may be, and fails.

    ``rows_seed`` is the coordinator's, drawn after it has the commitment.
    """
    matrix = _rows(statement, rows_seed)
    y = (upload if matrix is None else matrix @ upload).tolist()
    v = sum(number * number for number in y)
    bits, numbers = _bits(statement, y, v), [*y, v]
    blind_y, blind_b = _random(2)
    said = [commitment.point, _commit(statement, numbers, blind_y), _commit(statement, bits, blind_b)]
    weights = _weights(statement, said)
    lines = _combined(statement, matrix, weights)

    mask_x, mask_y, mask_b = _random(statement.dimension), _random(len(numbers)), _random(len(bits))
    blind_mx, blind_my, blind_mb, blind_d, blind_e, blind_1, blind_0 = _random(7)
    linear = [mask * (1 - 2 * bit) for mask, bit in zip(mask_b, bits, strict=True)]
    constant = [-mask * mask for mask in mask_b]
    crossed = 2 * sum(m * number for m, number in zip(mask_y, y, strict=False)) - mask_y[-1]
    said += [
        _commit(statement, mask_x, blind_mx),
        _commit(statement, mask_y, blind_my),
        _commit(statement, mask_b, blind_mb),
        _commit(statement, linear, blind_d),
        _commit(statement, constant, blind_e),
        _commit(statement, [crossed], blind_1),
        _commit(statement, [sum(mask * mask for mask in mask_y[:-1])], blind_0),
    ]
    deltas = _relations(statement, lines, weights, mask_x, mask_y, mask_b)
    e = _challenge(statement, said, deltas)
    return Proof(
        points=tuple(said[1:]),
        deltas=deltas,
        upload=_response(mask_x, e, upload.tolist()),
        numbers=_response(mask_y, e, numbers),
        bits=_response(mask_b, e, bits),
        blindings=(
            *_response([blind_mx, blind_my, blind_mb], e, [commitment.blinding, blind_y, blind_b]),
            (blind_e + e * blind_d) % ORDER,
            (blind_0 + e * blind_1) % ORDER,
        ),
    )


def holds(statement: Statement, commitment: Point, proof: Proof, *, rows_seed: bytes) -> bool:
    """Return whether the proof shows what it should of this commitment."""
    sizes = (len(proof.upload), len(proof.numbers), len(proof.bits), len(proof.points), len(proof.blindings))
    if sizes != (statement.dimension, statement.numbers + 1, statement.bits, 9, 5) or len(proof.deltas) != 3:
        return False
    said = [commitment, *proof.points]
    matrix, weights = _rows(statement, rows_seed), _weights(statement, said[:3])
    e = _challenge(statement, said, proof.deltas)
    lines = _combined(statement, matrix, weights)
    relations = _relations(statement, lines, weights, proof.upload, proof.numbers, proof.bits)
    half = 1 << statement.number_bits - 1
    shifts = (0, e * half * sum(weights), e * statement.most)
    if any((r - d - s) % ORDER for r, d, s in zip(relations, proof.deltas, shifts, strict=True)):
        return False
    squares = [f * (e - f) for f in proof.bits]
    total = sum(f * f for f in proof.numbers[:-1]) - e * proof.numbers[-1]
    opened = [proof.upload, proof.numbers, proof.bits, squares, [total]]
    mixing = _random(len(opened))  # the five openings at once: one of them false passes with probability 1 / ORDER
    mixed = [0] * max(map(len, opened))
    for weight, part in zip(mixing, opened, strict=True):
        for place, value in enumerate(part):
            mixed[place] += weight * value
    blinding = sum(weight * value for weight, value in zip(mixing, proof.blindings, strict=True))
    c, y, b, mask_x, mask_y, mask_b, linear, constant, crossed, plain = said
    moved, still = (c, y, b, linear, crossed), (mask_x, mask_y, mask_b, constant, plain)
    factors = [weight * e % ORDER for weight in mixing] + mixing
    expected = times_and_sum(factors, [*moved, *still])
    return same(_commit(statement, mixed, blinding), expected)


def sums_to(statement: Statement, commitments: Sequence[Point], total: NDArray[np.int64], blinding: int) -> bool:
    """Return whether the opened sum is that of what was committed to; ``blinding`` is the sum of the labs' own."""
    together = commitments[0]
    for point in commitments[1:]:
        together = plus(together, point)
    return same(together, _commit(statement, total.tolist(), blinding))


def _commit(statement: Statement, values: Sequence[int], blinding: int) -> Point:
    def lift(value: int) -> int:
        return value if abs(value) < 1 << 64 else value % ORDER

    return times_and_sum([blinding % ORDER, *map(lift, values)], statement.generators)


def _bits(statement: Statement, y: Ints, v: int) -> list[int]:
    """Return the bits of y, moved to be positive, and of what v leaves; the lowest ones where there are too many."""
    half = 1 << statement.number_bits - 1
    bits = [number + half >> place & 1 for number in y for place in range(statement.number_bits)]
    return bits + [statement.most - v >> place & 1 for place in range(statement.rest_bits)]


def _rows(statement: Statement, seed: bytes) -> NDArray[np.int64] | None:
    """Return R, ``(rows, d)``; None for the identity."""
    if statement.rows is None:
        return None
    count = statement.rows * statement.dimension
    drawn = np.unpackbits(np.frombuffer(hashlib.shake_256(seed).digest((2 * count + 7) // 8), np.uint8))[: 2 * count]
    pairs = drawn.astype(np.int8).reshape(statement.rows, statement.dimension, 2)
    return (pairs[..., 0] - pairs[..., 1]).astype(np.int64)


def _combined(statement: Statement, matrix: NDArray[np.int64] | None, weights: Ints) -> Ints:
    """Return weights^T R, ``(d,)``; in limbs, so that numpy does it."""
    if matrix is None:
        return weights
    total = [0] * statement.dimension
    for limb in range(0, 128, _LIMB):
        parts = np.array([weight >> limb & (1 << _LIMB) - 1 for weight in weights], np.int64)
        for place, value in enumerate((parts @ matrix).tolist()):
            total[place] += value << limb
    return total


def _relations(statement: Statement, lines: Ints, weights: Ints, x: Ints, numbers: Ints, bits: Ints) -> Any:
    """Return what must be zero of the secrets, but for public shifts: y - R x, y - its bits, most - v - its bits."""
    per, mixed = statement.number_bits, sum(w * f for w, f in zip(weights, numbers, strict=False))
    rest = statement.numbers * per
    ranged = sum(w * sum(bits[at * per + place] << place for place in range(per)) for at, w in enumerate(weights))
    left = sum(bit << place for place, bit in enumerate(bits[rest:])) + numbers[-1]
    projected = sum(line * value for line, value in zip(lines, x, strict=True)) - mixed
    return projected % ORDER, (ranged - mixed) % ORDER, left % ORDER


def _response(masks: Ints, e: int, secret: Sequence[int]) -> list[int]:
    return [(mask + e * value) % ORDER for mask, value in zip(masks, secret, strict=True)]


def _random(count: int) -> list[int]:
    return [secrets.randbelow(ORDER) for _ in range(count)]


def _digest(statement: Statement, said: Sequence[Point], label: str) -> bytes:
    about = f"{label}|{statement.dimension}|{statement.bound}|{statement.rows}|{statement.error}".encode()
    return hashlib.sha512(about + b"".join(map(encoded, said))).digest()


def _weights(statement: Statement, said: Sequence[Point]) -> list[int]:
    """Return a weight of 128 bits for each number."""
    drawn = hashlib.shake_256(_digest(statement, said, "weights")).digest(16 * statement.numbers)
    return [int.from_bytes(drawn[at : at + 16], "little") for at in range(0, len(drawn), 16)]


def _challenge(statement: Statement, said: Sequence[Point], deltas: Sequence[int]) -> int:
    content = _digest(statement, said, "challenge") + b"".join(delta.to_bytes(32, "little") for delta in deltas)
    return int.from_bytes(hashlib.sha512(content).digest(), "little") % ORDER
