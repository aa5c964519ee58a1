"""How far a study has come: everything a summary is made from, and everything a restarted coordinator goes on from."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedsci.coordinator.admission import Admission
from fedsci.coordinator.aggregation import Collected
from fedsci.coordinator.blame import Blame
from fedsci.coordinator.evaluation import Measurement
from fedsci.coordinator.norm_check import Norm
from fedsci.names import SiteId
from fedsci.secagg import ReadySetup
from fedsci.strategies.base import StrategyState


@dataclass(kw_only=True)
class Progress:
    """Everything known about a study so far, finished or not.

    Attributes:
        run: 32 hexadecimal digits; sites charge budgets to it.
        sites: what each site said of itself when it let the study in.
        rounds_allowed: how many rounds every site pays for; 0 until the sites have said.
        short_of_budget: the sites that pay for no more than that, where it is less than the plan's rounds.
        asked: slots that sites were asked for: rounds, then the evaluation, then the baseline. None is asked for twice.
        abandoned: rounds that were asked for and never applied, since the coordinator's process ended in them, or no
            honest sites have such a sum.
        state: the strategy's, after the last applied round.
        pending: the last applied round, whose metrics come with the next; None before there is one.
        federated: the last evaluation of the shared model.
        exact_after: the last round that sites were asked for exact metrics after; -1 before there is one.
        measurements: noised measurements of it that sites were asked for.
        answers: what came back for the evaluation and the baseline, by action.
        alone: per label of ``Plan.lab_models``, what the labs' own models reach.
        privacy: per site, what it states of its spending; of a site not in ``settled``, what it stated at the start.
        settled: sites that closed their charge at the end; the others keep that of the whole plan.
        dropped: sites that did not finish a round, and which.
        reasons: why, for each of these.
        impossible: of abandoned rounds with an impossible sum: how many sites were in it, and its norm.
        levels: how large the sums of applied rounds were, as :class:`Norm` says; those without a warning.
        alarms: what was wrong with sums, one entry a round.
        blame: who made sums impossible, as far as known; None before the first alarm.
        decisions: people's at checkpoints that were counted, as they signed them, the oldest first.
        seconds: wall time by phase.
        crypto_profile: the roster's, once there is a masked sum to set up; else None.
    """

    run: str = field(default_factory=lambda: secrets.token_hex(16))
    sites: dict[SiteId, Admission] = field(default_factory=dict)
    rounds_allowed: int = 0
    short_of_budget: tuple[SiteId, ...] = ()
    asked: int = 0
    abandoned: list[int] = field(default_factory=list)
    state: StrategyState | None = None
    pending: "RoundResult | None" = None
    federated: Measurement | None = None
    exact_after: int = -1
    measurements: int = 0
    answers: dict[str, Collected] = field(default_factory=dict)
    alone: dict[str, Measurement] = field(default_factory=dict)
    privacy: dict[SiteId, Mapping[str, Any]] = field(default_factory=dict)
    settled: set[SiteId] = field(default_factory=set)
    dropped: list[tuple[SiteId, int]] = field(default_factory=list)
    reasons: dict[tuple[SiteId, int], str] = field(default_factory=dict)
    impossible: dict[int, tuple[int, Norm]] = field(default_factory=dict)
    levels: list[float] = field(default_factory=list)
    alarms: list[dict[str, Any]] = field(default_factory=list)
    blame: Blame | None = None
    decisions: list[bytes] = field(default_factory=list)
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("training", "masking", "aggregation", "evaluation", "transport"), 0.0)
    )
    crypto_profile: str | None = None

    @property
    def rounds_completed(self) -> int:
        """Rounds applied to the model."""
        return 0 if self.state is None else self.state.round

    @property
    def model(self) -> NDArray[np.float32] | None:
        """The shared model after the last applied round, float32 ``(d,)``."""
        return None if self.state is None else self.state.model


@dataclass(frozen=True, kw_only=True)
class RoundResult:
    """One round, as it is shown and written down.

    Attributes:
        number: 1, 2, ...
        measured: the shared model after this round, or None where it was not evaluated.
        survivors: how many sites finished it.
        dropped: those that did not.
        seconds: wall time; None where it was not kept.
        abandoned: it was asked for and never applied.
        traffic: its bytes up and down; None where they were not kept.
        virtual_seconds: what it would have taken, where a simulation reckons it.
        norm: of its sum; None where there was none, or it was not kept.
    """

    number: int
    measured: Measurement | None
    survivors: int
    dropped: tuple[SiteId, ...]
    seconds: float | None
    abandoned: bool = False
    traffic: tuple[int, int] | None = None
    virtual_seconds: float | None = None
    norm: Norm | None = None


class Suspended(Exception):
    """The coordinator's process ends, and the study goes on in the next one: sites are not told that it is over."""


class Keeper(Protocol):
    """Writes down, durably, what a restarted coordinator needs to go on with a study."""

    def save(self, progress: Progress) -> None:
        """Keep everything but the strategy's state; before sites are asked for anything, and when they answered."""

    def save_state(self, progress: Progress) -> None:
        """Keep the strategy's state and the pending round, which were just applied."""

    def save_adverts(self, batch: int, adverts: bytes) -> None:
        """Keep a setup's adverts before sites see them: they share under one set only."""

    def save_setup(self, batch: int, ready: ReadySetup, deliveries: Mapping[int, bytes]) -> None:
        """Keep a finished setup before anything rests on it."""

    def adverts(self, batch: int) -> bytes | None:
        """Return the adverts that were kept, if any."""

    def setups(self) -> dict[int, tuple[ReadySetup, dict[int, bytes]]]:
        """Return the finished setups by batch."""


class Unkept:
    """Keeps nothing: a study whose coordinator's process is not survived."""

    def save(self, progress: Progress) -> None: ...  # noqa: D102

    def save_state(self, progress: Progress) -> None: ...  # noqa: D102

    def save_adverts(self, batch: int, adverts: bytes) -> None: ...  # noqa: D102

    def save_setup(self, batch: int, ready: ReadySetup, deliveries: Mapping[int, bytes]) -> None: ...  # noqa: D102

    def adverts(self, batch: int) -> bytes | None: ...  # noqa: D102

    def setups(self) -> dict[int, tuple[ReadySetup, dict[int, bytes]]]:  # noqa: D102
        return {}
