"""Arrays that a site keeps of a study in work, in one file of the run's folder."""

from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from fedsci.errors import InputError


def read_kept(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays by name; none where there is no file.

    Raises:
        InputError: the file is damaged.
    """
    if not path.exists():
        return {}
    try:
        return dict(load(path.read_bytes()))
    except (SafetensorError, ValueError, LookupError, TypeError, ArithmeticError):
        raise damaged(path) from None


def damaged(path: Path) -> InputError:
    """Return the refusal of a file that cannot be read."""
    return InputError(f"{path} is damaged", hint="restore it from a backup, or let this site sit the study out")
