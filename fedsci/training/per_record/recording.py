"""What every layer was called with in one forward pass, and where the loss's gradient at its output is found."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from fedsci.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer with trainable parameters of its own.

    Attributes:
        name: its name in the model.
        module: the layer.
        parameters: those of its own that are trained.
    """

    name: str
    module: nn.Module
    parameters: tuple[nn.Parameter, ...]


def layers_of(module: nn.Module) -> list[Layer]:
    """Return the model's layers with trainable parameters of their own."""
    found = []
    for name, layer in module.named_modules():
        parameters = tuple(p for p in layer.parameters(recurse=False) if p.requires_grad)
        if parameters:
            found.append(Layer(name or type(layer).__name__, layer, parameters))
    return found


@dataclass(frozen=True, eq=False)
class Use:
    """One call of a layer.

    Attributes:
        layer: the layer.
        inputs: what it was called with; the same memory, not a copy.
        version: how often that memory had been changed in place.
        edge: the place in the graph of the layer's output, before anything changes it in place.
        shape: the output's shape.
    """

    layer: Layer
    inputs: Tensor
    version: int
    edge: GradientEdge
    shape: torch.Size

    def check_inputs(self) -> None:
        """Pass if the input still holds what the layer was called with."""
        if self.inputs._version != self.version:
            raise ConfigError(
                f"the input of layer {self.layer.name} is changed in place after the layer has used it",
                hint="write x = x + y instead of x += y, and leave inplace=True out",
            )


@contextmanager
def recorded(layers: Iterable[Layer]) -> Iterator[list[Use]]:
    """Yield the list that every call of one of the layers is added to."""
    uses: list[Use] = []

    def keep(layer: Layer, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        inputs = args[0] if args else next(iter(kwargs.values()))
        # A linear layer's output may be a view of its product; only the product stays in the graph if
        # the view is changed in place.
        source = output if output._base is None or output._base.numel() != output.numel() else output._base
        uses.append(Use(layer, inputs.detach(), inputs._version, get_gradient_edge(source), output.shape))

    handles = [
        layer.module.register_forward_hook(partial(keep, layer), with_kwargs=True, prepend=True) for layer in layers
    ]
    try:
        yield uses
    finally:
        for handle in handles:
            handle.remove()


def parameter_uses(uses: list[Use]) -> Counter[Tensor]:
    """Return how often each trainable parameter was used, as the layers report it."""
    return Counter(p for use in uses for p in use.layer.parameters)


def graph_uses(loss: Tensor) -> Counter[Tensor]:
    """Return how often the graph of ``loss`` reads each parameter, however it came there."""
    found: Counter[Tensor] = Counter()
    seen: set[Node] = set()
    waiting = [] if loss.grad_fn is None else [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        for following, _ in node.next_functions:
            if following is None:
                continue
            variable = getattr(following, "variable", None)
            if isinstance(variable, nn.Parameter):
                found[variable] += 1
            else:
                waiting.append(following)
    return found
