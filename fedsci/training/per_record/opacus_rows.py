"""Per-record gradients by Opacus: the reference, and the fallback for models with layers of other types."""

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedsci.errors import ConfigError
from fedsci.training.per_record.passes import Footprint
from fedsci.training.per_record.pieces import Piece, Rows
from fedsci.training.per_record.refusals import check_by_opacus
from fedsci.training.per_record.trial import Losses, NoRandomNumbers, losses_of, trials

# Opacus hooks the first layer too, whose input needs no gradient; nothing is lost
warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)


@dataclass(frozen=True, eq=False)
class OpacusRows:
    """Per-record gradients of any model that Opacus can follow, by its hooks and, failing these, by functorch."""

    module: nn.Module
    losses: Losses

    def _wrapped(self) -> Any:
        from opacus import GradSampleModule

        try:
            return GradSampleModule(self.module, batch_first=True, loss_reduction="sum")
        except NotImplementedError as error:
            raise ConfigError(
                f"the model cannot be trained with per-record gradients: {error}",
                hint="use layers without buffers",
            ) from error

    def pieces(self, features: Tensor, targets: Tensor) -> dict[Tensor, Piece]:
        """Return the gradients of every trainable parameter that was used, for each record.

        Raises:
            ConfigError: Opacus did not give one gradient a record.
        """
        wrapped = self._wrapped()
        pieces: dict[Tensor, Piece] = {}
        try:
            with torch.enable_grad():
                losses = losses_of(wrapped, self.losses, features, targets)
                losses.sum().backward()  # type: ignore[no-untyped-call]
            for name, parameter in self.module.named_parameters():
                found = getattr(parameter, "grad_sample", None)
                if found is None and parameter.grad is None:
                    continue
                if not isinstance(found, Tensor) or found.shape != (len(features), *parameter.shape):
                    raise ConfigError(
                        f"no gradient a record was found for parameter {name}",
                        hint="build the model from torch.nn layers, with records in the first dimension",
                    )
                pieces[parameter] = Rows.of(found.flatten(1))
        finally:
            wrapped.remove_hooks()
            for parameter in self.module.parameters():
                parameter.grad_sample = None  # type: ignore[attr-defined]
                parameter.grad = None
        return pieces

    def footprint(self, features: Tensor, targets: Tensor) -> Footprint:
        """Return what a record costs, from the number of parameters, after Opacus' own checks and a trial of the model.

        Raises:
            ConfigError: Opacus does not give one gradient a record, or random numbers are drawn.
        """
        check_by_opacus(self.module)
        for inputs, wanted in trials(features, targets):
            with NoRandomNumbers():  # type: ignore[no-untyped-call]
                self.pieces(inputs, wanted)
        size = sum(p.numel() for p in self.module.parameters() if p.requires_grad)
        return Footprint(values=size, multiplications=size)
