"""Per-record gradients from what the layers saw: one forward pass, one backward pass without weight gradients.

Bu et al. 2023, Differentially Private Optimization on Large Model at Small Cost.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from fedsci.errors import ConfigError
from fedsci.training.per_record.layers import pieces_of
from fedsci.training.per_record.passes import Footprint
from fedsci.training.per_record.pieces import Piece, Rows
from fedsci.training.per_record.recording import Layer, Use, graph_uses, layers_of, parameter_uses, recorded
from fedsci.training.per_record.trial import Losses, NoRandomNumbers, losses_of, trials

_HINT = "call the layer itself, with records in the first dimension"


@dataclass(frozen=True, eq=False)
class BookKeeping:
    """Per-record gradients of a model all of whose layers are in :mod:`~fedsci.training.per_record.layers`."""

    module: nn.Module
    losses: Losses

    @cached_property
    def _names(self) -> dict[Tensor, str]:
        return {p: name for name, p in self.module.named_parameters()}

    @cached_property
    def _layers(self) -> list[Layer]:
        return layers_of(self.module)

    def pieces(self, features: Tensor, targets: Tensor) -> dict[Tensor, Piece]:
        """Return the gradients of every trainable parameter that was used, for each record.

        Raises:
            ConfigError: a layer's output does not reach the loss, or its input was changed or mixed with others.
        """
        _, uses, gradients = self._passes(features, targets)
        return self._pieces(uses, gradients)

    def footprint(self, features: Tensor, targets: Tensor) -> Footprint:
        """Return what a record costs, after a trial of the model: none of the records is looked at.

        Raises:
            ConfigError: a parameter is used outside its layer, records are not in the first dimension, or random
                numbers are drawn.
        """
        for inputs, wanted in trials(features, targets):
            with NoRandomNumbers():  # type: ignore[no-untyped-call]
                loss, uses, gradients = self._passes(inputs, wanted)
            self._check_nothing_missed(loss, uses)
        multiplications = sum(map(_multiplications, uses))
        pieces = self._pieces(uses, gradients)
        values = sum(piece.values_per_record for piece in pieces.values())
        return Footprint(values=values, multiplications=multiplications)

    def _passes(self, features: Tensor, targets: Tensor) -> tuple[Tensor, list[Use], list[Tensor]]:
        """Return the loss, the layers' uses, and the loss's gradients at their outputs."""
        with torch.enable_grad(), recorded(self._layers) as uses:
            loss = losses_of(self.module, self.losses, features, targets).sum()
        if not uses:
            return loss, [], []
        for use in uses:
            use.check_inputs()
        found = torch.autograd.grad(loss, [use.edge for use in uses], allow_unused=True)
        gradients = []
        for use, gradient in zip(uses, found, strict=True):
            if gradient is None:
                raise ConfigError(
                    f"the output of layer {use.layer.name} does not reach the loss", hint="leave out what is not used"
                )
            if len(use.inputs) != len(features) or use.shape[0] != len(features):
                raise ConfigError(f"layer {use.layer.name} was not called with one record a row", hint=_HINT)
            gradients.append(gradient.reshape(use.shape))
        return loss, uses, gradients

    def _pieces(self, uses: list[Use], gradients: list[Tensor]) -> dict[Tensor, Piece]:
        counts = parameter_uses(uses)
        pieces: dict[Tensor, Piece] = {}
        while uses:  # what a use keeps in memory is freed as soon as it is turned into gradients
            use, gradient = uses.pop(), gradients.pop()
            shared = any(counts[p] > 1 for p in use.layer.parameters)
            for parameter, piece in pieces_of(use.layer.module, use.inputs, gradient, shared=shared):
                pieces[parameter] = _sum(pieces[parameter], piece) if parameter in pieces else piece
        return pieces

    def _check_nothing_missed(self, loss: Tensor, uses: list[Use]) -> None:
        reported, read = parameter_uses(uses), graph_uses(loss)
        for parameter in self.module.parameters():
            if reported[parameter] != read[parameter]:
                raise ConfigError(
                    f"parameter {self._names[parameter]} is used {read[parameter]} times, "
                    f"{reported[parameter]} of them by its layer",
                    hint=_HINT,
                )


def _sum(first: Piece, second: Piece) -> Rows:
    """The gradient of a parameter that was used twice."""
    if not isinstance(first, Rows) or not isinstance(second, Rows):
        raise TypeError("only rows can be added")
    return Rows.of(first.values + second.values)


def _multiplications(use: Use) -> int:
    """Of a forward pass, a record: every output value of a layer with a matrix is a product of that many terms."""
    weight = use.layer.module.weight
    terms = weight[0].numel() if isinstance(weight, Tensor) and weight.ndim > 1 else 1
    return terms * use.shape[1:].numel()
