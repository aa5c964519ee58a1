"""Federated algorithms, one a file, and the list of those fedsci ships."""

from collections.abc import Callable

from fedsci.errors import InputError
from fedsci.strategies import dp_fedsgd, fedavg
from fedsci.strategies.base import Strategy
from fedsci.strategies.server_optimiser import ServerOptimiser

BUILDERS: dict[str, Callable[..., Strategy]] = {"fedavg": fedavg.build, "dp_fedsgd": dp_fedsgd.build}

__all__ = ["BUILDERS", "ServerOptimiser", "Strategy", "build_strategy"]


def build_strategy(name: str, *, optimiser: ServerOptimiser) -> Strategy:
    """Return the strategy called ``name``.

    Raises:
        InputError: if there is none of that name.
    """
    if name not in BUILDERS:
        raise InputError(f"strategy {name!r} does not exist", hint=f"known: {', '.join(sorted(BUILDERS))}")
    return BUILDERS[name](optimiser=optimiser)
