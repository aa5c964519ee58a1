"""A pass's losses, one a record."""

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor, nn

from fedsci.errors import ConfigError

Losses: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def losses_of(module: nn.Module, losses: Losses, features: Tensor, targets: Tensor) -> Tensor:
    """Return the losses of the records, shape ``(n,)``.

    Raises:
        ConfigError: the model or the loss gave something else than one number a record.
    """
    found = losses(module(features), targets)
    if found.shape != (len(features),):
        raise ConfigError(
            f"{len(features)} records gave losses of shape {list(found.shape)}",
            hint="the loss must return one number a record",
        )
    return found
