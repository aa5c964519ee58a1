"""How the coordinator moves the model along an aggregated direction: SGD with momentum, Adam, Yogi or Adagrad.

The rules of Reddi et al. 2021 (Adaptive Federated Optimization, algorithm 2) with the pseudo-gradient's
sign turned: ``direction`` points where the model should go. Adam here has no bias correction, as there; the second
moment starts at zero and tau keeps the step finite.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedsci.errors import InputError

Kind = Literal["sgd", "adam", "yogi", "adagrad"]


@dataclass(frozen=True, kw_only=True)
class ServerOptimiser:
    """Hyper-parameters; all public.

    Attributes:
        kind: ``sgd``, ``adam``, ``yogi`` or ``adagrad``.
        learning_rate: step size, > 0.
        momentum: heavy-ball factor of ``sgd`` in [0, 1).
        beta_1, beta_2: decay of the first and second moments in [0, 1); ``sgd`` has none, ``adagrad`` no second.
        tau: the adaptivity floor of the other three, > 0.
    """

    kind: Kind = "sgd"
    learning_rate: float = 1.0
    momentum: float = 0.0
    beta_1: float = 0.9
    beta_2: float = 0.99
    tau: float = 1e-3

    @property
    def memories(self) -> int:
        """Vectors of the model's size that it remembers: 0, 1 or 2."""
        return 2 if self.kind != "sgd" else int(self.momentum > 0)

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(
                f"server optimiser {self.kind!r} does not exist", hint=f"known: {', '.join(get_args(Kind))}"
            )
        if not self.learning_rate > 0:
            raise InputError(f"server learning rate {self.learning_rate} is not positive")
        for name in ("momentum", "beta_1", "beta_2"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"server optimiser's {name} {getattr(self, name)} is not in [0, 1)")
        if not self.tau > 0:
            raise InputError(f"server optimiser's tau {self.tau} is not positive")


@dataclass(frozen=True, kw_only=True)
class OptimiserState:
    """What an optimiser remembers between rounds: float32 vectors of the model's length."""

    first: NDArray[np.float32]
    second: NDArray[np.float32]

    @staticmethod
    def zeros(size: int) -> "OptimiserState":
        """Return the state before the first round for a model of ``size`` numbers."""
        return OptimiserState(first=np.zeros(size, np.float32), second=np.zeros(size, np.float32))


def step(
    optimiser: ServerOptimiser,
    state: OptimiserState,
    model: NDArray[np.float32],
    direction: NDArray[np.float32],
) -> tuple[NDArray[np.float32], OptimiserState]:
    """Return the model one step along ``direction``, and the optimiser's next state.

    All vectors have the model's shape ``(d,)``. Non-finite directions are refused by the strategies.
    """
    rate = np.float32(optimiser.learning_rate)
    if optimiser.kind == "sgd":
        if optimiser.momentum == 0:
            return model + rate * direction, state
        velocity = np.float32(optimiser.momentum) * state.first + direction
        return model + rate * velocity, replace(state, first=velocity)
    b1 = np.float32(optimiser.beta_1)
    first = b1 * state.first + (1 - b1) * direction
    second = _second_moment(optimiser, state.second, direction * direction)
    moved = model + rate * first / (np.sqrt(second) + np.float32(optimiser.tau))
    return moved.astype(np.float32, copy=False), OptimiserState(first=first, second=second)


def _second_moment(
    optimiser: ServerOptimiser, second: NDArray[np.float32], square: NDArray[np.float32]
) -> NDArray[np.float32]:
    b2 = np.float32(optimiser.beta_2)
    if optimiser.kind == "adagrad":
        return second + square
    if optimiser.kind == "yogi":
        second = second - (1 - b2) * square * np.sign(second - square)
    else:
        second = b2 * second + (1 - b2) * square
    return second.astype(np.float32, copy=False)
