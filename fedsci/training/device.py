"""Which device a site trains on; other packages name devices by :data:`Device` and import no torch."""

from typing import TypeAlias

import torch

from fedsci.errors import InputError

Device: TypeAlias = torch.device

CPU: Device = torch.device("cpu")


def pick_device(wanted: str) -> Device:
    """Return the device for ``auto``, ``cpu`` or ``cuda``; ``auto`` takes a GPU where there is one.

    Raises:
        InputError: ``cuda`` was asked for and there is none.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("device: cuda, but torch finds no GPU", hint="use device: auto or cpu")
    return torch.device(wanted)
