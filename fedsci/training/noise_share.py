"""One site's share of the noise of a sum, in the step that rounds to integers."""

import numpy as np
from numpy.typing import NDArray

from fedsci.privacy.randomness import KeyStream
from fedsci.privacy.rounding_noise import round_and_noise
from fedsci.secagg import Quantisation
from fedsci.training.accountant import Share
from fedsci.training.sums import room_for_noise


def with_share(
    total: NDArray[np.float64], share: Share, grid: Quantisation, *, keystream: KeyStream
) -> NDArray[np.int64]:
    """Return ``total`` plus this site's share of noise, int64 ``(d,)``, in steps of ``share.gamma``.

    Must be masked before it leaves: one share protects nobody, the sum over sites does. ``total`` is limited,
    coordinate by coordinate, so that no noise drawn on top of it passes what a site may send. That moves no two
    neighbouring sums further apart: the sensitivity stays what it was.

    Raises:
        InputError: the ring has no room for the noise.
    """
    limit = room_for_noise(grid, deviation=share.deviation) * share.gamma
    limited = np.clip(total, -limit, limit)
    return round_and_noise(limited, gamma=share.gamma, deviation=share.deviation, keystream=keystream)
