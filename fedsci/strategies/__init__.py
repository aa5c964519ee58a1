"""Federated algorithms, one a file, the list of those fedsci ships, and those of others by module path."""

import re
from collections.abc import Callable, Mapping
from importlib import import_module
from inspect import signature

from fedsci.errors import InputError
from fedsci.strategies import (
    coordinate_median,
    dp_fedsgd,
    feature_statistics,
    fedadagrad,
    fedadam,
    fedavg,
    fedavgm,
    fedbn,
    fedbuff,
    fednova,
    fedprox,
    fedyogi,
    krum,
    one_shot_ridge,
    scaffold,
    trimmed_mean,
)
from fedsci.strategies.base import Strategy
from fedsci.strategies.server_optimiser import ServerOptimiser

BUILDERS: dict[str, Callable[..., Strategy]] = {
    "coordinate_median": coordinate_median.build,
    "dp_fedsgd": dp_fedsgd.build,
    "fedadagrad": fedadagrad.build,
    "fedadam": fedadam.build,
    "fedavg": fedavg.build,
    "fedavgm": fedavgm.build,
    "fedbn": fedbn.build,
    "fedbuff": fedbuff.build,
    "fednova": fednova.build,
    "fedprox": fedprox.build,
    "feature_statistics": feature_statistics.build,
    "fedyogi": fedyogi.build,
    "krum": krum.build,
    "one_shot_ridge": one_shot_ridge.build,
    "scaffold": scaffold.build,
    "trimmed_mean": trimmed_mean.build,
}

__all__ = ["BUILDERS", "ServerOptimiser", "Strategy", "build_strategy", "is_module"]

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)


def is_module(name: str) -> bool:
    """Return whether an algorithm's name is the path of a module outside fedsci, ``mylab.rules``."""
    return _MODULE.fullmatch(name) is not None


def build_strategy(name: str, *, optimiser: ServerOptimiser, options: Mapping[str, float] | None = None) -> Strategy:
    """Return the strategy called ``name``: one of fedsci's, or what the module of that path builds.

    A module is imported, so its code runs: whoever calls this has made sure that it may (a site that its policy
    names it, everybody else that their own files do).

    Raises:
        InputError: if there is none of that name, or it has no such option.
    """
    build = _imported(name) if is_module(name) else BUILDERS.get(name)
    if build is None:
        raise InputError(f"strategy {name!r} does not exist", hint=f"known: {', '.join(sorted(BUILDERS))}")
    known = [option for option in signature(build).parameters if option != "optimiser"]
    for option in options or {}:
        if option not in known:
            raise InputError(f"{name} has no option {option!r}", hint=f"it has: {', '.join(known) or 'none'}")
    return build(optimiser=optimiser, **(options or {}))


def _imported(name: str) -> Callable[..., Strategy]:
    try:
        build: Callable[..., Strategy] = import_module(name).build
    except ModuleNotFoundError as error:
        raise InputError(
            f"strategy {name}: no module {error.name!r} is installed here", hint="install it beside fedsci"
        ) from None
    except AttributeError:
        raise InputError(
            f"strategy {name}: the module has no build()", hint="def build(*, optimiser, ...) returns the strategy"
        ) from None
    return build
