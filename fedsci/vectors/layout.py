"""How named tensors lie in one flat vector."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from fedsci.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The names and shapes of a model's tensors, in the order in which they lie in the vector.

    Attributes:
        entries: ``(name, shape)`` pairs, names unique.
    """

    entries: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def size(self) -> int:
        """Number of scalars in the flat vector."""
        return sum(prod(shape) for _, shape in self.entries)

    def to_json(self) -> list[dict[str, object]]:
        """Return the entries as JSON-ready values."""
        return [{"name": name, "shape": list(shape)} for name, shape in self.entries]


def flatten(tensors: Mapping[str, NDArray[np.float32]], layout: Layout) -> NDArray[np.float32]:
    """Return the tensors as one float32 vector of shape ``(layout.size,)``.

    Raises:
        InputError: if a tensor of the layout is absent or has another shape.
    """
    parts = []
    for name, shape in layout.entries:
        if name not in tensors:
            raise InputError(f"tensor {name!r} is missing from the model")
        if tensors[name].shape != shape:
            raise InputError(f"tensor {name!r} has shape {tensors[name].shape}, the layout says {shape}")
        parts.append(np.asarray(tensors[name], dtype=np.float32).reshape(-1))
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


def unflatten(vector: NDArray[np.float32], layout: Layout) -> dict[str, NDArray[np.float32]]:
    """Return the named tensors of ``vector``; the inverse of :func:`flatten`.

    Raises:
        InputError: if the vector's length is not ``layout.size``.
    """
    if vector.shape != (layout.size,):
        raise InputError(f"a vector of shape {vector.shape} does not fit a layout of {layout.size} numbers")
    tensors, start = {}, 0
    for name, shape in layout.entries:
        stop = start + prod(shape)
        tensors[name] = vector[start:stop].reshape(shape)
        start = stop
    return tensors
