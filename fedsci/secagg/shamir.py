"""Secret sharing over the field of ``2**255 - 19`` (Shamir, "How to share a secret", CACM 1979).

Any ``threshold`` shares give the secret; fewer are independent of it. Python's integers are fast enough: a
batch of 32 slots for 17 sites is shared in a few milliseconds.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fedsci.errors import ProtocolError
from fedsci.secagg.keys import RandomBytes

PRIME = 2**255 - 19
ELEMENT_BYTES = 32
_MASK = 2**255 - 1
_MOST_TRIES = 2_000


def encode_element(value: int) -> bytes:
    """Return a field element as 32 big-endian bytes."""
    return value.to_bytes(ELEMENT_BYTES, "big")


def decode_element(content: bytes) -> int:
    """Return the field element; refuses another length and values that are not reduced."""
    value = int.from_bytes(content, "big")
    if len(content) != ELEMENT_BYTES or value >= PRIME:
        raise ProtocolError("bytes are not a field element", rule="malformed-message")
    return value


def draw_elements(count: int, random_bytes: RandomBytes) -> list[int]:
    """Return ``count`` uniform field elements, by rejection."""
    drawn: list[int] = []
    while len(drawn) < count:
        block = random_bytes(ELEMENT_BYTES * (count - len(drawn)))
        values = (int.from_bytes(block[i : i + 32], "big") & _MASK for i in range(0, len(block), 32))
        drawn.extend(value for value in values if value < PRIME)
    return drawn


def split(secret: int, *, threshold: int, points: Sequence[int], random_bytes: RandomBytes) -> list[int]:
    """Return one share per point: a random polynomial's values there, with ``secret`` at zero.

    ``points`` are distinct, non-zero and below 2**16: they are the sites' indices.
    """
    if not 1 <= threshold <= len(points):
        raise ProtocolError(f"{threshold} of {len(points)} shares is not possible", rule="bad-threshold")
    if len(set(points)) != len(points) or not all(0 < point < 1 << 16 for point in points):
        raise ProtocolError("share points must be distinct and between 1 and 65535", rule="bad-share-point")
    falling = [*draw_elements(threshold - 1, random_bytes), secret]
    shares = []
    for point in points:
        value = 0
        # Points are small, so a few Horner steps fit between two reductions.
        for step, coefficient in enumerate(falling):
            value = value * point + coefficient
            if step % 16 == 15:
                value %= PRIME
        shares.append(value % PRIME)
    return shares


def interpolate(shares: Mapping[int, int], at: int = 0) -> int:
    """Return the value at ``at`` of the one polynomial of degree ``len(shares) - 1`` through ``shares``."""
    weights = lagrange_weights(tuple(shares), at)
    return sum(weight * share for weight, share in zip(weights, shares.values(), strict=True)) % PRIME


@functools.lru_cache(maxsize=256)
def lagrange_weights(points: tuple[int, ...], at: int = 0) -> tuple[int, ...]:
    """Return each point's weight in the interpolation at ``at``; kept for the next secret."""
    weights = []
    for point in points:
        above, below = 1, 1
        for other in points:
            if other != point:
                above = above * (at - other) % PRIME
                below = below * (point - other) % PRIME
        weights.append(above * pow(below, -1, PRIME) % PRIME)
    return tuple(weights)


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """A secret that its commitment confirmed, and who is certain to have given a wrong share of it.

    Attributes:
        secret: the field element.
        wrong: holders whose shares do not lie on the dealer's polynomial. Empty also if more shares are wrong
            than can be told apart: with ``n`` shares, up to ``(n + 1 - threshold) // 2`` can.
    """

    secret: int
    wrong: tuple[int, ...]


def recover(shares: Mapping[int, int], *, threshold: int, confirms: Callable[[int], bool]) -> Recovered | None:
    """Return the secret that ``confirms`` accepts, if a few suspicions of wrong shares suffice to find it.

    Suspects nobody, then one holder after another, then pairs, and so on, at most two thousand times. The
    first suspicion that explains every share names the liars: two polynomials that share the secret and
    ``threshold - 1`` points are one, so colluding holders can neither change the secret nor frame others.
    ``None`` means that nothing gave the committed secret: the dealer shared something else, or too many lied.
    """
    points = sorted(shares)
    most = (len(points) + 1 - threshold) // 2
    sizes = range(len(points) - threshold + 1)
    suspicions = itertools.chain.from_iterable(itertools.combinations(points, size) for size in sizes)
    confirmed: Recovered | None = None
    for suspected in itertools.islice(suspicions, _MOST_TRIES):
        trusted = [point for point in points if point not in suspected]
        basis = {point: shares[point] for point in trusted[:threshold]}
        secret = interpolate(basis)
        if not (confirmed.secret == secret if confirmed else confirms(secret)):
            continue
        confirmed = Recovered(secret=secret, wrong=())
        if len(suspected) > most:
            break
        if all(interpolate(basis, point) == shares[point] for point in trusted[threshold:]):
            return Recovered(secret=secret, wrong=suspected)
    return confirmed
