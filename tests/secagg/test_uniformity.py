"""A masked vector tells nothing: it passes every test of uniformity, and the tests catch a weak generator."""

import hashlib
import math

import numpy as np
import pytest

from fedsci import secagg
from fedsci.secagg.prg import DEFAULT_ENGINE, MaskEngine, add_masks
from fedsci.secagg.seed import Seed

LENGTH = 200_000
Z_LIMIT = 6.0
"""Each statistic is near standard normal under uniformity: 2e-9 a test, so a seeded failure is a fault."""


def z_scores(vector: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Deviations from uniformity, in standard deviations."""
    octets, bits = vector.view(np.uint8), np.unpackbits(vector.view(np.uint8))
    pairs = (octets[:-1].astype(np.int64) * 256 + octets[1:])[::2]

    def chi_square(values: np.ndarray, cells: int) -> float:
        expected = values.size / cells
        statistic = float(((np.bincount(values, minlength=cells) - expected) ** 2).sum() / expected)
        return (statistic - (cells - 1)) / math.sqrt(2 * (cells - 1))

    runs = int(np.count_nonzero(bits[1:] != bits[:-1]))
    signed = vector.view(np.int16).astype(np.float64) / 32768
    lagged = float((signed[1:] * signed[:-1]).sum() / math.sqrt(signed.size - 1) * 3)
    crossed = float((signed * (other.view(np.int16) / 32768)).sum() / math.sqrt(signed.size) * 3)
    tail = vector.tobytes()
    half = len(tail) // 2
    return {
        "bytes": chi_square(octets, 256),
        "byte pairs": chi_square(pairs, 65536),
        "ones": (int(bits.sum()) - bits.size / 2) / math.sqrt(bits.size / 4),
        "runs": (runs - (bits.size - 1) / 2) / math.sqrt((bits.size - 1) / 4),
        "mean": float(signed.sum() / math.sqrt(signed.size / 3)),
        "neighbours": lagged,
        "same vector, other site": crossed,
        "repeats": float(
            np.mean(np.frombuffer(tail[:half], "u1") == np.frombuffer(tail[half : 2 * half], "u1")) - 1 / 256
        )
        * math.sqrt(half * 256),
    }


def passes(scores: dict[str, float]) -> bool:
    return all(abs(score) < Z_LIMIT for score in scores.values())


@pytest.fixture(scope="module")
def masked(worlds, key_of):
    """The same constant vector, masked by two sites of five."""

    def mask_with(engine: MaskEngine) -> tuple[np.ndarray, np.ndarray]:
        world = worlds.build(5).set_up()
        vector = world.setup.cohort.ring.from_signed(np.full(LENGTH, 123))
        first, second = (
            secagg.mask(world.state(s), world.call(), vector, signing_key=key_of(s), engine=engine)[1] for s in (1, 2)
        )
        return first.payload, second.payload

    return mask_with


def weak(name: str) -> MaskEngine:
    """Generators with a flaw that a masked sum of five of them still shows."""

    def open_weak(key: bytes):
        def fill(segment, buffer):
            seed = int.from_bytes(hashlib.sha256(key + segment.to_bytes(8, "big")).digest()[:8], "big")
            rng = np.random.default_rng(seed)
            count = len(buffer)
            if name == "few bits":
                raw = rng.integers(0, 8, count, dtype=np.uint8)
            elif name == "short period":
                raw = np.resize(rng.integers(0, 256, 1000, dtype=np.uint8), count)
            elif name == "two bytes of state":
                raw = np.resize(np.frombuffer(seed.to_bytes(8, "big")[:2], np.uint8), count)
            else:
                raw = np.zeros(count, dtype=np.uint8)
            buffer[:] = raw.tobytes()

        return fill

    return MaskEngine(name=name, open=open_weak)


def test_masked_vectors_pass(masked):
    scores = z_scores(*masked(DEFAULT_ENGINE))
    assert passes(scores), scores


@pytest.mark.parametrize("name", ["few bits", "short period", "two bytes of state", "no mask"])
def test_the_same_tests_catch_a_weak_generator(masked, name):
    assert not passes(z_scores(*masked(weak(name))))


def test_an_unmasked_vector_fails():
    vector = np.random.default_rng(0).integers(-1000, 1000, LENGTH).astype("<i2").view("<u2")
    assert not passes(z_scores(vector, vector))


def test_the_masks_of_one_site_are_all_different():
    keys = [Seed(hashlib.sha256(bytes([i])).digest()) for i in range(5)]
    streams = []
    for key in keys:
        stream = np.zeros(1000, "<u2")
        add_masks(stream, [(key, 1)])
        streams.append(stream.tobytes())
    assert len(set(streams)) == 5
