import hashlib
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from fedsci.privacy.randomness import KeyStream


@pytest.fixture
def seeded() -> Callable[[str], KeyStream]:
    """A stream that gives the same bytes for the same label, for tests that must not flake."""

    def make(label: str) -> KeyStream:
        numbers: Iterator[int] = count()
        return KeyStream(lambda size: hashlib.shake_256(f"{label}/{next(numbers)}".encode()).digest(size))

    return make


@pytest.fixture
def keystream(seeded: Callable[[str], KeyStream], request: pytest.FixtureRequest) -> KeyStream:
    return seeded(request.node.name)
