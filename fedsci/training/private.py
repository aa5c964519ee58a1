"""DP-SGD at a site: per-record gradients by Opacus, our clipping, our sampling, our noise.

Abadi et al. 2016 with Poisson sampling. Neighbouring relation: add or remove one unit, a record or a group of them.
Opacus gives the per-record gradients; its noise (torch's generator) and its samplers (a data loader) are not used,
since the guarantee rests on both: records are drawn and noise is made from the operating system's randomness.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from fedsci.errors import ConfigError, InputError
from fedsci.privacy.clipping import clip_factors, clip_rows
from fedsci.privacy.local_noise import noisy_sum
from fedsci.privacy.poisson import poisson_sample
from fedsci.privacy.randomness import KeyStream
from fedsci.secagg import Quantisation
from fedsci.training.accountant import Share
from fedsci.training.learner import CHUNK, Learner
from fedsci.training.losses import record_losses
from fedsci.training.models import load_vector, read_vector
from fedsci.training.noise_share import with_share

# Opacus hooks the first layer too, whose input needs no gradient; nothing is lost
warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)


@dataclass(frozen=True, kw_only=True, eq=False)
class PrivateLearner:
    """A learner whose every release is a noised sum of clipped per-record gradients.

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
    def _per_record(self) -> torch.nn.Module:
        from opacus import GradSampleModule
        from opacus.validators import ModuleValidator

        module = self.learner.module
        problems = ModuleValidator.validate(module, strict=False)
        if problems:
            raise ConfigError(
                f"the model cannot be trained with per-record gradients: {problems[0]}",
                hint="replace BatchNorm by GroupNorm or LayerNorm",
            )
        wrapped: torch.nn.Module = GradSampleModule(module, batch_first=True, loss_reduction="sum")
        return wrapped

    def noisy_mean_gradient(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (sum of clipped gradients of a Poisson sample + noise) / (q * N), float32 ``(d,)``.

        An empty sample releases pure noise: that a sample was empty is private too. The divisor is the
        public expected sample size, never the realised one.
        """
        load_vector(self.learner.module, vector)
        return self._noisy_mean(vector.size)

    def private_update(
        self, vector: NDArray[np.float32], *, steps: int, learning_rate: float, momentum: float
    ) -> NDArray[np.float32]:
        """Return new minus old weights after ``steps`` DP-SGD steps, each a noised release."""
        load_vector(self.learner.module, vector)
        parameters = list(self.learner.module.parameters())
        optimiser = torch.optim.SGD(parameters, lr=learning_rate, momentum=momentum)
        for _ in range(steps):
            gradient = torch.from_numpy(self._noisy_mean(vector.size)).to(self.learner.device)
            start = 0
            for p in parameters:
                p.grad = gradient[start : start + p.numel()].reshape(p.shape)
                start += p.numel()
            optimiser.step()
        return read_vector(self.learner.module) - vector

    def noised_share(self, vector: NDArray[np.float32], share: Share, grid: Quantisation) -> NDArray[np.int64]:
        """Return minus the clipped sum of a Poisson sample plus this site's share of noise, int64 ``(d,)`` grid steps.

        Only the sum over sites is private: see :func:`fedsci.training.noise_share.with_share`.
        """
        load_vector(self.learner.module, vector)
        return with_share(-self._sampled_sum(vector.size), share, grid, keystream=self._keystream)

    def _noisy_mean(self, size: int) -> NDArray[np.float32]:
        noisy = noisy_sum(
            self._sampled_sum(size),
            clipping_norm=self.clipping_norm,
            noise_multiplier=self.noise_multiplier,
            keystream=self._keystream,
        )
        return (noisy / (self.sample_rate * self.learner.divisor)).astype(np.float32)

    def _sampled_sum(self, size: int) -> NDArray[np.float64]:
        """Return the clipped sum over a Poisson sample of units: records, or groups of them."""
        chosen = np.flatnonzero(poisson_sample(self.learner.units, self.sample_rate, self._keystream))
        if self.learner.table.groups is None:
            return self.clipped_sum(chosen, size)
        return self.clipped_group_sum(chosen, size)

    def clipped_group_sum(self, groups: NDArray[np.int64], size: int) -> NDArray[np.float64]:
        """Return the sum over groups of the clipped mean gradient of each one's records, float64 ``(d,)``.

        However many records a group has, it adds at most C; one with a gradient that is not finite adds nothing. Its
        records are added up one by one in their own order, wherever passes end: weights can be chosen for which what
        survives of a sum depends on the order, which must not depend on other groups.
        Groups are numbered as in the table. Passes are filled up as in :meth:`clipped_sum`, for the same reason.
        """
        total, pending, done = np.zeros(size, np.float64), np.zeros(size, np.float64), 0
        of_row = self.learner.table.groups
        if of_row is None:
            raise InputError("the table has no groups")
        order = np.argsort(of_row, kind="stable")
        rows = order[np.isin(of_row[order], groups)]
        sizes = np.bincount(of_row)
        for start in range(0, len(rows), CHUNK):
            chosen = rows[start : start + CHUNK]
            gradients = self._record_gradients(chosen)
            edges = np.flatnonzero(np.diff(of_row[chosen])) + 1
            for first, last in pairwise([0, *edges.tolist(), len(chosen)]):
                for row in range(first, last):
                    pending += torch.cat([g[row] for g in gradients]).double().cpu().numpy()
                done += last - first
                if done == sizes[of_row[chosen[first]]]:
                    if np.isfinite(pending).all():
                        total += clip_rows(pending[None] / done, self.clipping_norm)[0]
                    pending, done = np.zeros(size, np.float64), 0
        return total

    def clipped_sum(self, rows: NDArray[np.int64], size: int) -> NDArray[np.float64]:
        """Return the sum of the rows' clipped loss gradients at the loaded weights, float64 ``(d,)``.

        A record whose gradient is not finite contributes nothing (still at most C).

        Every pass has ``CHUNK`` rows, the last one filled up with copies that are left out again: matrix products
        of another shape are summed in another order, and a record's gradient would then depend on how many other
        records there are. With weights chosen to cancel, that dependence can be made as large as the gradients
        themselves, and the sensitivity of the sum would no longer be C.
        """
        total = np.zeros(size, np.float64)
        for start in range(0, len(rows), CHUNK):
            samples = self._record_gradients(rows[start : start + CHUNK])
            norms = torch.stack([s.double().square().sum(1) for s in samples]).sum(0).sqrt()
            factors = torch.from_numpy(clip_factors(norms.cpu().numpy(), self.clipping_norm)).to(norms.device)
            sums = [factors @ torch.nan_to_num(s.double(), nan=0.0, posinf=0.0, neginf=0.0) for s in samples]
            total += torch.cat(sums).cpu().numpy()
        return total

    def _record_gradients(self, rows: NDArray[np.int64]) -> list[torch.Tensor]:
        """Return the gradient of each row's loss, a tensor ``(len(rows), size)`` a parameter, by one full pass."""
        module, kind = self._per_record, self.learner.plan.study.task.kind
        filled = np.concatenate([rows, np.zeros(CHUNK - len(rows), rows.dtype)])
        index = torch.from_numpy(filled).to(self.learner.device)
        module.zero_grad()
        losses = record_losses(kind, module(self.learner.features[index]), self.learner.targets[index])
        losses.sum().backward()  # type: ignore[no-untyped-call]
        parameters = list(self.learner.module.parameters())
        samples = [_of(p).reshape(len(index), -1)[: len(rows)] for p in parameters]
        for p in parameters:
            p.grad_sample = None  # type: ignore[attr-defined]
            p.grad = None
        return samples


def _of(parameter: torch.nn.Parameter) -> torch.Tensor:
    """The per-record gradients that Opacus left on a parameter, shape ``(n, ...)``."""
    samples: torch.Tensor = parameter.grad_sample  # type: ignore[attr-defined]
    return samples
