"""Federated algorithms, one a file, and the list of those fedsci ships."""

from collections.abc import Callable, Mapping
from inspect import signature

from fedsci.errors import InputError
from fedsci.strategies import dp_fedsgd, fedavg
from fedsci.strategies.base import Strategy
from fedsci.strategies.server_optimiser import ServerOptimiser

BUILDERS: dict[str, Callable[..., Strategy]] = {"fedavg": fedavg.build, "dp_fedsgd": dp_fedsgd.build}

__all__ = ["BUILDERS", "ServerOptimiser", "Strategy", "build_strategy"]


def build_strategy(name: str, *, optimiser: ServerOptimiser, options: Mapping[str, float] | None = None) -> Strategy:
    """Return the strategy called ``name``.

    Raises:
        InputError: if there is none of that name, or it has no such option.
    """
    if name not in BUILDERS:
        raise InputError(f"strategy {name!r} does not exist", hint=f"known: {', '.join(sorted(BUILDERS))}")
    known = [option for option in signature(BUILDERS[name]).parameters if option != "optimiser"]
    for option in options or {}:
        if option not in known:
            raise InputError(f"{name} has no option {option!r}", hint=f"it has: {', '.join(known) or 'none'}")
    return BUILDERS[name](optimiser=optimiser, **(options or {}))
