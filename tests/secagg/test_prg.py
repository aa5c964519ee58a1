import itertools

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedsci.secagg.prg import CTR, DEFAULT_ENGINE, SEGMENT_BYTES, add_masks, calibrate, usable_engines
from fedsci.secagg.seed import Seed

KEY = bytes(range(32))


def reference(key: bytes, size_bytes: int) -> bytes:
    """The definition, written the plain way."""
    stream = b""
    for segment in range(-(-size_bytes // SEGMENT_BYTES)):
        counter = modes.CTR(segment.to_bytes(12, "big") + b"\0\0\0\2")
        stream += Cipher(algorithms.AES(key), counter).encryptor().update(bytes(SEGMENT_BYTES))
    return stream[:size_bytes]


@pytest.mark.parametrize("engine", usable_engines(), ids=lambda engine: engine.name)
@pytest.mark.parametrize("dtype", ["<u2", "<u4", "<u8"])
@pytest.mark.parametrize("length", [1, 3, 1000, SEGMENT_BYTES // 2, SEGMENT_BYTES // 2 + 1, SEGMENT_BYTES])
def test_every_engine_produces_the_defined_bytes(engine, dtype, length):
    vector = np.zeros(length, dtype)
    add_masks(vector, [(Seed(KEY), 1)], engine=engine)
    assert vector.tobytes() == reference(KEY, vector.nbytes)


def test_the_default_and_the_calibrated_engine_are_usable():
    assert DEFAULT_ENGINE in usable_engines()
    assert CTR in usable_engines()
    ticks = itertools.count()
    assert calibrate(lambda: float(next(ticks))) in usable_engines()


@pytest.mark.parametrize("dtype", ["<u2", "<u4", "<u8"])
def test_opposite_masks_cancel_and_order_does_not_matter(dtype):
    rng = np.random.default_rng(0)
    masks = [(Seed(rng.bytes(32)), sign) for sign in (1, -1, 1)]
    start = rng.integers(0, 1000, 200_000).astype(dtype)
    vector = start.copy()
    add_masks(vector, masks)
    assert not np.array_equal(vector, start)
    add_masks(vector, [(key, -sign) for key, sign in reversed(masks)])
    np.testing.assert_array_equal(vector, start)


def test_threads_may_each_take_a_run_of_segments():
    lanes = SEGMENT_BYTES // 2
    whole, parts = np.zeros(3 * lanes + 5, "<u2"), np.zeros(3 * lanes + 5, "<u2")
    add_masks(whole, [(Seed(KEY), -1)])
    add_masks(parts[: 2 * lanes], [(Seed(KEY), -1)])
    add_masks(parts[2 * lanes :], [(Seed(KEY), -1)], first_segment=2)
    np.testing.assert_array_equal(whole, parts)


def test_short_keys_and_other_signs_are_refused(broken_rule):
    for key, sign in ((KEY[:31], 1), (b"", 1), (KEY, 0), (KEY, 2)):
        with broken_rule("bad-mask"):
            add_masks(np.zeros(3, "<u2"), [(Seed(key), sign)])


def test_an_empty_vector_stays_empty():
    add_masks(np.zeros(0, "<u2"), [(Seed(KEY), 1)])
