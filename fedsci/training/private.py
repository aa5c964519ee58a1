"""DP-SGD at a site: clipped per-record gradients, our sampling, our noise.

Abadi et al. 2016 with Poisson sampling. Neighbouring relation: add or remove one unit, a record
or a group of them. Opacus is the reference
for the gradients and, for some models, their source; its noise (torch's generator) and its samplers (a data
loader) are not used, since the guarantee rests on both: records are drawn and noise is made from the operating
system's randomness.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray

from fedsci.errors import InputError
from fedsci.privacy.clipping import most_summed
from fedsci.privacy.local_noise import noisy_sum
from fedsci.privacy.poisson import poisson_sample
from fedsci.privacy.randomness import KeyStream
from fedsci.secagg import Quantisation
from fedsci.training.accountant import Share
from fedsci.training.learner import Learner, Pull
from fedsci.training.losses import record_losses
from fedsci.training.models import load_vector, read_vector
from fedsci.training.noise_share import with_share
from fedsci.training.per_record import ClippedGradients, GroupedGradients
from fedsci.training.statistics import ClippedStatistics


@dataclass(frozen=True, kw_only=True, eq=False)
class PrivateLearner:
    """A learner whose every release is a noised sum of clipped vectors, one of each record or group of them.

    A vector is a gradient, or what a strategy of one exchange sums.

    Attributes:
        learner: model and records.
        clipping_norm: L2 bound C of one unit's gradient: the sensitivity of the sum.
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

    @cached_property
    def _grouped(self) -> GroupedGradients:
        return GroupedGradients(
            module=self.learner.module,
            losses=partial(record_losses, self.learner.plan.study.task.kind),
            clipping_norm=self.clipping_norm,
            expected=self.sample_rate * self.learner.divisor,
        )

    @property
    def _statistics(self) -> ClippedStatistics:
        return self.learner.statistics(self.clipping_norm)

    def noisy_mean_gradient(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (sum of clipped gradients of a Poisson sample + noise) / (q * N), float32 ``(d,)``.

        An empty sample releases pure noise: that a sample was empty is private too. The divisor is the
        public expected sample size, never the realised one.
        """
        load_vector(self.learner.module, vector)
        return self._noisy_mean()

    def private_update(
        self,
        vector: NDArray[np.float32],
        *,
        steps: int,
        learning_rate: float,
        momentum: float,
        pull: Pull | None = None,
    ) -> NDArray[np.float32]:
        """Return new minus old weights after ``steps`` DP-SGD steps, each a noised release.

        ``pull`` is added to the noised gradients and looks at no record.
        """
        load_vector(self.learner.module, vector)
        parameters = list(self.learner.module.parameters())
        optimiser = torch.optim.SGD(parameters, lr=learning_rate, momentum=momentum)
        for _ in range(steps):
            gradient = torch.from_numpy(self._noisy_mean()).to(self.learner.device)
            start = 0
            for p in parameters:
                p.grad = gradient[start : start + p.numel()].reshape(p.shape)
                start += p.numel()
            if pull is not None:
                pull.add_to(self.learner.module)
            optimiser.step()
        return read_vector(self.learner.module) - vector

    def noised_share(self, vector: NDArray[np.float32], share: Share, grid: Quantisation) -> NDArray[np.int64]:
        """Return minus the clipped sum of a Poisson sample plus this site's share of noise, int64 ``(d,)`` grid steps.

        Only the sum over sites is private: see :func:`fedsci.training.noise_share.with_share`.
        """
        load_vector(self.learner.module, vector)
        return with_share(-self._sampled_sum(), share, grid, keystream=self._keystream)

    def noisy_mean_statistics(self) -> NDArray[np.float32]:
        """Return (sum of clipped statistics of a Poisson sample + noise) / (q * N), float32 ``(k,)``, likewise."""
        return self._noisy_mean_of(self._sampled_statistics())

    def noised_statistics_share(self, share: Share, grid: Quantisation) -> NDArray[np.int64]:
        """Return the clipped sum of statistics plus this site's share of noise, int64 ``(k,)``; as for gradients."""
        return with_share(self._sampled_statistics(), share, grid, keystream=self._keystream)

    def _noisy_mean(self) -> NDArray[np.float32]:
        return self._noisy_mean_of(self._sampled_sum())

    def _noisy_mean_of(self, total: NDArray[np.float64]) -> NDArray[np.float32]:
        noisy = noisy_sum(
            total,
            clipping_norm=self.clipping_norm,
            noise_multiplier=self.noise_multiplier,
            keystream=self._keystream,
        )
        return (noisy / (self.sample_rate * self.learner.divisor)).astype(np.float32)

    def _sampled_sum(self) -> NDArray[np.float64]:
        """Return the clipped sum over a Poisson sample of units: records, or groups of them."""
        chosen = self._sample()
        return self.clipped_sum(chosen) if self.learner.table.groups is None else self.clipped_group_sum(chosen)

    def _sampled_statistics(self) -> NDArray[np.float64]:
        """Return the clipped sum of statistics over a Poisson sample of units."""
        return self._statistics.sum_of(self._sample())

    @property
    def units(self) -> int:
        """How many records, or groups, a sample is drawn from."""
        return self.learner.units

    def _sample(self) -> NDArray[np.int64]:
        return np.flatnonzero(poisson_sample(self.units, self.sample_rate, self._keystream))

    @property
    def most_units(self) -> int:
        """Over how many records, or groups, a sum keeps the clipping norm in float64.

        Raises:
            ConfigError: the model's gradients cannot be clipped record by record.
        """
        if self.learner.plan.strategy.site_work == "statistics":
            return self._statistics.most_units
        if self.learner.table.groups is not None:
            return most_summed(1)
        return self._clipped.most_records(self.learner.features, self.learner.targets)

    def clipped_sum(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the sum of the rows' clipped loss gradients at the loaded weights, float64 ``(d,)``.

        A record whose gradient is not finite contributes nothing (still at most C); see
        :mod:`fedsci.training.per_record` for why nothing else in the sum depends on it.
        """
        return self._clipped.sum_of(self.learner.features, self.learner.targets, rows)

    def clipped_group_sum(self, groups: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the sum over groups of the clipped mean gradient of each one's records, float64 ``(d,)``.

        Groups are numbered as in the table; see :class:`~fedsci.training.per_record.grouped.GroupedGradients`.
        """
        of_row = self.learner.table.groups
        if of_row is None:
            raise InputError("the table has no groups")
        return self._grouped.sum_of(self.learner.features, self.learner.targets, of_row, groups)
