import copy
import pickle
import secrets

import numpy as np
import pytest

from fedsci.errors import InputError
from fedsci.privacy import randomness
from fedsci.privacy.randomness import KeyStream


def test_two_streams_differ():
    assert KeyStream(secrets.token_bytes).bytes(64) != KeyStream(secrets.token_bytes).bytes(64)


def test_bytes_are_never_repeated(keystream):
    first, second = keystream.bytes(1 << 17), keystream.bytes(1 << 17)
    blocks = {chunk[i : i + 16] for chunk in (first, second) for i in range(0, len(chunk), 16)}
    assert len(blocks) == 2 * (1 << 17) // 16


def test_the_stream_is_aes_256_in_counter_mode():
    # NIST SP 800-38A has no vector with a zero counter; AES-256 of zero under a zero key is FIPS-197 KAT.
    stream = KeyStream(bytes)
    assert stream.bytes(16).hex() == "dc95c078a2408989ad48a21492842087"


def test_how_the_bytes_are_asked_for_does_not_change_them(seeded):
    whole = seeded("x").bytes(200_000)
    stream = seeded("x")
    assert stream.bytes(7) + stream.bytes(150_000) + stream.bytes(49_993) == whole
    assert seeded("x").uint64(25_000).tobytes() == whole
    assert seeded("x").uint16(100_000).tobytes() == whole


def test_the_key_changes_when_it_is_worn_out(monkeypatch):
    monkeypatch.setattr(randomness, "BYTES_PER_KEY", 100)
    keys = iter([b"a" * 32, b"b" * 32, b"c" * 32])
    stream = KeyStream(lambda _: next(keys))
    drawn = stream.bytes(250)
    monkeypatch.undo()
    assert drawn[:100] == KeyStream(lambda _: b"a" * 32).bytes(100)
    assert drawn[100:200] == KeyStream(lambda _: b"b" * 32).bytes(100)
    assert drawn[200:] == KeyStream(lambda _: b"c" * 32).bytes(50)


def test_a_stream_neither_prints_nor_travels(keystream):
    assert repr(keystream) == "KeyStream(…)"
    for travel in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="repeat its noise"):
            travel(keystream)


@pytest.mark.parametrize("source", [lambda _: b"", lambda _: b"x" * 31, lambda _: "x" * 32, lambda _: None])
def test_a_source_that_gives_no_key_is_refused(source):
    with pytest.raises(InputError, match="exactly 32 bytes"):
        KeyStream(source)


def test_nothing_and_less_than_nothing(keystream):
    assert keystream.bytes(0) == b""
    assert keystream.uint64(0).dtype == np.uint64
    with pytest.raises(InputError):
        keystream.bytes(-1)
