"""The model families, and a module seen as one flat vector."""

from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

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
            layers += [nn.Linear(inputs, width), *_normalised(spec, nn.BatchNorm1d, width), nn.Tanh()]
            inputs = width
        return nn.Sequential(*layers, nn.Linear(inputs, outputs))
    if image is None:
        raise InputError("a cnn needs one feature with a shape")
    return _cnn(spec, image, outputs)


def _cnn(spec: ModelSpec, image: tuple[int, ...], outputs: int) -> nn.Module:
    """Two small convolutions with tanh (Papernot et al. 2021: bounded activations suit DP-SGD) and a head."""
    channels, height, width = image if len(image) == 3 else (1, *image)
    layers: list[nn.Module] = [nn.Unflatten(1, (channels, height, width))]
    for out in spec.convolutions:
        if min(height, width) < 2:
            raise InputError(
                f"images of shape {list(image)} are too small for {len(spec.convolutions)} convolutions",
                hint="list fewer channels, or use an mlp",
            )
        layers += [nn.Conv2d(channels, out, 3, padding=1), *_normalised(spec, nn.BatchNorm2d, out)]
        layers += [nn.Tanh(), nn.MaxPool2d(2)]
        channels, height, width = out, height // 2, width // 2
    layers.append(nn.Flatten())
    size = channels * height * width
    for hidden in spec.hidden:
        layers += [nn.Linear(size, hidden), *_normalised(spec, nn.BatchNorm1d, hidden), nn.Tanh()]
        size = hidden
    return nn.Sequential(*layers, nn.Linear(size, outputs))


def _normalised(spec: ModelSpec, layer: type[_BatchNorm], units: int) -> list[nn.Module]:
    return [layer(units)] if spec.normalisation == "batch" else []


def entries_of(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Return the module's tensors by name, in the order in which they lie in the flat vector.

    Parameters, and after them what batch normalisation layers hold: scale, shift, running mean and running variance,
    so that the last numbers of a vector are the normalisation's.
    """
    last = normalisation_of(module)
    return [*((name, p) for name, p in module.named_parameters() if name not in last), *last.items()]


def normalisation_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return what the module's batch normalisation layers hold, by name: the last entries of the flat vector."""
    return {
        f"{prefix}.{name}".lstrip("."): tensor
        for prefix, layer in module.named_modules()
        if isinstance(layer, _BatchNorm)
        for name, tensor in [*layer.named_parameters(), *layer.named_buffers()]
        if tensor.is_floating_point()  # not the count of batches, which nothing depends on
    }


def layout_of(module: nn.Module) -> Layout:
    """Return how the module's tensors lie in the flat vector."""
    return Layout(entries=tuple((name, tuple(tensor.shape)) for name, tensor in entries_of(module)))


def initial_vector(module: nn.Module, *, seed: int) -> NDArray[np.float32]:
    """Return the shared starting point, float32 of shape ``(d,)``: the same for the same seed.

    Matrices and kernels are uniform in +-1/sqrt(fan_in), vectors zero, but scales and running variances one; a model
    without hidden layers starts at zero, so that nothing but data breaks the tie.
    """
    entries = entries_of(module)
    generator = np.random.Generator(np.random.PCG64(seed))  # a public starting point, no guarantee rests on it
    linear = sum(p.ndim > 1 for _, p in entries) == 1
    parts = []
    for name, p in entries:
        if p.ndim < 2 and name.endswith(("weight", "running_var")):
            parts.append(np.ones(p.numel(), np.float32))
        elif p.ndim < 2 or linear:
            parts.append(np.zeros(p.numel(), np.float32))
        else:
            bound = 1 / np.sqrt(prod(p.shape[1:]))
            parts.append(generator.uniform(-bound, bound, p.numel()).astype(np.float32))
    return np.concatenate(parts)


def load_vector(module: nn.Module, vector: NDArray[np.float32]) -> None:
    """Set the module's tensors from the flat vector.

    Raises:
        InputError: the length differs from the model's, or a value is not finite.
    """
    entries = entries_of(module)
    size = sum(p.numel() for _, p in entries)
    if vector.shape != (size,):
        raise InputError(f"a vector of shape {vector.shape} does not fit a model of {size} parameters")
    if not np.isfinite(vector).all():
        raise InputError("the model holds NaN or infinity", hint="lower training.learning_rate")
    start = 0
    with torch.no_grad():
        for _, p in entries:
            part = np.array(vector[start : start + p.numel()], dtype=np.float32).reshape(tuple(p.shape))
            p.copy_(torch.from_numpy(part))
            start += p.numel()


def read_vector(module: nn.Module) -> NDArray[np.float32]:
    """Return the module's tensors as float32, shape ``(d,)``."""
    parts = [p.detach().reshape(-1).to("cpu", torch.float32).numpy() for _, p in entries_of(module)]
    return np.concatenate(parts)
