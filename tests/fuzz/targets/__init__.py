"""All targets, by name."""

import importlib
import warnings

from tests.fuzz.engine import Target

_MODULES = ("secagg", "audit", "identity", "config", "data", "transport", "site", "coordinator", "folders")

with warnings.catch_warnings():  # Flower imports typer, which imports names that click has deprecated
    warnings.filterwarnings("ignore", "'click", DeprecationWarning)
    _LISTED: list[Target] = [
        target for name in _MODULES for target in importlib.import_module(f"tests.fuzz.targets.{name}").TARGETS
    ]

TARGETS: dict[str, Target] = {target.name: target for target in _LISTED}
