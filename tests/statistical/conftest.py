import hashlib
from collections.abc import Callable, Iterator
from itertools import count

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare, norm

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


@pytest.fixture
def p_value() -> Callable[..., float]:
    """A test that integers are discrete Gaussian: chi-square over 60 equal bins and the tails beyond them.

    It must accept the right distribution and reject a scale 5 % off, a centre 5 % of a deviation off, and a
    tail cut at 3 deviations.
    """

    def test(samples: NDArray[np.int64], *, deviation: float, centre: float = 0.0) -> float:
        quantiles = np.concatenate([[-4.0, -3.5, -3.0], norm.ppf(np.arange(1, 60) / 60), [3.0, 3.5, 4.0]])
        edges = np.unique(np.floor(quantiles * deviation + centre))
        # An integer k stands for the interval k +- 1/2; exact enough for the chi-square from deviation 4 up.
        probabilities = np.diff(norm.cdf((edges + 0.5 - centre) / deviation), prepend=0, append=1)
        observed = np.bincount(np.searchsorted(edges, samples, side="left"), minlength=len(probabilities))
        return float(chisquare(observed, probabilities * len(samples)).pvalue)

    return test
