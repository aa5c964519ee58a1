"""A pass's losses, one a record, and the trial a model is given before any record is looked at."""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

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


def trials(features: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return features and targets of two and of three records, all zeros, to run the model with.

    Two sizes: a layer for which the first dimension is something else than the record is found even where the
    sizes agree by chance.
    """
    return [(features.new_zeros((n, *features.shape[1:])), targets.new_zeros((n, *targets.shape[1:]))) for n in (2, 3)]


class NoRandomNumbers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context in which an operation that draws random numbers is refused, whatever other threads draw."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Say that nothing here needs hiding from torch's compiler: to hide it torch would load all of that, 80 MB."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, or refuse it."""
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags and not _drops_nothing(func, args, kwargs):
            raise ConfigError(
                "the model draws random numbers: a record's gradient would depend on the records before it",
                hint="leave dropout out",
            )
        return func(*args, **kwargs)


def _drops_nothing(func: Any, args: Any, kwargs: Any) -> bool:
    """Tell whether the operation is an attention whose share of dropped weights is zero."""
    for place, argument in enumerate(func._schema.arguments):
        if argument.name == "dropout_p":
            given = args[place] if place < len(args) else kwargs.get("dropout_p", argument.default_value)
            return bool(given == 0)
    return False
