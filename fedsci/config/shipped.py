"""Where the recipes, simulated labs and the built-in study lie: in the wheel, or in a checkout."""

from pathlib import Path

import fedsci


def shipped(name: str) -> Path:
    """Return the folder ``name`` (``strategies``, ``sites``, ``examples``) that came with fedsci."""
    package = Path(fedsci.__file__).resolve().parent
    in_wheel = package / "shipped" / name
    return in_wheel if in_wheel.is_dir() else package.parent / name
