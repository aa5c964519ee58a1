"""The mask engine: AES-256 in counter mode, added into the vector while both sit in cache.

A mask is the keystream of one key read as little-endian ring elements. It comes in segments of 256 KiB;
segment ``s`` starts at counter block ``s (12 bytes, big-endian) | 2 (4 bytes)``. That is where AES-GCM
starts its own keystream (NIST SP 800-38D, section 7.1), so encrypting zeros under GCM yields the same bytes
as counter mode, and current OpenSSL builds run it nearly twice as fast. Both engines are here and must
agree byte for byte.

All masks are applied to one segment before the next is touched, so the accumulator is read from memory once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fedsci.errors import ProtocolError
from fedsci.secagg.profile import Profile
from fedsci.secagg.profiles import FIPS
from fedsci.secagg.ring import RingVector
from fedsci.secagg.seed import Seed

SEGMENT_BYTES = 1 << 18
_TAG_BYTES = 16
_ZEROS = memoryview(bytes(SEGMENT_BYTES))
_FIRST_BLOCK = (2).to_bytes(4, "big")

Fill = Callable[[int, memoryview], None]
"""Called with a segment number and ``count + 16`` bytes: leaves keystream in the first ``count``."""


@dataclass(frozen=True, kw_only=True)
class MaskEngine:
    """One way to produce the keystream; every engine produces the same bytes.

    Attributes:
        name: for benches and logs.
        open: takes a 32-byte key, returns its :data:`Fill`.
    """

    name: str
    open: Callable[[bytes], Fill]


def _open_gcm(key: bytes) -> Fill:
    cipher = AESGCM(key)

    def fill(segment: int, buffer: memoryview) -> None:
        cipher.encrypt_into(segment.to_bytes(12, "big"), _ZEROS[: len(buffer) - _TAG_BYTES], None, buffer)

    return fill


def _open_ctr(key: bytes) -> Fill:
    algorithm = algorithms.AES(key)

    def fill(segment: int, buffer: memoryview) -> None:
        encryptor = Cipher(algorithm, modes.CTR(segment.to_bytes(12, "big") + _FIRST_BLOCK)).encryptor()
        encryptor.update_into(_ZEROS[: len(buffer) - _TAG_BYTES], buffer)

    return fill


CTR = MaskEngine(name="aes-256-ctr", open=_open_ctr)
GCM = MaskEngine(name="aes-256-gcm-keystream", open=_open_gcm)


def _sample(engine: MaskEngine, segment: int, count: int) -> bytes:
    buffer = bytearray(count + _TAG_BYTES)
    engine.open(bytes(range(32)))(segment, memoryview(buffer))
    return bytes(buffer[:count])


def usable_engines() -> tuple[MaskEngine, ...]:
    """Return the engines this installation can run, each checked against counter mode byte for byte."""
    if not hasattr(AESGCM, "encrypt_into"):
        return (CTR,)
    same = all(_sample(GCM, s, n) == _sample(CTR, s, n) for s, n in ((0, 4096), (1, 100), (1 << 40, 33)))
    return (GCM, CTR) if same else (CTR,)


DEFAULT_ENGINE = usable_engines()[0]


def engine_of(profile: Profile) -> MaskEngine:
    """Return the engine that a profile uses unless told otherwise.

    In ``fips`` it is counter mode (SP 800-38A) called by its name: the GCM of a validated module may refuse nonces that
    the caller chose, or count them as no approved service.
    """
    return CTR if profile is FIPS else DEFAULT_ENGINE


def calibrate(clock: Callable[[], float], *, repeats: int = 5) -> MaskEngine:
    """Return the faster usable engine on this machine; ``clock`` is e.g. ``time.perf_counter``.

    Takes about a millisecond. The choice changes speed only, never a byte of a mask.
    """
    buffer = memoryview(bytearray(SEGMENT_BYTES + _TAG_BYTES))

    def cost(engine: MaskEngine) -> float:
        fill = engine.open(bytes(32))
        fill(0, buffer)
        taken = []
        for segment in range(repeats):
            start = clock()
            fill(segment, buffer)
            taken.append(clock() - start)
        return min(taken)

    return min(usable_engines(), key=cost)


def add_masks(
    accumulator: RingVector,
    masks: Sequence[tuple[Seed, int]],
    *,
    engine: MaskEngine | None = None,
    first_segment: int = 0,
) -> None:
    """Add to ``accumulator``, in place and modulo its ring, each mask times its sign (+1 or -1).

    Allocates one segment whatever the length. ``first_segment`` lets threads share a long vector: a slice
    that starts ``first_segment * SEGMENT_BYTES`` bytes into it gets exactly its part of every mask.
    """
    if any(sign not in (1, -1) or len(key) != 32 for key, sign in masks):
        raise ProtocolError("a mask needs a 32-byte key and a sign of +1 or -1", rule="bad-mask")
    engine = engine or DEFAULT_ENGINE
    size = accumulator.dtype.itemsize
    lanes = SEGMENT_BYTES // size
    buffer = memoryview(bytearray(SEGMENT_BYTES + _TAG_BYTES))
    stream = np.frombuffer(buffer, dtype=accumulator.dtype, count=lanes)
    fills = [(engine.open(key.reveal()), np.add if sign > 0 else np.subtract) for key, sign in masks]
    for number, start in enumerate(range(0, accumulator.size, lanes), first_segment):
        block = accumulator[start : start + lanes]
        window = buffer[: block.size * size + _TAG_BYTES]
        for fill, apply in fills:
            fill(number, window)
            apply(block, stream[: block.size], out=block)
