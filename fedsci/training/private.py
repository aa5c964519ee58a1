"""DP-SGD at a site: per-record gradients by Opacus, our clipping, our sampling, our noise.

Abadi et al. 2016 with Poisson sampling. Neighbouring relation: add or remove one record. Opacus gives the
per-record gradients; its noise (torch's generator) and its samplers (a data loader) are not used, since
the guarantee rests on both: records are drawn and noise is made from the operating system's randomness.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from fedsci.errors import ConfigError, InputError
from fedsci.privacy.clipping import clip_factors
from fedsci.privacy.local_noise import noisy_sum
from fedsci.privacy.poisson import poisson_sample
from fedsci.privacy.randomness import KeyStream
from fedsci.privacy.rounding_noise import LARGEST_CENTRE, round_and_noise
from fedsci.training.accountant import Share
from fedsci.training.learner import CHUNK, Learner
from fedsci.training.losses import record_losses
from fedsci.training.models import load_vector, read_vector

# Opacus hooks the first layer too, whose input needs no gradient; nothing is lost
warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)

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

    def noised_share(self, vector: NDArray[np.float32], share: Share, *, largest: int) -> NDArray[np.int64]:
        """Return minus the clipped sum of a Poisson sample plus this site's share of noise, int64 ``(d,)`` grid steps.

        Must be masked before it leaves: its own noise protects nobody; the sum over sites does. ``largest`` bounds
        the integers: the clipped sum is limited, coordinate by coordinate, to what leaves room for any noise that can
        be drawn. That moves no two neighbouring sums further apart, so the sensitivity stays C.
        """
        load_vector(self.learner.module, vector)
        chosen = np.flatnonzero(poisson_sample(self.learner.records, self.sample_rate, self._keystream))
        # what lies within can be rounded, whatever the records: a refusal that depended on them would tell of them
        room = min(largest, LARGEST_CENTRE) - math.ceil(_LARGEST_NOISE * share.deviation)
        limit = room * share.gamma
        if limit <= 0:
            raise InputError("the ring has no room for the noise", hint="use secure_aggregation.ring_bits: 64")
        total = np.clip(-self.clipped_sum(chosen, vector.size), -limit, limit)
        return round_and_noise(total, gamma=share.gamma, deviation=share.deviation, keystream=self._keystream)

    def _noisy_mean(self, size: int) -> NDArray[np.float32]:
        chosen = np.flatnonzero(poisson_sample(self.learner.records, self.sample_rate, self._keystream))
        total = self.clipped_sum(chosen, size)
        noisy = noisy_sum(
            total,
            clipping_norm=self.clipping_norm,
            noise_multiplier=self.noise_multiplier,
            keystream=self._keystream,
        )
        return (noisy / (self.sample_rate * self.learner.divisor)).astype(np.float32)

    def clipped_sum(self, rows: NDArray[np.int64], size: int) -> NDArray[np.float64]:
        """Return the sum of the rows' clipped loss gradients at the loaded weights, float64 ``(d,)``.

        A record whose gradient is not finite contributes nothing (still at most C).

        Every pass has ``CHUNK`` rows, the last one filled up with copies that are left out again: matrix products
        of another shape are summed in another order, and a record's gradient would then depend on how many other
        records there are. With weights chosen to cancel, that dependence can be made as large as the gradients
        themselves, and the sensitivity of the sum would no longer be C.
        """
        total = np.zeros(size, np.float64)
        module = self._per_record
        kind = self.learner.plan.study.task.kind
        for start in range(0, len(rows), CHUNK):
            chosen = rows[start : start + CHUNK]
            filled = np.concatenate([chosen, np.zeros(CHUNK - len(chosen), rows.dtype)])
            index = torch.from_numpy(filled).to(self.learner.device)
            module.zero_grad()
            losses = record_losses(kind, module(self.learner.features[index]), self.learner.targets[index])
            losses.sum().backward()  # type: ignore[no-untyped-call]
            samples = [_of(p).reshape(len(index), -1) for p in self.learner.module.parameters()]
            samples = [s[: len(chosen)] for s in samples]
            norms = torch.stack([s.double().square().sum(1) for s in samples]).sum(0).sqrt()
            factors = torch.from_numpy(clip_factors(norms.cpu().numpy(), self.clipping_norm)).to(norms.device)
            sums = [factors @ torch.nan_to_num(s.double(), nan=0.0, posinf=0.0, neginf=0.0) for s in samples]
            total += torch.cat(sums).cpu().numpy()
            for p in self.learner.module.parameters():
                p.grad_sample = None  # type: ignore[attr-defined]
                p.grad = None
        return total


def _of(parameter: torch.nn.Parameter) -> torch.Tensor:
    """The per-record gradients that Opacus left on a parameter, shape ``(n, ...)``."""
    samples: torch.Tensor = parameter.grad_sample  # type: ignore[attr-defined]
    return samples
