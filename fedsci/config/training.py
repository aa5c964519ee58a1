"""The training section, shared by studies and strategy recipes."""

from typing import Literal

from pydantic import Field

from fedsci.config.strict import Strict


class Training(Strict):
    """How long and how fast to train. A study's values win over its strategy's, which win over nothing.

    Attributes:
        rounds: exchanges between coordinator and sites.
        sample_rate: Poisson inclusion probability of a record in one step; 1 is the full batch.
        learning_rate: of the optimiser that takes gradient steps: the site's for local training, the
            coordinator's for gradient strategies.
        momentum: of the same optimiser.
        local_epochs: passes over a site's data in one round of local training; the most, if ``pace`` is ``by_speed``.
        batch_size: of local training without differential privacy.
        round_deadline_s: how long each exchange of a round waits for the sites; who answers later is not in its sum.
        pace: ``even``: every site trains for all its local epochs; ``by_speed``: for as many steps of them as it takes
            until the slowest site has taken one, or the first has taken all of its own.
    """

    rounds: int | None = Field(default=None, ge=1, le=100_000)
    sample_rate: float | None = Field(default=None, ge=1e-4, le=1)
    learning_rate: float | None = Field(default=None, gt=0)
    momentum: float | None = Field(default=None, ge=0, lt=1)
    local_epochs: int | None = Field(default=None, ge=1, le=1000)
    batch_size: int | None = Field(default=None, ge=1)
    round_deadline_s: float | None = Field(default=None, gt=0)
    pace: Literal["even", "by_speed"] | None = None
