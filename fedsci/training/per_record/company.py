"""A trial of the machine: is a record's gradient the same, to the bit, wherever it stands and whoever stands beside it?

Clipping bounds what a record adds only if no other record changes it. In exact arithmetic none does; a matrix product
may still sum a row in an order that depends on its place, on what follows it in memory, or on how the work is split
between threads, and whoever chooses the weights can make that order decide signs. Whether it does is a property of
processor, library and shape. So every model is tried in the shape in which it will be used, with numbers that are
nobody's, before a record is looked at. A trial shows a fault; it does not prove that there is none.
"""

from copy import deepcopy
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from fedsci.errors import ConfigError
from fedsci.training.per_record.book_keeping import BookKeeping
from fedsci.training.per_record.opacus_rows import OpacusRows

NAN: Final = float("nan")
_SCALES: Final = (1.0, 30.0)  # small inputs leave functions like tanh unsaturated, large ones make gradients large


def check_company(source: BookKeeping | OpacusRows, features: Tensor, targets: Tensor, *, rows: int) -> None:
    """Pass if a record of made-up numbers has the same gradient at every place of a pass, among itself and others.

    The seed is fixed and public: the verdict is the same every time.

    Args:
        source: of the model that will be used; a copy of it with other weights is tried.
        features, targets: give shapes, types and device; not one of their values is read.
        rows: of a pass.

    Raises:
        ConfigError: it has not.
    """
    numbers = torch.Generator().manual_seed(1)
    trial = replace(source, module=deepcopy(source.module))
    with torch.no_grad():
        for parameter in trial.module.parameters():
            made = torch.randn(parameter.shape, generator=numbers) / max(1, parameter[0].numel()) ** 0.5
            parameter.copy_(made)
    wanted = targets.new_zeros((rows, *targets.shape[1:]))
    places = torch.arange(rows, device=features.device)
    everywhere = torch.ones_like(places, dtype=torch.bool)
    for scale in _SCALES:
        subject, first = _made(features, 1, scale, numbers)[0], None
        for here, damage in ((everywhere, 1.0), (places % 2 == 0, 1.0), (places % 2 == 1, 1.0), (places % 3 == 0, NAN)):
            inputs = _made(features, rows, scale, numbers)
            if inputs.is_floating_point():
                inputs *= damage
            inputs[here] = subject
            pieces = trial.pieces(inputs, wanted)
            found = [values[here] for piece in pieces.values() for values in (*piece.stored(), *piece.lengths())]
            first = first or [values[:1] for values in found]
            if not all(torch.equal(one.expand_as(seen), seen) for one, seen in zip(first, found, strict=True)):
                raise ConfigError(
                    f"on this machine's {features.device.type} a record's gradient depends on the records beside it, "
                    "so that clipping it would bound nothing",
                    hint="set device: cpu in the site file, and leave MKL_CBWR as fedsci sets it (AUTO,STRICT)",
                )


def _made(like: Tensor, rows: int, scale: float, numbers: torch.Generator) -> Tensor:
    """Return inputs that look like ``like``; zeros where these are row numbers."""
    shape = (rows, *like.shape[1:])
    if not like.is_floating_point():
        return like.new_zeros(shape)
    return (scale * torch.randn(shape, generator=numbers)).to(like)
