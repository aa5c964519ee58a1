"""FedBN: every site keeps its normalisation layers for itself; the rest of the model is averaged.

Li, Jiang, Zhang, Kamp, Dou 2021, FedBN: Federated Learning on Non-IID Features via Local Batch Normalization (ICLR),
algorithm 1. For sites whose records measure the same things on other scales (another instrument, another scanner):
scale, shift and running statistics of each site are made for its own records, the weights between them for everybody's.

The last numbers of a model are its normalisation's. They stay in a site's memory, are no part of what it sends, and
those of the shared model stay what they were at the start: a site that has none of its own yet begins from them. The
model that a site measures and uses is the shared one with its own layers in place.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from fedsci.errors import InputError
from fedsci.strategies.base import MeanStrategy, SiteRound, StrategyState, Vector, WeightedSum, finite
from fedsci.strategies.server_optimiser import ServerOptimiser

_OWN = "normalisation"


@dataclass(frozen=True, kw_only=True)
class FedBN(MeanStrategy):
    """Weighted mean of the updates of all but the normalisation layers; works on sums.

    Attributes:
        normalised: how many numbers the normalisation layers hold, the last of a model; 0 until
            :meth:`for_model` was told, and then it is FedAvg.
    """

    normalised: int = 0
    name: str = field(default="fedbn", init=False)
    plain: bool = field(default=False, init=False)
    keeps: int = field(default=1, init=False)

    def for_model(self, normalised: int) -> Self:
        """Return the strategy for a model whose last ``normalised`` numbers are its normalisation layers'.

        Raises:
            InputError: it has none.
        """
        if normalised < 1:
            raise InputError(
                f"{self.name} keeps normalisation layers at the sites, and the model has none",
                hint="set model.normalisation: batch, for an mlp or a cnn; or use strategy: fedavg",
            )
        return replace(self, normalised=normalised)

    def width(self, size: int) -> int:
        """Return the model's size without its normalisation layers."""
        return size - self.normalised

    def site_model(self, model: Vector, memory: Mapping[str, Vector]) -> Vector:
        """Return the shared model with the site's own normalisation layers; as it is where the site has none yet."""
        own = memory.get(_OWN)
        return model if own is None else np.concatenate([model[: self.width(model.size)], own])

    def contribute(self, work: SiteRound) -> Vector:
        """Return the update of what is shared; the site remembers where its own layers are now.

        Raises:
            RoundAborted: training diverged; the site's layers stay as they were.
        """
        model, shared = self.site_model(work.received, work.memory), self.width(work.size)
        update = finite(work.update(model))
        work.memory[_OWN] = finite(model[shared:] + update[shared:])
        return update[:shared]

    def stretch(self, *, steps: int, momentum: float, learning_rate: float) -> float | None:
        """Return 1: a part of the update is no longer than all of it."""
        return 1.0

    def apply(self, state: StrategyState, total: WeightedSum) -> StrategyState:
        """Return the state after moving along the mean update; the shared model's normalisation layers stay.

        Raises:
            RoundAborted: see :meth:`WeightedSum.mean`.
        """
        return self.move(state, np.concatenate([total.mean(), np.zeros(self.normalised, np.float32)]))


def build(*, optimiser: ServerOptimiser) -> FedBN:
    """Return the strategy with this server optimiser."""
    return FedBN(optimiser=optimiser)
