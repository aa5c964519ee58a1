"""A pass's losses, one a record, and the trial a model is given before any record is looked at."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch
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


def trials(features: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield features and targets of two and of three records, all zeros, to run the model with.

    Two sizes: a layer for which the first dimension is something else than the record is found even where the
    sizes agree by chance.

    Raises:
        ConfigError: random numbers were drawn meanwhile.
    """
    for n in (2, 3):
        before = _random_state(features.device)
        yield features.new_zeros((n, *features.shape[1:])), targets.new_zeros((n, *targets.shape[1:]))
        if not torch.equal(before, _random_state(features.device)):
            raise ConfigError(
                "the model draws random numbers: a record's gradient would depend on the records before it",
                hint="leave dropout out",
            )


def _random_state(device: torch.device) -> Tensor:
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return torch.cat(states)
