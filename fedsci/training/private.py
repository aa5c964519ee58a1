"""DP-SGD at a site: clipped per-record gradients, our sampling, our noise.

Abadi et al. 2016 with Poisson sampling. Neighbouring relation: add or remove one record. Opacus is the reference
for the gradients and, for some models, their source; its noise (torch's generator) and its samplers (a data
loader) are not used, since the guarantee rests on both: records are drawn and noise is made from the operating
system's randomness.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray

from fedsci.errors import InputError
from fedsci.privacy.local_noise import noisy_sum
from fedsci.privacy.poisson import poisson_sample
from fedsci.privacy.randomness import KeyStream
from fedsci.privacy.rounding_noise import round_and_noise
from fedsci.training.accountant import Share
from fedsci.training.learner import Learner
from fedsci.training.losses import record_losses
from fedsci.training.models import load_vector, read_vector
from fedsci.training.per_record import ClippedGradients

_LARGEST_NOISE = 32  # deviations; tables are cut at 13 each, so no draw comes near it


@dataclass(frozen=True, kw_only=True, eq=False)
class PrivateLearner:
    """A learner whose every release is a noised sum of clipped per-record gradients.

    Attributes:
        learner: model and records.
        clipping_norm: L2 bound C of one record's gradient: the sensitivity of the sum.
        noise_multiplier: z; the sum gets discrete Gaussian noise of deviation z * C.
        sample_rate: Poisson rate q, public.
        random_bytes: the operating system's randomness in production.
    """

    learner: Learner
    clipping_norm: float
    noise_multiplier: float
    sample_rate: float
    random_bytes: Callable[[int], bytes]

    @cached_property
    def _keystream(self) -> KeyStream:
        return KeyStream(self.random_bytes)

    @cached_property
    def _clipped(self) -> ClippedGradients:
        return ClippedGradients(
            module=self.learner.module,
            losses=partial(record_losses, self.learner.plan.study.task.kind),
            clipping_norm=self.clipping_norm,
            expected=self.sample_rate * self.learner.divisor,
        )

    def noisy_mean_gradient(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (sum of clipped gradients of a Poisson sample + noise) / (q * N), float32 ``(d,)``.

        An empty sample releases pure noise: that a sample was empty is private too. The divisor is the
        public expected sample size, never the realised one.
        """
        load_vector(self.learner.module, vector)
        return self._noisy_mean()

    def private_update(
        self, vector: NDArray[np.float32], *, steps: int, learning_rate: float, momentum: float
    ) -> NDArray[np.float32]:
        """Return new minus old weights after ``steps`` DP-SGD steps, each a noised release."""
        load_vector(self.learner.module, vector)
        parameters = list(self.learner.module.parameters())
        optimiser = torch.optim.SGD(parameters, lr=learning_rate, momentum=momentum)
        for _ in range(steps):
            gradient = torch.from_numpy(self._noisy_mean()).to(self.learner.device)
            start = 0
            for p in parameters:
                p.grad = gradient[start : start + p.numel()].reshape(p.shape)
                start += p.numel()
            optimiser.step()
        return read_vector(self.learner.module) - vector

    def noised_share(self, vector: NDArray[np.float32], share: Share, *, largest: int) -> NDArray[np.int64]:
        """Return minus the clipped sum of a Poisson sample plus this site's share of noise, int64 ``(d,)`` grid steps.

        Must be masked before it leaves: its own noise protects nobody; the sum over sites does. ``largest`` bounds
        the integers: the clipped sum is limited, coordinate by coordinate, to what leaves room for any noise that can
        be drawn. That moves no two neighbouring sums further apart, so the sensitivity stays C.
        """
        load_vector(self.learner.module, vector)
        chosen = np.flatnonzero(poisson_sample(self.learner.records, self.sample_rate, self._keystream))
        limit = (largest - math.ceil(_LARGEST_NOISE * share.deviation)) * share.gamma
        if limit <= 0:
            raise InputError("the ring has no room for the noise", hint="use secure_aggregation.ring_bits: 64")
        total = np.clip(-self.clipped_sum(chosen), -limit, limit)
        return round_and_noise(total, gamma=share.gamma, deviation=share.deviation, keystream=self._keystream)

    def _noisy_mean(self) -> NDArray[np.float32]:
        chosen = np.flatnonzero(poisson_sample(self.learner.records, self.sample_rate, self._keystream))
        total = self.clipped_sum(chosen)
        noisy = noisy_sum(
            total,
            clipping_norm=self.clipping_norm,
            noise_multiplier=self.noise_multiplier,
            keystream=self._keystream,
        )
        return (noisy / (self.sample_rate * self.learner.divisor)).astype(np.float32)

    def clipped_sum(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the sum of the rows' clipped loss gradients at the loaded weights, float64 ``(d,)``.

        A record whose gradient is not finite contributes nothing (still at most C); see
        :mod:`fedsci.training.per_record` for why nothing else in the sum depends on it.
        """
        return self._clipped.sum_of(self.learner.features, self.learner.targets, rows)
