"""Random numbers for generated data: the same for the same name and seed, whatever numpy's version.

Only the raw stream of a bit generator is fixed across numpy releases, so everything here is made from that.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Draws:
    """A stream of its own for each ``name``: a lab more or less changes nothing for the others."""

    def __init__(self, name: str, seed: int) -> None:
        digest = hashlib.sha256(f"{name}|{seed}".encode()).digest()
        self._bits = np.random.PCG64(int.from_bytes(digest[:16], "big"))

    def uniform(self, *shape: int) -> Floats:
        """Return numbers above 0 and below 1."""
        raw = np.array(self._bits.random_raw(int(np.prod(shape))), dtype=np.uint64)
        return ((raw >> np.uint64(12)).astype(np.float64) + 0.5).reshape(shape) / 2.0**52

    def between(self, low: float, high: float, *shape: int) -> Floats:
        """Return uniform numbers from ``low`` to ``high``."""
        return low + (high - low) * self.uniform(*shape)

    def normal(self, *shape: int) -> Floats:
        """Return standard normal numbers (Box and Muller 1958)."""
        radius, angle = np.sqrt(-2 * np.log(self.uniform(*shape))), 2 * np.pi * self.uniform(*shape)
        return np.asarray(radius * np.cos(angle))

    def weibull(self, shape_parameter: float, scale: float, *shape: int) -> Floats:
        """Return Weibull numbers, by inverting their distribution function."""
        return np.asarray(scale * (-np.log(self.uniform(*shape))) ** (1 / shape_parameter))

    def choices(self, probabilities: Mapping[str, float], count: int) -> list[str]:
        """Return ``count`` of the names, each with its probability; they must add up to 1."""
        names, limits = list(probabilities), np.cumsum(list(probabilities.values()))
        if abs(limits[-1] - 1) > 1e-9:
            raise ValueError(f"the probabilities add up to {limits[-1]:g}, not to 1")
        places = np.searchsorted(limits, self.uniform(count)).clip(max=len(names) - 1)
        return [names[place] for place in places]
