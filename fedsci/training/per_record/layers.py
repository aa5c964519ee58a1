"""The parameter gradients of one use of a layer, from its input and its output's gradient.

Shapes: input ``(n, ..., in)`` and output gradient ``(n, ..., out)``; one record a row. A matrix's gradient is
made (``Rows``) unless a record has so few positions that its factors are shorter than the product: a fixed rule
of public shapes (:func:`_matrix`).
"""

from collections.abc import Callable, Iterator
from math import prod
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedsci.training.per_record.pieces import Piece, Products, Rows, TableRows

Found: TypeAlias = Iterator[tuple[Tensor, Piece]]
Convolution: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d
InstanceNorm: TypeAlias = nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d
Rule: TypeAlias = Callable[[Any, Tensor, Tensor, bool], Found]

_MOST_POSITIONS: Final = 16


def is_known(layer: nn.Module) -> bool:
    """Tell whether the layer's own parameters are those of a layer in this file, used as its type uses them."""
    own = dict(layer.named_parameters(recurse=False))
    if not any(p.requires_grad for p in own.values()):
        return True
    return type(layer) in RULES and set(own) <= {"weight", "bias"}


def pieces_of(layer: nn.Module, inputs: Tensor, gradients: Tensor, *, shared: bool) -> Found:
    """Yield each trainable parameter of the layer with its gradients.

    Args:
        layer: of a known type.
        inputs: what it was called with.
        gradients: the loss's gradient at its output.
        shared: whether a parameter is used elsewhere too: only ``Rows`` can be added up.
    """
    for parameter, piece in RULES[type(layer)](layer, inputs, gradients, shared):
        if parameter.requires_grad:
            yield parameter, piece


def _linear(layer: nn.Linear, inputs: Tensor, gradients: Tensor, shared: bool) -> Found:
    left = gradients.reshape(len(gradients), -1, gradients.shape[-1])
    right = inputs.reshape(len(inputs), -1, inputs.shape[-1])
    matrix = _matrix(left, right, shared)
    yield layer.weight, matrix
    if layer.bias is not None:
        if isinstance(matrix, Products) and left.shape[1] == 1:  # already there
            yield layer.bias, Rows(matrix.left[:, 0], matrix.left_norms[:, 0].square())
        else:
            yield layer.bias, Rows.of(left.sum(1))


def _convolution(layer: Convolution, inputs: Tensor, gradients: Tensor, shared: bool) -> Found:
    n, groups = len(inputs), layer.groups
    left = gradients.reshape(n, layer.out_channels, -1)
    if layer.weight.requires_grad:
        patches = _patches(layer, inputs)
        if groups == 1:
            yield layer.weight, _matrix(left.mT, patches.mT, shared)
        else:
            by_group = left.reshape(n * groups, -1, left.shape[2])
            yield (
                layer.weight,
                Rows.of(torch.bmm(by_group, patches.reshape(n * groups, -1, left.shape[2]).mT).view(n, -1)),
            )
    if layer.bias is not None:
        yield layer.bias, Rows.of(left.sum(2))


def _patches(layer: Convolution, inputs: Tensor) -> Tensor:
    """What each output position of a convolution saw, ``(n, channels * kernel, positions)``."""
    padding = layer._reversed_padding_repeated_twice
    if any(padding):
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        inputs = functional.pad(inputs, padding, mode=mode)
    inputs = inputs.contiguous()
    sizes, strides = inputs.shape[2:], inputs.stride()[2:]
    axes = range(len(sizes))
    reach = [layer.dilation[i] * (layer.kernel_size[i] - 1) for i in axes]
    places = [(sizes[i] - reach[i] - 1) // layer.stride[i] + 1 for i in axes]
    windows = inputs.as_strided(
        (*inputs.shape[:2], *layer.kernel_size, *places),
        (
            *inputs.stride()[:2],
            *(strides[i] * layer.dilation[i] for i in axes),
            *(strides[i] * layer.stride[i] for i in axes),
        ),
    )
    return windows.reshape(len(inputs), -1, prod(places))


def _matrix(left: Tensor, right: Tensor, shared: bool) -> Products | Rows:
    """The gradient sum_t g_t aᵀ_t of a matrix."""
    positions, rows, columns = left.shape[1], left.shape[2], right.shape[2]
    short = positions == 1 or (positions <= _MOST_POSITIONS and positions * (rows + columns) <= rows * columns)
    if short and not shared:
        return Products.of(left, right)
    return Rows.of_products(left, right)


def _embedding(layer: nn.Embedding, inputs: Tensor, gradients: Tensor, shared: bool) -> Found:
    n = len(inputs)
    numbers = inputs.reshape(n, -1)
    values = gradients.reshape(n, -1, layer.embedding_dim).double()
    if layer.padding_idx is not None:
        values = values.masked_fill((numbers == layer.padding_idx)[:, :, None], 0.0)
    if shared:
        table = values.new_zeros(n, layer.num_embeddings, layer.embedding_dim)
        table.scatter_add_(1, numbers[:, :, None].expand_as(values), values)
        yield layer.weight, Rows.of(table.flatten(1))
    else:
        same = numbers[:, :, None] == numbers[:, None, :]
        first = same.to(torch.uint8).argmax(2)  # where each position's row was first mentioned
        merge = functional.one_hot(first, numbers.shape[1]).mT.double()
        yield layer.weight, TableRows(numbers, torch.bmm(merge, values))


def _layer_norm(layer: nn.LayerNorm, inputs: Tensor, gradients: Tensor, shared: bool) -> Found:
    normal = functional.layer_norm(inputs, layer.normalized_shape, eps=layer.eps)
    shape = (len(inputs), -1, layer.weight.numel())
    yield layer.weight, Rows.of((normal * gradients).reshape(shape).sum(1))
    if layer.bias is not None:
        yield layer.bias, Rows.of(gradients.reshape(shape).sum(1))


def _rms_norm(layer: nn.RMSNorm, inputs: Tensor, gradients: Tensor, shared: bool) -> Found:
    normal = functional.rms_norm(inputs, layer.normalized_shape, eps=layer.eps)
    yield layer.weight, Rows.of((normal * gradients).reshape(len(inputs), -1, layer.weight.numel()).sum(1))


def _group_norm(layer: nn.GroupNorm, inputs: Tensor, gradients: Tensor, shared: bool) -> Found:
    yield from _by_channel(layer, functional.group_norm(inputs, layer.num_groups, eps=layer.eps), gradients)


def _instance_norm(layer: InstanceNorm, inputs: Tensor, gradients: Tensor, shared: bool) -> Found:
    yield from _by_channel(layer, functional.instance_norm(inputs, eps=layer.eps), gradients)


def _by_channel(layer: nn.GroupNorm | InstanceNorm, normal: Tensor, gradients: Tensor) -> Found:
    shape = (*normal.shape[:2], -1)
    yield layer.weight, Rows.of((normal * gradients).reshape(shape).sum(2))
    if layer.bias is not None:
        yield layer.bias, Rows.of(gradients.reshape(shape).sum(2))


RULES: Final[dict[type[nn.Module], Rule]] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.Conv3d: _convolution,
    nn.Embedding: _embedding,
    nn.LayerNorm: _layer_norm,
    nn.RMSNorm: _rms_norm,
    nn.GroupNorm: _group_norm,
    nn.InstanceNorm1d: _instance_norm,
    nn.InstanceNorm2d: _instance_norm,
    nn.InstanceNorm3d: _instance_norm,
}
