"""The model families, and a module seen as one flat vector."""

from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedsci.config.study import ArrayColumn, ModelSpec, Study
from fedsci.errors import InputError
from fedsci.vectors.layout import Layout


def outputs_of(study: Study) -> int:
    """Return the number of model outputs: classes, or 1 for binary and regression."""
    return len(study.task.classes) if study.task.kind == "multiclass" else 1


def image_shape(study: Study) -> tuple[int, ...] | None:
    """Return the shape of the study's only feature if it is an array, else None."""
    columns = list(study.features.values())
    if len(columns) == 1 and isinstance(columns[0], ArrayColumn):
        return tuple(columns[0].shape)
    return None


def build_model(spec: ModelSpec, *, inputs: int, outputs: int, image: tuple[int, ...] | None) -> nn.Module:
    """Return the untrained module.

    Args:
        spec: family and size.
        inputs: encoded features of a record.
        outputs: see :func:`outputs_of`.
        image: height and width, or channels, height and width, for a cnn.

    Raises:
        InputError: the image is too small for the number of channels listed.
    """
    if spec.name == "linear":
        return nn.Linear(inputs, outputs)
    if spec.name == "mlp":
        layers: list[nn.Module] = []
        for width in spec.hidden:
            layers += [nn.Linear(inputs, width), nn.Tanh()]
            inputs = width
        return nn.Sequential(*layers, nn.Linear(inputs, outputs))
    if image is None:
        raise InputError("a cnn needs one feature with a shape")
    return _cnn(spec, image, outputs)


def _cnn(spec: ModelSpec, image: tuple[int, ...], outputs: int) -> nn.Module:
    """Two small convolutions with tanh (Papernot et al. 2021: bounded activations suit DP-SGD) and a head."""
    channels, height, width = image if len(image) == 3 else (1, *image)
    layers: list[nn.Module] = [nn.Unflatten(1, (channels, height, width))]
    for out in spec.channels or [16, 32]:
        if min(height, width) < 2:
            raise InputError(
                f"images of shape {list(image)} are too small for {len(spec.channels) or 2} convolutions",
                hint="list fewer channels, or use an mlp",
            )
        layers += [nn.Conv2d(channels, out, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2)]
        channels, height, width = out, height // 2, width // 2
    layers.append(nn.Flatten())
    size = channels * height * width
    for hidden in spec.hidden:
        layers += [nn.Linear(size, hidden), nn.Tanh()]
        size = hidden
    return nn.Sequential(*layers, nn.Linear(size, outputs))


def layout_of(module: nn.Module) -> Layout:
    """Return how the module's parameters lie in the flat vector."""
    return Layout(entries=tuple((name, tuple(p.shape)) for name, p in module.named_parameters()))


def initial_vector(module: nn.Module, *, seed: int) -> NDArray[np.float32]:
    """Return the shared starting point, float32 of shape ``(d,)``: the same for the same seed.

    Matrices and kernels are uniform in +-1/sqrt(fan_in), vectors zero; a model without hidden layers
    starts at zero, so that nothing but data breaks the tie.
    """
    parameters = list(module.parameters())
    generator = np.random.Generator(np.random.PCG64(seed))  # a public starting point, no guarantee rests on it
    linear = sum(p.ndim > 1 for p in parameters) == 1
    parts = []
    for p in parameters:
        if p.ndim < 2 or linear:
            parts.append(np.zeros(p.numel(), np.float32))
        else:
            bound = 1 / np.sqrt(prod(p.shape[1:]))
            parts.append(generator.uniform(-bound, bound, p.numel()).astype(np.float32))
    return np.concatenate(parts)


def load_vector(module: nn.Module, vector: NDArray[np.float32]) -> None:
    """Set the module's parameters from the flat vector.

    Raises:
        InputError: the length differs from the model's, or a value is not finite.
    """
    size = sum(p.numel() for p in module.parameters())
    if vector.shape != (size,):
        raise InputError(f"a vector of shape {vector.shape} does not fit a model of {size} parameters")
    if not np.isfinite(vector).all():
        raise InputError("the model holds NaN or infinity", hint="lower training.learning_rate")
    start = 0
    with torch.no_grad():
        for p in module.parameters():
            part = np.array(vector[start : start + p.numel()], dtype=np.float32).reshape(tuple(p.shape))
            p.copy_(torch.from_numpy(part))
            start += p.numel()


def read_vector(module: nn.Module) -> NDArray[np.float32]:
    """Return the module's parameters as float32, shape ``(d,)``."""
    parts = [p.detach().reshape(-1).to("cpu", torch.float32).numpy() for p in module.parameters()]
    return np.concatenate(parts)
